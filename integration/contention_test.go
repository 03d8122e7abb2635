package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestContentionWithoutDeadlock: many transactions fight for a few rows, always in the same order, through two gateways whose patience is
// short, so that they look all the time. Nobody is a victim.
func TestContentionWithoutDeadlock(t *testing.T) {
	r := newDeadlockRig(t, "deadlock_timeout: 100ms")
	var rows []string
	for _, node := range []string{"a", "b", "c", "d"} {
		rows = append(rows, r.open(t, node, "hot", 2)...)
	}
	seconds, seed := number(t, contentionVariable, 5), seedOf(t)
	choose := rand.New(rand.NewPCG(seed, seed))
	until := time.Now().Add(time.Duration(seconds) * time.Second)
	var mu sync.Mutex
	commits, longest, seen := 0, time.Duration(0), 0
	var wg sync.WaitGroup
	for worker := range 32 {
		picks := make([]int, 4096)
		for i := range picks {
			picks[i] = choose.IntN(1 << 16)
		}
		wg.Go(func() {
			ctx, cancel := context.WithDeadline(context.Background(), until.Add(transactionBound))
			defer cancel()
			conn, err := pgx.Connect(ctx, r.urls[worker%2])
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(ctx)
			for i := 0; time.Now().Before(until) && !t.Failed(); i++ {
				pick := picks[i%len(picks)]
				var statements []string
				for n, row := range rows {
					switch {
					case pick&(1<<n) == 0:
					case pick&(1<<(8+n%8)) != 0 && n%3 == 0:
						statements = append(statements, "select balance from accounts where id = '"+row+"' for update")
					default:
						statements = append(statements, move(row, 1))
					}
				}
				began := time.Now()
				_, err := simple(ctx, conn, "begin;"+strings.Join(statements, ";")+";commit")
				if err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
				mu.Lock()
				commits, longest = commits+1, max(longest, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		look := time.NewTicker(100 * time.Millisecond)
		defer look.Stop()
		for ; time.Now().Before(until); <-look.C {
			n := mustColumn[int](t, r.cluster.Coordinator().URL(), "select count(*) from pgpact.lock_waits")[0]
			mu.Lock()
			seen = max(seen, n)
			mu.Unlock()
		}
	})
	wg.Wait()
	t.Logf("MEASURED: %d commits in %d s on %d rows, the longest took %v; up to %d gateways had published waits at once; no victim", commits, seconds, len(rows), longest.Round(time.Millisecond), seen)
	if seen == 0 {
		t.Error("nobody waited long enough for a look: this proves nothing")
	}
	for i, gateway := range r.gateways {
		if strings.Contains(gateway.Log(), "deadlock detected") {
			t.Errorf("gateway %d has taken somebody for a victim", i)
		}
	}
	harness.Eventually(t, settleBound, "published waits withdrawn", func() error {
		if left := mustColumn[string](t, r.cluster.Coordinator().URL(), "select waits from pgpact.lock_waits"); len(left) > 0 {
			return fmt.Errorf("still published: %v", left)
		}
		return nil
	})
}
