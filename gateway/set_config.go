package gateway

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// SELECT set_config(name, value, is_local) is SET for drivers and tools: their
// parameters are bound, and it returns what it has set. Several calls in one
// SELECT, and calls of current_setting between them, are one statement at the
// node, so that all of them happen or none.

// setsByCall tells whether the statement sets parameters by nothing but
// set_config, or reads only such as the gateway holds itself.
func setsByCall(st *sqlparse.Statement) bool {
	return slices.ContainsFunc(st.SettingCalls, func(call sqlparse.SettingCall) bool {
		return call.Set || call.Name.Kind == sqlparse.ValueLiteral && isHeld(strings.ToLower(st.Text(call.Name)))
	})
}

// settingCall is a call with its arguments.
type settingCall struct {
	set    bool
	name   string // in lower case
	value  string
	null   bool // the value is NULL: set_config resets the parameter
	noName bool // the name is NULL
	flag   bool // is_local, or missing_ok
}

// callSettings runs such a statement.
func (s *session) callSettings(x *execution) error {
	catalog := s.gw.catalogs.Current()
	for _, call := range x.st.SettingCalls {
		if _, kind := catalog.function(call.Function, &s.routing); kind != systemFunction {
			return refuse(refusedSetConfig, call.Function.Name)
		}
	}
	calls, err := x.settingCalls()
	if err != nil {
		return err
	}
	s.announceCalls(x)
	if slices.ContainsFunc(calls, func(call settingCall) bool { return call.noName }) {
		return sqlError("22004", "SET requires parameter name")
	}
	if len(calls) == 1 && calls[0].set {
		if done, err := s.callSpecial(x, &calls[0]); done || err != nil {
			return err
		}
	}
	change := settingChange{answer: func(row [][]byte) { s.answerCalls(x, row) }}
	change.local = !slices.ContainsFunc(calls, func(call settingCall) bool { return call.set })
	first := true
	for i := range calls {
		call := &calls[i]
		if !call.set {
			continue
		}
		if err := s.checkCall(call); err != nil {
			return err
		}
		if !first && change.local != call.flag {
			return refuse(refusedMixedSettings)
		}
		first, change.local = false, call.flag
		change.untracked = change.untracked || call.name == "seed"
	}
	if err := s.callsSQL(calls, &change); err != nil {
		return err
	}
	return s.changeSettings(change)
}

// settingCalls reads the arguments.
func (x *execution) settingCalls() ([]settingCall, error) {
	calls := make([]settingCall, len(x.st.SettingCalls))
	for i, c := range x.st.SettingCalls {
		call := &calls[i]
		call.set = c.Set
		name, null, err := x.textArgument(c.Name)
		switch {
		case err != nil:
			return nil, err
		case null && c.Set:
			call.noName = true
		case null:
			return nil, refuse(refusedSetConfig, c.Function.Name)
		}
		call.name = strings.ToLower(name)
		if c.Set {
			if call.value, call.null, err = x.textArgument(c.Value); err != nil {
				return nil, err
			}
		}
		if call.flag = c.On; c.Flag.Kind != sqlparse.ValueOther {
			if call.flag, err = x.boolArgument(c.Flag); err != nil {
				return nil, err
			}
		}
	}
	return calls, nil
}

// textArgument is the text of an argument.
func (x *execution) textArgument(v sqlparse.Value) (text string, null bool, err error) {
	if v.Kind == sqlparse.ValueParam && x.portal != nil {
		switch oid := x.parameterType(v.Param); oid {
		case oidText, oidVarchar:
		default:
			return "", false, refuse(refusedSetConfig, "set_config")
		}
	}
	if text, null, err = x.argument(v); err != nil {
		return "", false, err
	}
	if strings.IndexByte(text, 0) >= 0 {
		return "", false, sqlError(pgerrcode.CharacterNotInRepertoire, `invalid byte sequence for encoding "UTF8": 0x00`)
	}
	if !utf8.ValidString(text) {
		return "", false, sqlError(pgerrcode.CharacterNotInRepertoire, clientMessage(invalidEncoding(text)))
	}
	return text, null, nil
}

func clientMessage(err error) string {
	pgErr, _ := clientError(err)
	return pgErr.Message
}

// boolArgument is a truth value; NULL is false.
func (x *execution) boolArgument(v sqlparse.Value) (bool, error) {
	text, null, err := x.argument(v)
	if err != nil || null {
		return false, err
	}
	if v.Kind == sqlparse.ValueParam {
		if x.parameterType(v.Param) != oidBool {
			return false, refuse(refusedSetConfig, "set_config")
		}
		if x.parameterFormat(v.Param) == 1 {
			if len(text) != 1 {
				return false, sqlErrorf(pgerrcode.InvalidBinaryRepresentation, "incorrect binary data format in bind parameter %d", v.Param)
			}
			return text[0] != 0, nil
		}
	}
	on, valid := parseBool(strings.Trim(text, " \t\n\v\f\r"))
	if !valid {
		return false, sqlErrorf(pgerrcode.InvalidTextRepresentation, "invalid input syntax for type boolean: %q", text)
	}
	return on, nil
}

// parameterType is the type of $n as a node sees it.
func (x *execution) parameterType(n int) uint32 {
	if d := x.portal.statement.description; d != nil && n <= len(d.params) {
		return d.params[n-1]
	}
	return 0
}

func (x *execution) parameterFormat(n int) int16 {
	switch formats := x.portal.bind.ParameterFormatCodes; len(formats) {
	case 0:
		return 0
	case 1:
		return formats[0]
	default:
		return formats[n-1]
	}
}

