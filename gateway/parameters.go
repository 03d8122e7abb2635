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
// GUC_REPORT in Postgres) as the client knows them.
type reportedParameters struct {
	initial map[string]string // shared between sessions: not to be changed
	changed map[string]string
}

func (r *reportedParameters) get(name string) string {
	if value, ok := r.changed[name]; ok {
		return value
	}
	return r.initial[name]
}

// tellParameter reports a parameter that a statement of the client has changed.
func (s *session) tellParameter(name, value string) {
	if b := s.block; b != nil {
		if b.told == nil {
			b.told, b.kept = map[string]string{}, map[string]string{}
		}
		if _, ok := b.told[name]; !ok {
			b.told[name] = s.reported.get(name)
		}
		if b.keeping {
			b.kept[name] = value
		}
	}
	s.sendParameter(name, value)
}

func (s *session) sendParameter(name, value string) {
	if s.reported.get(name) == value {
		return
	}
	if s.reported.changed == nil {
		s.reported.changed = map[string]string{}
	}
	s.reported.changed[name] = value
	s.client.send(&pgproto3.ParameterStatus{Name: name, Value: value})
}

// restoreParameters reports what the end of a block has changed back. The nodes
// say it themselves, but to the coordinator, which does not listen.
func (s *session) restoreParameters(b *block) {
	for _, name := range slices.Sorted(maps.Keys(b.told)) {
		s.sendParameter(name, b.told[name])
	}
	s.settingsChanged()
}

// tellParameters reports what ROLLBACK TO has changed back.
func (s *session) tellParameters() {
	branch := s.block.branchOf()
	if branch == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.block.told)) {
		s.sendParameter(name, branch.Conn().Parameters()[name])
	}
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
	s.timeouts = idleTimeouts{
		session: timeoutSetting(current.Get("idle_session_timeout")),
		inBlock: timeoutSetting(current.Get("idle_in_transaction_session_timeout")),
	}
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

// idleTimeouts bound the waits for the client's next message. Zero: no bound.
type idleTimeouts struct {
	session time.Duration // idle_session_timeout
	inBlock time.Duration // idle_in_transaction_session_timeout
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
	if s.statements[st.Prepared] == nil || st.Prepared == "" {
		return noStatement(st.Prepared)
	}
	delete(s.statements, st.Prepared)
	s.complete("DEALLOCATE")
	return nil
}
