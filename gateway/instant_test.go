//go:build unix

package gateway

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/coordinator"
)

// windows counts the windows that a stack's coordinator has opened.
type windows struct{ opened atomic.Int64 }

func (w *windows) passed(point string) {
	if point == "window-locked" {
		w.opened.Add(1)
	}
}

func startCounted(t *testing.T) (*stack, *windows) {
	t.Helper()
	w := &windows{}
	s := startStack(t, stackOptions{coord: func(cfg *coordinator.Config) { cfg.FaultPoint = w.passed }})
	s.fill(t)
	return s, w
}

// TestInstant: which statements read at one instant, through a window of the barrier, and which do not; and that they return what
// they would without.
func TestInstant(t *testing.T) {
	s, w := startCounted(t)
	t.Run("statements", func(t *testing.T) { testInstantStatements(t, s, w) })
	t.Run("extended protocol", func(t *testing.T) { testInstantExtended(t, s, w) })
	t.Run("blocks", func(t *testing.T) { testInstantBlocks(t, s, w) })
	t.Run("setting", func(t *testing.T) { testReadConsistency(t, s) })
}

// opens runs f and checks through how many windows it has gone.
func (w *windows) opens(t *testing.T, want int64, what string, f func()) {
	t.Helper()
	before := w.opened.Load()
	f()
	if got := w.opened.Load() - before; got != want {
		t.Errorf("%s: %d windows, want %d", what, got, want)
	}
}

// testInstantStatements runs each statement atomically and per node, and wants the same answer of both.
func testInstantStatements(t *testing.T, s *stack, w *windows) {
	keys := s.fillMore(t)
	conn := s.client(t)
	for _, c := range []struct {
		sql     string
		windows int64
	}{
		{"SELECT id, balance FROM accounts", 1},
		{"SELECT id FROM accounts ORDER BY id COLLATE \"C\" LIMIT 3", 1},
		{"SELECT sum(balance), count(*) FROM accounts", 1},
		{"SELECT id FROM accounts FOR UPDATE", 1},
		{"COPY accounts TO STDOUT", 1},
		{"COPY (SELECT id FROM accounts) TO STDOUT (FORMAT csv, HEADER)", 1},
		{"EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT id FROM accounts", 1},
		{"EXPLAIN (COSTS off) SELECT id FROM accounts", 0},
		{"SELECT id FROM accounts WHERE id = '" + keys[0][0] + "'", 0},
		{"UPDATE accounts SET balance = balance", 0},
		{"SELECT 1", 0},
		{"BEGIN; SELECT sum(balance) FROM accounts; SELECT id FROM accounts; COMMIT", 2},
		{"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sum(balance) FROM accounts; SELECT id FROM accounts; COMMIT", 1},
		{"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT balance FROM accounts WHERE id = '" + keys[0][0] + "'; SELECT count(*) FROM accounts; COMMIT", 1},
		{"BEGIN; COPY accounts TO STDOUT; COPY (SELECT id FROM accounts) TO STDOUT; COMMIT", 2},
		{"SELECT sum(balance) FROM accounts; SELECT id FROM accounts", 2},
	} {
		var atomically, perNode string
		w.opens(t, c.windows, c.sql, func() { atomically = run(t, conn, c.sql) })
		run(t, conn, "SET pgpact.read_consistency = per_node")
		w.opens(t, 0, c.sql+" (per node)", func() { perNode = run(t, conn, c.sql) })
		run(t, conn, "RESET pgpact.read_consistency")
		if atomically != perNode {
			t.Errorf("%s: atomically\n%s\nper node\n%s", c.sql, atomically, perNode)
		}
		if strings.HasPrefix(atomically, "ERROR") {
			t.Errorf("%s: %s", c.sql, atomically)
		}
	}
	s.idle(t)
}

// fillMore is the keys that fill has made.
func (s *stack) fillMore(t *testing.T) (keys [3][2]string) {
	t.Helper()
	for i, name := range []string{"a", "b", "c"} {
		keys[i] = [2]string{s.key(name, 0), s.key(name, 1)}
	}
	return keys
}

