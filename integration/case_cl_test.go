package integration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCasesCL are clients that die, or ask again.
func TestCasesCL(t *testing.T) {
	family(t, oneCase{"CL1", caseCL1}, oneCase{"CL2", caseCL2}, oneCase{"CL3", caseCL3})
}

// vanish ends a client's connection without a goodbye.
func (g *group) vanish() { _ = g.conn.PgConn().Conn().Close() } // gone is what it is to be

// caseCL1: "client dies before the answer | definitive outcome query; idempotency key stops a double transfer". While its gateway hangs,
// the transaction is in progress for whoever asks, and a second attempt of another client, under the same key, is safe.
func caseCL1(t *testing.T, r *caseRig) {
	by := r.bystand(t)
	defer by.wellServed(t)
	turn := 0
	r.each(t, shapes, func(t *testing.T, s shape) {
		point := []string{"commit-start", "voted", "decided", "committed"}[turn]
		turn++
		all, answered := r.freeze(t, s, point)
		for _, g := range all {
			g.vanish()
		}
		if turn <= 2 && all[0].id != "" {
			wantAnswer(t, r.two.URL(), outcomeOf, all[0].id, "in progress")
		}
		r.one.Unpause(t)
		answered()
		for _, g := range all {
			if g.told != knowsNothing {
				t.Errorf("a client that is gone was told %s, %v", g.told, g.err)
			}
			if g.id != "" { // the first answer that is not "in progress" is the last word
				harness.Eventually(t, settleBound, "the outcome of "+g.id, func() error {
					if got, err := askFor(t, r.two.URL(), outcomeOf, g.id); err != nil || got == "in progress" {
						return fmt.Errorf("%q, %v", got, err)
					}
					return nil
				})
			}
		}
		r.settled(t, settleBound)
		harness.Eventually(t, settleBound, "transactions that are still open", r.noBlocks)
		all.judge(t, r.two.URL(), anyOutcome)
	})
	r.restart(t)
}

// noBlocks is nil when the first gateway has no session in a block any more: a client that is gone may have left one that is neither
// committed nor rolled back yet.
func (r *caseRig) noBlocks() error {
	for _, node := range r.d.cluster.Nodes() {
		open, err := read[int32](r.books, node.Name(), "select pid from pg_stat_activity where state like 'idle in transaction%' and state_change < now() - interval '200 ms'")
		if err == nil && len(open) > 0 {
			err = fmt.Errorf("node %s: blocks of %v are open", node.Name(), open)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// caseCL2: "client dies after the answer | definitive outcome query; idempotency key stops a double transfer".
func caseCL2(t *testing.T, r *caseRig) {
	by := r.bystand(t)
	defer by.wellServed(t)
	r.each(t, shapes, func(t *testing.T, s shape) {
		all := r.crowdOf(t, s)
		all.commit()()
		for _, g := range all {
			g.vanish()
			if g.told != knowsCommitted {
				t.Errorf("%s, %v", g.told, g.err)
			}
		}
		for _, site := range r.fleet.Sites {
			all.judge(t, site.URL(), allCommitted)
		}
	})
}

// caseCL3: "client asks again after a restart | definitive outcome query; idempotency key stops a double transfer". Asked is the gateway
// that was killed under the transaction, when it is back, and then another: they must say the same.
func caseCL3(t *testing.T, r *caseRig) {
	by := r.bystand(t)
	defer by.wellServed(t)
	turn := 0
	r.each(t, shapes, func(t *testing.T, s shape) {
		point := []string{"voted", "decided", "committed", "decision-writing"}[turn]
		promised := []want{allAborted, oneCommitted, oneCommitted, allAborted}[turn]
		turn++
		all, answered := r.freeze(t, s, point)
		r.one.Kill9(t)
		answered()
		r.start(t)
		began := time.Now()
		// Asked at once, perhaps before any sweep: the question itself settles it.
		for _, g := range all {
			if g.id == "" {
				continue
			}
			harness.Eventually(t, settleBound, "the outcome of "+g.id, func() error {
				first, err := askFor(t, r.one.URL(), outcomeOf, g.id)
				second, err2 := askFor(t, r.two.URL(), outcomeOf, g.id)
				if err := errors.Join(err, err2); err != nil {
					return err
				}
				if first == "in progress" || second == "in progress" { // as long as the dead gateway's lock is there
					return fmt.Errorf("%s, %s", first, second)
				}
				if first != second {
					t.Errorf("one gateway says %s, the other %s", first, second)
				}
				return nil
			})
		}
		t.Logf("definitive %v after the restart", time.Since(began).Round(time.Millisecond))
		r.settled(t, settleBound)
		all.judge(t, r.one.URL(), promised)
	})
	r.restart(t)
}
