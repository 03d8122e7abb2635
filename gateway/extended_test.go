package gateway

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connect is pgx's whole machinery, in the mode given.
func (s *stack) connect(t *testing.T, mode pgx.QueryExecMode) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(s.url)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

var execModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// TestDriverModes runs the same work in all of pgx's modes, which use the
// protocol in five different ways.
func TestDriverModes(t *testing.T) {
	s := startStack(t, stackOptions{})
	for _, mode := range execModes {
		t.Run(mode.String(), func(t *testing.T) {
			keys := s.fill(t)
			a, b := keys[0][0], keys[1][0]
			conn := s.connect(t, mode)
			ctx := t.Context()
			for range 3 {
				var balance int64
				if err := conn.QueryRow(ctx, "SELECT balance FROM accounts WHERE id = $1", a).Scan(&balance); err != nil || balance != 1000 {
					t.Fatalf("balance %d, %v", balance, err)
				}
			}
			var n int
			if err := conn.QueryRow(ctx, "SELECT $1::int + 1", 41).Scan(&n); err != nil || n != 42 {
				t.Fatalf("%d, %v", n, err)
			}
			transfer(t, conn, a, b, 100)
			s.wantBalances(t, map[string]int64{a: 900, b: 1100})

			tag, err := conn.Exec(ctx, "UPDATE accounts SET balance = balance + $1 WHERE id = ANY($2)", 1, []string{a, b})
			if err != nil || tag.String() != "UPDATE 2" {
				t.Fatalf("%s, %v", tag, err)
			}
			s.wantBalances(t, map[string]int64{a: 901, b: 1101})

			_, err = conn.Exec(ctx, "UPDATE accounts SET balance = $1 WHERE id = $2", -5, b)
			wantCode(t, err, "23514")
			_, err = conn.Exec(ctx, "SELECT * FROM nowhere WHERE id = $1", b)
			wantCode(t, err, "42P01")

			batch := &pgx.Batch{}
			for i := range 50 {
				batch.Queue("UPDATE accounts SET balance = balance + 1 WHERE id = $1", keys[i%3][1])
			}
			if err := conn.SendBatch(ctx, batch).Close(); err != nil {
				t.Fatal(err)
			}
			s.wantBalances(t, map[string]int64{keys[0][1]: 1017, keys[1][1]: 1017, keys[2][1]: 1016})

			batch = &pgx.Batch{}
			batch.Queue("UPDATE accounts SET balance = balance - 1 WHERE id = $1", a)
			batch.Queue("UPDATE accounts SET balance = -1 WHERE id = $1", b)
			wantCode(t, conn.SendBatch(ctx, batch).Close(), "23514")
			s.wantBalances(t, map[string]int64{a: 901, b: 1101})
			s.idle(t)
		})
	}
}

func transfer(t *testing.T, conn *pgx.Conn, from, to string, amount int) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		for _, move := range []struct {
			key    string
			amount int
		}{{from, -amount}, {to, amount}} {
			tag, err := tx.Exec(t.Context(), "UPDATE accounts SET balance = balance + $1 WHERE id = $2", move.amount, move.key)
			if err != nil {
				return err
			}
			if tag.RowsAffected() != 1 {
				return fmt.Errorf("%s: %s", move.key, tag)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != code {
		t.Errorf("error %v, want SQLSTATE %s", err, code)
	}
}
