package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/coordinator"
)

// TestSession runs what needs no stack of its own.
func TestSession(t *testing.T) {
	s := startStack(t, stackOptions{})
	for name, test := range map[string]func(*testing.T, *stack){
		"transfer":             testTransfer,
		"several nodes":        testSeveralNodes,
		"serializable":         testSerializable,
		"settings everywhere":  testSettingsEverywhere,
		"refused opening":      testRefusedOpening,
		"lost branch":          testLostBranch,
		"lost autocommit":      testLostAutocommit,
		"vanished client":      testVanishedClient,
		"cancel":               testCancel,
		"tracked":              testTracked,
		"outcome":              testOutcome,
		"counter":              testCounter,
		"startup":              testStartup,
		"idle timeouts":        testIdleTimeouts,
		"portal over nodes":    testPortalOverNodes,
		"changed tables":       testChangedTables,
		"own settings refused": testOwnSettingsRefused,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, s)
			s.idle(t)
		})
	}
}

func testTransfer(t *testing.T, s *stack) {
	keys := s.fill(t)
	a, b := keys[0][0], keys[1][0]
	conn := s.client(t)
	transfer := func(amount int) {
		wantRun(t, conn, "BEGIN", "BEGIN")
		wantRun(t, conn, fmt.Sprintf("UPDATE accounts SET balance = balance + %d WHERE id = '%s'", amount, b), "UPDATE 1")
		run(t, conn, fmt.Sprintf("UPDATE accounts SET balance = balance - %d WHERE id = '%s'", amount, a))
	}
	transfer(300)
	wantRun(t, conn, "COMMIT", "COMMIT")
	s.wantBalances(t, map[string]int64{a: 700, b: 1300})
	transfer(300)
	wantRun(t, conn, "ROLLBACK", "ROLLBACK")
	s.wantBalances(t, map[string]int64{a: 700, b: 1300})
	transfer(701) // too much
	wantStatus(t, conn, 'E')
	wantRun(t, conn, "COMMIT", "ROLLBACK")
	s.wantBalances(t, map[string]int64{a: 700, b: 1300})
}

func testSeveralNodes(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t)
	all := "'" + keys[0][0] + "','" + keys[1][0] + "','" + keys[2][0] + "'"
	wantRun(t, conn, "UPDATE accounts SET balance = balance + 1 WHERE id IN ("+all+")", "UPDATE 3")
	wantRun(t, conn, "SELECT balance FROM accounts WHERE id IN ("+all+")", "SELECT 3: 1001 1001 1001")
	// The second node refuses: the first must not keep it.
	wantRun(t, conn, "UPDATE accounts SET balance = CASE id WHEN '"+keys[1][0]+"' THEN -1 ELSE 5 END",
		`ERROR 23514 new row for relation "accounts" violates check constraint "accounts_balance_check"`)
	wantStatus(t, conn, 'I')
	s.wantBalances(t, map[string]int64{keys[0][0]: 1001, keys[1][0]: 1001, keys[2][1]: 1000})
	wantRun(t, conn, "DELETE FROM accounts RETURNING balance", "DELETE 6: 1000 1001 1000 1001 1000 1001")
	wantRun(t, conn, "SELECT id FROM accounts", "SELECT 0")
}

func testSerializable(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t)
	const refused = "ERROR 0A000 a SERIALIZABLE transaction cannot span several nodes"
	wantRun(t, conn, "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN")
	wantRun(t, conn, "SELECT balance FROM accounts WHERE id = '"+keys[0][0]+"'", "SELECT 1: 1000")
	wantRun(t, conn, "SELECT balance FROM accounts WHERE id = '"+keys[1][0]+"'", refused)
	wantRun(t, conn, "COMMIT", "ROLLBACK")
	wantRun(t, conn, "SET default_transaction_isolation = serializable", "SET")
	wantRun(t, conn, "SELECT id FROM accounts", refused)
	wantRun(t, conn, "UPDATE accounts SET balance = 5", refused)
	wantRun(t, conn, "UPDATE accounts SET balance = 5 WHERE id = '"+keys[1][0]+"'", "UPDATE 1")
}

