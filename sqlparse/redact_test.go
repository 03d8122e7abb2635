package sqlparse

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for sql, want := range map[string]string{
		"UPDATE accounts SET balance = balance - 10 WHERE id = 'alice'":           "UPDATE accounts SET balance = balance - ? WHERE id = ?",
		"select  1.5e3,\n\t-7 , $1":                                               "select ?, -? , $1",
		"select 'it''s', E'a\\'b', U&'\\0041', B'101', X'1F', $$do$$, $t$ $$ $t$": "select ?, ?, ?, ?, ?, ?, ?",
		"ALTER ROLE carol PASSWORD 'hunter2'":                                     "ALTER ROLE carol PASSWORD ?",
		"select/* hunter2 */1 -- hunter2\n, \"Name\"":                             "select ? , \"Name\"",
		"selec hunter from 'hunter2' where":                                       "selec hunter from ? where",
		"":                                                                        "",
		"insert into t values('a','b')":                                           "insert into t values(?,?)",
		"select 'never ends, hunter2":                                             Unreadable,
	} {
		if got := Redact(sql); got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
}

// Whatever surrounds it, a value in quotes is not in what comes out.
func FuzzRedact(f *testing.F) {
	for _, seed := range []string{"select ", "select /* ", "update t set a=$x$", "select E'\\", "select \"", "-- "} {
		f.Add(seed, " from t")
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before, "hunter2") || strings.Contains(after, "hunter2") {
			return
		}
		whole, err := parseAlone(before + "'hunter2'" + after)
		if err != nil || !whole {
			return // in a comment, or a part of a name: then it is no value
		}
		if got := Redact(before + "'hunter2'" + after); strings.Contains(got, "hunter2") && !strings.Contains(got, `"`) {
			t.Errorf("%q is left of %q", got, before+"'hunter2'"+after)
		}
	})
}

// parseAlone tells whether the text is something that can be parsed.
func parseAlone(sql string) (bool, error) {
	statements, err := NewParser(16).Parse(sql)
	return len(statements) > 0, err
}
