package gateway

import (
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// SET, RESET and their kin. A setting belongs to the session, not to a
// connection: it is run at a node, which knows what is valid, and remembered
// here with the value the node then shows. Whatever connection serves the
// session later carries it (participant.Settings).
//
// Inside a block a setting is transactional, as in Postgres: it is told to
// every branch, now or when it opens, and becomes the session's at COMMIT.

// performSetting runs SET, SET CONSTRAINTS and RESET.
func (s *session) performSetting(x *execution) error {
	set := x.st.Setting
	if x.st.Kind == sqlparse.SetConstraints {
		return s.changeSettings(settingChange{sql: []string{statementText(x)}, local: true, tag: "SET CONSTRAINTS"})
	}
	switch {
	case isOwnSetting(set.Name):
		return s.setOwn(x.st)
	case set.Transaction:
		return s.setTransaction(x.st)
	case isTransactionMode(set.Name):
		return s.setTransactionMode(x)
	case set.Name == "role" || set.Name == "session_authorization":
		return s.setRole(x.st)
	}
	if err := checkSetting(x.st); err != nil {
		return err
	}
	return s.changeSettings(s.changeOf(x))
}

// settingChange is what a SET or RESET comes to.
type settingChange struct {
	sql   []string // what to run, in this order
	names []string // session parameters to read back afterwards
	// next are the session's settings before names are read back.
	next  participant.Settings
	local bool // ends with the transaction; names are then for the gateway only
	// untracked: the connection must be reset afterwards.
	untracked bool
	tag       string
}

// resetAll is the change that brings back the settings of the session's start.
func (s *session) resetAll(tag string) settingChange {
	change := settingChange{sql: []string{"RESET ALL"}, next: s.startup, tag: tag}
	for _, name := range slices.Sorted(maps.Keys(s.startupValues)) {
		change.sql = append(change.sql, setConfig(name, s.startupValues[name], false))
	}
	return change
}

// changeOf translates the statement. What a RESET returns to is the value the
// client gave at its start, which a connection does not know as its default.
func (s *session) changeOf(x *execution) settingChange {
	set := x.st.Setting
	text := statementText(x)
	change := settingChange{sql: []string{text}, next: s.lasting(), local: set.Local, tag: "SET"}
	if x.st.Kind == sqlparse.Reset {
		change.tag = "RESET"
	}
	switch {
	case set.All:
		return s.resetAll("RESET")
	case set.Characteristics:
		change.names = characteristics(x.st.Transaction)
	case set.Default || x.st.Kind == sqlparse.Reset:
		change.next = change.next.Without(set.Name)
		if value, ok := s.startup.Get(set.Name); ok {
			change.sql = []string{setConfig(set.Name, value, set.Local)}
			change.next = change.next.With(set.Name, value)
		}
	case set.Name == "seed": // has no value that could be shown
		change.untracked = true
	case set.Local && !gatewayReads(set.Name):
	default:
		change.names = []string{set.Name}
	}
	return change
}

// gatewayReads tells whether the gateway itself goes by the parameter, so that
// it must know its value even while it is only local to a block.
func gatewayReads(name string) bool {
	switch name {
	case "search_path", "client_min_messages", "idle_in_transaction_session_timeout":
		return true
	}
	return false
}

func statementText(x *execution) string {
	if x.portal == nil {
		return x.sql
	}
	return x.st.SQL
}

// lasting are the settings the session has once its block has committed.
func (s *session) lasting() participant.Settings {
	if s.block != nil {
		return s.block.settings
	}
	return s.settings
}

func setConfig(name, value string, local bool) string {
	last := ",false)"
	if local {
		last = ",true)"
	}
	return "SELECT pg_catalog.set_config(" + participant.QuoteLiteral(name) + "," + participant.QuoteLiteral(value) + last
}

// characteristics are the parameters that SET SESSION CHARACTERISTICS sets.
func characteristics(control *sqlparse.TransactionControl) []string {
	var names []string
	m := modesOf(control)
	if m.isolation != "" {
		names = append(names, "default_transaction_isolation")
	}
	if m.readOnly != nil {
		names = append(names, "default_transaction_read_only")
	}
	if m.deferrable != nil {
		names = append(names, "default_transaction_deferrable")
	}
	return names
}

// changeSettings runs the change and remembers it.
func (s *session) changeSettings(change settingChange) error {
	if s.block == nil {
		return s.changeAlone(change)
	}
	b, err := s.enlistAny()
	if err != nil {
		return err
	}
	s.block.keeping = !change.local
	defer func() {
		if s.block != nil {
			s.block.keeping = false
		}
	}()
	if !change.local {
		s.block.tainted = true
		for _, branch := range s.block.t.Branches() {
			branch.Conn().Taint()
		}
	}
	for _, sql := range change.sql {
		if err := s.everywhere(b, sql); err != nil {
			return err
		}
	}
	next, err := s.readBack(b, change)
	if err != nil {
		return err
	}
	if change.local {
		s.block.local = next
	} else {
		s.block.settings, s.block.local = next, next
	}
	s.settingsChanged()
	s.complete(change.tag)
	return nil
}

// changeAlone runs the change outside a block, on a connection that goes on
// carrying it for whoever has the same settings next.
func (s *session) changeAlone(change settingChange) error {
	t, err := s.beginTransaction()
	if err != nil {
		return err
	}
	defer t.End()
	b, err := s.gw.firstThatAnswers(func(node *participant.Node) (*participant.Branch, error) {
		return s.join(t, node, s.settings, nil)
	})
	if err != nil {
		return err
	}
	for _, sql := range change.sql {
		if _, err := s.ask(b, sql); err != nil {
			return err
		}
	}
	if !change.local { // SET LOCAL here has only made the node warn
		next, err := s.readBack(b, change)
		if err != nil {
			b.Conn().Taint()
			return err
		}
		b.Conn().SetApplied(next)
		s.settings = next
		s.settingsChanged()
	}
	if change.untracked {
		b.Conn().Taint()
	}
	s.complete(change.tag)
	return nil
}

// readBack asks what the parameters are now. The node's spelling is what every
// other node understands alike, whatever the client wrote (SET TIME ZONE 2).
func (s *session) readBack(b *participant.Branch, change settingChange) (participant.Settings, error) {
	next := change.next
	if change.local {
		next = s.block.local
	}
	for _, name := range change.names {
		row, err := s.ask(b, "SELECT pg_catalog.current_setting("+participant.QuoteLiteral(name)+")")
		if err != nil {
			return next, err
		}
		next = next.With(name, row)
	}
	return next, nil
}

// everywhere runs one of the session's own statements on the block's branch b
// and the others that are open, and has later ones run it.
func (s *session) everywhere(b *participant.Branch, sql string) error {
	if _, err := s.ask(b, sql); err != nil {
		return err
	}
	for _, other := range s.block.t.Branches() {
		switch {
		case other == b:
		case !other.Open() && other.Lost() == nil:
			other.AddOpening(sql)
		default:
			if _, err := s.askQuietly(other, sql); err != nil {
				return err
			}
		}
	}
	s.block.record(sql)
	return nil
}

// setTransaction runs SET TRANSACTION. Whether it comes too late is for the
// nodes to say.
func (s *session) setTransaction(st *sqlparse.Statement) error {
	if st.Transaction.Snapshot != "" {
		return sqlError(pgerrcode.FeatureNotSupported, "SET TRANSACTION SNAPSHOT is not supported through the gateway")
	}
	if s.block == nil {
		s.warn(sqlError("25P01", "SET TRANSACTION can only be used in transaction blocks"))
	} else if err := s.setModes(modesOf(st.Transaction)); err != nil {
		return err
	}
	s.complete("SET")
	return nil
}

// setModes changes the characteristics of the block.
func (s *session) setModes(m modes) error {
	if m == (modes{}) {
		return nil
	}
	next := s.block.modes.with(m)
	if next.isolation == "serializable" && s.block.t != nil && len(s.block.t.Branches()) > 1 {
		return errSerializable
	}
	sql := "SET TRANSACTION" + m.sql()
	if err := s.block.broadcast(sql); err != nil {
		return err
	}
	s.block.record(sql)
	s.block.modes = next
	return nil
}

// isTransactionMode tells whether a parameter is one of the transaction's
// characteristics: SET changes it for the transaction only, with or without
// LOCAL.
func isTransactionMode(name string) bool {
	return name == "transaction_isolation" || name == "transaction_read_only" || name == "transaction_deferrable"
}

func (s *session) setTransactionMode(x *execution) error {
	if s.block == nil {
		return s.changeSettings(settingChange{sql: []string{statementText(x)}, local: true, tag: "SET"})
	}
	var m modes
	value := ""
	if len(x.st.Setting.Value) == 1 {
		value = strings.ToLower(x.st.Text(x.st.Setting.Value[0]))
	}
	on, isBool := parseBool(value)
	switch {
	case x.st.Setting.Name == "transaction_isolation" && isIsolationLevel(value):
		m.isolation = value
	case x.st.Setting.Name == "transaction_read_only" && isBool:
		m.readOnly = &on
	case x.st.Setting.Name == "transaction_deferrable" && isBool:
		m.deferrable = &on
	default:
		return sqlErrorf(pgerrcode.InvalidParameterValue, "invalid value for parameter %q: %q", x.st.Setting.Name, value)
	}
	if err := s.setModes(m); err != nil {
		return err
	}
	s.complete("SET")
	return nil
}

func isIsolationLevel(s string) bool {
	switch s {
	case "read uncommitted", "read committed", "repeatable read", "serializable":
		return true
	}
	return false
}

// setRole accepts what changes nothing. Anything else is refused: a role is no
// boundary on a connection that other clients use as well.
func (s *session) setRole(st *sqlparse.Statement) error {
	set, tag := st.Setting, "SET"
	if st.Kind == sqlparse.Reset {
		tag = "RESET"
	}
	none := set.Default || st.Kind == sqlparse.Reset ||
		len(set.Value) == 1 && strings.EqualFold(st.Text(set.Value[0]), "none")
	if !none {
		return withHint(sqlErrorf(pgerrcode.FeatureNotSupported, "changing %q is not supported through the gateway", set.Name),
			"Connect as the role that is wanted.")
	}
	s.complete(tag)
	return nil
}

// cleanEncodingName is the name as Postgres compares it: letters and digits
// only, in lower case (clean_encoding_name in src/common/encnames.c). asyncpg,
// for one, sends it in quotes.
func cleanEncodingName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 'a' || r > 'z' {
			if r < '0' || r > '9' {
				return -1
			}
		}
		return r
	}, strings.ToLower(name))
}

// checkSetting refuses what would make the gateway and a node read the same
// bytes differently.
func checkSetting(st *sqlparse.Statement) error {
	set := st.Setting
	if set.Default || st.Kind == sqlparse.Reset || len(set.Value) != 1 {
		return nil
	}
	return checkValue(set.Name, st.Text(set.Value[0]))
}

// checkValue is checkSetting for a name and a value, which a start-up packet
// gives as well. SQL_ASCII means no conversion: the bytes are then UTF-8 too,
// and the node checks that.
func checkValue(name, value string) error {
	switch name {
	case "client_encoding":
		switch cleanEncodingName(value) {
		case "utf8", "unicode", "sqlascii":
			return nil
		}
		return withHint(sqlErrorf(pgerrcode.InvalidParameterValue, "client_encoding %q is not supported through the gateway", value),
			"Use UTF8.")
	case "standard_conforming_strings":
		if on, valid := parseBool(value); valid && !on {
			return sqlError(pgerrcode.FeatureNotSupported, "standard_conforming_strings = off is not supported through the gateway")
		}
	}
	return nil
}
