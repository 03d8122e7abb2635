package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// testRefusedOpening: a node that refuses what must run before the first
// statement of its branch must not run the statement either. Sent as two
// messages, it would run in autocommit.
func testRefusedOpening(t *testing.T, s *stack) {
	keys := s.fill(t)
	for _, sql := range []string{"DROP TEXT SEARCH CONFIGURATION IF EXISTS here", "CREATE TEXT SEARCH CONFIGURATION here (COPY = simple)"} {
		if _, err := s.direct["a"].Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	conn := s.client(t)
	pgx := s.connect(t, pgx.QueryExecModeExec)
	const setting = "SET LOCAL default_text_search_config = 'public.here'"
	wantRun(t, conn, "BEGIN", "BEGIN")
	wantRun(t, conn, setting, "SET")
	want := `ERROR 22023 invalid value for parameter "default_text_search_config": "public.here"`
	wantRun(t, conn, "UPDATE accounts SET balance = 7 WHERE id = '"+keys[1][0]+"'", want)
	wantStatus(t, conn, 'E')
	wantRun(t, conn, "COMMIT", "ROLLBACK")
	for _, sql := range []string{"BEGIN", setting} {
		if _, err := pgx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	_, err := pgx.Exec(t.Context(), "UPDATE accounts SET balance = $1 WHERE id = $2", 7, keys[1][0])
	wantCode(t, err, "22023")
	if _, err := pgx.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	s.wantBalances(t, map[string]int64{keys[1][0]: 1000})
}

// terminate ends the server processes at a node that match, and says how many.
func (s *stack) terminate(t *testing.T, node, condition string) int {
	t.Helper()
	var n int
	err := s.direct[node].QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE pid <> pg_backend_pid() AND usename = 'pgpact' AND `+condition).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// await waits until a query at a node returns true.
func (s *stack) await(t *testing.T, node, sql string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		var ok bool
		if err := s.direct[node].QueryRow(t.Context(), sql).Scan(&ok); err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still false after 10 s: %s", sql)
		}
	}
}

func testLostBranch(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t)
	wantRun(t, conn, "BEGIN", "BEGIN")
	wantRun(t, conn, "SAVEPOINT s", "SAVEPOINT")
	wantRun(t, conn, "UPDATE accounts SET balance = 1 WHERE id = '"+keys[0][0]+"'", "UPDATE 1")
	wantRun(t, conn, "UPDATE accounts SET balance = 1 WHERE id = '"+keys[1][0]+"'", "UPDATE 1")
	if n := s.terminate(t, "b", "state = 'idle in transaction'"); n != 1 {
		t.Fatalf("%d processes terminated, want 1", n)
	}
	s.await(t, "b", "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction'")
	got := run(t, conn, "SELECT balance FROM accounts WHERE id = '"+keys[1][0]+"'")
	if !strings.HasPrefix(got, `ERROR 08006 `) || !strings.Contains(got, `"b"`) {
		t.Errorf("got %q", got)
	}
	wantStatus(t, conn, 'E')
	if got := run(t, conn, "ROLLBACK TO s"); !strings.HasPrefix(got, "ERROR 08006 ") {
		t.Errorf("ROLLBACK TO: %q", got)
	}
	wantRun(t, conn, "COMMIT", "ROLLBACK")
	s.wantBalances(t, map[string]int64{keys[0][0]: 1000, keys[1][0]: 1000})
	wantRun(t, conn, "SELECT balance FROM accounts WHERE id = '"+keys[1][0]+"'", "SELECT 1: 1000")

	// Lost between the last statement and COMMIT: certainly aborted.
	wantRun(t, conn, "BEGIN", "BEGIN")
	wantRun(t, conn, "UPDATE accounts SET balance = 1 WHERE id = '"+keys[0][0]+"'", "UPDATE 1")
	wantRun(t, conn, "UPDATE accounts SET balance = 1 WHERE id = '"+keys[1][0]+"'", "UPDATE 1")
	s.terminate(t, "b", "state = 'idle in transaction'")
	s.await(t, "b", "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction'")
	if got := run(t, conn, "COMMIT"); !strings.HasPrefix(got, "ERROR 08006 ") {
		t.Errorf("COMMIT: %q", got)
	}
	wantStatus(t, conn, 'I')
	s.wantBalances(t, map[string]int64{keys[0][0]: 1000, keys[1][0]: 1000})
}

// testLostAutocommit: with an autocommit write the answer decides; without it
// nobody knows.
func testLostAutocommit(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t)
	for sql, want := range map[string]string{
		"SELECT balance, pg_sleep(60) FROM accounts WHERE id = '" + keys[0][0] + "'":                   "ERROR 08006 ",
		"UPDATE accounts SET balance = 1 WHERE id = '" + keys[0][0] + "' AND pg_sleep(60) IS NOT NULL": "ERROR 08007 ",
	} {
		done := make(chan string)
		go func() { done <- run(t, conn, sql) }()
		s.await(t, "a", "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
		s.terminate(t, "a", "wait_event = 'PgSleep'")
		if got := <-done; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
		wantStatus(t, conn, 'I')
	}
	wantRun(t, conn, "SELECT balance FROM accounts WHERE id = '"+keys[0][0]+"'", "SELECT 1: 1000")
}

func testVanishedClient(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t)
	wantRun(t, conn, "BEGIN", "BEGIN")
	wantRun(t, conn, "UPDATE accounts SET balance = 1 WHERE id = '"+keys[0][0]+"'", "UPDATE 1")
	_ = conn.Conn().Close()
	s.idle(t)
	s.wantBalances(t, map[string]int64{keys[0][0]: 1000})

	conn = s.client(t)
	_, _ = conn.Conn().Write(append([]byte("Q\x00\x00\x00\x18"), "SELECT pg_sleep(60)\x00"...))
	s.await(t, "a", "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
	_ = conn.Conn().Close()
	s.await(t, "a", "SELECT count(*) = 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
}

func testCancel(t *testing.T, s *stack) {
	conn := s.client(t)
	for _, block := range []bool{false, true} {
		if block {
			wantRun(t, conn, "BEGIN", "BEGIN")
		}
		done := make(chan string)
		go func() { done <- run(t, conn, "SELECT pg_sleep(60)") }()
		s.await(t, "a", "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
		if err := conn.CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := <-done; got != "ERROR 57014 canceling statement due to user request" {
			t.Errorf("cancelled statement: %q", got)
		}
	}
	wantStatus(t, conn, 'E')
	wantRun(t, conn, "ROLLBACK", "ROLLBACK")
	for range 20 { // a cancel that comes while nothing runs, or too late, hits nothing
		if err := conn.CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantRun(t, conn, "SELECT 1", "SELECT 1: 1")
	}
}

// TestNodeDown: what needs the node fails and names it, the rest goes on.
func TestNodeDown(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	conn := s.client(t)
	if err := s.set.Server("a").Kill(); err != nil {
		t.Fatal(err)
	}
	if got := run(t, conn, "SELECT balance FROM accounts WHERE id = '"+keys[0][0]+"'"); !strings.HasPrefix(got, "ERROR 08006 ") || !strings.Contains(got, `"a"`) {
		t.Errorf("got %q", got)
	}
	wantRun(t, conn, "SELECT 1", "SELECT 1: 1")
	wantRun(t, conn, "SELECT balance FROM accounts WHERE id = '"+keys[1][0]+"'", "SELECT 1: 1000")
	wantRun(t, conn, "BEGIN", "BEGIN")
	wantRun(t, conn, "UPDATE accounts SET balance = 3 WHERE id = '"+keys[1][0]+"'", "UPDATE 1")
	if got := run(t, conn, "UPDATE accounts SET balance = 3 WHERE id = '"+keys[0][0]+"'"); !strings.HasPrefix(got, "ERROR 08006 ") {
		t.Errorf("got %q", got)
	}
	wantRun(t, conn, "COMMIT", "ROLLBACK")
	s.wantBalances(t, map[string]int64{keys[1][0]: 1000})
	late := s.client(t)
	wantRun(t, late, "SELECT 1", "SELECT 1: 1")
}
