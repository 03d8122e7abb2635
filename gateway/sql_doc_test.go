package gateway

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// docExample is a row of a table in docs/sql.md: a statement, and the message if
// the table is one of refusals, or a line of the answer if that is the gateway's own.
type docExample struct{ sql, message, line string }

// docExamples reads the tables of docs/sql.md. A table whose last column is
// called Example is of what is accepted, one with Message of what is refused, one
// with Line of what plain Postgres answers differently.
func docExamples(t *testing.T) []docExample {
	t.Helper()
	text, err := os.ReadFile("../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples []docExample
	column, refused, ours := 0, false, false
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(strings.ReplaceAll(line, `\|`, "\x00"), "|"), " | ")
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.Trim(strings.TrimSpace(cells[i]), "`"), "\x00", "|")
		}
		switch {
		case !strings.HasPrefix(line, "|"), strings.HasPrefix(line, "| ---"):
		case cells[len(cells)-1] == "Example":
			column, refused, ours = len(cells)-1, false, false
		case cells[len(cells)-1] == "Message":
			column, refused, ours = 0, true, false
		case cells[len(cells)-1] == "Line":
			column, refused, ours = 0, false, true
		case len(cells) <= column:
			t.Errorf("docs/sql.md: %s", line)
		default:
			e := docExample{sql: cells[column]}
			if refused {
				e.message = cells[len(cells)-1]
			}
			if ours {
				e.line = cells[len(cells)-1]
			}
			examples = append(examples, e)
		}
	}
	return examples
}

// TestSQLDocument executes every example of docs/sql.md over three nodes: what is
// accepted answers as plain Postgres does, what is refused has the message.
func TestSQLDocument(t *testing.T) {
	servers, stop, err := clustertest.NewServers(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	p := startDifferential(t, servers, 3)
	accepted := 0
	for _, e := range docExamples(t) {
		if e.line != "" {
			got := ask(t.Context(), p.gateway, e.sql, false)
			if got.code != "" || !slices.ContainsFunc(got.rows, func(row string) bool { return strings.Contains(row, e.line) }) {
				t.Errorf("%s\n got %s %s %s\nwant the line %s", e.sql, got.code, got.message, clip(got.rows), e.line)
			}
			continue
		}
		if e.message == "" {
			accepted++
			if p.compare(t, e.sql, false) {
				t.Errorf("refused: %s", e.sql)
			}
			continue
		}
		got := ask(t.Context(), p.gateway, e.sql, false)
		if got.code == "" || got.message != e.message {
			t.Errorf("%s\n got %s %s %s\nwant %s", e.sql, got.code, got.message, got.tag, e.message)
		}
	}
	if refused := len(docExamples(t)) - accepted; accepted < 15 || refused < 15 {
		t.Errorf("%d examples accepted, %d refused", accepted, refused)
	}
}
