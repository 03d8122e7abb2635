package gateway

import (
	"maps"
	"slices"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// What a SET, a RESET or a call of set_config comes to, and how it is done.

// settingChange is such a change.
type settingChange struct {
	sql       []string // what to run, in this order; nothing for settings that no node hears of
	all       bool     // RESET ALL: back to the session's start
	assigned  []assignment
	local     bool // ends with the transaction
	untracked bool // the connection must be reset afterwards
	tag       string
	// answer sends what the client gets, from the first row that the last
	// statement of sql has returned. Nil: the tag only.
	answer func(row [][]byte)
}

// assignment is what a change makes of one parameter.
type assignment struct {
	name string
	// value is the parameter's value once it is known: from the row's column,
	// or, with column -1, by asking. The node's spelling is what every other
	// node understands alike, whatever the client wrote (SET TIME ZONE 2).
	value  string
	known  bool
	column int
	reset  bool // back to the value of the session's start
}

// becomes is what the change makes of settings.
func (change *settingChange) becomes(settings, startup participant.Settings) participant.Settings {
	if change.all {
		return startup
	}
	for _, a := range change.assigned {
		if !a.reset {
			settings = settings.With(a.name, a.value)
			continue
		}
		settings = settings.Without(a.name)
		if value, ok := startup.Get(a.name); ok {
			settings = settings.With(a.name, value)
		}
	}
	return settings
}

// resetAll is the change that brings back the settings of the session's start.
func (s *session) resetAll(tag string) settingChange {
	change := settingChange{sql: []string{"RESET ALL"}, all: true, tag: tag}
	values := s.forNodes(s.startup)
	for _, name := range slices.Sorted(maps.Keys(s.startupValues)) {
		if value, ok := values.Get(name); ok {
			change.sql = append(change.sql, setConfig(name, value, false))
		}
	}
	return change
}

// changeOf translates the statement. What a RESET returns to is the value the
// client gave at its start, which a connection does not know as its default.
func (s *session) changeOf(x *execution) settingChange {
	set := x.st.Setting
	text := statementText(x)
	change := settingChange{sql: []string{text}, local: set.Local, tag: "SET"}
	if x.st.Kind == sqlparse.Reset {
		change.tag = "RESET"
	}
	switch {
	case set.All:
		return s.resetAll("RESET")
	case set.Characteristics:
		for _, name := range characteristics(x.st.Transaction) {
			change.assigned = append(change.assigned, assignment{name: name, column: -1})
		}
	case set.Default || x.st.Kind == sqlparse.Reset:
		change.assigned = []assignment{{name: set.Name, reset: true}}
		if value, ok := s.startup.Get(set.Name); ok {
			change.sql = []string{setConfig(set.Name, value, set.Local)}
		}
	case set.Name == "seed": // has no value that could be shown
		change.untracked = true
	case set.Local && !gatewayReads(set.Name):
		// Its value is the nodes' affair; that it is another is ours: what is
		// parsed under it must not be taken for what is parsed without it.
		change.assigned = []assignment{{name: set.Name, value: set.ValueText, known: true}}
	default:
		change.assigned = []assignment{{name: set.Name, column: -1}}
	}
	return change
}

// gatewayReads tells whether the gateway itself goes by the parameter, so that
// it must know its value even while it is only local to a block.
func gatewayReads(name string) bool {
	switch name {
	case "search_path", "client_min_messages":
		return true
	}
	return isHeld(name)
}

func statementText(x *execution) string {
	if x.portal == nil {
		return x.sql
	}
	return x.st.SQL
}

func setConfig(name, value string, local bool) string {
	return "SELECT " + setConfigCall(name, value, local)
}

func setConfigCall(name, value string, local bool) string {
	last := ",false)"
	if local {
		last = ",true)"
	}
	return "pg_catalog.set_config(" + participant.QuoteLiteral(name) + "," + participant.QuoteLiteral(value) + last
}

// characteristics are the parameters that SET SESSION CHARACTERISTICS sets.
func characteristics(control *sqlparse.TransactionControl) []string {
	var names []string
	m := modesOf(control)
	if m.isolation != "" {
		names = append(names, isolationDefault)
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
	row, err := s.changeInBlock(&change)
	if err != nil {
		return err
	}
	if !change.local {
		s.block.settings = change.becomes(s.block.settings, s.startup)
	}
	s.block.local = change.becomes(s.block.local, s.startup)
	s.settingsChanged()
	s.told(&change, row)
	return nil
}

// told sends the client what it gets for a change.
func (s *session) told(change *settingChange, row [][]byte) {
	if change.answer != nil {
		change.answer(row)
		return
	}
	s.complete(change.tag)
}

// changeInBlock runs the change on the block's branches.
func (s *session) changeInBlock(change *settingChange) (row [][]byte, err error) {
	if len(change.sql) == 0 {
		return nil, nil
	}
	b, err := s.enlistAny()
	if err != nil {
		return nil, err
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
		if row, err = s.everywhere(b, sql); err != nil {
			return nil, err
		}
	}
	return row, s.readBack(b, change, row)
}

// changeAlone runs the change outside a block, on a connection that goes on
// carrying it for whoever has the same settings next.
func (s *session) changeAlone(change settingChange) error {
	if len(change.sql) == 0 {
		s.adoptChange(&change)
		s.told(&change, nil)
		return nil
	}
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
	var row [][]byte
	for i, sql := range change.sql {
		if row, err = s.askRow(b, sql, false); err != nil {
			if i > 0 {
				b.Conn().Taint() // what has been run before is in force there
			}
			return err
		}
	}
	if change.untracked {
		b.Conn().Taint()
	}
	if !change.local { // SET LOCAL here has only made the node warn
		if err := s.readBack(b, &change, row); err != nil {
			b.Conn().Taint()
			return err
		}
		s.adoptChange(&change)
		b.Conn().SetApplied(s.forNodes(s.settings))
	}
	s.told(&change, row)
	return nil
}

// adoptChange makes a change outside a block the session's.
func (s *session) adoptChange(change *settingChange) {
	if change.local {
		return
	}
	s.settings = change.becomes(s.settings, s.startup)
	s.settingsChanged()
}

// readBack learns what the parameters are now.
func (s *session) readBack(b *participant.Branch, change *settingChange, row [][]byte) error {
	for i := range change.assigned {
		a := &change.assigned[i]
		switch {
		case a.known || a.reset:
		case a.column >= 0 && a.column < len(row):
			a.value, a.known = string(row[a.column]), true
		default:
			value, err := s.ask(b, "SELECT pg_catalog.current_setting("+participant.QuoteLiteral(a.name)+")")
			if err != nil {
				return err
			}
			a.value, a.known = value, true
		}
	}
	return nil
}

// everywhere runs one of the session's own statements on the block's branch b
// and the others that are open, and has later ones run it. It returns b's first
// row.
func (s *session) everywhere(b *participant.Branch, sql string) ([][]byte, error) {
	row, err := s.askRow(b, sql, false)
	if err != nil {
		return nil, err
	}
	for _, other := range s.block.t.Branches() {
		switch {
		case other == b:
		case !other.Open() && other.Lost() == nil:
			other.AddOpening(sql)
		default:
			if _, err := s.askRow(other, sql, true); err != nil {
				return nil, err
			}
		}
	}
	s.block.record(sql)
	return row, nil
}