// testInstantExtended: named statements whose Parse one connection knows and another does not, portals in portions, errors
// in each of the parts.
func testInstantExtended(t *testing.T, s *stack, w *windows) {
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	// The connections to a know statements that those to the others do not: a name there is another statement's here.
	for i, key := range []string{s.key("a", 0), s.key("a", 1), s.key("b", 0)} {
		for n := range 3 - i {
			var got int64
			if err := conn.QueryRow(ctx, fmt.Sprintf("SELECT balance + %d FROM accounts WHERE id = $1", n), key).Scan(&got); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 { // described, then known to some connections, then to all
		w.opens(t, 1, "a named statement", func() {
			var total int64
			if err := conn.QueryRow(ctx, "SELECT sum(balance)::bigint FROM accounts WHERE balance >= $1", 0).Scan(&total); err != nil || total == 0 {
				t.Errorf("%d, %v", total, err)
			}
		})
		w.opens(t, 1, "a named statement whose rows are not combined", func() {
			rows, _ := conn.Query(ctx, "SELECT id FROM accounts WHERE balance >= $1", 0)
			ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil || len(ids) != 6 {
				t.Errorf("%v, %v", ids, err)
			}
		})
	}
	// Refused by a node at Bind, and while it runs.
	for _, sql := range []string{
		"SELECT id FROM accounts WHERE balance > $1::text::int",
		"SELECT id FROM accounts WHERE balance > 1 / $1::text::int",
		"SELECT id FROM accounts WHERE balance > $1::text::int ORDER BY id COLLATE \"C\"",
		"SELECT sum(balance) FROM accounts WHERE balance > 1 / $1::text::int",
	} {
		for _, value := range []string{"x", "0"} {
			_, err := conn.Exec(ctx, sql, value)
			if value == "x" && !strings.Contains(fmt.Sprint(err), "22P02") || strings.Contains(sql, "1 /") && value == "0" && !strings.Contains(fmt.Sprint(err), "22012") {
				t.Errorf("%s with %s: %v", sql, value, err)
			}
		}
	}
	s.idle(t)
	inPortions(t, s, w)
}

// inPortions fetches a portal of merged rows a few at a time: one snapshot serves all of them.
func inPortions(t *testing.T, s *stack, w *windows) {
	t.Helper()
	key := s.key("a", 0)
	w.opens(t, 1, "a portal in portions", func() {
		conn := s.client(t)
		run(t, conn, "BEGIN")
		before := s.balance(t, key)
		got := executeTwice(t, conn, "SELECT id, balance FROM accounts ORDER BY id COLLATE \"C\"", func() {
			run(t, s.client(t), fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = '%s'", key))
		})
		if want := fmt.Sprintf("%s|%d", key, before); !strings.Contains(got, want) {
			t.Errorf("the portal returned %s, want %s in it", got, want)
		}
	})
}

// executeTwice executes a portal for one row, and then for the rest, with f in between.
func executeTwice(t *testing.T, conn *pgconn.PgConn, sql string, f func()) string {
	t.Helper()
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	front := hijacked.Frontend
	var out strings.Builder
	read := func() {
		front.Send(&pgproto3.Sync{})
		if err := front.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			message, err := front.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := message.(type) {
			case *pgproto3.DataRow:
				fmt.Fprintf(&out, "%s ", bytes.Join(m.Values, []byte("|")))
			case *pgproto3.ErrorResponse:
				out.WriteString("ERROR " + m.Code + " " + m.Message)
			case *pgproto3.ReadyForQuery:
				return
			}
		}
	}
	front.Send(&pgproto3.Parse{Query: sql})
	front.Send(&pgproto3.Bind{DestinationPortal: "p"})
	front.Send(&pgproto3.Execute{Portal: "p", MaxRows: 1})
	read()
	f()
	front.Send(&pgproto3.Execute{Portal: "p"})
	read()
	return out.String()
}

// testInstantBlocks: what a transaction sees when others commit between its statements.
func testInstantBlocks(t *testing.T, s *stack, _ *windows) {
	a, b := s.key("a", 0), s.key("b", 0)
	moves := fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = '%s'; UPDATE accounts SET balance = balance + 1 WHERE id = '%s'; COMMIT", a, b)
	read := func(conn *pgconn.PgConn) string {
		return run(t, conn, fmt.Sprintf("SELECT id, balance FROM accounts WHERE id IN ('%s', '%s') ORDER BY id COLLATE \"C\"", a, b))
	}
	writer, reader := s.client(t), s.client(t)

	run(t, reader, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	run(t, writer, moves) // before the first statement: it is seen
	want := read(writer)
	run(t, reader, fmt.Sprintf("SELECT 1 FROM accounts WHERE id = '%s'", s.key("c", 0))) // neither of the two nodes
	run(t, writer, moves)
	if got := read(reader); got != want {
		t.Errorf("REPEATABLE READ read\n%s\nafter its first statement, want\n%s", got, want)
	}
	// Its own writes it sees, and what others have changed since it may not.
	if got := run(t, reader, fmt.Sprintf("UPDATE accounts SET balance = balance WHERE id = '%s'", a)); !strings.Contains(got, "40001") {
		t.Errorf("a lost update at REPEATABLE READ: %s", got)
	}
	run(t, reader, "ROLLBACK")

	run(t, reader, "BEGIN; SELECT 1")
	run(t, reader, fmt.Sprintf("UPDATE accounts SET balance = balance + 100 WHERE id = '%s'", s.key("c", 0)))
	want = read(writer)
	if got := read(reader); got != want {
		t.Errorf("READ COMMITTED read\n%s\nwant\n%s", got, want)
	}
	run(t, writer, moves)
	if got, want := read(reader), read(writer); got != want {
		t.Errorf("READ COMMITTED read\n%s\nwant\n%s", got, want)
	}
	run(t, reader, "ROLLBACK")

	// A savepoint and a setting in front of the first statement, and a failed one behind it.
	run(t, reader, "BEGIN; SET LOCAL lock_timeout = '5s'; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SAVEPOINT one")
	want = read(reader)
	run(t, reader, "SELECT no_such_column FROM accounts")
	run(t, reader, "ROLLBACK TO one")
	run(t, writer, moves)
	if got := read(reader); got != want {
		t.Errorf("behind ROLLBACK TO\n%s\nwant\n%s", got, want)
	}
	if got := run(t, reader, "SHOW lock_timeout"); !strings.Contains(got, "5s") {
		t.Errorf("lock_timeout: %s", got)
	}
	run(t, reader, "COMMIT")
	s.idle(t)
}

// testReadConsistency: pgpact.read_consistency as a setting.
func testReadConsistency(t *testing.T, s *stack) {
	conn := s.client(t)
	show := func(want string) {
		t.Helper()
		if got := run(t, conn, "SHOW pgpact.read_consistency"); !strings.Contains(got, want) {
			t.Errorf("read_consistency is %s, want %s", got, want)
		}
	}
	show("atomic")
	run(t, conn, "SET pgpact.read_consistency TO 'Per_Node'")
	show("per_node")
	run(t, conn, "BEGIN; SET LOCAL pgpact.read_consistency = atomic")
	show("atomic")
	run(t, conn, "ROLLBACK")
	show("per_node")
	run(t, conn, "RESET pgpact.read_consistency")
	show("atomic")
	for _, sql := range []string{"SET pgpact.read_consistency = 'snapshot'", "SET pgpact.read_consistency = atomic, per_node"} {
		if got := run(t, conn, sql); !strings.Contains(got, "22023") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	conn = s.client(t, func(cfg *pgconn.Config) { cfg.RuntimeParams["options"] = "-c pgpact.read_consistency=per_node" })
	show("per_node")
	run(t, conn, "SET pgpact.read_consistency = atomic; RESET ALL")
	show("per_node")
	cfg, err := pgconn.ParseConfig(s.url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["pgpact.read_consistency"] = "sometimes"
	if conn, err := pgconn.ConnectConfig(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "22023") {
		t.Errorf("a start-up option that is not valid: %v, %v", conn, err)
	}
}
