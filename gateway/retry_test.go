package gateway

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// victimised makes a statement over the nodes a and b, which adds to the rows of allThree, a deadlock's victim. It returns what the
// statement came to, after the deadlock's other transaction has gone on and committed.
func (s *stack) victimised(t *testing.T, keys [3][2]string, conn *pgconn.PgConn, statement func(context.Context) ([]*pgconn.Result, error)) waited {
	t.Helper()
	// The statement takes its row on a, and waits on b for a third transaction. The other holds the second row on b and waits for that on a.
	// When the third is out of the way the statement waits for the other: its wait is the last, and it the victim.
	third, other := s.client(t), s.client(t)
	wantRun(t, third, "BEGIN;"+add(keys[1][0]), "BEGIN\nUPDATE 1")
	wantRun(t, other, "BEGIN;"+add(keys[1][1]), "BEGIN\nUPDATE 1")
	answered := make(chan waited, 1)
	waiting := s.lockWaits(t, "b")
	go func() {
		results, err := statement(context.Background())
		a := waited{conn: conn}
		a.err, _ = err.(*pgconn.PgError)
		if err != nil && a.err == nil {
			a.tag = err.Error()
		}
		if len(results) > 0 {
			a.tag = results[len(results)-1].CommandTag.String()
		}
		answered <- a
	}()
	eventually(t, "the statement waits on b", func() bool { return s.lockWaits(t, "b") > waiting })
	goesOn := s.begun(t, other, "a", add(keys[0][0]))
	wantRun(t, third, "COMMIT", "COMMIT")
	if a := receive(t, goesOn); a.err != nil {
		t.Fatalf("the other transaction hears %+v", a.err)
	}
	wantRun(t, other, "COMMIT", "COMMIT")
	return receive(t, answered)
}

func allThree(keys [3][2]string) string {
	return fmt.Sprintf("UPDATE accounts SET balance = balance + 10 WHERE id IN ('%s', '%s', '%s')", keys[0][0], keys[1][0], keys[1][1])
}

// testRetryUnseen: a statement that is alone is repeated by the gateway, and its client sees nothing but that it took longer. It hears of
// the deadlock whenever something of the answer has been sent, or something else would have to be repeated.
func testRetryUnseen(t *testing.T, s *stack) {
	for _, node := range []string{"a", "b", "c"} {
		s.exec(t, node, `CREATE FUNCTION says() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'says'; RETURN NEW; END$$`)
	}
	simple := func(conn *pgconn.PgConn, sql string) func(context.Context) ([]*pgconn.Result, error) {
		return func(ctx context.Context) ([]*pgconn.Result, error) { return conn.Exec(ctx, sql).ReadAll() }
	}
	extended := func(conn *pgconn.PgConn, sqls ...string) func(context.Context) ([]*pgconn.Result, error) {
		return func(ctx context.Context) ([]*pgconn.Result, error) {
			batch := &pgconn.Batch{}
			for _, sql := range sqls {
				batch.ExecParams(sql, nil, nil, nil, nil)
			}
			return conn.ExecBatch(ctx, batch).ReadAll()
		}
	}
	for _, c := range []struct {
		name      string
		before    string
		statement func(conn *pgconn.PgConn, sql string) func(context.Context) ([]*pgconn.Result, error)
		seen      bool // the client hears of the deadlock
	}{
		{"simple protocol", "", simple, false},
		{"extended protocol", "", func(conn *pgconn.PgConn, sql string) func(context.Context) ([]*pgconn.Result, error) {
			return extended(conn, sql)
		}, false},
		{"with time enough", "SET statement_timeout = '1min'", simple, false},
		{"turned off", "SET pgpact.retry = off", simple, true},
		{"turned on again", "SET pgpact.retry = off; RESET pgpact.retry", simple, false},
		{"after rows", "", func(conn *pgconn.PgConn, sql string) func(context.Context) ([]*pgconn.Result, error) {
			return simple(conn, sql+" RETURNING id")
		}, true},
		{"after a notice", "trigger", simple, true},
		{"with another in its message", "", func(conn *pgconn.PgConn, sql string) func(context.Context) ([]*pgconn.Result, error) {
			return simple(conn, "SELECT 1;"+sql)
		}, true},
		{"with another in its pipeline", "", func(conn *pgconn.PgConn, sql string) func(context.Context) ([]*pgconn.Result, error) {
			return extended(conn, "SELECT 1", sql)
		}, true},
		{"with another behind it in its pipeline", "", func(conn *pgconn.PgConn, sql string) func(context.Context) ([]*pgconn.Result, error) {
			return extended(conn, sql, "SELECT 1")
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys := s.fill(t)
			conn := s.client(t)
			if c.before == "trigger" {
				s.exec(t, "a", "CREATE TRIGGER says BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION says()")
				defer s.exec(t, "a", "DROP TRIGGER says ON accounts")
			} else if c.before != "" {
				run(t, conn, c.before)
			}
			a := s.victimised(t, keys, conn, c.statement(conn, allThree(keys)))
			moved := int64(10)
			if c.seen {
				moved = 0
			}
			switch {
			case c.seen && (a.err == nil || a.err.Code != "40P01"):
				t.Errorf("the client hears %+v, want 40P01", a)
			case !c.seen && (a.err != nil || a.tag != "UPDATE 3"):
				t.Errorf("the client hears %+v, %+v", a, a.err)
			}
			wantStatus(t, conn, 'I')
			s.wantBalances(t, map[string]int64{keys[0][0]: 1001 + moved, keys[1][0]: 1001 + moved, keys[1][1]: 1001 + moved})
			s.idle(t)
		})
	}
}

