package coordinator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// lockThenTransfer locks the account of node c and then moves 10 from a to b: the lock protects rows of other
// nodes, and its branch is the first that is enlisted.
func (g *gateway) lockThenTransfer() *Transaction {
	g.t.Helper()
	tx := g.begin()
	g.must(tx, "c", "SELECT balance FROM accounts WHERE id='c' FOR UPDATE")
	g.must(tx, "a", "UPDATE accounts SET balance=balance-10 WHERE id='a'")
	g.must(tx, "b", "UPDATE accounts SET balance=balance+10 WHERE id='b'")
	return tx
}

// behind opens the cluster's nodes again, one of them behind a proxy that can be cut.
func behind(t *testing.T, cluster *clustertest.Cluster, name string) ([]*participant.Node, *clustertest.Proxy) {
	t.Helper()
	proxy := clustertest.NewProxy(t, cluster.Address(name))
	return cluster.Open(t, func(c *participant.Config) {
		if c.Name == name {
			c.URL = proxy.Through(c.URL)
		}
	}), proxy
}

// preparedOn are the nodes on which something is prepared.
func preparedOn(cluster *clustertest.Cluster) string {
	var names []string
	for _, gid := range cluster.Prepared() {
		names = append(names, gid[:1])
	}
	return strings.Join(names, ",")
}

// sweepNode sweeps one node, and then commits what the sweep has held back there.
func (g *gateway) sweepNode(name string) {
	g.t.Helper()
	if err := g.recover.sweep(g.t.Context(), g.node(name)); err != nil {
		g.t.Fatal(err)
	}
	if err := g.recover.commitHeld(g.t.Context(), g.node(name)); err != nil {
		g.t.Fatal(err)
	}
}

// idleRecoverer starts a gateway on the nodes that sweeps only when it is told to: those sweeps with which every
// gateway begins have found nothing.
func idleRecoverer(t *testing.T, cluster *clustertest.Cluster, change func(*Config)) *gateway {
	t.Helper()
	r := other(t, cluster, func(c *Config) {
		c.SweepInterval = time.Hour
		change(c)
	})
	for _, node := range r.cfg.Nodes { // each waits for the node's own connection, and so for the sweep before it
		r.sweepNode(node.Name())
	}
	return r
}

// step sweeps the node until the right branches are left prepared, and no longer. What the sweep has held back
// may just be with the gateway's own loop; what that does too early, the next step finds.
func (g *gateway) step(node, want string, sweep func()) {
	g.t.Helper()
	var got string
	deadline := time.Now().Add(10 * time.Second)
	for {
		sweep()
		if got = preparedOn(g.cluster); got == want {
			return
		}
		if len(got) < len(want) || time.Now().After(deadline) {
			g.t.Fatalf("after a sweep of %s: prepared on %q, want %q", node, got, want)
		}
	}
}

// waitDead waits until the gateway that began the transaction is dead to this one.
func (g *gateway) waitDead(id participant.ID) {
	g.t.Helper()
	clustertest.WaitFor(g.t, "the gateway has lost its lock", 10*time.Second, func() bool {
		looked, err := g.log.look(g.t.Context(), []participant.ID{id}, 0)
		return err == nil && !looked[id].alive
	})
}

// The names under which branches are prepared tell the order, and what is recorded names those that change
// rows first.
func TestLockOnlyBranchIsNamedSo(t *testing.T) {
	cluster := newCluster(t, 3)
	g := startGateway(t, cluster, nil)
	tx := g.lockThenTransfer()
	var gids []string
	g.at(pointVoted, func() { gids = cluster.Prepared() })
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	for i, after := range []int{0, 0, 2} {
		name := clustertest.NodeNames(3)[i]
		want := name + ":" + participant.GID{Cluster: cluster.ClusterID, ID: result.ID, Node: name, After: after}.String()
		if i >= len(gids) || gids[i] != want {
			t.Errorf("prepared %v, want %s", gids, want)
		}
		if got := cluster.Value(name, "SELECT participants FROM pgpact.branches"); got != "{a,b,c}" {
			t.Errorf("%s: participants %s", name, got)
		}
	}
	g.waitFinished(result.ID)
	if got := g.record(result.ID); got != "committed|{a,b,c}|finished" {
		t.Errorf("record %q", got)
	}
}