// callSpecial runs a set_config of what is no ordinary setting.
func (s *session) callSpecial(x *execution, call *settingCall) (done bool, err error) {
	switch {
	case call.name == idempotencyKey:
		if !call.flag || call.null {
			return false, withHint(sqlErrorf(pgerrcode.FeatureNotSupported, "%s belongs to one transaction", call.name),
				"Use set_config('"+call.name+"', 'a key of your own', true) in a transaction block.")
		}
		if s.block == nil {
			return false, sqlErrorf("25P01", "set_config of %s can only be used in transaction blocks", call.name)
		}
		err = s.setKey(call.value)
	case isTransactionMode(call.name):
		if call.null {
			return false, refuse(refusedSetConfig, "set_config of "+call.name+" to NULL")
		}
		call.value, err = s.callMode(call.name, call.value)
	case call.name == "role" || call.name == "session_authorization":
		if call.name != "role" || call.null || call.value != "none" {
			return false, errRole(call.name)
		}
	default:
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.answerCalls(x, [][]byte{[]byte(call.value)})
	return true, nil
}

// callMode sets one of the transaction's characteristics. For most it is too
// late: a SELECT is a query.
func (s *session) callMode(name, value string) (shown string, err error) {
	m, err := modeOf(name, value)
	if err != nil {
		return "", err
	}
	switch {
	case m.isolation != "":
		inForce, _ := s.settings.Get(isolationDefault)
		if s.block != nil {
			if inForce = s.block.modes.isolation; inForce == "" {
				inForce, _ = s.block.base.Get(isolationDefault)
			}
		}
		if !strings.EqualFold(inForce, m.isolation) {
			return "", sqlError("25001", "SET TRANSACTION ISOLATION LEVEL must be called before any query")
		}
		return m.isolation, nil
	case m.deferrable != nil:
		return "", sqlError("25001", "SET TRANSACTION [NOT] DEFERRABLE must be called before any query")
	case !*m.readOnly:
		return "", sqlError("25001", "transaction read-write mode must be set before any query")
	case s.block != nil:
		err = s.setModes(m)
	}
	return "on", err
}

// checkCall refuses what SET refuses, and what must stand alone.
func (s *session) checkCall(call *settingCall) error {
	switch {
	case call.name == idempotencyKey, isTransactionMode(call.name), call.name == "role":
		return refuse(refusedSettingOfItsOwn, call.name)
	case call.name == "session_authorization":
		return errRole(call.name)
	case isOwnSetting(call.name):
		return unrecognized(call.name)
	case call.null:
		return nil
	}
	return checkValue(call.name, call.value)
}

// callsSQL makes the statement for the nodes: the calls, with what the gateway
// holds itself as constants.
func (s *session) callsSQL(calls []settingCall, change *settingChange) error {
	var columns []string
	held := map[string]string{} // as set by calls further left
	for i := range calls {
		call := &calls[i]
		a := assignment{name: call.name, column: i}
		switch {
		case isHeld(call.name):
			value, err := s.callHeld(call, &a, held)
			if err != nil {
				return err
			}
			columns = append(columns, participant.QuoteLiteral(value))
		case !call.set && call.flag:
			columns = append(columns, "pg_catalog.current_setting("+participant.QuoteLiteral(call.name)+",true)")
		case !call.set:
			columns = append(columns, "pg_catalog.current_setting("+participant.QuoteLiteral(call.name)+")")
		case call.null:
			value, ok := s.startup.Get(call.name)
			a.reset = true
			if !ok {
				columns = append(columns, "pg_catalog.set_config("+participant.QuoteLiteral(call.name)+",NULL,"+sqlBool(call.flag)+")")
			} else {
				columns = append(columns, setConfigCall(call.name, value, call.flag))
			}
		default:
			columns = append(columns, setConfigCall(call.name, call.value, call.flag))
		}
		if call.set && call.name != "seed" {
			change.assigned = append(change.assigned, a)
		}
	}
	change.sql = []string{"SELECT " + strings.Join(columns, ",")}
	return nil
}

// callHeld is the value that a call on a setting of the gateway's returns.
func (s *session) callHeld(call *settingCall, a *assignment, held map[string]string) (string, error) {
	if !call.set {
		if value, ok := held[call.name]; ok {
			return value, nil
		}
		return s.valueHeld(call.name)
	}
	value, ok := s.startup.Get(call.name)
	if !call.null {
		var err error
		if value, err = heldValue(call.name, call.value); err != nil {
			return "", err
		}
	} else if a.reset = true; !ok {
		value = "0"
	}
	held[call.name] = value
	return value, s.quietNodes(call.name)
}

func sqlBool(on bool) string {
	if on {
		return "true"
	}
	return "false"
}

// announceCalls sends the columns, in the simple protocol, as Postgres does
// before anything is run.
func (s *session) announceCalls(x *execution) {
	if x.portal != nil {
		return
	}
	d := &description{}
	for _, call := range x.st.SettingCalls {
		d.fields = append(d.fields, pgproto3.FieldDescription{
			Name: []byte(call.Column), DataTypeOID: oidText, DataTypeSize: -1, TypeModifier: -1,
		})
	}
	s.client.send(d.rowDescription(nil))
}

// answerCalls sends the statement's one row.
func (s *session) answerCalls(x *execution, row [][]byte) {
	s.client.send(&pgproto3.DataRow{Values: row})
	if x.portal != nil {
		s.completed(x.portal)
		if x.maxRows == 1 {
			s.client.send(&pgproto3.PortalSuspended{}) // as Postgres: it has not looked for a second row
			return
		}
	}
	s.complete("SELECT 1")
}
