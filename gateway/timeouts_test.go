package gateway

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/coordinator"
)

// TestTimeouts: the times that a session may take, over several nodes, and while
// no node has its statement.
func TestTimeouts(t *testing.T) {
	s := startStack(t, stackOptions{slots: 2})
	for name, test := range map[string]func(*testing.T, *stack){
		"while a node works":     testTimeoutAtWork,
		"while the client idles": testTimeoutIdle,
		"setting":                testTimeoutSetting,
		"slot":                   testTimeoutSlot,
		"copy":                   testTimeoutCopy,
		"statement":              testStatementTimeout,
		"idle branch":            testIdleBranch,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, s)
			s.idle(t)
		})
	}
}

// wantEnd: the session ends with the error, without being asked anything.
func wantEnd(t *testing.T, conn *pgconn.PgConn, code string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	wantCode(t, conn.WaitForNotification(ctx), code)
}

const transactionEnded = "ERROR 25P04 terminating connection due to transaction timeout"

func withSetting(name, value string) func(*pgconn.Config) {
	return func(config *pgconn.Config) { config.RuntimeParams[name] = value }
}

func testTimeoutAtWork(t *testing.T, s *stack) {
	keys := s.fill(t)
	sleep := func(key string) string {
		return "SELECT pg_sleep(60) FROM accounts WHERE id = '" + key + "'"
	}
	// A statement alone, one in a block, one over all nodes, and the rest of a string.
	for _, sql := range []string{
		sleep(keys[1][0]),
		"BEGIN; UPDATE accounts SET balance = 1 WHERE id = '" + keys[0][0] + "'; " + sleep(keys[1][0]),
		"SELECT pg_sleep(60) FROM accounts",
		"SELECT 1; " + sleep(keys[1][0]),
	} {
		conn := s.client(t, withSetting(transactionTimeout, "300ms"))
		began := time.Now()
		got := run(t, conn, sql)
		if !strings.HasSuffix(got, transactionEnded) {
			t.Errorf("%s: %q", sql, got)
		}
		if took := time.Since(began); took < 300*time.Millisecond || took > 20*time.Second {
			t.Errorf("%s: ended after %s", sql, took)
		}
		if !conn.IsClosed() {
			t.Errorf("%s: the session goes on", sql)
		}
		s.idle(t)
		s.wantBalances(t, map[string]int64{keys[0][0]: 1000})
	}
}

func testTimeoutIdle(t *testing.T, s *stack) {
	keys := s.fill(t)
	for _, sql := range []string{
		"BEGIN", // no node has heard of it
		"BEGIN; UPDATE accounts SET balance = 1 WHERE id IN ('" + keys[0][0] + "', '" + keys[1][0] + "')",
		"SET idle_in_transaction_session_timeout = '100ms'; BEGIN; SET LOCAL idle_in_transaction_session_timeout = '1h'",
		"BEGIN; SAVEPOINT s; SELECT 1/0", // a subtransaction has failed
		"BEGIN; COMMIT AND CHAIN",
	} {
		conn := s.client(t, withSetting(transactionTimeout, "100ms"))
		run(t, conn, sql)
		wantEnd(t, conn, "25P04")
		s.idle(t)
		s.wantBalances(t, map[string]int64{keys[0][0]: 1000, keys[1][0]: 1000})
	}
	// The shorter one wins.
	conn := s.client(t, withSetting(transactionTimeout, "1h"))
	run(t, conn, "SET idle_in_transaction_session_timeout = '100ms'; BEGIN")
	wantEnd(t, conn, "25P03")
	// Nothing is counted outside of transactions, nor in one that has failed.
	conn = s.client(t, withSetting(transactionTimeout, "100ms"))
	run(t, conn, "SET idle_session_timeout = '400ms'")
	wantEnd(t, conn, "57P05")
	conn = s.client(t, withSetting(transactionTimeout, "100ms"))
	run(t, conn, "SET idle_in_transaction_session_timeout = '400ms'") // one string would be one transaction
	run(t, conn, "BEGIN; SELECT 1/0")
	wantStatus(t, conn, 'E')
	wantEnd(t, conn, "25P03")
}

func testTimeoutSetting(t *testing.T, s *stack) {
	conn := s.client(t)
	for _, step := range [][2]string{
		{"SHOW transaction_timeout", "SHOW: 0"},
		{"SET transaction_timeout = 90000", "SET"},
		{"SHOW transaction_timeout", "SHOW: 90s"},
		{"SET transaction_timeout = '2 min'", "SET"},
		{"SELECT current_setting('transaction_timeout')", "SELECT 1: 2min"},
		{"SELECT set_config('transaction_timeout', '1h', false), current_setting('transaction_timeout')", "SELECT 1: 1h,1h"},
		{"SET transaction_timeout = 'long'", `ERROR 22023 invalid value for parameter "transaction_timeout": "long"`},
		{"BEGIN; SET LOCAL transaction_timeout = '3h'", "BEGIN\nSET"},
		{"SHOW transaction_timeout", "SHOW: 3h"},
		{"COMMIT", "COMMIT"},
		{"SHOW transaction_timeout", "SHOW: 1h"},
		{"BEGIN; SET transaction_timeout = '3h'; ROLLBACK", "BEGIN\nSET\nROLLBACK"},
		{"SHOW transaction_timeout", "SHOW: 1h"},
		{"RESET transaction_timeout", "RESET"},
		{"SHOW transaction_timeout", "SHOW: 0"},
	} {
		wantRun(t, conn, step[0], step[1])
	}
	// Switched on in a transaction it counts from there, switched off no more.
	run(t, conn, "SET idle_in_transaction_session_timeout = '400ms'")
	run(t, conn, "BEGIN; SET LOCAL transaction_timeout = '50ms'; SET LOCAL transaction_timeout = 0")
	wantEnd(t, conn, "25P03")
	conn = s.client(t)
	run(t, conn, "BEGIN; SET LOCAL transaction_timeout = '50ms'")
	wantEnd(t, conn, "25P04")
}

