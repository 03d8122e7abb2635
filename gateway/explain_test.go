package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// explainAt asks for a plan and returns the lines and the column's type.
func explainAt(t *testing.T, conn *pgconn.PgConn, sql string, params ...string) (lines []string, oid uint32) {
	t.Helper()
	var result *pgconn.Result
	if params == nil {
		results, err := conn.Exec(t.Context(), sql).ReadAll()
		if err != nil || len(results) != 1 {
			t.Fatalf("%s: %v, %d results", sql, err, len(results))
		}
		result = results[0]
	} else {
		values := make([][]byte, len(params))
		for i := range params {
			values[i] = []byte(params[i])
		}
		if result = conn.ExecParams(t.Context(), sql, values, nil, nil, []int16{1}).Read(); result.Err != nil {
			t.Fatalf("%s: %v", sql, result.Err)
		}
	}
	if len(result.FieldDescriptions) != 1 || result.FieldDescriptions[0].Name != "QUERY PLAN" || result.CommandTag.String() != "EXPLAIN" {
		t.Errorf("%s: columns %v, tag %s", sql, result.FieldDescriptions, result.CommandTag)
	}
	for _, row := range result.Rows {
		lines = append(lines, string(row[0]))
	}
	return lines, result.FieldDescriptions[0].DataTypeOID
}

// wantLines checks that the lines occur, in this order.
func wantLines(t *testing.T, sql string, got []string, want ...string) {
	t.Helper()
	at := 0
	for _, line := range want {
		i := slices.IndexFunc(got[at:], func(l string) bool {
			return l == line || strings.HasSuffix(line, "...") && strings.HasPrefix(l, strings.TrimSuffix(line, "..."))
		})
		if i < 0 {
			t.Errorf("%s: no line %q in its place in\n%s", sql, line, strings.Join(got, "\n"))
			return
		}
		at += i + 1
	}
}

func TestExplainShowsTheGatewaysPart(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	a, b := keys[0][0], keys[1][0]
	conn := s.client(t)
	keyLine := func(key, node string) string {
		return fmt.Sprintf("  Key: public.accounts.id = '%s' (bucket %d, node %s)", key, Bucket(key, DefaultBuckets), node)
	}
	for _, test := range []struct {
		sql  string
		want []string
	}{
		{"EXPLAIN UPDATE accounts SET balance = 0 WHERE id = '" + a + "'",
			[]string{"pgpact", "  Nodes: a", keyLine(a, "a"), "  Commit: one phase", "Node a", "  Update on accounts ..."}},
		{"EXPLAIN (COSTS off) UPDATE accounts SET balance = 0 WHERE id IN ('" + a + "', '" + b + "') RETURNING id",
			[]string{"pgpact", "  Nodes: a, b", keyLine(a, "a"), keyLine(b, "b"), "  Commit: two phases",
				"  Merge: rows of one node after another, row counts added up, by the gateway", "Node a", "  Update on accounts", "Node b", "  Update on accounts"}},
		{"EXPLAIN (COSTS off) SELECT id FROM accounts",
			[]string{"pgpact", "  Nodes: a, b, c", "  Key: any public.accounts.id", "  Commit: nothing to commit, it only reads",
				"  Merge: rows of one node after another, by the gateway", "Node a", "Node b", "Node c"}},
		{"EXPLAIN (COSTS off) SELECT id, balance FROM accounts ORDER BY balance DESC, id LIMIT 3 OFFSET 1",
			[]string{"pgpact", "  Merge: sorted rows as a stream, by balance DESC, id, then OFFSET, then LIMIT, by the gateway",
				"Node a", "  Query: SELECT ...", "  Limit", "Node b", "  Query: SELECT ...", "  Limit", "Node c"}},
		{"EXPLAIN SELECT count(*), avg(balance) FROM accounts",
			[]string{"  Merge: partial results of all nodes, combined by node a", "  Combine: SELECT ...", "Node a", "  Query: SELECT ...", "  Aggregate ..."}},
		{"EXPLAIN (COSTS off) INSERT INTO accounts VALUES ('" + s.key("a", 7) + "', 1), ('" + s.key("b", 7) + "', 1), ('" + s.key("b", 8) + "', 1)",
			[]string{"  Nodes: a, b", "  Commit: two phases", "  Merge: row counts added up, by the gateway", "Node a (1 of the rows)",
				"  Insert on accounts", "Node b (2 of the rows)", "  Insert on accounts"}},
		{"EXPLAIN SELECT 1", []string{"pgpact", "  Nodes: any, for instance a", "Node a", "  Result ..."}},
	} {
		got, oid := explainAt(t, conn, test.sql)
		if oid != oidText {
			t.Errorf("%s: type %d", test.sql, oid)
		}
		if test.want[0] == "pgpact" && got[0] != "pgpact" {
			t.Errorf("%s: begins with %q", test.sql, got[0])
		}
		wantLines(t, test.sql, got, test.want...)
	}
	// By the extended protocol, parameters and all.
	got, _ := explainAt(t, conn, "EXPLAIN SELECT id FROM accounts WHERE id = ANY($1) ORDER BY balance LIMIT $2", "{"+a+","+b+"}", "5")
	wantLines(t, "extended", got, "  Nodes: a, b", keyLine(a, "a"), keyLine(b, "b"), "  Merge: sorted rows as a stream, by pgpact_sort_1, then LIMIT, by the gateway", "Node a", "Node b")
	got, _ = explainAt(t, conn, "EXPLAIN INSERT INTO accounts VALUES ($1, $3), ($2, 5)", s.key("a", 7), s.key("b", 7), "4")
	wantLines(t, "extended", got, "  Commit: two phases", "Node a (1 of the rows)", "Node b (1 of the rows)")
	got, _ = explainAt(t, conn, "EXPLAIN ANALYZE SELECT balance FROM accounts WHERE id = $1", a)
	wantLines(t, "extended", got, keyLine(a, "a"), "Node a", "  Index Scan ...", "  Execution Time: ...")
	s.wantBalances(t, map[string]int64{a: 1000, b: 1000})
	s.idle(t)
}

