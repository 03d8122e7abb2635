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
		"serializable role":    testSerializableRole,
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
