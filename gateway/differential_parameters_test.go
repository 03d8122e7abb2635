package gateway

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// startThree is a pair over three nodes with servers of its own.
func startThree(t *testing.T) *differentialPair {
	t.Helper()
	servers, stop, err := clustertest.NewServers(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return startDifferential(t, servers, 3)
}

// TestDifferentialParameters: statements with parameters, in LIMIT too, answer as
// on Postgres: unnamed, prepared by name and run twice, in a block, by SQL.
func TestDifferentialParameters(t *testing.T) {
	p := startThree(t)
	for _, test := range []struct {
		sql    string
		params []string // "NULL" for NULL
	}{
		{"SELECT id FROM customers ORDER BY id LIMIT $1", []string{"3"}},
		{"SELECT id FROM customers ORDER BY id LIMIT $1 OFFSET $2", []string{"3", "4"}},
		{"SELECT id FROM customers WHERE id > $1 ORDER BY id OFFSET $2 LIMIT $3", []string{"b", "1", "NULL"}},
		{"SELECT id FROM customers ORDER BY id LIMIT $1", []string{"-1"}},
		{"SELECT id FROM customers ORDER BY id LIMIT $1", []string{"x"}},
		{"SELECT id FROM customers ORDER BY id LIMIT $1::int", []string{"2"}},
		{"SELECT id FROM customers WHERE id = ANY ($1) ORDER BY id", []string{"{alice,bob,zoë}"}},
		{"SELECT id FROM customers WHERE id = $1 OR id = $2 ORDER BY discount, id", []string{"alice", "bob"}},
		{"SELECT id, $1::text AS x FROM customers ORDER BY x, id LIMIT 3", []string{"same"}},
		{"SELECT id FROM customers ORDER BY length(id) % $1, id", []string{"3"}},
		{"SELECT count(*), sum(amount + $1) FROM purchases WHERE amount > $2", []string{"0.125", "0"}},
		{"SELECT number % $1, count(*) FROM purchases GROUP BY number % $1 HAVING count(*) > $2 ORDER BY 1", []string{"3", "1"}},
		{"SELECT state, sum(quantity) FROM purchases GROUP BY state ORDER BY state LIMIT $1", []string{"2"}},
		{"SELECT DISTINCT city FROM customers WHERE id <> $1 ORDER BY city OFFSET $2", []string{"bob", "2"}},
		{"SELECT c.id, p.number FROM customers c JOIN purchases p ON p.customer = c.id WHERE c.id > $1 ORDER BY 1, 2 LIMIT $2", []string{"a", "5"}},
		{"SELECT 10 / ($1 - count(*)) FROM customers", []string{"48"}},
	} {
		var params [][]byte
		for _, text := range test.params {
			if text == "NULL" {
				params = append(params, nil)
			} else {
				params = append(params, []byte(text))
			}
		}
		if p.compare(t, test.sql, true, params...) {
			t.Errorf("refused: %s", test.sql)
		}
		for _, conn := range []*pgconn.PgConn{p.gateway, p.plain} { // errors are compared above
			if _, err := conn.Prepare(t.Context(), "st", test.sql, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), "BEGIN").ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			got := p.gateway.ExecPrepared(t.Context(), "st", params, nil, nil).Read()
			want := p.plain.ExecPrepared(t.Context(), "st", params, nil, nil).Read()
			if (got.Err == nil) != (want.Err == nil) || got.CommandTag != want.CommandTag ||
				!slices.EqualFunc(got.Rows, want.Rows, func(a, b [][]byte) bool {
					return slices.EqualFunc(a, b, func(x, y []byte) bool { return string(x) == string(y) && (x == nil) == (y == nil) })
				}) {
				t.Errorf("%s prepared\n gateway %q %v\nPostgres %q %v", test.sql, got.Rows, got.Err, want.Rows, want.Err)
			}
		}
		for _, conn := range []*pgconn.PgConn{p.gateway, p.plain} {
			if _, err := conn.Exec(t.Context(), "ROLLBACK; DEALLOCATE st").ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, sql := range []string{
		"PREPARE q(bigint) AS SELECT id FROM customers ORDER BY id LIMIT $1",
		"EXECUTE q(3)", "EXECUTE q(1 + 1)", "EXECUTE q(NULL)", "DEALLOCATE q",
		"PREPARE a AS SELECT state, count(*) FROM purchases WHERE number > $1 GROUP BY state ORDER BY state",
		"EXECUTE a(1)", "EXECUTE a(2)", "DEALLOCATE a",
		"SELECT 1; SELECT id FROM items ORDER BY id LIMIT 2; SELECT count(*) FROM items",
	} {
		if p.compare(t, sql, false) {
			t.Errorf("refused: %s", sql)
		}
	}
	// LIMIT in binary.
	eight := binary.BigEndian.AppendUint64(nil, 4)
	result := p.gateway.ExecParams(t.Context(), "SELECT id FROM items ORDER BY id LIMIT $1", [][]byte{eight}, []uint32{oidInt8}, []int16{1}, nil).Read()
	if result.Err != nil || len(result.Rows) != 4 {
		t.Errorf("LIMIT in binary: %d rows, %v", len(result.Rows), result.Err)
	}
}

// TestMergedLocks: FOR UPDATE over several nodes holds its rows until the end of
// the transaction; NOWAIT and SKIP LOCKED see them.
func TestMergedLocks(t *testing.T) {
	p := startThree(t)
	run := func(conn *pgconn.PgConn, sql string) differentialAnswer {
		t.Helper()
		return ask(t.Context(), conn, sql, false)
	}
	other := p.connect(t, p.url)
	if got := run(p.gateway, "BEGIN; SELECT id FROM items WHERE id BETWEEN 1 AND 9 ORDER BY id DESC FOR UPDATE"); len(got.rows) != 9 || got.rows[0] != "9|" {
		t.Fatalf("locked %v", got)
	}
	if got := run(other, "SELECT id FROM items ORDER BY id FOR SHARE NOWAIT"); got.code != "55P03" {
		t.Errorf("NOWAIT: %v", got)
	}
	if got := run(other, "SELECT id FROM items WHERE id > 0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"); len(got.rows) != 1 || got.rows[0] != "10|" {
		t.Errorf("SKIP LOCKED: %v", got)
	}
	run(p.gateway, "COMMIT")
	if got := run(other, "SELECT id FROM items ORDER BY id FOR SHARE NOWAIT"); got.tag != "SELECT 50" {
		t.Errorf("afterwards: %v", got)
	}
}

// TestCombinedPlanIsStale: a table that was changed since a statement was planned
// gives an error or the new rows, never columns that are taken for others.
func TestCombinedPlanIsStale(t *testing.T) {
	p := startThree(t)
	const sql = "SELECT * FROM items ORDER BY lower(owner), id LIMIT 3"
	p.compare(t, sql, false)
	for _, change := range []string{"ALTER TABLE items ADD COLUMN extra text DEFAULT 'x'", "ALTER TABLE items ALTER price TYPE text", "ALTER TABLE items DROP COLUMN price"} {
		for _, name := range []string{"a", "b", "c"} {
			p.cluster.Exec(name, change)
		}
		if _, err := p.plain.Exec(t.Context(), change).ReadAll(); err != nil {
			t.Fatal(err)
		}
		got, want := ask(t.Context(), p.gateway, sql, false), ask(t.Context(), p.plain, sql, false)
		if got.code != "0A000" && !slices.Equal(got.rows, want.rows) {
			t.Errorf("after %s: %v, want %v", change, got, want)
		}
	}
}