// testRetrySerialization: the same for what a node cannot serialize.
func testRetrySerialization(t *testing.T, s *stack) {
	for _, c := range []struct{ before, want string }{
		{"", "UPDATE 3"},
		{"SET pgpact.retry = off", "40001"},
	} {
		keys := s.fill(t)
		conn, other := s.client(t), s.client(t)
		run(t, conn, "SET default_transaction_isolation = 'repeatable read';"+c.before)
		wantRun(t, other, "BEGIN;"+add(keys[1][0]), "BEGIN\nUPDATE 1")
		answered := s.begun(t, conn, "b", allThree(keys))
		wantRun(t, other, "COMMIT", "COMMIT")
		if a := receive(t, answered); a.tag != c.want && (a.err == nil || a.err.Code != c.want) {
			t.Errorf("after %q: %+v, %+v; want %s", c.before, a, a.err, c.want)
		}
	}
	s.idle(t)
}

// testRetryEnds: after a few attempts the client is told, at the latest when statement_timeout is over.
func testRetryEnds(t *testing.T, s *stack) {
	keys := s.fill(t)
	s.exec(t, "b", `CREATE SEQUENCE attempts; GRANT ALL ON SEQUENCE attempts TO PUBLIC;
		CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
			PERFORM nextval('attempts'); RAISE EXCEPTION 'never' USING ERRCODE = TG_ARGV[0]; END$$;
		CREATE TRIGGER never BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION never('40001')`)
	attempts := func() (n int) {
		if err := s.direct["b"].QueryRow(t.Context(), "SELECT last_value FROM attempts").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	conn := s.client(t)
	wantRun(t, conn, allThree(keys), "ERROR 40001 never")
	if n := attempts(); n != maxAttempts {
		t.Errorf("%d attempts, want %d", n, maxAttempts)
	}
	// Not at all for other errors, and in a block.
	wantRun(t, conn, "BEGIN;"+allThree(keys), "BEGIN\nERROR 40001 never")
	wantRun(t, conn, "ROLLBACK", "ROLLBACK")
	s.exec(t, "b", "DROP TRIGGER never ON accounts; CREATE TRIGGER never BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION never('55P03')")
	wantRun(t, conn, allThree(keys), "ERROR 55P03 never")
	if n := attempts(); n != maxAttempts+2 {
		t.Errorf("%d attempts, want %d", n, maxAttempts+2)
	}
	defer s.exec(t, "b", "DROP TRIGGER never ON accounts")
	s.exec(t, "b", `CREATE OR REPLACE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
			PERFORM nextval('attempts'); PERFORM pg_sleep(0.2); RAISE EXCEPTION 'never' USING ERRCODE = '40001'; END$$`)
	run(t, conn, "SET statement_timeout = '500ms'")
	before := attempts()
	got := run(t, conn, allThree(keys))
	if !strings.Contains(got, "40001") && got != "ERROR 57014 canceling statement due to statement timeout" {
		t.Errorf("got %q", got)
	}
	if n := attempts() - before; n > 3 {
		t.Errorf("%d attempts of 200 ms within 500 ms", n)
	}
	s.idle(t)
}

// testRetryCancelled: a cancel by the client ends it, whichever attempt it meets.
func testRetryCancelled(t *testing.T, s *stack) {
	keys := s.fill(t)
	holder, conn := s.client(t), s.client(t)
	wantRun(t, holder, "BEGIN;"+add(keys[1][0]), "BEGIN\nUPDATE 1")
	answered := s.begun(t, conn, "b", allThree(keys))
	cancel(t, conn)
	if a := receive(t, answered); a.err == nil || a.err.Code != "57014" {
		t.Errorf("%+v", a.err)
	}
	wantRun(t, holder, "ROLLBACK", "ROLLBACK")
	s.idle(t)
}
