package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// operator is what the program's commands use: a coordinator that is never started.
func operator(t *testing.T, cluster *clustertest.Cluster) *gateway {
	t.Helper()
	c, err := New(Config{Name: "operator", DecisionURL: cluster.DecisionURL, ClusterID: cluster.ClusterID, Nodes: cluster.Nodes,
		Logger: clustertest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop(context.Background()) })
	return &gateway{Coordinator: c, t: t, cluster: cluster}
}

const deadEpoch = 4711

// leave prepares a transfer of 10 from a to b, both branches, as a gateway of epoch 4711 that is gone has left it.
func leave(t *testing.T, cluster *clustertest.Cluster, known bool) participant.ID {
	t.Helper()
	id := participant.ID{Epoch: deadEpoch, Sequence: 1}
	if known {
		cluster.Exec(clustertest.CoordinatorServer, "INSERT INTO pgpact.gateways(epoch,name) VALUES(4711,'dead')")
	}
	for name, delta := range map[string]int{"a": -10, "b": 10} {
		cluster.Exec(name, fmt.Sprintf(`BEGIN; UPDATE accounts SET balance=balance+%d; INSERT INTO pgpact.branches VALUES(4711,1,'{a,b}');
			PREPARE TRANSACTION '%s'`, delta, participant.GID{Cluster: cluster.ClusterID, ID: id, Node: name}))
	}
	return id
}

func decide(cluster *clustertest.Cluster, outcome string) {
	cluster.Exec(clustertest.CoordinatorServer, "INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role) VALUES(4711,1,'"+outcome+"','{a,b}','x')")
}

func finishAt(cluster *clustertest.Cluster, verb, node string) {
	cluster.Exec(node, verb+" PREPARED '"+participant.GID{Cluster: cluster.ClusterID, ID: participant.ID{Epoch: deadEpoch, Sequence: 1}, Node: node}.String()+"'")
}

// one is the only transaction in the list.
func (g *gateway) one() TransactionInfo {
	g.t.Helper()
	list, err := g.Transactions(g.t.Context())
	if err != nil || len(list) != 1 {
		g.t.Fatalf("%+v, %v", list, err)
	}
	return list[0]
}

// TestResolve: what may be done by hand without force, what is refused, and that a refusal has done nothing.
func TestResolve(t *testing.T) {
	type balances []int
	before, after := balances{1000, 1000}, balances{990, 1010}
	for _, c := range []struct {
		name    string
		known   bool
		arrange func(*clustertest.Cluster)
		wish    Decision
		refused string // words of the reason; "" for none
		want    balances
		record  string
	}{
		{"decided, as decided", true, func(c *clustertest.Cluster) { decide(c, "committed") }, NoDecision, "", after, "committed|{a,b}|unfinished"},
		{"decided abort, as decided", true, func(c *clustertest.Cluster) { decide(c, "aborted") }, Abort, "", before, "aborted|{a,b}|unfinished"},
		{"half applied", true, func(c *clustertest.Cluster) { decide(c, "committed"); finishAt(c, "COMMIT", "a") }, Commit, "", after, "committed|{a,b}|unfinished"},
		{"abort against a commit", true, func(c *clustertest.Cluster) { decide(c, "committed") }, Abort, "is decided: committed", nil, "committed|{a,b}|unfinished"},
		{"commit against an abort", true, func(c *clustertest.Cluster) { decide(c, "aborted") }, Commit, "is decided: aborted", nil, "aborted|{a,b}|unfinished"},
		{"undecided, no wish", true, nil, NoDecision, "has no decision; its gateway dead is gone", nil, ""},
		{"undecided, abort", true, nil, Abort, "", before, "aborted|{}|unfinished"},
		{"undecided, commit", true, nil, Commit, "has no decision", nil, ""},
		{"proof of a commit, no wish", true, func(c *clustertest.Cluster) { finishAt(c, "COMMIT", "a") }, NoDecision, "", after, "committed|{a,b}|unfinished"},
		{"proof of a commit, abort", true, func(c *clustertest.Cluster) { finishAt(c, "COMMIT", "a") }, Abort, "has committed on node a", nil, ""},
		{"unknown epoch, abort", false, nil, Abort, "does not know", nil, ""},
		{"unknown epoch, commit", false, nil, Commit, "does not know", nil, ""},
		{"forgotten", true, func(c *clustertest.Cluster) {
			c.Exec(clustertest.CoordinatorServer, "UPDATE pgpact.gateways SET forgotten=5")
		}, Abort, "forgotten", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := newCluster(t, 2)
			id := leave(t, cluster, c.known)
			if c.arrange != nil {
				c.arrange(cluster)
			}
			left := cluster.Prepared()
			g := operator(t, cluster)
			done, err := g.Resolve(t.Context(), Resolution{ID: id, Wish: c.wish, By: "me"})
			refusal, refused := errors.AsType[*RefusedError](err)
			switch {
			case c.refused == "" && (err != nil || len(done.Left) > 0 || len(done.Broken) > 0):
				t.Errorf("%+v, %v", done, err)
			case c.refused != "" && (!refused || !strings.Contains(refusal.Reason, c.refused)):
				t.Errorf("%+v, %v, want %q", done, err, c.refused)
			}
			if got := g.record(id); got != c.record {
				t.Errorf("record %q, want %q", got, c.record)
			}
			if c.refused != "" {
				if now := cluster.Prepared(); !slices.Equal(now, left) {
					t.Errorf("prepared: %v, were %v", now, left)
				}
				cleanPrepared(cluster)
				return
			}
			if now := cluster.Prepared(); len(now) > 0 {
				t.Errorf("prepared: %v", now)
			}
			g.wantBalances(c.want...)
		})
	}
}

