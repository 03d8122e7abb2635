package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Who follows docs/quickstart.md gets what it says.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/quickstart.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sql\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	d := startDemo(t, demoDir(t), "--accounts", "20")
	conn, err := pgx.Connect(t.Context(), d.url)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	seen := map[string]string{} // the rows of each block
	for _, block := range blocks {
		results, err := conn.PgConn().Exec(t.Context(), block[1]).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", block[1], err)
		}
		var rows []string
		for _, result := range results {
			for _, row := range result.Rows {
				var values []string
				for _, value := range row {
					values = append(values, string(value))
				}
				rows = append(rows, strings.Join(values, " "))
			}
		}
		seen[block[1]] = strings.Join(rows, "\n")
	}
	for statement, want := range map[string]string{
		"EXPLAIN SELECT balance FROM accounts WHERE id = 'alice'": "node", "SELECT id, balance FROM accounts": "alice 900\nbob 1100",
		"SELECT sum(amount), count(*) FROM invoices": "100 3", "SELECT pgpact.outcome_of_key('invoice-2-paid')": "committed ",
	} {
		found := false
		for block, rows := range seen {
			if strings.HasPrefix(block, statement) {
				found = true
				if !strings.Contains(rows, want) {
					t.Errorf("%s gives %q, want %q", statement, rows, want)
				}
			}
		}
		if !found {
			t.Errorf("the page does not have %s", statement)
		}
	}
	if len(blocks) != 7 {
		t.Errorf("%d blocks", len(blocks))
	}
}
