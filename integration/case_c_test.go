package integration

import (
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCasesC are the coordinator's crashes.
func TestCasesC(t *testing.T) {
	family(t, oneCase{"C1", caseC1},
		// Before any prepare, or with none answered; after some; after all, but before the decision.
		gatewayDies("C2", allAborted, "commit-start", "first-prepare-sent"),
		gatewayDies("C3", allAborted, "first-vote"),
		gatewayDies("C4", allAborted, "decision-writing", "voted", "decision-handed-over"),
		// After the decision, before any COMMIT PREPARED, or with none answered; after some; after all, before the client's answer.
		gatewayDies("C5", oneCommitted, "decided", "decision-written", "first-commit-prepared-sent"),
		gatewayDies("C6", oneCommitted, "first-commit-prepared-answered"),
		gatewayDies("C7", oneCommitted, "committed"))
}

// caseC1: "normal: credit, debit, transfer, balance | committed, client told COMMIT".
func caseC1(t *testing.T, r *caseRig) {
	by := r.bystand(t)
	defer by.wellServed(t)
	r.each(t, shapes, func(t *testing.T, s shape) {
		all := r.crowdOf(t, s) // transfers
		all.commit()()
		for _, g := range all {
			if g.told != knowsCommitted {
				t.Errorf("%s, %v", g.told, g.err)
			}
		}
		all.judge(t, r.two.URL(), allCommitted)
		conn := harness.Open(t, r.one.URL())
		account := all[0].accounts[0]
		for _, delta := range []int64{25, -25} { // credit, debit
			if told, err := transact(conn, move(account, delta)); told != knowsCommitted {
				t.Errorf("%+d: %s, %v", delta, told, err)
			}
		}
		if got, want := queryInt(t, conn, "select balance from accounts where id = '"+account+"'"), startBalance+all[0].deltas[0]; int64(got) != want {
			t.Errorf("balance: %d, want %d", got, want)
		}
	})
}

// gatewayDies is C2 to C7: "gateway dies before any prepare, after some, after all but before the decision | aborted everywhere (or never
// started); client's lost connection resolvable by outcome query; retry succeeds", "after the decision before any commit prepared, after
// some | committed everywhere", "after all commit prepared, before the client's answer | committed; the client learns it with the
// transaction id or key".
//
// It is killed at the first passing of the point, by whichever transaction, and comes back only when another has finished its work. The
// shapes take turns in the points.
func gatewayDies(name string, promised want, points ...string) oneCase {
	return oneCase{name, func(t *testing.T, r *caseRig) {
		by := r.bystand(t)
		defer by.wellServed(t)
		turn := 0
		r.each(t, shapes, func(t *testing.T, s shape) {
			point := points[turn%len(points)]
			turn++
			t.Log("killed at " + point)
			r.restart(t, "--crash-at", point)
			all := r.crowdOf(t, s)
			all.commit()()
			dies(t, r.one.Gateway())
			died := time.Now()
			r.settled(t, settleBound)
			if took := time.Since(died); took > othersBound {
				t.Logf("SLOW: another gateway needed %v, the promise is %v", took, othersBound)
			}
			for _, g := range all {
				if g.told == knowsCommitted && promised == allAborted {
					t.Errorf("told COMMIT by a gateway that died at %s", point)
				}
			}
			all.judge(t, r.two.URL(), promised)
		})
		r.restart(t)
	}}
}