// What EXPLAIN says of the commit is said of the transaction that it is in.
func TestExplainInABlock(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	conn := s.client(t)
	update := func(key string) string { return "UPDATE accounts SET balance = balance - 1 WHERE id = '" + key + "'" }
	run(t, conn, "BEGIN")
	run(t, conn, update(keys[0][0]))
	got, _ := explainAt(t, conn, "EXPLAIN "+update(keys[0][1]))
	wantLines(t, "same node", got, "  Commit: one phase")
	got, _ = explainAt(t, conn, "EXPLAIN "+update(keys[1][0]))
	wantLines(t, "another node", got, "  Commit: two phases")
	run(t, conn, "ROLLBACK; BEGIN; SET LOCAL pgpact.idempotency_key = 'explained'")
	got, _ = explainAt(t, conn, "EXPLAIN "+update(keys[0][1]))
	wantLines(t, "tracked", got, "  Commit: two phases")
	run(t, conn, "ROLLBACK")
	s.wantBalances(t, map[string]int64{keys[0][0]: 1000, keys[0][1]: 1000, keys[1][0]: 1000})
	s.idle(t)
}

// EXPLAIN ANALYZE runs the statement: once, on all nodes or on none.
func TestExplainAnalyzeRunsOnce(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	a, b := keys[0][0], keys[1][0]
	conn := s.client(t)
	take := "EXPLAIN (ANALYZE, COSTS off) UPDATE accounts SET balance = balance - 400 WHERE id IN ('" + a + "', '" + b + "')"
	got, _ := explainAt(t, conn, take)
	wantLines(t, take, got, "  Commit: two phases", "Node a", "  Update on accounts (actual ...", "Node b", "  Update on accounts (actual ...")
	s.wantBalances(t, map[string]int64{a: 600, b: 600})

	run(t, conn, "BEGIN")
	explainAt(t, conn, take)
	wantRun(t, conn, "SELECT balance FROM accounts WHERE id = '"+b+"'", "SELECT 1: 200")
	run(t, conn, "ROLLBACK")
	s.wantBalances(t, map[string]int64{a: 600, b: 600})

	explainAt(t, conn, "EXPLAIN (ANALYZE) UPDATE accounts SET balance = balance + $1 WHERE id = ANY($2)", "5", "{"+a+","+b+"}")
	s.wantBalances(t, map[string]int64{a: 605, b: 605})

	// On b it fails: then it is not done on a either.
	if _, err := s.direct["b"].Exec(t.Context(), "UPDATE accounts SET balance = 100 WHERE id = $1", b); err != nil {
		t.Fatal(err)
	}
	if text := run(t, conn, take); !strings.HasPrefix(text, "ERROR 23514") {
		t.Errorf("got %s", text)
	}
	s.wantBalances(t, map[string]int64{a: 605, b: 100})

	c, d := s.key("a", 9), s.key("c", 9)
	explainAt(t, conn, "EXPLAIN ANALYZE INSERT INTO accounts VALUES ('"+c+"', 3), ('"+d+"', 4)")
	s.wantBalances(t, map[string]int64{c: 3, d: 4})
	wantStatus(t, conn, 'I')
	s.idle(t)
}

