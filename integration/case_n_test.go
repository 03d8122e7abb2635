package integration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCasesN are partitions.
func TestCasesN(t *testing.T) {
	family(t, oneCase{"N1", caseN1}, oneCase{"N2", caseN2}, oneCase{"N3", caseN3})
}

// partition is a way to break a lane.
type partition struct {
	name  string
	begin func(l *harness.Lane) error
	acts  bool // the server still gets what is sent
}

var partitions = []partition{
	{"requests are lost", func(l *harness.Lane) error { return l.Cut(harness.Requests) }, false},
	{"answers are lost", func(l *harness.Lane) error { return l.Cut(harness.Answers) }, true},
	{"both are lost", func(l *harness.Lane) error { return errors.Join(l.Cut(harness.Requests), l.Cut(harness.Answers)) }, false},
	{"connections are broken and refused", (*harness.Lane).Refuse, false},
}

// eachPartition takes turns: every partition in a shape of its own.
func (r *caseRig) eachPartition(t *testing.T, do func(t *testing.T, s shape, p partition)) {
	t.Helper()
	for i, p := range partitions {
		if !t.Run(p.name, func(t *testing.T) { do(t, shapes[(i+1)%len(shapes)], p) }) {
			t.FailNow()
		}
	}
	r.restart(t)
}

// inTime fails the test when something took longer than the timeout that bounds it, with what a busy machine may add.
func inTime(t *testing.T, what string, began time.Time, timeout time.Duration) {
	t.Helper()
	if took := time.Since(began); took > timeout+haste {
		t.Errorf("%s after %v, the bound is %v", what, took, timeout)
	}
}

// caseN1: "gateway cut off from some nodes, during prepare (both directions; also one-way) | abort in time; the others keep working".
func caseN1(t *testing.T, r *caseRig) {
	r.eachPartition(t, func(t *testing.T, s shape, p partition) {
		victim := r.victim(s)
		by := r.bystand(t, r.others(victim)...)
		all := r.crowdOf(t, s)
		lane := r.one.Lane(victim.Name())
		must(t, p.begin(lane))
		began := time.Now()
		answered := all.commit()
		// The gateway itself serves everybody who does not need that node.
		conn := harness.Open(t, r.one.URL())
		other := r.d.open(t, r.others(victim)[0], fmt.Sprintf("n1-%d", r.serial), 1)[0]
		if told, err := transact(conn, move(other, 1)); told != knowsCommitted {
			t.Errorf("a transaction on another node: %s, %v", told, err)
		}
		inTime(t, "a transaction on another node", began, 0)
		answered()
		inTime(t, "the clients were answered", began, 3*time.Second+2*time.Second) // prepare_timeout, and the abort
		for _, g := range all {
			if g.told != knowsAborted {
				t.Errorf("the client was told %s, %v", g.told, g.err)
			}
		}
		must(t, lane.Heal())
		r.settled(t, settleBound)
		by.wellServed(t)
		all.judge(t, r.two.URL(), allAborted)
	})
}

// caseN2: "gateway cut off from some nodes, during commit (both directions; also one-way) | commit completes when healed; the others keep
// working". No gateway reaches the node, or another one would complete the commit before.
func caseN2(t *testing.T, r *caseRig) {
	r.eachPartition(t, func(t *testing.T, s shape, p partition) {
		victim := r.victim(s)
		by := r.bystand(t, r.others(victim)...)
		all, answered := r.freeze(t, s, "decided")
		for _, site := range r.fleet.Sites {
			must(t, p.begin(site.Lane(victim.Name())))
		}
		began := time.Now()
		r.one.Unpause(t)
		answered()
		inTime(t, "the clients were answered", began, 3*time.Second+2*time.Second)
		told := map[knowledge]int{}
		for _, g := range all {
			told[g.told]++
		}
		if told[knowsCommitted] == 0 || told[knowsNothing] > 0 {
			t.Errorf("the decision database was there all the time, and the clients were told %v", told)
		}
		if !p.acts {
			if left, err := r.preparedOfOne(); err != nil || len(left) < told[knowsCommitted] {
				t.Errorf("nobody reaches the node, and prepared is %v (%v)", left, err)
			}
		}
		must(t, r.fleet.Heal())
		r.settled(t, settleBound)
		by.wellServed(t)
		all.judge(t, r.two.URL(), oneCommitted)
	})
}

// caseN3: "nodes cannot see each other, or the decision database cannot be reached | nothing discarded; in doubt waits; resolved when it
// returns". Nodes never talk to each other; the first of these takes one of them off their network all the same.
func caseN3(t *testing.T, r *caseRig) {
	t.Run("a node is off the network", func(t *testing.T) {
		r.each(t, few, func(t *testing.T, s shape) {
			victim := r.victim(s)
			by := r.bystand(t, r.others(victim)...)
			all, answered := r.freeze(t, s, "decision-handed-over")
			victim.Disconnect(t)
			r.one.Unpause(t)
			answered()
			victim.Reconnect(t)
			r.settled(t, settleBound)
			by.wellServed(t)
			all.judge(t, r.two.URL(), oneCommitted)
		})
	})
	decisions := r.d.cluster.Coordinator()
	cut := func(t *testing.T) {
		for _, site := range r.fleet.Sites {
			must(t, partitions[2].begin(site.Lane(harness.CoordinatorName)))
		}
	}
	for i, c := range []struct {
		name       string
		begin, end func(t *testing.T)
	}{
		{"the decision database is killed", func(t *testing.T) { decisions.Kill9(t) }, func(t *testing.T) { decisions.Start(t) }},
		{"the decision database is cut off", cut, func(t *testing.T) { must(t, r.fleet.Heal()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for j, point := range []string{"voted", "decision-writing"} {
				s := []shape{{2, 2}, {4, 8}, {3, 4}, {1, 1}}[2*i+j]
				t.Run(fmt.Sprintf("%s/%v", point, s), func(t *testing.T) { r.withoutDecisions(t, s, point, c.begin, c.end) })
			}
		})
	}
	r.restart(t)
}

// withoutDecisions takes the decision database away while transactions are at the point, and brings it back. Before its decision is sent,
// a transaction can still be given up by its own gateway, for certain. After that nobody can know, and nobody may act.
func (r *caseRig) withoutDecisions(t *testing.T, s shape, point string, begin, end func(t *testing.T)) {
	// Who needs no decision goes on: one node, one phase.
	by := r.bystand(t, "d")
	all, answered := r.freeze(t, s, point)
	begin(t)
	r.one.Unpause(t)
	answered()
	unknown := 0
	for _, g := range all {
		if g.told == knowsNothing {
			unknown++
			t.Logf("the client: %v", g.err)
		}
		if g.told == knowsCommitted {
			t.Error("told COMMIT without a decision")
		}
	}
	if point == "decision-writing" && unknown == 0 {
		t.Error("nobody's decision was under way")
	}
	// Several sweeps long.
	left := 0
	waited := harness.Poll(2*time.Second, func() error {
		gids, err := r.d.prepared()
		if left = len(gids); err == nil && left < unknown*s.nodes {
			return nil
		}
		return errors.New("they wait")
	})
	if waited == nil {
		t.Errorf("without the decision database %d of %d branches are left", left, unknown*s.nodes)
	}
	end(t)
	r.settled(t, 30*time.Second) // connections to come back, and the grace in which nobody is presumed dead
	by.wellServed(t)
	all.judge(t, r.two.URL(), anyOutcome)
}
