package sqlparse

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"pgregory.net/rapid"
)

func TestKeepRows(t *testing.T) {
	tests := []struct {
		sql  string
		rows int
		keep []int
		want string
	}{
		{"INSERT INTO t VALUES (1),(2),(3)", 3, []int{1}, "INSERT INTO t VALUES     (2)    "},
		{"INSERT INTO t VALUES (1),(2),(3)", 3, []int{0, 2}, "INSERT INTO t VALUES (1),    (3)"},
		{"insert into t(a, b) values ('é', f(1, 2)) , -- one, two\n ($1, ')') on conflict do nothing", 2, []int{0},
			"insert into t(a, b) values ('é', f(1, 2))                          on conflict do nothing"},
		{"insert into t(a, b) values ('é', f(1, 2)) , -- one, two\n ($1, ')') on conflict do nothing", 2, []int{1},
			"insert into t(a, b) values                               ($1, ')') on conflict do nothing"},
		{"INSERT INTO values (a) VALUES (1), (2) RETURNING a;", 2, []int{1}, "INSERT INTO values (a) VALUES      (2) RETURNING a;"},
		{`INSERT INTO "values" AS values VALUES (1), (E'\'),(') ;`, 2, []int{1}, `INSERT INTO "values" AS values VALUES      (E'\'),(') ;`},
		{"WITH a AS (VALUES (1), (2)) INSERT INTO t VALUES ($tag$(,$tag$), (2)", 2, []int{0},
			"WITH a AS (VALUES (1), (2)) INSERT INTO t VALUES ($tag$(,$tag$)     "},
	}
	for _, test := range tests {
		list, ok := FindRows(test.sql, test.rows)
		if !ok {
			t.Errorf("%s: no rows found", test.sql)
			continue
		}
		if got := list.Keep(test.keep); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.sql, got, test.want)
		}
	}
	for sql, rows := range map[string]int{
		"INSERT INTO t (VALUES (1), (2))":          2,
		"INSERT INTO t VALUES (1), (2)":            3,
		"INSERT INTO t SELECT 1":                   1,
		"INSERT INTO t VALUES (1), (2) ORDER BY 1": 2,
	} {
		if _, ok := FindRows(sql, rows); ok {
			t.Errorf("%s: found %d rows", sql, rows)
		}
	}
}

func TestParamsOfRows(t *testing.T) {
	list, ok := FindRows("INSERT INTO t VALUES ($1, $2), ($3, $4), ($1, $5 + $10) ON CONFLICT (id) DO UPDATE SET n = $11", 3)
	if !ok {
		t.Fatal("no rows found")
	}
	for _, test := range []struct {
		keep []int
		want string
	}{{[]int{0}, "[1 2 11]"}, {[]int{1}, "[3 4 11]"}, {[]int{1, 2}, "[1 3 4 5 10 11]"}} {
		got := list.Params(test.keep)
		slices.Sort(got)
		if fmt.Sprint(got) != test.want {
			t.Errorf("%v: %v, want %s", test.keep, got, test.want)
		}
	}
}

// Whatever stands in the rows, the kept text is an INSERT of just the kept
// rows, and every token that is left is where it was.
func TestKeepRowsDrawn(t *testing.T) {
	values := []string{"1", "'a'", "'(é'", "')'", "$1", "$2", "E'\\')'", "$$,($$", "f(1,(2))", "(1,2)", "DEFAULT", "NULL", "ARRAY[1,2]", "'x' -- ),(\n", "/* ),( /* nested */ */ 2", "\"q)\"", "U&'\\0041'", "-1", "1.5"}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(rt, "rows")
		var rows []string
		for range n {
			cells := rapid.SliceOfN(rapid.SampledFrom(values), 2, 2).Draw(rt, "cells")
			rows = append(rows, rapid.SampledFrom([]string{"", " ", "\n", "/* , */", "-- (\n"}).Draw(rt, "gap")+"("+strings.Join(cells, ",")+")")
		}
		sql := rapid.SampledFrom([]string{"INSERT INTO t VALUES", "INSERT INTO values (a, b) VALUES", "insert into t as values(a, b) overriding user value values"}).Draw(rt, "head") +
			strings.Join(rows, ",") + rapid.SampledFrom([]string{"", ";", " ON CONFLICT DO NOTHING", " RETURNING (a), b", " -- )"}).Draw(rt, "tail")
		list, ok := FindRows(sql, n)
		if !ok {
			rt.Fatalf("no rows found in %s", sql)
		}
		var keep []int
		for i := range n {
			if rapid.Bool().Draw(rt, "keep") {
				keep = append(keep, i)
			}
		}
		if len(keep) == 0 {
			keep = []int{0}
		}
		kept := list.Keep(keep)
		if utf8.RuneCountInString(kept) != utf8.RuneCountInString(sql) {
			rt.Fatalf("%q has become %q", sql, kept)
		}
		got, err := pgquery.Parse(kept)
		if err != nil {
			rt.Fatalf("%q: %v", kept, err)
		}
		want, err := pgquery.Parse(sql)
		if err != nil {
			rt.Fatalf("%q: %v", sql, err)
		}
		whole := want.Stmts[0].Stmt.GetInsertStmt().SelectStmt.GetSelectStmt()
		lists := whole.ValuesLists
		whole.ValuesLists = nil
		for _, i := range keep {
			whole.ValuesLists = append(whole.ValuesLists, lists[i])
		}
		a, errA := pgquery.Deparse(got)
		b, errB := pgquery.Deparse(want)
		if errA != nil || errB != nil || a != b {
			rt.Fatalf("%q\nhas become %q\n got %s %v\nwant %s %v", sql, kept, a, errA, b, errB)
		}
	})
}

func TestMentions(t *testing.T) {
	for sql, want := range map[string]bool{
		"DROP SCHEMA pgpact":                       true,
		"DROP SCHEMA PgPact CASCADE":               true,
		`DROP TABLE "pgpact".branches`:             true,
		`DROP TABLE "PGPACT".branches`:             false,
		`DROP TABLE U&"pgp\0061ct".branches`:       true,
		"COMMENT ON TABLE t IS 'pgpact'":           false,
		"CREATE TABLE pgpact_t (id int) -- pgpact": false,
		"CREATE TABLE t (id int) /* pgpact */":     false,
		"DROP TABLE $$":                            true,
	} {
		if got := Mentions(sql, "pgpact"); got != want {
			t.Errorf("%s: %v", sql, got)
		}
	}
}
