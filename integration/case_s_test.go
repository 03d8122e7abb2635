package integration

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCasesS are the crashes of a node under a gateway that lives.
func TestCasesS(t *testing.T) {
	family(t, oneCase{"S1", caseS1}, oneCase{"S2", caseS2}, oneCase{"S3", caseS3}, oneCase{"S4", caseS4}, oneCase{"S5", caseS5}, oneCase{"S6", caseS6})
}

// TestCasesCX are crashes of a gateway and a node together.
func TestCasesCX(t *testing.T) {
	family(t, bothDie("CX1", allAborted, "first-vote", "voted"), bothDie("CX2", oneCommitted, "decided", "first-commit-prepared-answered"))
}

// nodeDies runs a case in its shapes: do takes it to the node's death and past the clients' answers.
func (r *caseRig) nodeDies(t *testing.T, all []shape, promised want, do func(t *testing.T, s shape, victim *harness.Server) groups) {
	t.Helper()
	r.each(t, all, func(t *testing.T, s shape) {
		victim := r.victim(s)
		by := r.bystand(t, r.others(victim)...)
		made := do(t, s, victim)
		victim.Start(t)
		r.settled(t, settleBound)
		by.wellServed(t)
		for _, g := range made {
			if g.told == knowsNothing {
				t.Errorf("the gateway and the decision database were there all the time, and a client was told %v", g.err)
			}
		}
		made.judge(t, r.two.URL(), promised)
	})
	r.restart(t)
}

// caseS1: "node dies before prepare | clean abort, other nodes untouched".
func caseS1(t *testing.T, r *caseRig) {
	r.nodeDies(t, few, allAborted, func(t *testing.T, s shape, victim *harness.Server) groups {
		all := r.crowdOf(t, s)
		victim.Kill9(t)
		all.commit()()
		return all
	})
}

// caseS2: "node dies after prepare is durable, before its answer is seen | resolved by decision after restart, no discard".
func caseS2(t *testing.T, r *caseRig) {
	r.nodeDies(t, few, allAborted, func(t *testing.T, s shape, victim *harness.Server) groups {
		all := r.crowdOf(t, s)
		lane := r.one.Lane(victim.Name())
		must(t, lane.Cut(harness.Answers))
		answered := all.commit()
		r.preparedOn(t, victim, s.groups)
		victim.Kill9(t)
		answered()
		must(t, lane.Heal())
		return all
	})
}

// caseS3: "node dies after prepare is durable, after its answer is seen | resolved by decision after restart, no discard". A gateway that
// has not handed over yet may see the loss and give up; one that has, commits.
func caseS3(t *testing.T, r *caseRig) {
	for point, promised := range map[string]want{"voted": anyOutcome, "decision-handed-over": oneCommitted} {
		t.Run(point, func(t *testing.T) {
			r.nodeDies(t, few, promised, func(t *testing.T, s shape, victim *harness.Server) groups {
				all, answered := r.freeze(t, s, point)
				victim.Kill9(t)
				r.one.Unpause(t)
				answered()
				return all
			})
		})
	}
}

// caseS4: "node dies during commit prepared | the node ends as decided". COMMIT PREPARED waits for a standby that there is not, so that it
// runs for certain when the node is killed.
func caseS4(t *testing.T, r *caseRig) {
	r.nodeDies(t, few, oneCommitted, func(t *testing.T, s shape, victim *harness.Server) groups {
		all, answered := r.freeze(t, s, "decided")
		super := victim.OpenSuper(t)
		exec1(t, super, "alter system set synchronous_standby_names = 'nobody'")
		exec1(t, super, "select pg_reload_conf()")
		harness.Eventually(t, settleBound, "the node wants a standby", func() error {
			names, err := column[string](victim.URL(), "select current_setting('synchronous_standby_names')")
			if err == nil && names[0] != "nobody" {
				err = fmt.Errorf("it wants %q", names[0])
			}
			return err
		})
		r.one.Unpause(t)
		harness.Eventually(t, settleBound, "COMMIT PREPARED runs", func() error {
			n, err := column[int](victim.SuperURL(), "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query ilike 'commit prepared%'")
			if err == nil && n[0] == 0 {
				err = errors.New("it does not")
			}
			return err
		})
		exec1(t, super, "alter system reset synchronous_standby_names") // for the node's next life
		victim.Kill9(t)
		answered()
		return all
	})
}

// caseS5: "node dies after commit prepared | the node ends as decided".
func caseS5(t *testing.T, r *caseRig) {
	r.nodeDies(t, few, oneCommitted, func(t *testing.T, s shape, victim *harness.Server) groups {
		all, answered := r.freeze(t, s, "committed")
		victim.Kill9(t)
		r.one.Unpause(t)
		answered()
		return all
	})
}

// caseS6: "node dies during rollback prepared | the node ends as decided". The first node votes no, the last has voted yes.
func caseS6(t *testing.T, r *caseRig) {
	for _, point := range []string{"voted-no", "rollback-prepared-sent"} {
		t.Run(point, func(t *testing.T) {
			r.nodeDies(t, few2, allAborted, func(t *testing.T, s shape, victim *harness.Server) groups {
				all, answered := r.freeze(t, s, point, func(g *group) {
					pledge := r.d.keyOn(r.d.owner(g.accounts[0]), "pledge-"+g.accounts[0])
					g.also(t, fmt.Sprintf("insert into pledges values ('%s', 'nobody')", pledge))
				})
				victim.Kill9(t)
				r.one.Unpause(t)
				answered()
				return all
			})
		})
	}
}

// bothDie is CX1 and CX2: "gateway and a node die together, during prepare, during commit | as above, in any restart order".
func bothDie(name string, promised want, points ...string) oneCase {
	return oneCase{name, func(t *testing.T, r *caseRig) {
		orders := []struct {
			name string
			back func(t *testing.T, victim *harness.Server)
		}{
			{"node first", func(t *testing.T, victim *harness.Server) { victim.Start(t); r.start(t) }},
			{"gateway first", func(t *testing.T, victim *harness.Server) { r.start(t); victim.Start(t) }},
			{"node only", func(t *testing.T, victim *harness.Server) { victim.Start(t) }},
		}
		turn := 0
		r.each(t, shapes, func(t *testing.T, s shape) {
			order, point := orders[turn%len(orders)], points[turn%len(points)]
			turn++
			t.Logf("killed at %s, %s", point, order.name)
			victim := r.victim(s)
			by := r.bystand(t, r.others(victim)...)
			all, answered := r.freeze(t, s, point)
			r.one.Kill9(t)
			victim.Kill9(t)
			answered()
			order.back(t, victim)
			r.settled(t, settleBound)
			by.wellServed(t)
			all.judge(t, r.two.URL(), promised)
		})
		r.restart(t)
	}}
}
