package gateway

import (
	"fmt"
	"testing"
)

func TestSimpleQuery(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	a, b := keys[0][0], keys[1][0]
	conn := s.client(t)

	wantRun(t, conn, "SELECT 1", "SELECT 1: 1")
	wantRun(t, conn, "", "")
	wantRun(t, conn, fmt.Sprintf("SELECT balance FROM accounts WHERE id = '%s'", a), "SELECT 1: 1000")
	wantRun(t, conn, fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = '%s'", b), "UPDATE 1")
	wantRun(t, conn, "SELEC 1", `ERROR 42601 syntax error at or near "SELEC"`)
	wantRun(t, conn, "SELECT * FROM nowhere", `ERROR 42P01 relation "nowhere" does not exist`)
	wantRun(t, conn, fmt.Sprintf("UPDATE accounts SET balance = -1 WHERE id = '%s'", b),
		`ERROR 23514 new row for relation "accounts" violates check constraint "accounts_balance_check"`)
	wantRun(t, conn, "UPDATE accounts SET balance = balance + 1", "UPDATE 6")
	s.wantBalances(t, map[string]int64{a: 1001, b: 1002})
	wantRun(t, conn, fmt.Sprintf("SELECT balance FROM accounts WHERE id IN ('%s', '%s')", a, b), "SELECT 2: 1001 1002")
	s.idle(t)

	wantRun(t, conn, "BEGIN", "BEGIN")
	wantStatus(t, conn, 'T')
	wantRun(t, conn, fmt.Sprintf("UPDATE accounts SET balance = balance - 100 WHERE id = '%s'", a), "UPDATE 1")
	wantRun(t, conn, fmt.Sprintf("UPDATE accounts SET balance = balance + 100 WHERE id = '%s'", b), "UPDATE 1")
	wantRun(t, conn, "COMMIT", "COMMIT")
	wantStatus(t, conn, 'I')
	s.wantBalances(t, map[string]int64{a: 901, b: 1102})
	s.idle(t)
}