// If no branch has changed anything there is no order, and nobody waits for anybody.
func TestAllBranchesLockOnly(t *testing.T) {
	for _, point := range []string{"", pointDecided} {
		t.Run("gateway dies at "+point, func(t *testing.T) {
			cluster := newCluster(t, 3)
			g, proxy := mortal(t, cluster)
			tx := g.begin()
			for _, node := range []string{"c", "a"} {
				g.must(tx, node, "SELECT balance FROM accounts FOR UPDATE")
			}
			if point == "" {
				result := tx.Commit()
				wantOutcome(t, result, Committed)
				if len(result.Unfinished) > 0 || len(cluster.Prepared()) > 0 {
					t.Errorf("unfinished %v, prepared %v", result.Unfinished, cluster.Prepared())
				}
				return
			}
			s := g.stopCommit(tx, point)
			if got := preparedOn(cluster); got != "a,c" {
				t.Fatalf("prepared on %s", got)
			}
			proxy.Cut()
			b := other(t, cluster, nil)
			clustertest.WaitFor(t, "the locks are gone", 20*time.Second, func() bool {
				return len(cluster.Prepared()) == 0 && b.record(s.id) == "committed|{c,a}|finished"
			})
			s.end()
			proxy.Mend()
		})
	}
}

// A changing branch that does not confirm keeps the locks where they are: the client hears COMMIT, with the
// nodes that are not finished, and recovery lets them go in order.
func TestLockOnlyBranchWaitsForAChangingOne(t *testing.T) {
	cluster := newCluster(t, 3)
	nodes, proxy := behind(t, cluster, "b")
	g := startGateway(t, cluster, func(c *Config) { c.Nodes = nodes })
	tx := g.lockThenTransfer()
	g.at(pointDecided, proxy.Cut)
	g.at(pointLockOnly, func() { t.Error("the lock-only round was begun") })
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	slices.Sort(result.Unfinished)
	if !slices.Equal(result.Unfinished, []string{"b", "c"}) {
		t.Errorf("unfinished %v", result.Unfinished)
	}
	// Its own loops sweep all the time, and once more here.
	for range 3 {
		g.sweepNode("c")
	}
	if got := preparedOn(cluster); got != "b,c" {
		t.Errorf("prepared on %q while b cannot be reached", got)
	}
	g.inOrder(result.ID, proxy.Mend)
	g.wantBalances(990, 1010, 1000)
}

// inOrder heals the cluster and waits until recovery has finished the transaction; whenever the branch on c is
// about to be committed, those on a and b must have been.
func (g *gateway) inOrder(id participant.ID, heal func()) {
	g.t.Helper()
	heal()
	clustertest.WaitFor(g.t, "it is finished", 30*time.Second, func() bool {
		// Asked in this order: what c shows, it may show only after b.
		onC, onB, onA := g.branchRecord("c", id), g.branchRecord("b", id), g.branchRecord("a", id)
		if onC && (!onA || !onB) {
			g.t.Fatalf("committed on c, and on a %v, on b %v", onA, onB)
		}
		return onC && strings.HasSuffix(g.record(id), "|finished")
	})
	if left := g.cluster.Prepared(); len(left) > 0 {
		g.t.Errorf("prepared %v", left)
	}
}

// After a crash between the decision and phase two, recovery keeps the order, with the decision database and
// without.
func TestRecoveryCommitsLockOnlyBranchesLast(t *testing.T) {
	cluster := newCluster(t, 3)
	nodes, cutB := behind(t, cluster, "b")
	r := idleRecoverer(t, cluster, func(c *Config) { c.Nodes = nodes })
	a, dead := mortal(t, cluster)
	s := a.stopCommit(a.lockThenTransfer(), pointDecided)
	dead.Cut()
	cutB.Cut()
	step := func(node, want string) {
		t.Helper()
		r.step(node, want, func() { r.sweepNode(node) })
	}
	r.waitDead(s.id)
	step("c", "a,b,c") // no record is visible at all
	step("a", "b,c")
	step("c", "b,c") // a has committed, b not
	cutB.Mend()
	step("c", "b,c") // b can be asked, and has not committed
	step("b", "c")
	step("c", "")
	r.wantBalances(990, 1010, 1000)
	s.end()
	dead.Mend()
}