func testSettingsEverywhere(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t)
	where := "SELECT current_setting('TimeZone') || ' ' || current_setting('application_name') FROM accounts WHERE id = "
	check := func(want string) {
		t.Helper()
		for _, pair := range keys {
			wantRun(t, conn, where+"'"+pair[0]+"'", "SELECT 1: "+want)
		}
	}
	wantRun(t, conn, "SET timezone = 'Europe/Paris'", "SET")
	wantRun(t, conn, "SET application_name = 'it''s \\me'", "SET")
	check(`Europe/Paris it's \me`)
	wantRun(t, conn, "BEGIN", "BEGIN")
	wantRun(t, conn, where+"'"+keys[2][0]+"'", `SELECT 1: Europe/Paris it's \me`)
	wantRun(t, conn, "SET application_name = 'two'", "SET")
	wantRun(t, conn, "SAVEPOINT s", "SAVEPOINT")
	wantRun(t, conn, "SET application_name = 'three'", "SET")
	wantRun(t, conn, "SET LOCAL timezone = 'UTC'", "SET")
	check("UTC three")
	wantRun(t, conn, "ROLLBACK TO s", "ROLLBACK")
	check("Europe/Paris two")
	wantRun(t, conn, "COMMIT", "COMMIT")
	check("Europe/Paris two")
	wantRun(t, conn, "RESET ALL", "RESET")
	other := s.client(t)
	for _, pair := range keys { // nothing leaks into other sessions
		wantRun(t, other, where+"'"+pair[0]+"'", "SELECT 1: Etc/UTC ")
	}
}

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

func testTracked(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t)
	wantRun(t, conn, "SHOW pgpact.transaction_id", "ERROR 25P01 SHOW pgpact.transaction_id can only be used in transaction blocks")
	wantRun(t, conn, "BEGIN", "BEGIN")
	id := run(t, conn, "SHOW pgpact.transaction_id")
	if again := run(t, conn, "SHOW pgpact.transaction_id"); again != id || !strings.HasPrefix(id, "SHOW: ") {
		t.Errorf("transaction ids %q, %q", id, again)
	}
	wantRun(t, conn, "UPDATE accounts SET balance = 1 WHERE id = '"+keys[0][0]+"'", "UPDATE 1")
	wantRun(t, conn, "COMMIT", "COMMIT")
	s.wantBalances(t, map[string]int64{keys[0][0]: 1})
	var n int
	if err := s.direct["a"].QueryRow(t.Context(), "SELECT count(*) FROM pgpact.branches WHERE epoch::text || '/' || sequence::text = $1",
		strings.TrimPrefix(id, "SHOW: ")).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d branch records of the tracked transaction, %v", n, err)
	}

	key := fmt.Sprintf("order-%d", time.Now().UnixNano())
	set := "SET LOCAL pgpact.idempotency_key = '" + key + "'"
	wantRun(t, conn, set, "ERROR 25P01 SET LOCAL pgpact.idempotency_key can only be used in transaction blocks")
	update := "UPDATE accounts SET balance = balance + 1 WHERE id = '" + keys[0][0] + "'"
	wantRun(t, conn, "BEGIN; "+set+"; "+update+"; COMMIT", "BEGIN\nSET\nUPDATE 1\nCOMMIT")
	got := run(t, conn, "BEGIN; "+set+"; "+update+"; COMMIT")
	if !strings.HasPrefix(got, "BEGIN\nERROR 23505 ") {
		t.Errorf("the same key again: %q", got)
	}
	wantRun(t, conn, "ROLLBACK", "ROLLBACK")
	s.wantBalances(t, map[string]int64{keys[0][0]: 2})
}

// testCounter: a row locked on one node protects a counter on others. Read-only
// but locking branches must commit last, and count as writing.
func testCounter(t *testing.T, s *stack) {
	keys := s.fill(t)
	lock, left, right := keys[2][0], keys[0][0], keys[1][0]
	clients, rounds := 8, 50
	var wg sync.WaitGroup
	errs := make(chan error, clients)
	for range clients {
		conn := s.connect(t, pgx.QueryExecModeSimpleProtocol)
		wg.Go(func() {
			for range rounds {
				if err := count(t.Context(), conn, lock, left, right); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	want := int64(1000 + clients*rounds)
	s.wantBalances(t, map[string]int64{left: want, right: want})
}

// count reads a number without a lock of its own and writes it back, plus one,
// on two nodes, under a lock on a third.
func count(ctx context.Context, conn *pgx.Conn, lock, left, right string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT balance FROM accounts WHERE id = $1 FOR UPDATE", lock); err != nil {
			return err
		}
		var n int64
		if err := tx.QueryRow(ctx, "SELECT balance FROM accounts WHERE id = $1", left).Scan(&n); err != nil {
			return err
		}
		for _, key := range []string{left, right} {
			if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = $1 WHERE id = $2", n+1, key); err != nil {
				return err
			}
		}
		return nil
	})
}

