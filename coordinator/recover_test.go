package coordinator

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// stopped is a commit that a test has stopped at a fault point of its gateway, from where it goes on only when
// it is let.
type stopped struct {
	g      *gateway
	id     participant.ID
	let    chan struct{}
	result chan Result
	once   sync.Once
}

// stopAt begins a transfer of 10 on the gateway and stops its commit at the point.
func (g *gateway) stopAt(point string) *stopped {
	g.t.Helper()
	return g.stopCommit(g.transfer(10), point)
}

// stopCommit commits the transaction and stops that at the point.
func (g *gateway) stopCommit(tx *Transaction, point string) *stopped {
	g.t.Helper()
	s := &stopped{g: g, id: tx.Track(), let: make(chan struct{}), result: make(chan Result, 1)}
	reached := make(chan struct{})
	var once sync.Once
	g.at(point, func() {
		once.Do(func() {
			close(reached)
			<-s.let
		})
	})
	g.t.Cleanup(func() { s.goOn() })
	go func() { s.result <- tx.Commit() }()
	select {
	case <-reached:
	case r := <-s.result:
		g.t.Fatalf("%s was not reached: %+v", point, r)
	case <-time.After(20 * time.Second):
		g.t.Fatalf("%s was not reached", point)
	}
	return s
}

// goOn lets the commit go on.
func (s *stopped) goOn() { s.once.Do(func() { close(s.let) }) }

// end lets the commit go on and returns its result.
func (s *stopped) end() Result {
	s.goOn()
	return <-s.result
}

// mortal is a gateway that can be cut off from the decision database: to the others it is dead then, since
// the lock on its epoch is gone.
func mortal(t *testing.T, cluster *clustertest.Cluster) (*gateway, *clustertest.Proxy) {
	t.Helper()
	proxy := clustertest.NewProxy(t, cluster.Address(clustertest.CoordinatorServer))
	return startGateway(t, cluster, func(c *Config) {
		c.DecisionURL = proxy.Through(c.DecisionURL)
		c.Name = "mortal"
		c.SweepInterval = time.Hour // what recovery does here is the other's doing
		c.DecisionTimeout = 2 * time.Second
	}), proxy
}

// other starts a second gateway on the cluster, with connections of its own.
func other(t *testing.T, cluster *clustertest.Cluster, change func(*Config)) *gateway {
	t.Helper()
	nodes := cluster.Open(t, nil)
	return startGateway(t, cluster, func(c *Config) {
		c.Nodes, c.Name = nodes, "other"
		if change != nil {
			change(c)
		}
	})
}

// sweeps lets the gateway sweep every node, and mark what is finished, n times.
func (g *gateway) sweeps(n int) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range n {
		for _, node := range g.cfg.Nodes {
			if err := g.recover.sweep(ctx, node); err != nil {
				g.t.Fatal(err)
			}
			if err := g.recover.commitHeld(ctx, node); err != nil {
				g.t.Fatal(err)
			}
		}
		if err := g.recover.finishAll(ctx); err != nil {
			g.t.Fatal(err)
		}
	}
}

