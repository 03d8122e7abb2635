package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgpact/pgpact/integration/checker"
	"github.com/pgpact/pgpact/integration/harness"
)

// TestCasesDisk are full disks: of a node, of the decision database, of a gateway. A disk with the data fails what needs more space; one
// with the WAL ends the server, and keeps it from starting until there is space.
func TestCasesDisk(t *testing.T) {
	r := newCaseRigOn(t, harness.Options{SmallDisks: true, Settings: checker.LogSettings()}, fmt.Sprintf("slots: %d", chaosSlots))
	r.family(t, oneCase{"prepare", caseDiskPrepare}, oneCase{"commit prepared", caseDiskCommit}, oneCase{"rollback prepared", caseDiskRollback},
		oneCase{"decision", caseDiskDecision}, oneCase{"decision server ends", caseDiskDecisionEnds}, oneCase{"gateway", caseDiskGateway})
	harness.Eventually(t, settleBound, "decisions and branch records", r.d.recordsAgree) // transactions are marked finished after the client has its answer
	for _, err := range append(checker.Log(readRecords(t, r.d)), leaks(t, r.d, r.fleet, r.d.open(t, "a", "leaks", 1))...) {
		t.Error(err)
	}
}

// diskShapes: the servers that end are tried in few, the others in one.
var diskShapes = map[harness.DiskPart][]shape{harness.Data: {{2, 3}}, harness.WAL: few}

// wantDiskFull: an error that names the reason, and says that nothing has happened.
func wantDiskFull(t *testing.T, what string, err error) {
	t.Helper()
	wantState(t, what, err, "53100", "No space left on device", "rolled back on every node")
}

// caseDiskPrepare: the disk of a node is full when it is to prepare. Everybody is told so, nothing is left anywhere.
func caseDiskPrepare(t *testing.T, r *caseRig) {
	t.Run("data", func(t *testing.T) {
		for _, node := range r.d.cluster.Nodes() {
			must(t, run(node.URL(), `create table public.ballast (text text); alter table public.ballast alter text set storage external;
				create function public.grows() returns trigger language plpgsql as
				'begin insert into public.ballast select repeat(md5(n::text), 1000) from generate_series(1, 100) n; return null; end';
				create constraint trigger grows after insert on public.pledges deferrable initially deferred for each row execute function public.grows()`))
		}
		r.each(t, diskShapes[harness.Data], func(t *testing.T, s shape) {
			victim := r.victim(s)
			by := r.bystand(t, r.others(victim)...)
			all := r.crowdOf(t, s)
			for _, g := range all { // three megabytes that are written at PREPARE, on the last node
				pledge := r.d.keyOn(victim.Name(), "ballast-"+g.accounts[0])
				g.also(t, fmt.Sprintf("insert into pledges values ('%s', '%s')", pledge, g.accounts[s.nodes-1]))
			}
			victim.FillDisk(t, harness.Data)
			all.commit()()
			for _, g := range all {
				if g.told != knowsAborted {
					t.Errorf("the client was told %s", g.told)
				}
				wantDiskFull(t, "COMMIT", g.err)
			}
			must(t, r.nothingOfOne())
			victim.FreeDisk(t)
			by.wellServed(t)
			all.judge(t, r.two.URL(), allAborted)
		})
		for _, node := range r.d.cluster.Nodes() {
			must(t, run(node.URL(), "drop function public.grows() cascade; drop table public.ballast"))
		}
	})
	t.Run("WAL", func(t *testing.T) {
		r.each(t, diskShapes[harness.WAL], func(t *testing.T, s shape) {
			victim := r.victim(s)
			by := r.bystand(t, r.others(victim)...)
			all := r.crowdOf(t, s)
			victim.FillDisk(t, harness.WAL)
			all.commit()()
			for _, g := range all {
				if g.told != knowsAborted {
					t.Errorf("the client was told %s, %v", g.told, g.err)
				}
			}
			r.endsAndReturns(t, victim)
			r.settled(t, settleBound)
			by.wellServed(t)
			all.judge(t, r.two.URL(), allAborted)
		})
	})
}

// endsAndReturns: a server whose WAL disk is full ends by itself, for that reason, and returns when there is space.
func (r *caseRig) endsAndReturns(t *testing.T, victim *harness.Server) {
	t.Helper()
	victim.Ended(t)
	if log := victim.Log(); !strings.Contains(log, "No space left on device") {
		t.Errorf("server %s has not ended for want of space:\n%s", victim.Name(), log)
	}
	victim.FreeDisk(t)
}