// hold takes all transaction slots, until the test ends or done is called.
func (s *stack) hold(t *testing.T) (done func()) {
	t.Helper()
	var held []*coordinator.Transaction
	for range 2 {
		taken, err := s.gateway.coordinator.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, taken)
	}
	return func() {
		for _, taken := range held {
			taken.End()
		}
	}
}

func testTimeoutSlot(t *testing.T, s *stack) {
	conn, bounded := s.client(t), s.client(t)
	run(t, conn, "SET transaction_timeout = '200ms'")
	run(t, bounded, "SET statement_timeout = '200ms'")
	done := s.hold(t)
	defer done()
	wantRun(t, bounded, "SELECT 1", "ERROR 57014 canceling statement due to statement timeout")
	wantRun(t, bounded, "BEGIN; SELECT 1", "BEGIN\nERROR 57014 canceling statement due to statement timeout")
	wantStatus(t, bounded, 'E')
	wantRun(t, conn, "SELECT 1", transactionEnded)
}

func testTimeoutCopy(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := dialRaw(t, s.url)
	defer conn.Conn.Close()
	conn.Frontend.Send(&pgproto3.Query{String: "SET transaction_timeout = '300ms'"})
	conn.Frontend.Send(&pgproto3.Query{String: "COPY accounts FROM STDIN"})
	conn.Frontend.Send(&pgproto3.CopyData{Data: []byte("new-" + keys[0][0] + "\t5\n")})
	if err := conn.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	_, _ = copyAnswers(t, conn.Frontend) // to SET
	if text, copying := copyAnswers(t, conn.Frontend); !copying {
		t.Fatal(text)
	}
	// The client says nothing more.
	msg, err := conn.Frontend.Receive()
	if failed, ok := msg.(*pgproto3.ErrorResponse); !ok || failed.Code != "25P04" {
		t.Errorf("%#v, %v", msg, err)
	}
	s.idle(t)
	wantRun(t, s.client(t), "SELECT id FROM accounts WHERE id = 'new-"+keys[0][0]+"'", "SELECT 0")
}

// testStatementTimeout: one node takes too long, the other has done its part.
func testStatementTimeout(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t, withSetting("statement_timeout", "300ms"))
	const canceled = "ERROR 57014 canceling statement due to statement timeout"
	slow := "UPDATE accounts SET balance = 5 WHERE id IN ('" + keys[0][0] + "','" + keys[1][0] + "') AND (id = '" + keys[0][0] +
		"' OR pg_sleep(60) IS NOT NULL)"
	wantRun(t, conn, slow, canceled)
	wantStatus(t, conn, 'I')
	wantRun(t, conn, "BEGIN; "+slow, "BEGIN\n"+canceled)
	wantStatus(t, conn, 'E')
	wantRun(t, conn, "ROLLBACK; SELECT 1", "ROLLBACK\nSELECT 1: 1")
	s.wantBalances(t, map[string]int64{keys[0][0]: 1000, keys[1][0]: 1000})
}

// testIdleBranch: a branch that waits for another node's statement is not an
// idle session.
func testIdleBranch(t *testing.T, s *stack) {
	keys := s.fill(t)
	for _, begin := range []string{
		"SET idle_in_transaction_session_timeout = '300ms'; BEGIN",
		"BEGIN; SELECT set_config('idle_in_transaction_session_timeout', '300ms', true)",
	} {
		conn := s.client(t)
		run(t, conn, begin)
		wantRun(t, conn, "UPDATE accounts SET balance = balance - 1 WHERE id = '"+keys[0][0]+"'; UPDATE accounts SET balance = balance + 1 WHERE id = '"+
			keys[1][0]+"'", "UPDATE 1\nUPDATE 1")
		wantRun(t, conn, "SELECT pg_sleep(0.9) FROM accounts WHERE id = '"+keys[1][0]+"'; COMMIT", "SELECT 1: \nCOMMIT")
		run(t, conn, begin+"; UPDATE accounts SET balance = 0 WHERE id = '"+keys[0][0]+"'")
		wantEnd(t, conn, "25P03")
	}
	s.wantBalances(t, map[string]int64{keys[0][0]: 998, keys[1][0]: 1002})
}