func TestRecoveryKeepsTheOrderWithoutTheDecisionDatabase(t *testing.T) {
	cluster := newCluster(t, 3)
	log := clustertest.NewProxy(t, cluster.Address(clustertest.CoordinatorServer))
	r := idleRecoverer(t, cluster, func(c *Config) { c.DecisionURL = log.Through(c.DecisionURL) })
	a, dead := mortal(t, cluster)
	s := a.stopCommit(a.lockThenTransfer(), pointDecided)
	dead.Cut()
	log.Cut()
	step := func(node, want string) {
		t.Helper()
		r.step(node, want, func() {
			if err := r.recover.sweep(t.Context(), r.node(node)); err == nil {
				t.Error("a sweep without the decision database was no error")
			}
			if err := r.recover.commitHeld(t.Context(), r.node(node)); err != nil {
				t.Error(err)
			}
		})
	}
	step("c", "a,b,c")
	cluster.Exec("a", "COMMIT PREPARED '"+participant.GID{Cluster: cluster.ClusterID, ID: s.id, Node: "a"}.String()+"'")
	step("c", "b,c") // proven by a, and yet not c's turn
	step("b", "c")
	step("c", "")
	r.wantBalances(990, 1010, 1000)
	log.Mend()
	dead.Mend()
	s.end()
}

// What is held back on a node keeps nothing else waiting there.
func TestHeldBackBranchDelaysNothingElse(t *testing.T) {
	cluster := newCluster(t, 3)
	nodes, cutB := behind(t, cluster, "b")
	r := idleRecoverer(t, cluster, func(c *Config) { c.Nodes = nodes })
	a, dead := mortal(t, cluster)
	held := a.stopCommit(a.lockThenTransfer(), pointDecided)
	tx := a.begin()
	a.must(tx, "c", "INSERT INTO accounts VALUES('x',1)")
	free := a.stopCommit(tx, pointDecided)
	dead.Cut()
	cutB.Cut()
	r.waitDead(held.id)
	// The sweep alone: it asks no other node about what is held back.
	if err := r.recover.sweep(t.Context(), r.node("c")); err != nil {
		t.Fatal(err)
	}
	if !r.branchRecord("c", free.id) || preparedOn(cluster) != "a,b,c" {
		t.Errorf("prepared %v", cluster.Prepared())
	}
	held.end()
	free.end()
	cutB.Mend()
	dead.Mend()
}

// An abort needs no order: the branches are rolled back wherever they are found.
func TestLockOnlyBranchIsRolledBackAtOnce(t *testing.T) {
	cluster := newCluster(t, 3)
	nodes, cutB := behind(t, cluster, "b")
	r := idleRecoverer(t, cluster, func(c *Config) { c.Nodes = nodes })
	a, dead := mortal(t, cluster)
	s := a.stopCommit(a.lockThenTransfer(), pointVoted)
	dead.Cut()
	cutB.Cut()
	clustertest.WaitFor(t, "c is rolled back", 10*time.Second, func() bool {
		r.sweepNode("c")
		return preparedOn(cluster) == "a,b"
	})
	cutB.Mend()
	for _, node := range []string{"a", "b"} {
		r.sweepNode(node)
	}
	wantOutcome(t, s.end(), Aborted)
	r.wantBalances(1000, 1000, 1000)
	dead.Mend()
}

// Several lock-only branches do not wait for each other.
func TestProofOfChangingBranches(t *testing.T) {
	all := []string{"a", "b", "c", "d"} // a and b have changed rows, c and d have not
	for shown, want := range map[string]bool{"": false, "a": false, "b": false, "a c": false, "c d": false, "b a": true, "a b c": true, "d c b a": true} {
		p := proof{}
		if shown != "" {
			p = proof{nodes: strings.Fields(shown), participants: all}
		}
		if got := p.changed(2); got != want {
			t.Errorf("records on %q: %v", shown, got)
		}
	}
	if (proof{nodes: []string{"a"}, participants: []string{"a"}}).changed(2) {
		t.Error("a record that names too few participants was taken for proof")
	}
}
