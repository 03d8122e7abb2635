package gateway

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Questions about transactions, in both protocols.
func testOutcome(t *testing.T, s *stack) {
	keys := s.fill(t)
	update := "UPDATE accounts SET balance = balance + 1 WHERE id = '" + keys[0][0] + "'"
	asker := s.client(t)

	conn := s.client(t)
	run(t, conn, "BEGIN")
	id := strings.TrimPrefix(run(t, conn, "SHOW pgpact.transaction_id"), "SHOW: ")
	run(t, conn, update)
	wantRun(t, asker, "SELECT pgpact.outcome('"+id+"')", "SELECT 1: in progress")
	run(t, conn, "COMMIT")
	wantRun(t, asker, "SELECT pgpact.outcome('"+id+"')", "SELECT 1: committed")

	run(t, conn, "BEGIN")
	id = strings.TrimPrefix(run(t, conn, "SHOW pgpact.transaction_id"), "SHOW: ")
	run(t, conn, update)
	run(t, conn, "ROLLBACK")
	wantRun(t, asker, "SELECT pgpact.outcome('"+id+"')", "SELECT 1: aborted")

	wantRun(t, asker, "SELECT pgpact.outcome_of_key('no such')", "SELECT 1: not committed so far")
	run(t, conn, "BEGIN; SET LOCAL pgpact.idempotency_key = 'outcome test'; "+update+"; COMMIT")
	if got := run(t, asker, "SELECT pgpact.outcome_of_key('outcome test')"); !strings.HasPrefix(got, "SELECT 1: committed ") {
		t.Error(got)
	}
	for sql, code := range map[string]string{
		"SELECT pgpact.outcome('abc')":           "22P02",
		"SELECT pgpact.outcome('12345/1')":       "42704",
		"SELECT pgpact.outcome('a' || 'b')":      "0A000",
		"SELECT pgpact.outcome_of_key('x', 'y')": "42501",
	} {
		if got := run(t, asker, sql); !strings.Contains(got, code) {
			t.Errorf("%s: %s, want %s", sql, got, code)
		}
	}
	askWithParameters(t, s, id)
}

// Drivers ask with a parameter, prepared or not, and describe first.
func askWithParameters(t *testing.T, s *stack, id string) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec} {
		conf, err := pgx.ParseConfig(s.url)
		if err != nil {
			t.Fatal(err)
		}
		conf.DefaultQueryExecMode = mode
		conn, err := pgx.ConnectConfig(t.Context(), conf)
		if err != nil {
			t.Fatal(err)
		}
		var outcome string
		if err := conn.QueryRow(t.Context(), "SELECT pgpact.outcome($1) AS o", id).Scan(&outcome); err != nil || outcome != "aborted" {
			t.Errorf("%v: %q, %v", mode, outcome, err)
		}
		_ = conn.Close(context.Background())
	}
}
