package gateway

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

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

// testSerializableRole: a default that one node's role, or its configuration
// file, has is the session's like one that it has set itself; and what SET makes
// of the default is not for the transaction that is under way.
func testSerializableRole(t *testing.T, s *stack) {
	keys := s.fill(t)
	const refused = "ERROR 0A000 a SERIALIZABLE transaction cannot span several nodes"
	read := func(node int) string { return "SELECT balance FROM accounts WHERE id = '" + keys[node][0] + "'" }
	refuses := func(conn *pgconn.PgConn) {
		t.Helper()
		wantRun(t, conn, "SELECT id FROM accounts", refused)
		wantRun(t, conn, "BEGIN; "+read(0), "BEGIN\nSELECT 1: 1000")
		wantRun(t, conn, read(1), refused)
		wantRun(t, conn, "ROLLBACK", "ROLLBACK")
	}

	// At a node that does not greet sessions: what they do there is what the
	// session has, not what the node's role has.
	serializable := func(node string, on bool) {
		t.Helper()
		sql := "ALTER ROLE pgpact RESET default_transaction_isolation"
		if on {
			sql = "ALTER ROLE pgpact SET default_transaction_isolation = serializable"
		}
		if _, err := s.direct[node].Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		var before string // a role's defaults are for new connections
		if err := s.direct[node].QueryRow(t.Context(), "SELECT clock_timestamp()::text").Scan(&before); err != nil {
			t.Fatal(err)
		}
		s.terminate(t, node, "true")
		s.await(t, node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'pgpact' AND backend_start < '"+before+"'")
		s.gateway.greetings.Purge()
		usher := s.client(t) // meets the pool's lost connections, so that nobody else does
		for i, deadline := 0, time.Now().Add(10*time.Second); i < len(keys); {
			if got := run(t, usher, read(i)); strings.HasPrefix(got, "SELECT 1") {
				i++
			} else if time.Now().After(deadline) {
				t.Fatal(got)
			}
		}
	}
	serializable("b", true)
	defer serializable("b", false)
	conn := s.client(t)
	level := "SELECT current_setting('transaction_isolation') FROM accounts WHERE id = "
	wantRun(t, conn, level+"'"+keys[1][0]+"'", "SELECT 1: read committed")
	wantRun(t, conn, "SELECT balance FROM accounts", "SELECT 6: 1000 1000 1000 1000 1000 1000")

	serializable("a", true)
	defer serializable("a", false)
	conn = s.client(t)
	wantRun(t, conn, "SHOW default_transaction_isolation", "SHOW: serializable")
	refuses(conn)
	wantRun(t, conn, "SET default_transaction_isolation = 'read committed'", "SET")
	wantRun(t, conn, level+"'"+keys[1][0]+"'", "SELECT 1: read committed")
	wantRun(t, conn, "RESET default_transaction_isolation", "RESET")
	refuses(conn)
	wantRun(t, conn, "SET default_transaction_isolation = 'read committed'; RESET ALL", "SET\nRESET")
	refuses(conn)
	// Too late for the block that is under way, and for one chained to it.
	for _, end := range []string{"", "; COMMIT AND CHAIN"} {
		run(t, conn, "BEGIN; SET default_transaction_isolation = 'read committed'"+end)
		wantRun(t, conn, level+"'"+keys[0][0]+"'", "SELECT 1: serializable")
		wantRun(t, conn, read(1), refused)
		wantRun(t, conn, "ROLLBACK; RESET ALL", "ROLLBACK\nRESET")
	}
	capitals := s.client(t, func(config *pgconn.Config) { config.RuntimeParams[isolationDefault] = "SERIALIZABLE" })
	refuses(capitals)
	sober := s.client(t, func(config *pgconn.Config) {
		config.RuntimeParams["options"] = "-c default_transaction_isolation=read\\ committed"
	})
	wantRun(t, sober, "SELECT balance FROM accounts", "SELECT 6: 1000 1000 1000 1000 1000 1000")
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
