package gateway

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/sqlparse"
)

// reportedParameters are the values of the reported parameters (ParameterStatus;
// GUC_REPORT in Postgres). Changes are told to the client just before
// ReadyForQuery, and only those that last until then, as Postgres does.
type reportedParameters struct {
	initial map[string]string // as greeted; shared between sessions: not to be changed
	changed map[string]string // what differs, or did
	told    map[string]string // what the client knows of the changed ones
	due     bool
}

func (r *reportedParameters) get(name string) string {
	if value, ok := r.changed[name]; ok {
		return value
	}
	return r.initial[name]
}

func (r *reportedParameters) set(name, value string) {
	if r.get(name) == value {
		return
	}
	if r.told == nil {
		r.told = map[string]string{}
	}
	if r.changed == nil {
		r.changed = map[string]string{}
	}
	if _, ok := r.told[name]; !ok {
		r.told[name] = r.get(name)
	}
	r.changed[name] = value
	r.due = true
}

// tellParameters sends what is due.
func (s *session) tellParameters() {
	if !s.reported.due {
		return
	}
	s.reported.due = false
	for _, name := range slices.SortedFunc(maps.Keys(s.reported.told), compareParameters) {
		if value := s.reported.get(name); value != s.reported.told[name] {
			s.reported.told[name] = value
			s.client.send(&pgproto3.ParameterStatus{Name: name, Value: value})
		}
	}
}

// noteParameter takes note of a parameter that a statement of the client has
// changed.
func (s *session) noteParameter(name, value string) {
	if b := s.block; b != nil {
		if b.before == nil {
			b.before, b.kept = map[string]string{}, map[string]string{}
		}
		if _, ok := b.before[name]; !ok {
			b.before[name] = s.reported.get(name)
		}
		if b.keeping {
			if b.kept == nil { // ROLLBACK TO has gone back to none
				b.kept = map[string]string{}
			}
			b.kept[name] = value
		}
	}
	s.reported.set(name, value)
}

// restoreParameters takes note of what the end of a block has changed back. The
// nodes say it themselves, but to the coordinator, which does not listen.
func (s *session) restoreParameters(b *block) {
	for name, value := range b.before {
		s.reported.set(name, value)
	}
	s.settingsChanged()
}

// rereadParameters takes note of what ROLLBACK TO has changed back.
func (s *session) rereadParameters() {
	if branch := s.block.branchOf(); branch != nil {
		for name := range s.block.before {
			s.reported.set(name, branch.Conn().Parameters()[name])
		}
	}
	s.settingsChanged()
}

// settingsChanged takes note of the settings that the gateway itself goes by.
func (s *session) settingsChanged() {
	current := s.current()
	if s.settingsKey == current.Key() {
		return
	}
	s.settingsKey = current.Key()
	s.planKey = planKey(current)
	path, ok := current.Get("search_path")
	if !ok {
		path = s.gw.defaultSearchPath
	}
	s.routing.searchPath = splitIdentifiers(path)
	s.timeouts = sessionTimeouts{
		session:     timeoutSetting(current.Get(idleSession)),
		inBlock:     timeoutSetting(current.Get(idleInTransaction)),
		transaction: timeoutSetting(current.Get(transactionTimeout)),
		statement:   timeoutSetting(current.Get("statement_timeout")),
	}
	s.adjustClock()
}

// splitIdentifiers reads a list of identifiers as Postgres's SplitIdentifierString
// does: separated by commas, folded to lower case unless quoted.
func splitIdentifiers(list string) []string {
	var names []string
	for rest := strings.TrimSpace(list); rest != ""; {
		var name string
		if rest[0] == '"' {
			name, rest = cutQuoted(rest[1:])
		} else {
			name, rest = rest, ""
			if i := strings.IndexByte(name, ','); i >= 0 {
				name, rest = name[:i], name[i:]
			}
			name = strings.ToLower(strings.TrimSpace(name))
		}
		names = append(names, name)
		rest = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), ","))
	}
	return names
}

// cutQuoted reads up to the closing quote; a doubled one stands for itself.
func cutQuoted(s string) (name, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return b.String(), s[i+1:]
	}
	return b.String(), ""
}

// sessionTimeouts bound what the session does and waits for. Zero: no bound.
type sessionTimeouts struct {
	session     time.Duration // idle_session_timeout: the wait for the client's next message
	inBlock     time.Duration // idle_in_transaction_session_timeout: the same, in a block
	transaction time.Duration // transaction_timeout: a transaction, from its first statement
	statement   time.Duration // statement_timeout: here, what a statement waits before a node has it
}

// timeoutSetting reads a parameter of time as a node shows it: "30s", "1min",
// "1500ms", or a bare number of milliseconds.
func timeoutSetting(value string, ok bool) time.Duration {
	if !ok {
		return 0
	}
	digits := strings.TrimRight(value, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	units := map[string]time.Duration{
		"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond,
		"s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}
	return time.Duration(n) * units[strings.TrimSpace(value[len(digits):])]
}

// discard runs DISCARD. Only ALL concerns what a session has; sequences, plans
// and temporary tables are the connections', and those are reset when a session
// has left something behind.
func (s *session) discard(st *sqlparse.Statement) error {
	target := st.Object
	if target == "ALL" {
		if s.block != nil {
			return sqlError("25001", "DISCARD ALL cannot run inside a transaction block")
		}
		s.dropStatements()
		if s.settings.Key() != s.startup.Key() {
			return s.changeSettings(s.resetAll("DISCARD ALL"))
		}
	}
	s.complete("DISCARD " + target)
	return nil
}

// deallocate runs DEALLOCATE, which knows the protocol's statements too.
func (s *session) deallocate(st *sqlparse.Statement) error {
	if st.All {
		s.dropStatements()
		s.complete("DEALLOCATE ALL")
		return nil
	}
	if s.statements.get(st.Prepared) == nil || st.Prepared == "" {
		return noStatement(st.Prepared)
	}
	s.statements.remove(st.Prepared)
	s.complete("DEALLOCATE")
	return nil
}
