package coordinator

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// purging starts a gateway that forgets at once what is finished, when it is told to purge.
func purging(t *testing.T, cluster *clustertest.Cluster) *gateway {
	t.Helper()
	return startGateway(t, cluster, func(c *Config) { c.Retention, c.KeyRetention = time.Nanosecond, time.Hour })
}

// finished commits transfers, waits until they are marked, and returns their ids.
func (g *gateway) finished(n int) []participant.ID {
	g.t.Helper()
	ids := make([]participant.ID, n)
	for i := range ids {
		result := g.transfer(1).Commit()
		wantOutcome(g.t, result, Committed)
		ids[i] = result.ID
	}
	for _, id := range ids {
		g.waitFinished(id)
	}
	return ids
}

func (g *gateway) purge() int {
	g.t.Helper()
	n, err := newPurger(g.Coordinator).purge(context.Background())
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

func (g *gateway) horizon() int64 {
	g.t.Helper()
	var n int64
	_, err := fmt.Sscan(g.cluster.Value(clustertest.CoordinatorServer,
		fmt.Sprintf("SELECT forgotten FROM pgpact.gateways WHERE epoch=%d", g.epoch.Load().number)), &n)
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// Finished and past its retention: branch records and decision go, and the horizon moves (I6).
func TestPurge(t *testing.T) {
	cluster := newCluster(t, 2)
	g := purging(t, cluster)
	ids := g.finished(3)
	if n := g.purge(); n != 3 {
		t.Errorf("%d forgotten", n)
	}
	for _, id := range ids {
		if g.record(id) != "" || g.branchRecord("a", id) || g.branchRecord("b", id) {
			t.Errorf("%v is still there", id)
		}
		_, err := g.AskOutcome(t.Context(), id)
		if _, ok := errors.AsType[*ForgottenError](err); !ok {
			t.Errorf("outcome of %v: %v", id, err)
		}
	}
	if got := g.horizon(); got != ids[2].Sequence {
		t.Errorf("horizon %d", got)
	}
	if n := g.purge(); n != 0 {
		t.Errorf("%d forgotten twice", n)
	}
	// Life goes on above the horizon.
	g.finished(1)
	if n := g.purge(); n != 1 {
		t.Errorf("%d forgotten", n)
	}
}

func TestPurgeKeepsTheRetention(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	ids := g.finished(2)
	if n := g.purge(); n != 0 || g.horizon() != 0 || g.record(ids[0]) == "" {
		t.Errorf("%d forgotten, horizon %d", n, g.horizon())
	}
}

// The horizon stops below what is still running: it may yet want to write its decision.
func TestPurgeStopsAtARunningTransaction(t *testing.T) {
	cluster := newCluster(t, 2)
	g := purging(t, cluster)
	first := g.finished(1)
	tx := g.begin()
	running := tx.Track()
	g.finished(2)
	if n := g.purge(); n != 1 || g.horizon() != first[0].Sequence {
		t.Errorf("%d forgotten, horizon %d", n, g.horizon())
	}
	g.must(tx, "a", "UPDATE accounts SET balance=0")
	wantOutcome(t, tx.Commit(), Committed)
	g.waitFinished(running)
	if n := g.purge(); n != 3 {
		t.Errorf("%d forgotten", n)
	}
}

// ... and below what is still prepared on any node, participant or not.
func TestPurgeStopsAtAPreparedBranch(t *testing.T) {
	cluster := newCluster(t, 3)
	g := startGateway(t, cluster, func(c *Config) { c.Retention, c.SweepInterval = time.Nanosecond, time.Hour })
	ids := g.finished(3)
	left := participant.GID{Cluster: cluster.ClusterID, ID: ids[1], Node: "c"}
	cluster.Exec("c", "BEGIN; UPDATE accounts SET balance=0; PREPARE TRANSACTION '"+left.String()+"'")
	if n := g.purge(); n != 1 || g.horizon() != ids[0].Sequence {
		t.Errorf("%d forgotten, horizon %d", n, g.horizon())
	}
	cluster.Exec("c", "ROLLBACK PREPARED '"+left.String()+"'")
	if n := g.purge(); n != 2 {
		t.Errorf("%d forgotten", n)
	}
}

// A node that cannot be asked holds everything.
func TestPurgeAsksEveryNode(t *testing.T) {
	cluster := newCluster(t, 3)
	proxy := clustertest.NewProxy(t, cluster.Address("c"))
	nodes := cluster.Open(t, func(c *participant.Config) {
		if c.Name == "c" {
			c.URL = proxy.Through(c.URL)
		}
	})
	g := startGateway(t, cluster, func(c *Config) { c.Nodes, c.Retention = nodes, time.Nanosecond })
	g.finished(1)
	proxy.Cut()
	if n, err := newPurger(g.Coordinator).purge(t.Context()); n != 0 || err == nil || g.horizon() != 0 {
		t.Errorf("%d forgotten, %v, horizon %d", n, err, g.horizon())
	}
	proxy.Mend()
	if n := g.purge(); n != 1 {
		t.Errorf("%d forgotten", n)
	}
}

// Not finished: nothing above it is forgotten either.
func TestPurgeStopsAtAnUnfinishedDecision(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, func(c *Config) { c.Retention, c.SweepInterval = time.Nanosecond, time.Hour })
	ids := g.finished(3)
	cluster.Exec(clustertest.CoordinatorServer, fmt.Sprintf("UPDATE pgpact.transactions SET finished_at=NULL WHERE sequence=%d", ids[1].Sequence))
	if n := g.purge(); n != 1 || g.record(ids[2]) == "" {
		t.Errorf("%d forgotten", n)
	}
}

// A key is kept longer than the rest; the horizon passes it.
func TestPurgeKeepsKeysLonger(t *testing.T) {
	cluster := newCluster(t, 2)
	g := purging(t, cluster)
	tx := g.transfer(1)
	g.setKey(tx, "order-1")
	keyed := tx.ID()
	wantOutcome(t, tx.Commit(), Committed)
	g.waitFinished(keyed)
	g.finished(1)
	if n := g.purge(); n != 1 || g.record(keyed) == "" || g.horizon() < keyed.Sequence {
		t.Errorf("%d forgotten, record %q, horizon %d", n, g.record(keyed), g.horizon())
	}
	g.wantAnswer(keyed, Commit) // a record is looked for before the horizon is
	cluster.Exec(clustertest.CoordinatorServer, "UPDATE pgpact.transactions SET finished_at=finished_at-interval '2 h'")
	if n := g.purge(); n != 1 || g.record(keyed) != "" {
		t.Errorf("%d forgotten, record %q", n, g.record(keyed))
	}
}

// A live gateway's epoch is its own to purge: only it knows what is under way. A dead one's is anybody's.
func TestPurgeOfOthersEpochs(t *testing.T) {
	cluster := newCluster(t, 2)
	a, proxy := mortal(t, cluster)
	a.finished(2)
	b := other(t, cluster, func(c *Config) { c.Retention = time.Nanosecond })
	if n := b.purge(); n != 0 {
		t.Errorf("%d of a live gateway forgotten", n)
	}
	proxy.Cut()
	clustertest.WaitFor(t, "the dead gateway's are forgotten", 10*time.Second, func() bool { return b.purge() == 2 })
	proxy.Mend()
}

// The horizon stops in front of what is not finished, in the order of numbers: 9 comes before 10.
func TestPurgeGoesInTheOrderOfNumbers(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
	cluster.Exec(clustertest.CoordinatorServer, `INSERT INTO pgpact.gateways(epoch,name) VALUES(77,'gone');
		INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role,decided_at,finished_at)
		SELECT 77,i,'committed','{a,b}','app',now()-interval '3 days',CASE WHEN i<>9 THEN now()-interval '2 days' END FROM generate_series(1,12) i`)
	if n, err := newPurger(g.Coordinator).purge(t.Context()); err != nil || n != 8 {
		t.Errorf("%d forgotten, %v", n, err)
	}
	if got := cluster.Value(clustertest.CoordinatorServer, "SELECT forgotten FROM pgpact.gateways WHERE epoch=77"); got != "8" {
		t.Errorf("the horizon is at %s", got)
	}
}
