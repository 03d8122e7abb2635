package sqlparse

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// tiedTables: customers, purchases, items and numbers are sharded by their first
// column, the columns' classes are behind the names; rates is everywhere.
var tiedTables = map[string]string{
	"customers": "id:2 city:2 discount:0", "purchases": "customer:2 number:1 amount:0 state:2",
	"items": "id:1 owner:2 price:1", "numbers": "id:1 x:2", "rates": "code:2 rate:0",
}

func tiedTestLookup() *TiedLookup {
	return &TiedLookup{
		Table: func(_, name string) *TiedTable {
			columns, ok := tiedTables[name]
			if !ok {
				return nil
			}
			table := &TiedTable{Everywhere: name == "rates"}
			for i, column := range strings.Fields(columns) {
				name, class, _ := strings.Cut(column, ":")
				if i == 0 && !table.Everywhere {
					table.Key = name
				}
				table.Columns = append(table.Columns, TiedColumn{Name: name, Class: int(class[0] - '0')})
			}
			return table
		},
		Aggregate: combineLookup().Aggregate,
	}
}

// TestTied shows of each SELECT whether the nodes can answer it for their own
// rows, and if so what can be named in its own level: with * for a key, with ?
// for a key that may be NULL. Run with -rewrite to renew the files, then read the
// difference: a key too many makes a wrong answer.
func TestTied(t *testing.T) {
	datadriven.Walk(t, "testdata/tied", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(_ *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for _, sql := range strings.Split(d.Input, "\n") {
				out.WriteString(showTied(sql) + "\n")
			}
			return out.String()
		})
	})
}

func showTied(sql string) string {
	tied, err := Tie(sql, tiedTestLookup())
	if why, ok := errors.AsType[*NotCombined](err); ok {
		return strings.TrimSpace("refused " + why.What)
	}
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, v := range tied.frame.visible {
		name := v.name
		switch {
		case tied.frame.key[v.column]:
			name += "*"
		case tied.frame.weak[v.column]:
			name += "?"
		}
		names = append(names, name)
	}
	if tied.frame.vague {
		names = append(names, "...")
	}
	return strings.Join(names, " ")
}

// FuzzTie: whatever is asked, there is an answer, and Combine can work with it.
func FuzzTie(f *testing.F) {
	for _, text := range factTexts(f) {
		f.Add(text)
	}
	files, err := filepath.Glob("testdata/tied/*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no statements: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, "SELECT") {
				f.Add(line)
			}
		}
	}
	lookup := tiedTestLookup()
	known := lookup.Table
	lookup.Table = func(schema, name string) *TiedTable {
		if table := known(schema, name); table != nil {
			return table
		}
		return known("", "customers")
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if statements, err := fuzzed.Parse(sql); err != nil || len(statements) != 1 || len(sql) > 2000 {
			return // the gateway asks of what it could parse
		}
		tied, err := Tie(sql, lookup)
		if (tied == nil) == (err == nil) {
			t.Fatalf("%q: neither an answer nor an error", sql)
		}
		if err != nil {
			return
		}
		whole := combineLookup()
		whole.Tied, whole.Column, whole.Key = tied, tied.Column, tied.Key
		if c, err := Combine(sql, 0, &Outline{Names: []string{"id"}, Direct: []bool{true}}, whole); err == nil && c.Node == "" {
			t.Errorf("%q: nothing to ask the nodes", sql)
		}
	})
}

// Stars of stars end where Postgres ends them.
func TestTiedStars(t *testing.T) {
	sql := "SELECT * FROM customers"
	for range 30 {
		sql = "SELECT *, x.*, * FROM (" + sql + ") x"
	}
	if got := showTied(sql); got != "refused" {
		t.Errorf("it has %d columns", len(strings.Fields(got)))
	}
}

// What the query's own level is told: which names are keys, and where from.
func TestTiedAnswers(t *testing.T) {
	tied, err := Tie(`WITH x AS (SELECT id AS k, upper(city) AS city, city AS town FROM customers)
		SELECT 1 FROM x LEFT JOIN purchases p ON p.customer = x.k`, tiedTestLookup())
	if err != nil {
		t.Fatal(err)
	}
	for reference, want := range map[string]bool{
		"k": true, "x.k": true, "*": true, "x.*": true, "p.*": false, "p.customer": false, "customer": false, "id": false, "x.id": false,
		"customers.id": false, "y.*": false, "city": false,
	} {
		if got := tied.Key(strings.Split(reference, ".")); got != want {
			t.Errorf("%s is a key: %v", reference, got)
		}
	}
	for reference, want := range map[string]string{"k": "customers.id", "x.town": "customers.city", "city": "", "p.amount": "purchases.amount", "nosuch": ""} {
		_, table, column, ok := tied.Origin(strings.Split(reference, "."))
		if got := table + "." + column; ok != (want != "") || ok && got != want {
			t.Errorf("%s comes from %s, want %s", reference, got, want)
		}
	}
	if !tied.Column("town") || tied.Column("id") || !tied.ColumnsKnown() || !tied.CTE("x") || tied.CTE("p") {
		t.Error("the names in FROM are not as they should be")
	}
}