func testStartup(t *testing.T, s *stack) {
	conn := s.client(t, func(c *pgconn.Config) {
		c.RuntimeParams["options"] = `-c search_path=public -c DateStyle=German --work-mem=3MB -c application_name=from\ options`
		c.RuntimeParams["TimeZone"] = "Asia/Tokyo"
	})
	for name, want := range map[string]string{
		"TimeZone": "Asia/Tokyo", "DateStyle": "German, DMY", "application_name": "from options",
		"session_authorization": "carol", "is_superuser": "off", "client_encoding": "UTF8", "standard_conforming_strings": "on",
	} {
		if got := conn.ParameterStatus(name); got != want {
			t.Errorf("reported %s = %q, want %q", name, got, want)
		}
	}
	wantRun(t, conn, "SHOW work_mem", "SHOW: 3MB")
	wantRun(t, conn, "SET work_mem = '5MB'; RESET work_mem; SHOW work_mem", "SET\nRESET\nSHOW: 3MB")
	wantRun(t, conn, "SET work_mem = '5MB'", "SET")
	wantRun(t, conn, "DISCARD ALL", "DISCARD ALL")
	wantRun(t, conn, "SHOW work_mem", "SHOW: 3MB")

	for _, test := range []struct{ name, value, code string }{
		{"TimeZone", "Nowhere/At_all", "22023"},
		{"nonsense", "1", "42704"},
		{"client_encoding", "LATIN1", "22023"},
		{"options", "nonsense", "42601"},
		{"options", "-c standard_conforming_strings=off", "0A000"},
		{"role", "postgres", "0A000"},
	} {
		config, err := pgconn.ParseConfig(s.url)
		if err != nil {
			t.Fatal(err)
		}
		config.RuntimeParams[test.name] = test.value
		_, err = pgconn.ConnectConfig(t.Context(), config)
		wantCode(t, err, test.code)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Severity != "FATAL" {
			t.Errorf("%s=%s: severity %s", test.name, test.value, pgErr.Severity)
		}
	}
	config, err := pgconn.ParseConfig(s.url)
	if err != nil {
		t.Fatal(err)
	}
	config.Database = "other"
	_, err = pgconn.ConnectConfig(t.Context(), config)
	wantCode(t, err, "3D000")
}

