package participant

import (
	"maps"
	"slices"
	"strings"
)

// Settings are the session parameters (GUCs) that a connection must carry
// while it serves a session. The zero value is none. Settings are immutable:
// With returns a changed copy.
type Settings struct {
	values map[string]string
	key    string
}

// RoleName is the parameter that is the role as which a connection acts: SET ROLE
// sets it. Without it the connection acts as the role that has logged in.
const RoleName = "role"

// NewSettings copies values (lower-case parameter name to value).
func NewSettings(values map[string]string) Settings {
	if len(values) == 0 {
		return Settings{}
	}
	s := Settings{values: maps.Clone(values)}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		b.WriteString(name)
		b.WriteByte(0)
		b.WriteString(values[name])
		b.WriteByte(0)
	}
	s.key = b.String()
	return s
}

// Key is equal for equal settings: the pool prefers a connection that has
// them already.
func (s Settings) Key() string { return s.key }

// Get returns the value set for name.
func (s Settings) Get(name string) (value string, ok bool) {
	value, ok = s.values[name]
	return value, ok
}

// With returns the settings with name set to value.
func (s Settings) With(name, value string) Settings {
	changed := maps.Clone(s.values)
	if changed == nil {
		changed = map[string]string{}
	}
	changed[name] = value
	return NewSettings(changed)
}

// Without returns the settings with name left to its default.
func (s Settings) Without(name string) Settings {
	if _, ok := s.values[name]; !ok {
		return s
	}
	changed := maps.Clone(s.values)
	delete(changed, name)
	return NewSettings(changed)
}

// change is the SQL that turns a connection with settings s into one with
// settings to; "" when they are equal. set_config is used rather than SET
// because it takes every parameter's value as one literal.
func (s Settings) change(to Settings) string {
	if s.key == to.key {
		return ""
	}
	var b strings.Builder
	// The role first: what else may be set depends on it.
	if role, ok := to.values[RoleName]; ok && role != s.values[RoleName] {
		b.WriteString("SELECT pg_catalog.set_config('role'," + QuoteLiteral(role) + ",false);")
	}
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if _, kept := to.values[name]; !kept {
			b.WriteString("RESET " + quoteParameter(name) + ";")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(to.values)) {
		if was, ok := s.values[name]; name != RoleName && (!ok || was != to.values[name]) {
			b.WriteString("SELECT pg_catalog.set_config(" + QuoteLiteral(name) + "," + QuoteLiteral(to.values[name]) + ",false);")
		}
	}
	return b.String()
}

// QuoteLiteral quotes s as an SQL string that every server reads alike,
// whatever standard_conforming_strings says. s must not hold a zero byte.
func QuoteLiteral(s string) string {
	quoted := strings.ReplaceAll(s, "'", "''")
	if strings.ContainsRune(s, '\\') {
		return " E'" + strings.ReplaceAll(quoted, `\`, `\\`) + "'"
	}
	return "'" + quoted + "'"
}

// QuoteIdentifier quotes s as an SQL identifier.
func QuoteIdentifier(s string) string {
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// quoteParameter quotes a parameter's name for RESET; the dot of a customized
// parameter (myapp.user) stays outside the quotes.
func quoteParameter(name string) string {
	parts := strings.Split(name, ".")
	for i, part := range parts {
		parts[i] = QuoteIdentifier(part)
	}
	return strings.Join(parts, ".")
}
