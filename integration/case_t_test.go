package integration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCasesT are races, and L1, a late PREPARE.
func TestCasesT(t *testing.T) {
	family(t, oneCase{"T1", caseT1}, oneCase{"T2", caseT2}, oneCase{"T3", caseT3}, oneCase{"L1", caseL1})
}

// caseT1: "late prepare answer after abort | one outcome, same on all nodes". Late is the answer, or the PREPARE itself, which the node
// then executes for a transaction that is aborted already.
func caseT1(t *testing.T, r *caseRig) {
	for _, late := range []harness.Direction{harness.Answers, harness.Requests} {
		t.Run(string(late), func(t *testing.T) {
			r.each(t, few, func(t *testing.T, s shape) {
				victim := r.victim(s)
				by := r.bystand(t, r.others(victim)...)
				all := r.crowdOf(t, s)
				lane := r.one.Lane(victim.Name())
				must(t, lane.Hold(late))
				blocks := mustColumn[int32](t, victim.URL(), "select pid from pg_stat_activity where state = 'idle in transaction'")
				if len(blocks) != s.groups {
					t.Fatalf("%d blocks are open on node %s, want %d", len(blocks), victim.Name(), s.groups)
				}
				all.commit()()
				for _, g := range all {
					if g.told != knowsAborted {
						t.Errorf("the client was told %s, %v", g.told, g.err)
					}
				}
				must(t, lane.Heal())
				harness.Eventually(t, settleBound, "what was held has arrived", func() error {
					return gone(map[*harness.Server][]int32{victim: blocks})
				})
				r.settled(t, settleBound)
				by.wellServed(t)
				all.judge(t, r.two.URL(), allAborted)
			})
		})
	}
	r.restart(t)
}

// caseT2: "late commit answer after a gateway restart | one outcome, same on all nodes".
func caseT2(t *testing.T, r *caseRig) {
	r.each(t, few, func(t *testing.T, s shape) {
		victim := r.victim(s)
		by := r.bystand(t, r.others(victim)...)
		all, answered := r.freeze(t, s, "decided")
		lane := r.one.Lane(victim.Name())
		must(t, lane.Hold(harness.Answers))
		r.one.Unpause(t)
		harness.Eventually(t, settleBound, "COMMIT PREPARED has been executed", func() error {
			records, err := column[int64](victim.URL(), "select sequence from pgpact.branches where epoch = $1::text::bigint", r.latestEpoch(t))
			if err == nil && len(records) == 0 {
				err = errors.New("no branch record")
			}
			return err
		})
		r.one.Kill9(t)
		answered()
		must(t, lane.Hold(harness.Requests)) // so that the dead gateway's connections stay
		must(t, lane.Heal())
		r.start(t)
		r.settled(t, settleBound)
		by.wellServed(t)
		all.judge(t, r.one.URL(), oneCommitted)
	})
	r.restart(t)
}

// latestEpoch is that of the first gateway's latest life.
func (r *caseRig) latestEpoch(t *testing.T) string {
	t.Helper()
	epochs := r.d.epochs(t, r.one.Name())
	return epochs[len(epochs)-1]
}

// caseT3: "contradicting observations by two recoverers | one outcome, same on all nodes". A gateway dies. One recoverer does not see the
// first of its nodes, another not the last, and a third falls asleep on what it has seen, and acts on it when all is long over.
func caseT3(t *testing.T, r *caseRig) {
	for i, c := range []struct {
		point, asleep string
		promised      want
	}{
		{"voted", "recovery-before-settle", allAborted},
		{"voted", "recovery-before-rollback-prepared", allAborted},
		{"first-commit-prepared-answered", "recovery-before-commit-prepared", oneCommitted},
		{"decided", "recovery-before-finish", oneCommitted},
	} {
		s := shapes[(i+1)%len(shapes)]
		t.Run(fmt.Sprintf("%s/%s/%v", c.point, c.asleep, s), func(t *testing.T) {
			by := r.bystand(t, r.d.cluster.Nodes()[1].Name(), r.d.cluster.Nodes()[2].Name())
			third, thirdURL := r.d.configured(t, append([]string{fmt.Sprintf("name: third-%d", i)}, patience...), "--stop-at", c.asleep)
			all, answered := r.freeze(t, s, c.point)
			must(t, r.two.Lane("a").Refuse())
			r.one.Kill9(t)
			answered()
			victim := r.d.cluster.Nodes()[max(s.nodes, 2)-1].Name()
			must(t, r.one.Lane(victim).Refuse())
			r.start(t)
			// Whether the third comes to look before the two have done all, only the scheduler knows.
			slept := harness.Poll(settleBound/2, func() error {
				if err := r.nothingOfOne(); err == nil {
					return nil
				}
				return errors.New("in doubt")
			})
			t.Logf("with three that see different things: %v", slept)
			must(t, r.fleet.Heal())
			before := map[*group]bool{}
			for _, g := range all {
				if found, err := g.committed(); err == nil && slept == nil {
					before[g] = found
				}
			}
			asleep := harness.Try(t, func(t testing.TB) { third.WaitFrozen(t, 100*time.Millisecond) })
			t.Logf("the third fell asleep at %s: %t", c.asleep, asleep == nil)
			third.Thaw(t)
			r.settled(t, settleBound)
			for g, was := range before {
				if now, err := g.committed(); err != nil || now != was {
					t.Errorf("committed is %t after the third has woken up, and was %t (%v)", now, was, err)
				}
			}
			by.wellServed(t)
			all.judge(t, thirdURL, c.promised)
			third.Stop(t)
		})
	}
	r.restart(t)
}