func testIdleTimeouts(t *testing.T, s *stack) {
	for setting, code := range map[string]string{
		"SET idle_session_timeout = 50":                       "57P05",
		"SET idle_in_transaction_session_timeout = 50; BEGIN": "25P03",
	} {
		conn := s.client(t)
		if got := run(t, conn, setting); strings.Contains(got, "ERROR") {
			t.Fatal(got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := conn.WaitForNotification(ctx)
		cancel()
		wantCode(t, err, code)
	}
}

func testPortalOverNodes(t *testing.T, s *stack) {
	s.fill(t)
	const script = `P||select balance from accounts
B|p|
E|p|4
E|p|4
S
P||select balance from accounts
B|p|
E|p|6
E|p|6
S
P||update accounts set balance = 7 returning balance
B|p|
E|p|5
E|p|5
S
P||select balance from accounts
B|p|
E|p|1
E|p|9
S`
	row := func(n int, balance string) string { return strings.Repeat("DataRow \""+balance+"\"\n", n) }
	const bound, suspended, ready = "ParseComplete\nBindComplete\n", "PortalSuspended\n", "ReadyForQuery I\n"
	want := bound + row(4, "1000") + suspended + row(2, "1000") + "CommandComplete SELECT 2\n" + ready +
		bound + row(6, "1000") + suspended + "CommandComplete SELECT 0\n" + ready +
		bound + row(5, "7") + suspended + row(1, "7") + "CommandComplete UPDATE 6\n" + ready +
		// a limit below what each node has
		bound + row(1, "7") + suspended + row(5, "7") + "CommandComplete SELECT 5\n" + ready
	got := ""
	for _, a := range converse(t, s.url, script) {
		got += a.text
	}
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// testChangedTables: a statement whose columns have changed since its client
// prepared it fails as in Postgres; one prepared since does not, whatever the
// connections behind the gateway still remember.
func testChangedTables(t *testing.T, s *stack) {
	keys := s.fill(t)
	everywhere := func(sql string) {
		t.Helper()
		for _, conn := range s.direct {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	everywhere("CREATE TABLE things (id text PRIMARY KEY, n int)")
	everywhere("GRANT ALL ON things TO pgpact")
	defer everywhere("DROP TABLE things")
	query := func(conn *pgx.Conn) error {
		rows, err := conn.Query(t.Context(), "SELECT * FROM things WHERE id = $1", keys[0][0])
		if err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	}
	old := s.connect(t, pgx.QueryExecModeCacheStatement)
	if err := query(old); err != nil {
		t.Fatal(err)
	}
	everywhere("ALTER TABLE things ADD COLUMN m int")
	wantCode(t, query(old), "0A000")
	if err := query(s.connect(t, pgx.QueryExecModeCacheStatement)); err != nil {
		t.Error(err)
	}
	if err := query(old); err != nil { // pgx has prepared it anew
		t.Error(err)
	}
}

func testOwnSettingsRefused(t *testing.T, s *stack) {
	conn := s.client(t)
	for sql, want := range map[string]string{
		"SET pgpact.nonsense = 1":                  `ERROR 42704 unrecognized configuration parameter "pgpact.nonsense"`,
		"SHOW pgpact.nonsense":                     `ERROR 42704 unrecognized configuration parameter "pgpact.nonsense"`,
		"SET pgpact.idempotency_key = 'x'":         "ERROR 0A000 pgpact.idempotency_key belongs to one transaction",
		"SET standard_conforming_strings = off":    "ERROR 0A000 standard_conforming_strings = off is not supported through the gateway",
		"SET client_encoding = 'LATIN1'":           `ERROR 22023 client_encoding "LATIN1" is not supported through the gateway`,
		"SET ROLE postgres":                        `ERROR 0A000 changing "role" is not supported through the gateway`,
		"SET SESSION AUTHORIZATION postgres":       `ERROR 0A000 changing "session_authorization" is not supported through the gateway`,
		"COMMIT PREPARED 'x'":                      "ERROR 0A000 two-phase commit by the client is not supported through the gateway",
		"BEGIN; SET TRANSACTION SNAPSHOT '1'; END": "BEGIN\nERROR 0A000 SET TRANSACTION SNAPSHOT is not supported through the gateway",
	} {
		wantRun(t, conn, sql, want)
		wantRun(t, conn, "ROLLBACK", "ROLLBACK") // with a warning where nothing was begun
	}
}

// TestSlots: a transaction that gets no slot in time, or is cancelled while it
// waits, fails and has done nothing.
func TestSlots(t *testing.T) {
	s := startStack(t, stackOptions{slots: 1, coord: func(c *coordinator.Config) { c.SlotTimeout = 300 * time.Millisecond }})
	keys := s.fill(t)
	holder, waiter := s.client(t), s.client(t)
	wantRun(t, holder, "BEGIN", "BEGIN")
	wantRun(t, holder, "SELECT 1", "SELECT 1: 1")
	if got := run(t, waiter, "SELECT 1"); !strings.HasPrefix(got, "ERROR 53300 ") {
		t.Errorf("without a slot: %q", got)
	}
	wantRun(t, waiter, "BEGIN", "BEGIN") // needs none
	wantRun(t, waiter, "COMMIT", "COMMIT")
	wantRun(t, holder, "COMMIT", "COMMIT")
	wantRun(t, waiter, "UPDATE accounts SET balance = balance + 1 WHERE id = '"+keys[0][0]+"'", "UPDATE 1")
	s.idle(t)
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