// caseDiskCommit: the disk of a node is full when it is to commit what it has prepared. That takes no space but of the WAL; without it the
// node commits when it has come back.
func caseDiskCommit(t *testing.T, r *caseRig) {
	for _, part := range []harness.DiskPart{harness.Data, harness.WAL} {
		t.Run(string(part), func(t *testing.T) {
			r.each(t, diskShapes[part], func(t *testing.T, s shape) {
				victim := r.victim(s)
				by := r.bystand(t, r.others(victim)...)
				all, answered := r.freeze(t, s, "decided")
				victim.FillDisk(t, part)
				r.one.Unpause(t)
				answered()
				for _, g := range all {
					if g.told == knowsNothing {
						t.Errorf("the decision database was there all the time, and a client was told %v", g.err)
					}
				}
				if part == harness.Data {
					r.settled(t, settleBound)
					victim.FreeDisk(t)
				} else {
					r.endsAndReturns(t, victim)
					r.settled(t, settleBound)
				}
				by.wellServed(t)
				all.judge(t, r.two.URL(), oneCommitted)
			})
			r.restart(t)
		})
	}
}

// caseDiskRollback: a gateway dies before the decision, and the disk of a node is full when another gateway's recovery rolls back there.
func caseDiskRollback(t *testing.T, r *caseRig) {
	for _, part := range []harness.DiskPart{harness.Data, harness.WAL} {
		t.Run(string(part), func(t *testing.T) {
			r.each(t, diskShapes[part], func(t *testing.T, s shape) {
				victim := r.victim(s)
				by := r.bystand(t, r.others(victim)...)
				all, answered := r.freeze(t, s, "voted")
				victim.FillDisk(t, part)
				r.one.Kill9(t)
				answered()
				if part == harness.Data {
					r.settled(t, settleBound)
					victim.FreeDisk(t)
				} else {
					r.endsAndReturns(t, victim)
					r.settled(t, settleBound)
				}
				by.wellServed(t)
				all.judge(t, r.two.URL(), allAborted)
			})
			r.restart(t)
		})
	}
}

// caseDiskDecision: the decision database's disk has no room for another row. As long as the pages that it has take some, transactions
// commit; then they are refused, for certain. What needs no decision goes on.
func caseDiskDecision(t *testing.T, r *caseRig) {
	decisions := r.d.cluster.Coordinator()
	r.each(t, few2, func(t *testing.T, s shape) {
		by := r.bystand(t, "d") // one node, one phase
		all := r.crowdOf(t, s)
		decisions.FillDisk(t, harness.Data)
		r.useUpPages(t)
		all.commit()()
		for _, g := range all {
			switch g.told {
			case knowsAborted:
				wantDiskFull(t, "COMMIT", g.err)
			case knowsNothing:
				t.Errorf("the decision database answers, and the client was told %v", g.err)
			}
		}
		must(t, r.nothingOfOne())
		decisions.FreeDisk(t)
		by.wellServed(t)
		all.judge(t, r.two.URL(), anyOutcome)
	})
}

// useUpPages commits until the decision database has no room, and sees that the nodes have what was told.
func (r *caseRig) useUpPages(t *testing.T) {
	t.Helper()
	from, to := halves(t, r.d, fmt.Sprintf("pages-%d", r.serial))
	conn := harness.Open(t, r.one.URL())
	committed := int64(0)
	for ; ; committed++ {
		told, err := transact(conn, move(from, -1), move(to, 1))
		if told == knowsCommitted && committed < startBalance {
			continue
		}
		if told != knowsAborted {
			t.Errorf("a full disk after %d transactions: the client was told %s, %v", committed, told, err)
		}
		wantDiskFull(t, "a transaction without room for its decision", err)
		break
	}
	t.Logf("%d transactions until the decision database had no room", committed)
	if got, err := r.books.balances([]string{from, to}); err != nil || !slices.Equal(got, []int64{startBalance - committed, startBalance + committed}) {
		t.Errorf("after %d transfers: %v, %v", committed, got, err)
	}
}

// caseDiskDecisionEnds: the decision database's server ends with the decision that it is to write. Nobody can know, nobody acts, and all
// is resolved when it has come back.
func caseDiskDecisionEnds(t *testing.T, r *caseRig) {
	decisions := r.d.cluster.Coordinator()
	for i, point := range []string{"voted", "decision-writing"} {
		s := []shape{{2, 2}, {4, 8}}[i]
		t.Run(fmt.Sprintf("%s/%v", point, s), func(t *testing.T) {
			r.withoutDecisions(t, s, point,
				func(t *testing.T) { decisions.FillDisk(t, harness.WAL) },
				func(t *testing.T) { r.endsAndReturns(t, decisions) })
		})
	}
	r.restart(t)
}

// caseDiskGateway: a gateway's disk is full from its start on. It writes nothing but its log.
func caseDiskGateway(t *testing.T, r *caseRig) {
	r.one.FillDisk(t)
	s := shape{4, 8}
	by := r.bystand(t)
	all := r.crowdOf(t, s)
	all.commit()()
	by.wellServed(t)
	all.judge(t, r.one.URL(), allCommitted)
	r.one.FreeDisk(t)
}