// sleepyTrigger makes PREPARE TRANSACTION sleep on a node when the transaction has added a pledge.
const sleepyTrigger = `create function public.sleepy() returns trigger language plpgsql as 'begin perform pg_sleep(%d); return null; end';
	create constraint trigger sleepy after insert on public.pledges deferrable initially deferred for each row execute function public.sleepy()`

// caseL1: "PREPARE still running on a lost connection lands after the abort (a deferred trigger that sleeps makes it so) | rolled back by
// the next sweep, which finds the abort row; never an orphan". The connection is lost with the gateway that dies, or by the network.
func caseL1(t *testing.T, r *caseRig) {
	for _, how := range []string{"the gateway is killed", "the network breaks"} {
		t.Run(how, func(t *testing.T) {
			r.each(t, few, func(t *testing.T, s shape) {
				victim := r.victim(s)
				must(t, run(victim.URL(), fmt.Sprintf(sleepyTrigger, 2)))
				defer func() { must(t, run(victim.URL(), "drop function public.sleepy() cascade")) }()
				by := r.bystand(t, r.others(victim)...)
				all := r.crowdOf(t, s)
				for _, g := range all {
					account := g.accounts[len(g.accounts)-1]
					g.also(t, fmt.Sprintf("insert into pledges values ('%s', '%s')", r.d.keyOn(victim.Name(), "l1-"+account), account))
				}
				answered := all.commit()
				var sleeping []int32
				harness.Eventually(t, settleBound, "PREPARE sleeps", func() (err error) {
					sleeping, err = column[int32](victim.URL(), "select pid from pg_stat_activity where wait_event = 'PgSleep'")
					if err == nil && len(sleeping) != s.groups {
						err = fmt.Errorf("%d of %d", len(sleeping), s.groups)
					}
					return err
				})
				if how == "the gateway is killed" {
					r.one.Kill9(t)
				} else {
					must(t, r.one.Lane(victim.Name()).Refuse()) // no cancel request gets through, either
				}
				answered()
				// The abort is there before the PREPARE has landed.
				for _, g := range all {
					if g.id != "" {
						r.definitely(t, g, "aborted")
					}
				}
				still, err := column[int32](victim.URL(), "select pid from pg_stat_activity where wait_event = 'PgSleep'")
				t.Logf("%d of %d PREPAREs run when the abort is there (%v)", len(still), s.groups, err)
				harness.Eventually(t, settleBound, "PREPARE has landed", func() error { return gone(map[*harness.Server][]int32{victim: sleeping}) })
				landed := time.Now()
				r.settled(t, settleBound)
				t.Logf("rolled back %v after it landed", time.Since(landed).Round(time.Millisecond))
				by.wellServed(t)
				all.judge(t, r.two.URL(), allAborted)
				must(t, r.fleet.Heal())
				r.restart(t)
			})
		})
	}
}

// definitely waits for the outcome of a group to be this.
func (r *caseRig) definitely(t *testing.T, g *group, outcome string) {
	t.Helper()
	harness.Eventually(t, settleBound, "the outcome of "+g.id, func() error {
		if got, err := askFor(t, r.two.URL(), outcomeOf, g.id); err != nil || got != outcome {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
}
