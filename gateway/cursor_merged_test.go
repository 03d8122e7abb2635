package gateway

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// What a cursor over several nodes answers is held against plain Postgres: by
// testdata/postgres/cursors_nodes.txt message by message, here with drawn FETCHes
// of several cursors at a time, and other statements in between.

// cursorQueries have a total order, or are aggregates.
var cursorQueries = []string{
	"SELECT * FROM items ORDER BY id",
	"SELECT owner, id FROM items ORDER BY price DESC, id",
	"SELECT id, n, t FROM facts ORDER BY n NULLS FIRST, id DESC",
	"SELECT customer, number, amount FROM purchases ORDER BY customer, number OFFSET 3",
	"SELECT id FROM items ORDER BY id LIMIT 11 OFFSET 2",
	"SELECT id FROM items WHERE id < 0 ORDER BY id",
	"SELECT c.id, p.number FROM customers c LEFT JOIN purchases p ON p.customer = c.id ORDER BY c.id, p.number FOR UPDATE OF c",
	"SELECT state, count(*), sum(amount) FROM purchases GROUP BY state ORDER BY state",
	"SELECT customer, count(*) FROM purchases GROUP BY customer ORDER BY customer",
	"SELECT id FROM customers WHERE id = 'alice'",
}

func TestMergedCursors(t *testing.T) {
	seed := testSeed(t)
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
	r := randomSelect{rand.New(rand.NewPCG(seed, 0))}
	for range 12 {
		p.compare(t, "BEGIN", false)
		for _, name := range []string{"c", "d", "e"} {
			p.accepted(t, fmt.Sprintf("DECLARE %s %s CURSOR FOR %s", name, r.of("", "NO SCROLL"), r.of(cursorQueries...)))
		}
		for range 25 {
			name := r.of("c", "d", "e")
			var sql string
			switch r.IntN(6) {
			case 0:
				sql = fmt.Sprintf("UPDATE items SET price = price + 1 WHERE id IN (%d, %d)", r.IntN(60), r.IntN(60))
			case 1:
				sql = fmt.Sprintf("MOVE %s %s", r.of("", "5", "RELATIVE 2", "0"), name)
			case 2:
				sql = fmt.Sprintf("FETCH %s %s", r.of("RELATIVE 2", "ALL", "ABSOLUTE 99", "BACKWARD -2"), name)
			default:
				sql = fmt.Sprintf("FETCH %d %s", 1+r.IntN(6), name)
			}
			p.accepted(t, sql)
		}
		p.compare(t, "ROLLBACK", false)
		if t.Failed() {
			return
		}
	}
}

// accepted is compare of what must not be refused. Rows come in an order.
func (p *differentialPair) accepted(t *testing.T, sql string) {
	t.Helper()
	got, want := ask(t.Context(), p.gateway, sql, false), ask(t.Context(), p.plain, sql, false)
	got.message, want.message = "", ""
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s\n gateway %v\nPostgres %v", sql, got, want)
	}
}

// TestCursorsReadAhead: what is read ahead for cursors stays in the limit of the
// session's portals, and a cursor keeps little of a large result.
func TestCursorsReadAhead(t *testing.T) {
	s := startStack(t, stackOptions{config: func(config *Config) { config.MaxPortalBytes = 2 << 20 }})
	for _, node := range s.nodes {
		s.exec(t, node.Name(), "CREATE TABLE wide(id int PRIMARY KEY, filler text); ALTER TABLE wide ALTER filler SET STORAGE EXTERNAL; GRANT ALL ON wide TO PUBLIC")
	}
	conn := s.client(t)
	for id := range 60 {
		sql := fmt.Sprintf("INSERT INTO wide VALUES (%d, repeat('x', 40000))", id)
		if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	run := func(sql string) *pgconn.PgError {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
			refused, ok := err.(*pgconn.PgError)
			if !ok {
				t.Fatal(err)
			}
			return refused
		}
		return nil
	}
	// The first portions are of 60 rows at most, 800 kB of each node; two nodes' are kept.
	const declare = "DECLARE %s CURSOR FOR SELECT id, filler FROM wide ORDER BY id"
	for _, sql := range []string{"BEGIN", fmt.Sprintf(declare, "c"), "FETCH 20 c"} {
		if err := run(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	// By now the rows' length is known, and less is asked for.
	for range 4 {
		if err := run("FETCH 9 c"); err != nil {
			t.Fatal(err)
		}
	}
	var refused *pgconn.PgError
	for i := 0; i < 3 && refused == nil; i++ {
		if refused = run(fmt.Sprintf(declare, fmt.Sprintf("d%d", i))); refused == nil {
			refused = run(fmt.Sprintf("FETCH 60 d%d; MOVE 1 d%d", i, i))
		}
		if refused == nil {
			if refused = run(fmt.Sprintf(declare, fmt.Sprintf("e%d", i))); refused == nil {
				refused = run(fmt.Sprintf("FETCH 1 e%d", i))
			}
		}
		if refused == nil {
			refused = run(fmt.Sprintf("DECLARE f%d CURSOR FOR SELECT id, filler FROM wide ORDER BY id DESC; FETCH 40 f%d", i, i))
		}
	}
	if refused == nil || refused.Code != "54000" || !strings.Contains(refused.Message, "portals too large") {
		t.Errorf("the limit of a session's portals: %v", refused)
	}
	if err := run("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	// Nothing of it counts any more.
	for _, sql := range []string{"BEGIN", fmt.Sprintf(declare, "c"), "FETCH 2 c", "CLOSE c", fmt.Sprintf(declare, "c"), "FETCH ALL c", "COMMIT"} {
		if err := run(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	s.idle(t)
}