func TestExplainJSON(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	a, b := keys[0][0], keys[1][0]
	conn := s.client(t)
	type document []struct {
		Pgpact struct {
			Nodes         []string
			Keys          []struct{ Table, Value, Node string }
			Commit, Merge string
		} `json:"pgpact"`
		Plan  map[string]any
		Nodes []struct {
			Node, Query string
			Rows        *int
			Plan        map[string]any
		}
	}
	read := func(sql string, params ...string) (d document) {
		t.Helper()
		lines, oid := explainAt(t, conn, sql, params...)
		if oid != oidJSON || len(lines) != 1 {
			t.Fatalf("%s: type %d, %d rows", sql, oid, len(lines))
		}
		if err := json.Unmarshal([]byte(lines[0]), &d); err != nil || len(d) != 1 {
			t.Fatalf("%s: %v, %d objects:\n%s", sql, err, len(d), lines[0])
		}
		return d
	}
	one := read("EXPLAIN (FORMAT JSON) SELECT balance FROM accounts WHERE id = $1", a)[0]
	if one.Plan["Node Type"] != "Index Scan" || !slices.Equal(one.Pgpact.Nodes, []string{"a"}) || len(one.Pgpact.Keys) != 1 || one.Pgpact.Keys[0].Value != a {
		t.Errorf("got %+v", one)
	}
	several := read("EXPLAIN (ANALYZE, FORMAT json) UPDATE accounts SET balance = balance - 1 WHERE id IN ('" + a + "', '" + b + "')")[0]
	if len(several.Nodes) != 2 || several.Nodes[1].Node != "b" || several.Nodes[1].Plan["Operation"] != "Update" || several.Pgpact.Commit != "two phases" {
		t.Errorf("got %+v", several)
	}
	s.wantBalances(t, map[string]int64{a: 999, b: 999})
	sorted := read(`EXPLAIN (FORMAT json) SELECT id, '<"}]' FROM accounts ORDER BY id DESC LIMIT 2`)[0]
	if len(sorted.Nodes) != 3 || !strings.Contains(sorted.Nodes[2].Query, `<"}]`) || sorted.Nodes[2].Plan["Node Type"] != "Limit" {
		t.Errorf("got %+v", sorted)
	}
	split := read("EXPLAIN (FORMAT json) INSERT INTO accounts VALUES ('" + a + "', 1), ('" + b + "', 1)")[0]
	if len(split.Nodes) != 2 || split.Nodes[0].Rows == nil || *split.Nodes[0].Rows != 1 {
		t.Errorf("got %+v", split)
	}
	s.idle(t)
}

