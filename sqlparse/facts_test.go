package sqlparse

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestFacts shows the facts of statements. Run with -rewrite to renew the
// files, then read the difference: a condition too many loses money.
func TestFacts(t *testing.T) {
	datadriven.Walk(t, "testdata/facts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			p := NewParser(16)
			out := show(t, p, d.Input)
			// What a cache answers must not differ.
			if again := show(t, p, d.Input); again != out {
				t.Errorf("%s: asked again: %s", d.Pos, again)
			}
			return out
		})
	})
}

func show(t *testing.T, p *Parser, sql string) string {
	t.Helper()
	statements, err := p.Parse(sql)
	if err != nil {
		e := err.(*SyntaxError)
		return fmt.Sprintf("%s at %d: %s\n", e.SQLSTATE(), e.Position, e.Message)
	}
	var b strings.Builder
	for i := range statements {
		s := &statements[i]
		if sql[s.Start:s.Start+len(s.SQL)] != s.SQL {
			t.Errorf("Start %d does not point to %q in %q", s.Start, s.SQL, sql)
		}
		if len(statements) > 1 {
			fmt.Fprintf(&b, "[%s]\n", s.SQL)
		}
		b.WriteString(dump(s))
	}
	return b.String()
}
