package integration

import (
	"context"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// killTime is how long the random tests run: PGPACT_TEST_DURATION, else the 30 s that the promise is made for.
func killTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PGPACT_TEST_DURATION")
	if text == "" {
		return 30 * time.Second
	}
	duration, err := time.ParseDuration(text)
	must(t, err)
	return duration
}

// crowd is how many clients transfer at a time.
const crowd = 16

// TestTransfersWhileGatewayIsKilled: money moves at random while the gateway dies and comes back every two seconds.
func TestTransfersWhileGatewayIsKilled(t *testing.T) {
	d := deploy(t, harness.Options{})
	l := newLedger(t, d, 20)
	gateway, url := harness.Serve(t, d.config)

	ctx, cancel := context.WithTimeout(context.Background(), killTime(t))
	defer cancel()
	var clients sync.WaitGroup
	for worker := range crowd {
		clients.Go(func() { l.work(ctx, url, worker) })
	}
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	kills, lives, committed, ended := 0, 0, 0, false
	for !ended {
		select {
		case <-ctx.Done():
			ended = true
		case <-ticker.C:
			if exit := gateway.Kill9(t); exit.Signal != syscall.SIGKILL {
				t.Fatalf("the gateway had already ended: %v", exit)
			}
			kills++
			if after := l.counts()[knowsCommitted]; after > committed {
				committed = after
				lives++
			}
			began := time.Now()
			gateway, _ = harness.Serve(t, d.config)
			t.Logf("kill %d: %d committed so far, ready again after %v", kills, committed, time.Since(began).Round(time.Millisecond))
		}
	}
	// Were rows to stay locked by the transactions of the dead, hardly anything would commit.
	if lives <= kills/2 {
		t.Errorf("something was committed in %d lives of %d", lives, kills)
	}
	// The last crash has the clients' last transactions in flight, and one more gateway clears up after it.
	gateway.Kill9(t)
	clients.Wait()
	began := time.Now()
	harness.Serve(t, d.config)
	harness.Eventually(t, settleBound, "after the last restart", d.nothingPrepared)
	t.Logf("killed %d times, nothing in doubt %v after the last restart", kills+1, time.Since(began).Round(time.Millisecond))
	l.audit(t, url)
	for _, line := range l.errorsTold() {
		t.Log(line)
	}
}
