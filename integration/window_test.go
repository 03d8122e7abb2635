package integration

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// windowBound is how long writers may be held up by a window whose gateway has died or stands still: the server ends it after a second.
const windowBound = time.Second

// TestGatewayEndsInsideWindow: while a gateway has the window open in which nothing can be decided, it is frozen, or killed. Writers of the
// other gateway go on within the bound, and so do its readers.
func TestGatewayEndsInsideWindow(t *testing.T) {
	d := deploy(t, harness.Options{Nodes: []string{"a", "b"}})
	from, to := d.open(t, "a", "w", 1)[0], d.open(t, "b", "w", 1)[0]
	_, url := harness.Serve(t, d.config)
	writer := harness.Open(t, url)
	transfer := func(t *testing.T) time.Duration {
		began := time.Now()
		if told, err := transact(writer, move(from, -1), move(to, 1)); told != knowsCommitted {
			t.Fatalf("a transfer: %s, %v", told, err)
		}
		return time.Since(began)
	}
	usual := max(transfer(t), transfer(t))
	for _, point := range []string{"window-locked", "window-served"} {
		for _, how := range []string{"--stop-at", "--crash-at"} {
			t.Run(how+" "+point, func(t *testing.T) {
				gateway, url := d.configured(t, nil, how, point)
				reader := harness.Open(t, url)
				done := make(chan error, 1)
				go func() {
					_, err := ask(reader, "select sum(balance) from accounts")
					done <- err
				}()
				if how == "--stop-at" {
					gateway.WaitFrozen(t, settleBound)
				} else if exit := gateway.Wait(t, settleBound); exit.Signal != syscall.SIGKILL {
					t.Fatalf("the gateway ended with %v, want SIGKILL", exit)
				}
				took := transfer(t)
				t.Logf("a transfer took %v, usually %v", took.Round(time.Millisecond), usual.Round(time.Millisecond))
				if took > windowBound+10*usual+time.Second {
					t.Errorf("a transfer took %v, and was to be held up for %v at most", took, windowBound)
				}
				if sum := queryInt(t, writer, "select sum(balance) from accounts"); sum != 2*startBalance {
					t.Errorf("the sum is %d, want %d", sum, 2*startBalance)
				}
				gateway.Kill9(t)
				if err := <-done; err == nil {
					t.Error("the read whose gateway ended was answered")
				}
			})
		}
	}
}

// TestOwnCommitIsSeenEverywhere: whoever has heard COMMIT finds what was committed, in any session of any gateway, whether one node is read
// or several.
func TestOwnCommitIsSeenEverywhere(t *testing.T) {
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	var accounts []string
	for _, node := range []string{"a", "b", "c"} {
		accounts = append(accounts, d.open(t, node, "own", 1)...)
	}
	var sessions []*pgx.Conn
	for range 3 {
		_, url := d.configured(t, nil)
		sessions = append(sessions, harness.Open(t, url), harness.Open(t, url))
	}
	choose := rand.New(rand.NewPCG(harness.Seed(t), 7))
	for n := 1; n <= 100; n++ {
		if told, err := transact(sessions[choose.IntN(len(sessions))], move(accounts[0], 1), move(accounts[1], 1), move(accounts[2], 1)); told != knowsCommitted {
			t.Fatalf("transaction %d: %s, %v", n, told, err)
		}
		want := int64(startBalance + n)
		reader := sessions[choose.IntN(len(sessions))]
		account := accounts[choose.IntN(len(accounts))]
		if got := queryInt(t, reader, "select balance from accounts where id = '"+account+"'"); int64(got) != want {
			t.Fatalf("after commit %d %s is read as %d", n, account, got)
		}
		if got := queryInt(t, reader, "select min(balance) from accounts"); int64(got) != want {
			t.Fatalf("after commit %d the least balance of all nodes is read as %d", n, got)
		}
	}
}