// With pgpact.explain off a node's answer passes as it is, and what has no one
// node's answer is refused.
func TestExplainOff(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	conn := s.client(t)
	one := "EXPLAIN (COSTS off) SELECT 1 FROM accounts WHERE id = '" + keys[0][0] + "'"
	wantRun(t, conn, "SHOW pgpact.explain", "SHOW: on")
	wantRun(t, conn, "BEGIN; SET pgpact.explain = off; ROLLBACK; SHOW pgpact.explain", "BEGIN\nSET\nROLLBACK\nSHOW: on")
	wantRun(t, conn, "SET pgpact.explain = maybe", `ERROR 22023 parameter "pgpact.explain" requires a Boolean value`)
	wantRun(t, conn, "SET pgpact.explain = off", "SET")
	wantRun(t, conn, "SHOW pgpact.explain", "SHOW: off")
	got, _ := explainAt(t, conn, one)
	if len(got) == 0 || got[0] == "pgpact" || !strings.Contains(got[0], "Scan") {
		t.Errorf("got %q", got)
	}
	wantRun(t, conn, "EXPLAIN SELECT * FROM accounts", "ERROR 0A000 "+refusedExplainOff.message)
	wantRun(t, conn, "RESET pgpact.explain", "RESET")
	if got, _ = explainAt(t, conn, one); got[0] != "pgpact" {
		t.Errorf("got %q", got)
	}
	for format, first := range map[string]string{"yaml": "- Plan:", "xml": "<explain "} {
		got, _ := explainAt(t, conn, strings.Replace(one, "COSTS off", "FORMAT "+format, 1))
		if !strings.HasPrefix(got[0], first) {
			t.Errorf("%s: %q", format, got)
		}
		wantRun(t, conn, "EXPLAIN (FORMAT "+format+") SELECT * FROM accounts",
			"ERROR 0A000 "+fill(refusedExplainFormat.message, []any{strings.ToUpper(format)}))
	}
	wantRun(t, conn, "EXPLAIN (FORMAT words) SELECT * FROM accounts", `ERROR 22023 unrecognized value for EXPLAIN option "format": "words"`)
	wantRun(t, conn, "EXPLAIN SELECT * FROM nothing", `ERROR 42P01 relation "nothing" does not exist`)
	s.idle(t)
}

// TestExplainBesidePostgres: where nothing of the gateway's is shown, EXPLAIN is
// Postgres's to the byte, portions and errors with their places included.
func TestExplainBesidePostgres(t *testing.T) {
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
	for _, portion := range []uint32{0, 1, 2} {
		for _, inBlock := range []bool{true, false} {
			sql := "EXPLAIN (COSTS off, FORMAT yaml) SELECT price FROM items WHERE id = 1"
			got, want := portions(t, p.url, sql, portion, inBlock), portions(t, p.plainURL, sql, portion, inBlock)
			if got != want {
				t.Errorf("by %d, in a block %v\n gateway %s\nPostgres %s", portion, inBlock, got, want)
			}
			// Several nodes': whatever the portions, the rows are the same.
			sql = "EXPLAIN (COSTS off) SELECT price FROM items ORDER BY id LIMIT 3"
			parts, whole := portions(t, p.url, sql, portion, inBlock), portions(t, p.url, sql, 0, inBlock)
			if strings.Count(whole, "Node ") != 3 || rowsOnly(parts) != rowsOnly(whole) {
				t.Errorf("by %d, in a block %v\n portions %s\n at once %s", portion, inBlock, parts, whole)
			}
		}
	}
	position := func(conn *pgconn.PgConn, sql string) string {
		_, err := conn.Exec(t.Context(), sql).ReadAll()
		refused, ok := errors.AsType[*pgconn.PgError](err)
		if !ok {
			t.Fatalf("%s: %v", sql, err)
		}
		return fmt.Sprintf("%s at %d: %s", refused.Code, refused.Position, refused.Message)
	}
	for _, sql := range []string{
		"EXPLAIN SELECT id FROM items ORDER BY nothing",
		"  /* x */ EXPLAIN (ANALYZE) SELECT nothing FROM items",
		"SELECT 1; EXPLAIN SELECT id FROM items ORDER BY nothing; SELECT 2",
		"EXPLAIN UPDATE items SET nothing = 1",
		"EXPLAIN INSERT INTO items (id, owner, price) VALUES (1, 'x', 2), (2, 'x', 'y')",
		"EXPLAIN ANALYZE SELECT 1 / (price - price) FROM items ORDER BY id",
		"EXPLAIN (NOTHING) SELECT id FROM items",
		"EXPLAIN SELECT $1 FROM items",
	} {
		if got, want := position(p.gateway, sql), position(p.plain, sql); got != want {
			t.Errorf("%s\n gateway %s\nPostgres %s", sql, got, want)
		}
	}
}

// rowsOnly leaves out tags, the marks of suspended portals, and the statement
// between the portions.
func rowsOnly(text string) string {
	return strings.NewReplacer("... ", "", "EXPLAIN. ", "", `["3"] SELECT 1. `, "").Replace(text)
}
