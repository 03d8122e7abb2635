package gateway

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/coordinator"
)

// shortDeadlock makes the search for deadlocks begin soon.
func shortDeadlock(c *coordinator.Config) { c.DeadlockTimeout = 200 * time.Millisecond }

// waited is what a statement that had to wait came to.
type waited struct {
	conn *pgconn.PgConn
	tag  string
	err  *pgconn.PgError
}

// begun sends a statement that will have to wait, and waits until it does, on this node.
func (s *stack) begun(t *testing.T, conn *pgconn.PgConn, node, sql string) <-chan waited {
	t.Helper()
	waiting := s.lockWaits(t, node)
	answered := make(chan waited, 1)
	go func() {
		results, err := conn.Exec(context.Background(), sql).ReadAll()
		a := waited{conn: conn}
		a.err, _ = err.(*pgconn.PgError)
		if len(results) > 0 {
			a.tag = results[len(results)-1].CommandTag.String()
		}
		answered <- a
	}()
	eventually(t, "a wait for a lock", func() bool { return s.lockWaits(t, node) > waiting })
	return answered
}

func (s *stack) lockWaits(t *testing.T, node string) (n int) {
	t.Helper()
	if err := s.direct[node].QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func receive(t *testing.T, from <-chan waited) waited {
	t.Helper()
	select {
	case a := <-from:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
		return waited{}
	}
}

func add(key string) string {
	return fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = '%s'", key)
}

// TestDeadlocks and TestLongDeadlocks share a stack each: with little patience, and with so much that no deadlock is looked for.
func TestDeadlocks(t *testing.T) {
	s := startStack(t, stackOptions{coord: shortDeadlock})
	t.Run("OverNodes", func(t *testing.T) { testDeadlockOverNodes(t, s) })
	t.Run("InSavepoint", func(t *testing.T) { testDeadlockInSavepoint(t, s) })
	t.Run("RetryUnseen", func(t *testing.T) { testRetryUnseen(t, s) })
}

func TestLongDeadlocks(t *testing.T) {
	s := startStack(t, stackOptions{coord: func(c *coordinator.Config) { c.DeadlockTimeout = time.Minute }})
	t.Run("Timeouts", func(t *testing.T) { testDeadlockAndTimeouts(t, s) })
	t.Run("Show", func(t *testing.T) { testShowLockWaits(t, s) })
	t.Run("RetrySerialization", func(t *testing.T) { testRetrySerialization(t, s) })
	t.Run("RetryCancelled", func(t *testing.T) { testRetryCancelled(t, s) })
	t.Run("RetryEnds", func(t *testing.T) { testRetryEnds(t, s) })
}

// testDeadlockOverNodes: the victim hears of it in Postgres's words, its locks on all nodes are gone before it says ROLLBACK, and the
// other goes on.
func testDeadlockOverNodes(t *testing.T, s *stack) {
	keys := s.fill(t)
	one, two := s.client(t), s.client(t)
	wantRun(t, one, "BEGIN;"+add(keys[0][0]), "BEGIN\nUPDATE 1")
	wantRun(t, two, "BEGIN;"+add(keys[1][0])+";"+add(keys[2][1]), "BEGIN\nUPDATE 1\nUPDATE 1")
	for name, where := range map[string]string{"here": " WHERE id = '" + keys[2][0] + "'", "there": ""} { // at one node, at all
		wantRun(t, two, "DECLARE "+name+" CURSOR FOR SELECT id FROM accounts"+where, "DECLARE CURSOR")
	}
	first := s.begun(t, one, "b", add(keys[1][0]))
	second := s.begun(t, two, "a", add(keys[0][0]))
	a := receive(t, second) // it has closed the cycle
	if a.err == nil || a.err.Code != "40P01" || a.err.Message != "deadlock detected" || a.err.Hint != "See server log for query details." {
		t.Fatalf("the victim hears %+v", a.err)
	}
	for _, want := range []string{
		`(?m)^Node "a": Process \d+ waits for ShareLock on transaction \d+; blocked by process \d+\.$`,
		`(?m)^Node "b": Process \d+ waits for ShareLock on transaction \d+; blocked by process \d+\.$`,
		`(?m)^Node "a": Process \d+ is one transaction with process \d+ on node "b"\.$`,
	} {
		if !regexp.MustCompile(want).MatchString(a.err.Detail) {
			t.Errorf("no %s in\n%s", want, a.err.Detail)
		}
	}
	if a := receive(t, first); a.err != nil || a.tag != "UPDATE 1" {
		t.Fatalf("the other hears %+v", a)
	}
	// The victim has not said ROLLBACK, and holds nothing any more.
	wantRun(t, s.client(t), "SET lock_timeout = '2s'; "+add(keys[2][1]), "SET\nUPDATE 1")
	wantStatus(t, two, 'E')
	// Its portals are as gone as in Postgres, where they can still be closed. Their connections are others' by now.
	for _, name := range []string{"here", "there"} {
		two.Frontend().Send(&pgproto3.Close{ObjectType: 'P', Name: name})
		two.Frontend().Send(&pgproto3.Sync{})
		if err := two.Frontend().Flush(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"*pgproto3.CloseComplete", "*pgproto3.ReadyForQuery"} {
			if msg, err := two.ReceiveMessage(t.Context()); err != nil || fmt.Sprintf("%T", msg) != want {
				t.Errorf("Close of a portal: %T %+v, %v; want %s", msg, msg, err, want)
			}
		}
	}
	wantRun(t, two, "SELECT 1", "ERROR 25P02 "+errAborted.Message)
	wantRun(t, two, "COMMIT", "ROLLBACK")
	wantRun(t, one, "COMMIT", "COMMIT")
	wantRun(t, two, add(keys[1][1]), "UPDATE 1")
	s.wantBalances(t, map[string]int64{keys[0][0]: 1001, keys[1][0]: 1001, keys[2][1]: 1001, keys[1][1]: 1001})
	s.idle(t)
	if strings.Contains(a.err.Detail, "prepared") {
		t.Error(a.err.Detail)
	}
}

// ring makes two sessions hold one row each, on a and b, in blocks, and returns them; what each then asks of the other's is a deadlock.
func (s *stack) ring(t *testing.T, keys [3][2]string) (one, two *pgconn.PgConn) {
	t.Helper()
	one, two = s.client(t), s.client(t)
	wantRun(t, one, "BEGIN;"+add(keys[0][0]), "BEGIN\nUPDATE 1")
	wantRun(t, two, "BEGIN;"+add(keys[1][0]), "BEGIN\nUPDATE 1")
	return one, two
}

// testDeadlockInSavepoint: as in Postgres the victim's savepoint is undone, with the locks it has taken, what was locked before it stays,
// and ROLLBACK TO goes on from there.
func testDeadlockInSavepoint(t *testing.T, s *stack) {
	keys := s.fill(t)
	one, two := s.client(t), s.client(t)
	wantRun(t, one, "BEGIN;"+add(keys[0][0]), "BEGIN\nUPDATE 1")
	wantRun(t, two, "BEGIN;"+add(keys[2][0])+";SAVEPOINT s;"+add(keys[1][0]), "BEGIN\nUPDATE 1\nSAVEPOINT\nUPDATE 1")
	first := s.begun(t, one, "b", add(keys[1][0]))
	second := s.begun(t, two, "a", add(keys[0][0]))
	if a := receive(t, second); a.err == nil || a.err.Code != "40P01" {
		t.Fatalf("%+v", a.err)
	}
	if a := receive(t, first); a.err != nil {
		t.Fatalf("what waits for a lock of the savepoint's hears %+v", a.err)
	}
	wantStatus(t, two, 'E')
	wantRun(t, s.client(t), "SET lock_timeout = '50ms'; "+add(keys[2][0]), "SET\nERROR 55P03 canceling statement due to lock timeout")
	wantRun(t, one, "COMMIT", "COMMIT")
	wantRun(t, two, "ROLLBACK TO s;"+add(keys[1][0])+";COMMIT", "ROLLBACK\nUPDATE 1\nCOMMIT")
	s.wantBalances(t, map[string]int64{keys[0][0]: 1001, keys[1][0]: 1002, keys[2][0]: 1001})
	s.idle(t)
}

// testDeadlockAndTimeouts: what the client has set ends a wait first if it is shorter, and nobody is a victim then.
func testDeadlockAndTimeouts(t *testing.T, s *stack) {
	keys := s.fill(t)
	for setting, want := range map[string]string{
		"lock_timeout": "55P03", "statement_timeout": "57014",
	} {
		one, two := s.ring(t, keys)
		wantRun(t, two, "SET LOCAL "+setting+" = '300ms'", "SET")
		first := s.begun(t, one, "b", add(keys[1][0]))
		second := s.begun(t, two, "a", add(keys[0][0]))
		if a := receive(t, second); a.err == nil || a.err.Code != want {
			t.Errorf("%s: %+v", setting, a.err)
		}
		wantRun(t, two, "ROLLBACK", "ROLLBACK")
		if a := receive(t, first); a.err != nil {
			t.Errorf("%s: the other hears %+v", setting, a.err)
		}
		wantRun(t, one, "ROLLBACK", "ROLLBACK")
	}
	s.idle(t)
}

// testShowLockWaits: who waits for whom, and whose they are.
func testShowLockWaits(t *testing.T, s *stack) {
	keys := s.fill(t)
	watcher := s.client(t)
	wantRun(t, watcher, "SHOW pgpact.lock_waits", "SHOW")
	one, two := s.ring(t, keys)
	first := s.begun(t, one, "b", add(keys[1][0]))
	rows := strings.Fields(run(t, watcher, "SHOW pgpact.lock_waits"))
	if len(rows) < 3 || !strings.Contains(strings.Join(rows, " "), "false") {
		t.Errorf("one waits: %q", rows)
	}
	second := s.begun(t, two, "a", add(keys[0][0]))
	got := run(t, watcher, "SHOW pgpact.lock_waits")
	for _, want := range []string{`\bb,\d+,\d+#\d+,\d+,ShareLock,transaction \d+,`, `\ba,\d+,\d+#\d+,\d+,ShareLock,transaction \d+,`, `process \d+,\d+#\d+,true.*process \d+,\d+#\d+,true`} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	cancel(t, two)
	if a := receive(t, second); a.err == nil || a.err.Code != "57014" {
		t.Errorf("a cancelled wait: %+v", a.err)
	}
	wantRun(t, two, "ROLLBACK", "ROLLBACK")
	if a := receive(t, first); a.err != nil {
		t.Errorf("%+v", a.err)
	}
	wantRun(t, one, "ROLLBACK", "ROLLBACK")
	s.idle(t)
}

func cancel(t *testing.T, conn *pgconn.PgConn) {
	t.Helper()
	if err := conn.CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
}
