package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCaseD1: "the decision database fails over asynchronously between two COMMIT PREPAREDs and loses the decision | branch records prove
// the commit: completed, not aborted". A lost decision's idempotency key is proven with it: a repetition does nothing again.
func TestCaseD1(t *testing.T) {
	family(t, oneCase{"D1", func(t *testing.T, r *caseRig) {
		decisions := r.d.cluster.Coordinator()
		r.each(t, few2, func(t *testing.T, s shape) {
			by := r.bystand(t, "c") // one node: needs no decision
			r.restart(t, "--stop-at", "first-commit-prepared-answered")
			all := r.crowdOf(t, s)
			decisions.Shadow(t)
			decisions.CutShadow(t)
			answered := all.commit()
			r.one.Gateway().WaitFrozen(t, settleBound)
			lost := len(mustColumn[int](t, decisions.URL(), "select 1 from pgpact.transactions where epoch = $1::text::bigint", r.latestEpoch(t)))
			if lost == 0 {
				t.Error("there is no decision that could be lost")
			}
			epoch := r.latestEpoch(t)
			decisions.FailOver(t)
			if left := mustColumn[int](t, decisions.URL(), "select 1 from pgpact.transactions where epoch = $1::text::bigint", epoch); len(left) > 0 {
				t.Errorf("%d decisions of %d have survived the failover", len(left), lost)
			}
			r.one.Kill9(t)
			answered()
			r.settled(t, 3*settleBound) // connections to come back, and the grace in which nobody is presumed dead
			by.wellServed(t)
			// What had been committed everywhere left nothing in doubt, and recovery has not met it. Whoever asks is told by its branch records,
			// and then the decision log knows it again.
			for _, id := range mustColumn[string](t, r.d.cluster.Nodes()[0].URL(), "select epoch || '/' || sequence from pgpact.branches where epoch = $1::text::bigint", epoch) {
				wantAnswer(t, r.two.URL(), outcomeOf, id, "committed")
			}
			all.judge(t, r.two.URL(), oneCommitted)
		})
		r.restart(t)
	}})
}

// TestCaseL2: "an asynchronous failover loses an acknowledged prepare; another brings a committed one back as prepared | the first is
// reported as damage, never as success; the second is committed again".
func TestCaseL2(t *testing.T) {
	family(t, oneCase{"brought back", func(t *testing.T, r *caseRig) {
		r.each(t, []shape{{1, 1}, {2, 1}, {4, 1}}, func(t *testing.T, s shape) {
			victim := r.victim(s)
			by := r.bystand(t, r.others(victim)...)
			victim.Shadow(t)
			all, answered := r.freeze(t, s, "decided")
			victim.CutShadow(t)
			r.preparedOn(t, victim, 1) // and so it is in the shadow, for good
			r.one.Unpause(t)
			answered()
			if all[0].told != knowsCommitted {
				t.Errorf("the client was told %s, %v", all[0].told, all[0].err)
			}
			victim.FailOver(t)
			harness.Eventually(t, 3*settleBound, "committed again", func() error {
				if committed, err := all[0].committed(); err != nil || !committed {
					return fmt.Errorf("committed is %t, %v", committed, err)
				}
				return nil
			})
			r.settled(t, settleBound)
			by.wellServed(t)
			all.judge(t, r.two.URL(), allCommitted)
		})
		r.restart(t)
	}})
	t.Run("lost", lostPrepare)
}

// lostPrepare: the node's standby knows nothing of a transaction that was committed everywhere.
func lostPrepare(t *testing.T) {
	r := newCaseRig(t)
	s := shape{4, 1}
	victim := r.victim(s)
	by := r.bystand(t, r.others(victim)...)
	all := r.crowdOf(t, s)
	g := all[0]
	victim.Shadow(t)
	victim.CutShadow(t)
	all.commit()()
	if g.told != knowsCommitted {
		t.Errorf("the client was told %s, %v", g.told, g.err)
	}
	victim.FailOver(t)
	// transactions only lists; check judges.
	for command, fails := range map[string]bool{"check": true, "transactions": false} {
		harness.Eventually(t, 3*settleBound, "pgpact "+command+" names the damage", func() error {
			result := harness.Run(t, command, "--config", r.d.config)
			if fails != (result.Code != 0) || !strings.Contains(result.Stdout, g.id) || !strings.Contains(strings.ToLower(result.Stdout), "damage") {
				return fmt.Errorf("exit status %d\n%s%s", result.Code, result.Stdout, result.Stderr)
			}
			return nil
		})
	}
	by.wellServed(t)
	finished := mustColumn[bool](t, r.d.cluster.Coordinator().URL(), "select finished_at is not null from pgpact.transactions where epoch || '/' || sequence = $1", g.id)
	if len(finished) != 1 || finished[0] {
		t.Errorf("its record: finished is %v", finished)
	}
}