// cleanPrepared rolls back what a test has left prepared on purpose.
func cleanPrepared(cluster *clustertest.Cluster) {
	for _, name := range cluster.Names() {
		for _, gid := range cluster.Rows(name, "SELECT gid FROM pg_prepared_xacts WHERE database=current_database()") {
			cluster.Exec(name, "ROLLBACK PREPARED '"+gid+"'")
		}
	}
}

// An abort by hand under a living gateway's feet is an abort like any other: its decision meets the record (I2).
func TestResolveAbortsAgainstALivingGateway(t *testing.T) {
	cluster := newCluster(t, 2)
	a := startGateway(t, cluster, nil)
	s := a.stopAt(pointVoted)
	if done, err := operator(t, cluster).Resolve(t.Context(), Resolution{ID: s.id, Wish: Abort}); err != nil || done.Decision != Abort {
		t.Fatalf("%+v, %v", done, err)
	}
	result := s.end()
	wantOutcome(t, result, Aborted)
	if !errors.Is(result.Err, ErrAbortDecided) {
		t.Errorf("%v", result.Err)
	}
	a.wantBalances(1000, 1000)
}

// Forced against the decision, on one branch: the record says so before and after, every process names the damage,
// recovery never counts it as finished, and purge never forgets it.
func TestForceAgainstADecision(t *testing.T) {
	cluster := newCluster(t, 2)
	id := leave(t, cluster, true)
	decide(cluster, "committed")
	g := operator(t, cluster)
	done, err := g.Resolve(t.Context(), Resolution{ID: id, Node: "b", Wish: Abort, Force: true, By: "me@here"})
	if err != nil || done.Decision != Commit || !slices.Equal(done.Finished, []string{"b"}) || len(done.Broken) == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if info := g.one(); info.State != StateDamaged || !slices.Equal(info.Damaged, []string{"b"}) || info.Nodes["a"] != NodePrepared ||
		info.Nodes["b"] != NodeLost || !strings.Contains(info.Forced, "aborted on node b against the decision committed, by force of me@here") {
		t.Errorf("%+v", info)
	}
	running := purging(t, cluster)
	clustertest.WaitFor(t, "the other branch follows the decision", 20*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
	g.wantBalances(990, 1000) // half done, as the person was told
	clustertest.WaitFor(t, "recovery has seen the damage", 20*time.Second, func() bool { return len(running.Damage()) == 1 })
	cluster.Exec(clustertest.CoordinatorServer, "UPDATE pgpact.transactions SET finished_at=now()-interval '1 year'") // as nothing of ours does
	running.purge()
	if info := g.one(); info.State != StateDamaged || info.Forced == "" || info.Nodes["a"] != NodeCommitted {
		t.Errorf("after the purge: %+v", info)
	}
}

// Forced without a decision: the wish becomes the decision, whatever the epoch, and stays named when it is long applied.
func TestForceWithoutADecision(t *testing.T) {
	for wish, want := range map[Decision][]int{Commit: {990, 1010}, Abort: {1000, 1000}} {
		t.Run(wish.String(), func(t *testing.T) {
			cluster := newCluster(t, 2)
			id := leave(t, cluster, false)
			g := operator(t, cluster)
			done, err := g.Resolve(t.Context(), Resolution{ID: id, Wish: wish, Force: true, By: "me"})
			if err != nil || done.Decision != wish || len(done.Finished) != 2 || len(done.Broken) == 0 {
				t.Fatalf("%+v, %v", done, err)
			}
			g.wantBalances(want...)
			running := startGateway(t, cluster, nil)
			running.waitFinished(id)
			if info := g.one(); info.State != StateForced || len(info.Damaged) > 0 || info.Decision != wish.String() ||
				!strings.Contains(info.Forced, wish.String()+" by force of me") {
				t.Errorf("%+v", info)
			}
		})
	}
}

// Nobody can force what has been decided meanwhile, nor what is over.
func TestForceIsTooLate(t *testing.T) {
	cluster := newCluster(t, 2)
	id := leave(t, cluster, true)
	g := operator(t, cluster)
	s, err := g.sight(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	decide(cluster, "aborted")
	if _, err := g.force(t.Context(), Resolution{ID: id, Wish: Commit, Force: true}, s); err == nil || !strings.Contains(err.Error(), "just now") {
		t.Errorf("%v", err)
	}
	finishAt(cluster, "ROLLBACK", "a")
	finishAt(cluster, "ROLLBACK", "b")
	if _, err := g.Resolve(t.Context(), Resolution{ID: id, Wish: Commit, Force: true}); err == nil || !strings.Contains(err.Error(), "nothing of it is prepared") {
		t.Errorf("%v", err)
	}
	if got := g.record(id); got != "aborted|{a,b}|unfinished" {
		t.Errorf("record %q", got)
	}
	g.wantBalances(1000, 1000)
}

// A branch that has only locked rows is finished by hand after those that changed some, and not at all while one of them is lost (I9).
func TestResolveKeepsTheOrderOfLocks(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost=%t", lost), func(t *testing.T) {
			cluster := newCluster(t, 3)
			id := leave(t, cluster, true)
			locks := participant.GID{Cluster: cluster.ClusterID, ID: id, Node: "c", After: 2}
			cluster.Exec("c", fmt.Sprintf(`BEGIN; SELECT 1 FROM accounts FOR UPDATE; INSERT INTO pgpact.branches VALUES(4711,1,'{a,b,c}');
				PREPARE TRANSACTION '%s'`, locks))
			decide(cluster, "committed")
			if lost {
				finishAt(cluster, "ROLLBACK", "b")
			}
			g := operator(t, cluster)
			if info := g.one(); info.Nodes["c"] != NodeLocks {
				t.Errorf("%+v", info)
			}
			done, err := g.Resolve(t.Context(), Resolution{ID: id})
			want, left := []string{"a", "b", "c"}, []string(nil)
			if lost {
				want, left = []string{"a"}, []string{"c"}
			}
			if err != nil || !slices.Equal(done.Finished, want) || !slices.Equal(done.Left, left) {
				t.Errorf("%+v, %v", done, err)
			}
			cleanPrepared(cluster)
		})
	}
}