// Recovery against a live gateway's young transaction does nothing, neither before nor after its decision.
func TestRecoveryLeavesALiveGatewaysYoungTransactionAlone(t *testing.T) {
	for _, point := range []string{pointVoted, pointDecided} {
		t.Run(point, func(t *testing.T) {
			cluster := newCluster(t, 2)
			a := startGateway(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
			s := a.stopAt(point)
			before := a.record(s.id)
			b := other(t, cluster, nil)
			b.sweeps(20)
			if left := cluster.Prepared(); len(left) != 2 {
				t.Errorf("prepared: %v", left)
			}
			if got := a.record(s.id); got != before {
				t.Errorf("record %q was %q", got, before)
			}
			if d, err := b.AskOutcome(t.Context(), s.id); err != nil || (point == pointVoted) != (d == NoDecision) {
				t.Errorf("outcome %v, %v", d, err)
			}
			wantOutcome(t, s.end(), Committed)
			a.wantBalances(990, 1010)
		})
	}
}

// A dead gateway's undecided transaction is presumed aborted, and the abort is on record before the first
// branch is rolled back (I3).
func TestRecoveryPresumesAbortOfADeadGateway(t *testing.T) {
	for _, mended := range []bool{false, true} {
		t.Run(fmt.Sprintf("back again %v", mended), func(t *testing.T) {
			cluster := newCluster(t, 2)
			a, proxy := mortal(t, cluster)
			s := a.stopAt(pointVoted)
			proxy.Cut()
			b := other(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
			var early bool
			b.at(pointRecoverRollback, func() {
				if !strings.HasPrefix(b.record(s.id), "aborted|") {
					early = true
				}
			})
			clustertest.WaitFor(t, "the branches are rolled back", 10*time.Second, func() bool {
				b.sweeps(1)
				return len(cluster.Prepared()) == 0
			})
			if early {
				t.Error("rolled back before the abort was recorded")
			}
			// The dead one was not dead: it finds out.
			if mended {
				proxy.Mend()
			}
			wantOutcome(t, s.end(), Aborted)
			a.wantBalances(1000, 1000)
			clustertest.WaitFor(t, "the abort is finished", 20*time.Second, func() bool {
				b.sweeps(1)
				return b.record(s.id) == "aborted|{}|finished"
			})
			proxy.Mend()
		})
	}
}

// Decided but not applied by a dead gateway: committed and marked by another.
func TestRecoveryFinishesADeadGatewaysDecision(t *testing.T) {
	for _, point := range []string{pointDecided, pointFirstCommitted} {
		t.Run(point, func(t *testing.T) {
			cluster := newCluster(t, 2)
			a, proxy := mortal(t, cluster)
			s := a.stopAt(point)
			proxy.Cut()
			b := other(t, cluster, func(c *Config) { c.FinishTimeout = 100 * time.Millisecond })
			clustertest.WaitFor(t, "it is committed and marked", 20*time.Second, func() bool {
				return len(cluster.Prepared()) == 0 && b.record(s.id) == "committed|{a,b}|finished"
			})
			a.wantBalances(990, 1010)
			result := s.end()
			wantOutcome(t, result, Committed)
			if len(result.Unfinished) != 0 { // the gids are gone, the branch records confirm it
				t.Errorf("unfinished %v", result.Unfinished)
			}
			if d := b.Damage(); len(d) != 0 {
				t.Errorf("damage %v", d)
			}
			proxy.Mend()
		})
	}
}

// prepareForeign leaves a prepared transaction on node a that no gateway of ours made.
func prepareForeign(t *testing.T, cluster *clustertest.Cluster, gid participant.GID) {
	t.Helper()
	cluster.Exec("a", fmt.Sprintf(`BEGIN; UPDATE accounts SET balance=balance-1; INSERT INTO pgpact.branches VALUES(%d,%d,'{a,b}');
		PREPARE TRANSACTION '%s'`, gid.Epoch, gid.Sequence, gid))
	t.Cleanup(func() { cluster.Exec("a", "ROLLBACK PREPARED '"+gid.String()+"'") })
}

// What is not known to be ours is never touched (I7).
func TestRecoveryTouchesNothingUnknown(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, func(c *Config) { c.InDoubtTimeout = 21 * time.Second })
	unknown := participant.GID{Cluster: cluster.ClusterID, ID: participant.ID{Epoch: 4711, Sequence: 1}, Node: "a"}
	prepareForeign(t, cluster, unknown)
	g.sweeps(5)
	if n := len(cluster.Prepared()); n != 1 {
		t.Errorf("%d prepared", n)
	}
	if n := cluster.Value(clustertest.CoordinatorServer, "SELECT count(*) FROM pgpact.transactions"); n != "0" {
		t.Errorf("%s decisions", n)
	}
	list, err := g.Transactions(t.Context())
	if err != nil || len(list) != 1 || list[0].State != "not ours to touch" || list[0].ID != unknown.ID.String() {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestRecoveryTouchesNoOtherClustersTransaction(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	prepareForeign(t, cluster, participant.GID{Cluster: "another", ID: participant.ID{Epoch: g.epoch.Load().number, Sequence: 1}, Node: "a"})
	g.sweeps(5)
	if n := len(cluster.Prepared()); n != 1 {
		t.Errorf("%d prepared", n)
	}
	if list, err := g.Transactions(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Below the horizon nothing is presumed either.
func TestRecoveryTouchesNothingForgotten(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	cluster.Exec(clustertest.CoordinatorServer, "INSERT INTO pgpact.gateways(epoch,name,forgotten) VALUES(4711,'old',10)")
	prepareForeign(t, cluster, participant.GID{Cluster: cluster.ClusterID, ID: participant.ID{Epoch: 4711, Sequence: 10}, Node: "a"})
	g.sweeps(5)
	if n := len(cluster.Prepared()); n != 1 {
		t.Errorf("%d prepared", n)
	}
}

// halfCommitted leaves a transaction of a dead gateway committed on a, prepared on b, and its decision lost
// with the decision database it was made on.
func halfCommitted(t *testing.T, cluster *clustertest.Cluster) *stopped {
	t.Helper()
	a, proxy := mortal(t, cluster)
	s := a.stopAt(pointDecided)
	proxy.Cut()
	cluster.Exec("a", "COMMIT PREPARED '"+participant.GID{Cluster: cluster.ClusterID, ID: s.id, Node: "a"}.String()+"'")
	cluster.Exec(clustertest.CoordinatorServer, fmt.Sprintf(`DELETE FROM pgpact.transactions WHERE epoch=%d;
		UPDATE pgpact.gateways SET decision_system_identifier='another' WHERE epoch=%[1]d`, s.id.Epoch))
	t.Cleanup(proxy.Mend)
	return s
}

// A visible branch record proves a commit whose decision was lost: it is settled committed, not aborted (I8).
func TestBranchRecordProvesALostDecision(t *testing.T) {
	cluster := newCluster(t, 2)
	s := halfCommitted(t, cluster)
	b := other(t, cluster, nil)
	clustertest.WaitFor(t, "it is committed", 20*time.Second, func() bool {
		return len(cluster.Prepared()) == 0 && strings.HasPrefix(b.record(s.id), "committed|{a,b}|")
	})
	b.wantBalances(990, 1010)
	s.end()
}

// The decision database has changed and a node cannot be asked, which may hold the proof: wait for it.
func TestNothingIsPresumedWhileTheProofMayBeOutOfReach(t *testing.T) {
	cluster := newCluster(t, 2)
	s := halfCommitted(t, cluster)
	proxy := clustertest.NewProxy(t, cluster.Address("a"))
	proxy.Cut()
	nodes := cluster.Open(t, func(c *participant.Config) {
		if c.Name == "a" {
			c.URL = proxy.Through(c.URL)
		}
	})
	b := other(t, cluster, func(c *Config) { c.Nodes, c.SweepInterval = nodes, time.Hour })
	for range 5 {
		if err := b.recover.sweep(t.Context(), b.node("b")); err != nil {
			t.Fatal(err)
		}
	}
	if left := cluster.Prepared(); len(left) != 1 || b.record(s.id) != "" {
		t.Errorf("prepared %v, record %q", left, b.record(s.id))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if d, err := b.AskOutcome(ctx, s.id); d != NoDecision || err == nil {
		t.Errorf("outcome %v, %v", d, err)
	}
	proxy.Mend()
	if err := b.recover.sweep(t.Context(), b.node("b")); err != nil {
		t.Fatal(err)
	}
	if left := cluster.Prepared(); len(left) != 0 || !strings.HasPrefix(b.record(s.id), "committed|") {
		t.Errorf("prepared %v, record %q", left, b.record(s.id))
	}
	b.wantBalances(990, 1010)
	s.end()
}

// An unreachable node delays only its own branches when the decision database is the one it was.
func TestUnreachableNodeDelaysOnlyItsOwn(t *testing.T) {
	cluster := newCluster(t, 3)
	a, cut := mortal(t, cluster)
	s := a.stopAt(pointVoted)
	cut.Cut()
	proxy := clustertest.NewProxy(t, cluster.Address("c"))
	proxy.Cut()
	nodes := cluster.Open(t, func(c *participant.Config) {
		if c.Name == "c" {
			c.URL = proxy.Through(c.URL)
		}
	})
	other(t, cluster, func(c *Config) { c.Nodes = nodes })
	clustertest.WaitFor(t, "a and b are rolled back", 20*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
	wantOutcome(t, s.end(), Aborted)
	cut.Mend()
}

// While the decision database cannot be reached nothing is decided; but a branch record proves the commit, and
// the others may follow it.
func TestRecoveryWithoutTheDecisionDatabase(t *testing.T) {
	cluster := newCluster(t, 2)
	a, proxy := mortal(t, cluster)
	s := a.stopAt(pointVoted)
	second := clustertest.NewProxy(t, cluster.Address(clustertest.CoordinatorServer))
	b := other(t, cluster, func(c *Config) { c.DecisionURL, c.SweepInterval = second.Through(c.DecisionURL), time.Hour })
	proxy.Cut()
	second.Cut()
	sweepAll := func() {
		for _, node := range b.cfg.Nodes {
			if err := b.recover.sweep(t.Context(), node); err == nil {
				t.Error("a sweep without the decision database was no error")
			}
		}
	}
	sweepAll()
	if left := cluster.Prepared(); len(left) != 2 {
		t.Errorf("prepared %v", left)
	}
	// Somebody with a decision has committed it on a.
	a.insertDecision(s.id, "committed")
	cluster.Exec("a", "COMMIT PREPARED '"+participant.GID{Cluster: cluster.ClusterID, ID: s.id, Node: "a"}.String()+"'")
	for range 2 {
		for _, node := range b.cfg.Nodes {
			_ = b.recover.sweep(t.Context(), node)
		}
	}
	if left := cluster.Prepared(); len(left) != 0 {
		t.Errorf("prepared %v", left)
	}
	b.wantBalances(990, 1010)
	proxy.Mend()
	second.Mend()
	s.end()
}

// A node that is killed between the vote and phase two: the client hears COMMIT, recovery finishes it.
func TestNodeKilledBeforePhaseTwo(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(10)
	g.at(pointDecided, func() { cluster.Kill("b") })
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	if len(result.Unfinished) != 1 || result.Unfinished[0] != "b" {
		t.Errorf("unfinished %v", result.Unfinished)
	}
	cluster.StartServer("b")
	clustertest.WaitFor(t, "it is finished", 30*time.Second, func() bool {
		return len(cluster.Prepared()) == 0 && g.record(result.ID) == "committed|{a,b}|finished"
	})
	g.wantBalances(990, 1010)
}

// The servers themselves look whether a gateway's machine is still there: a session that nobody ends keeps the lock
// on an epoch, or rows.
func TestServersNoticeAVanishedMachine(t *testing.T) {
	cluster := newCluster(t, 1)
	g := startGateway(t, cluster, nil)
	const ask = "SELECT current_setting('tcp_keepalives_idle')::int+current_setting('tcp_keepalives_interval')::int*current_setting('tcp_keepalives_count')::int"
	for name, query := range map[string]func() ([][]string, error){
		"decision database": func() ([][]string, error) { return g.log.query(t.Context(), ask) },
		"node":              func() ([][]string, error) { return g.node("a").Query(t.Context(), ask) },
	} {
		rows, err := query()
		if err != nil {
			t.Fatal(err)
		}
		if seconds, err := strconv.Atoi(rows[0][0]); err != nil || seconds <= 0 || seconds > 15 {
			t.Errorf("%s: notices after %s s (%v)", name, rows[0][0], err)
		}
	}
}
