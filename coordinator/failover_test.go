package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// failing is a cluster with servers of its own, one of which has a standby and fails over.
type failing struct {
	*clustertest.Cluster
	t       *testing.T
	server  string
	standby *clustertest.Standby
}

// failingRows are the accounts of a failing cluster: "0", "1" ... with 1000 each, on a and on b.
const failingRows = 8

func newFailing(t *testing.T, server string, synchronous bool) *failing {
	t.Helper()
	f := &failing{t: t, server: server, Cluster: clustertest.Start(t, 2, clustertest.Options{})}
	for _, node := range f.Names() {
		f.Exec(node, fmt.Sprintf("INSERT INTO accounts SELECT i,1000 FROM generate_series(0,%d) i", failingRows-1))
	}
	f.standby = f.AddStandby(server, synchronous)
	return f
}

// gateway starts a gateway that knows both hosts. It sweeps when it has something to hand over, not before.
func (f *failing) gateway(name string, change func(*Config)) *gateway {
	f.t.Helper()
	nodes := f.Open(f.t, func(c *participant.Config) {
		if c.Name == f.server {
			c.URL = f.standby.URL()
		}
	})
	return startGateway(f.t, f.Cluster, func(c *Config) {
		c.Nodes, c.Name, c.SweepInterval = nodes, name, time.Hour
		if f.server == clustertest.CoordinatorServer {
			c.DecisionURL = f.standby.URL()
		}
		if change != nil {
			change(c)
		}
	})
}

// resolver is a gateway that comes after the failover and finishes everything.
func (f *failing) resolver() *gateway {
	return f.gateway("resolver", func(c *Config) { c.SweepInterval, c.FinishTimeout = 20*time.Millisecond, 200*time.Millisecond })
}

// dying starts a gateway that its proxy can cut off from the decision database, for ever: it knows one host.
func (f *failing) dying() (*gateway, *clustertest.Proxy) {
	proxy := clustertest.NewProxy(f.t, f.Address(clustertest.CoordinatorServer))
	g := f.gateway("dying", func(c *Config) {
		c.DecisionURL, c.DecisionTimeout = proxy.Through(f.Cluster.DecisionURL), 2*time.Second
	})
	return g, proxy
}

// move moves 10 from row i of node a to row i of node b, in a transaction that has not committed yet.
func (f *failing) move(g *gateway, row int) *Transaction {
	f.t.Helper()
	tx := g.begin()
	g.must(tx, "a", fmt.Sprintf("UPDATE accounts SET balance=balance-10 WHERE id='%d'", row))
	g.must(tx, "b", fmt.Sprintf("UPDATE accounts SET balance=balance+10 WHERE id='%d'", row))
	return tx
}

// wantMoved fails the test unless row i was moved wholly (Committed) or not at all (Aborted).
func (f *failing) wantMoved(row int, outcome Outcome) {
	f.t.Helper()
	query := fmt.Sprintf("SELECT balance FROM accounts WHERE id='%d'", row)
	got := f.Value("a", query) + " " + f.Value("b", query)
	if want := map[Outcome]string{Committed: "990 1010", Aborted: "1000 1000"}[outcome]; got != want {
		f.t.Errorf("row %d: balances %s, want %s (%v)", row, got, want, outcome)
	}
}

// waitClean waits until nothing is prepared and nothing listed as unfinished, and fails the test on damage.
func (f *failing) waitClean(g *gateway) {
	f.t.Helper()
	var listed []TransactionInfo
	clustertest.WaitFor(f.t, "everything is resolved", 30*time.Second, func() bool {
		list, err := g.Transactions(f.t.Context())
		listed = list
		return err == nil && len(list) == 0 && len(f.Prepared()) == 0 || len(g.Damage()) > 0
	})
	if d := g.Damage(); len(d) > 0 {
		f.t.Errorf("damage %+v, %+v", d, listed)
	}
}

// wantPrimaryFound: the primary is found also where the standby is named first.
func (f *failing) wantPrimaryFound() {
	f.t.Helper()
	nodes := f.Open(f.t, func(c *participant.Config) {
		if c.Name == f.server {
			hosts := strings.SplitN(strings.SplitN(strings.SplitN(f.standby.URL(), "@", 2)[1], "/", 2)[0], ",", 2)
			c.URL = strings.Replace(f.standby.URL(), hosts[0]+","+hosts[1], hosts[1]+","+hosts[0], 1)
		}
	})
	rows, err := nodes[0].Query(f.t.Context(), "SELECT pg_is_in_recovery(), inet_server_port()")
	if want := f.Value("a", "SELECT inet_server_port()"); err != nil || rows[0][0] != "f" || rows[0][1] != want {
		f.t.Errorf("%v, %v; the primary's port is %s", rows, err, want)
	}
}

// A node fails over to its synchronous standby while transactions are in every kind of doubt: all are resolved on
// the new primary, none is lost. The former primary, started again, is not believed any more.
func TestFailoverNode(t *testing.T) {
	f := newFailing(t, "a", true)
	f.wantPrimaryFound()
	dying, proxy := f.dying()
	dead := dying.stopCommit(f.move(dying, 0), pointVoted)
	proxy.Cut()
	stops := []string{pointPrepareSent, pointVoted, pointDecided, pointFirstCommitSent, pointFirstCommitted}
	commits := make([]*stopped, len(stops))
	for i, point := range stops {
		g := f.gateway(fmt.Sprint("gateway-", i), nil)
		commits[i] = g.stopCommit(f.move(g, i+1), point)
	}
	f.standby.Failover()
	results := make([]Result, len(commits))
	for i, s := range commits {
		results[i] = s.end()
		t.Logf("stopped at %s: %+v", stops[i], results[i])
		if i > 0 { // the first had no answer to its PREPARE
			wantOutcome(t, results[i], Committed)
		}
	}
	wantOutcome(t, dead.end(), Aborted) // it never could ask for the decision
	r := f.resolver()
	f.waitClean(r)
	f.wantMoved(0, Aborted)
	for i, result := range results {
		f.wantMoved(i+1, result.Outcome)
	}
	f.standby.Return()
	port := f.Value("a", "SELECT inet_server_port()") // the new primary's
	for row := range 3 {
		tx := f.move(r, row)
		defer tx.Rollback()
		if got := r.must(tx, "a", "SELECT inet_server_port()"); got[0] != port {
			t.Errorf("connected to port %s, the former primary's; the primary's is %s", got[0], port)
		}
	}
}

// The decision database fails over to its synchronous standby: what was decided stays decided, what was not is
// settled there, also where the decision was on its way.
func TestFailoverDecisionDatabase(t *testing.T) {
	f := newFailing(t, clustertest.CoordinatorServer, true)
	dying, _ := f.dying()
	dead := dying.stopCommit(f.move(dying, 0), pointVoted)
	stops := []string{pointVoted, pointDecided, pointFirstCommitSent}
	commits := make([]*stopped, len(stops))
	for i, point := range stops {
		g := f.gateway(fmt.Sprint("gateway-", i), nil)
		commits[i] = g.stopCommit(f.move(g, i+1), point)
	}
	waiting := f.gateway("waiting", nil)
	tx, result := f.move(waiting, 7), make(chan Result, 1)
	id := tx.Track()
	f.standby.Cut()
	go func() { result <- tx.Commit() }()
	clustertest.WaitFor(t, "a decision waits for the standby", 20*time.Second, func() bool {
		return f.Value(clustertest.CoordinatorServer, "SELECT count(*) FROM pg_stat_activity WHERE wait_event='SyncRep'") != "0"
	})
	f.standby.Failover()
	for i, s := range commits {
		wantOutcome(t, s.end(), Committed)
		t.Logf("stopped at %s: committed", stops[i])
	}
	late := <-result
	wantOutcome(t, late, Committed)     // nobody else has presumed anything in the meantime
	wantOutcome(t, dead.end(), Aborted) // it never could ask for the decision
	r := f.resolver()
	f.waitClean(r)
	f.wantMoved(0, Aborted)
	for i := range commits {
		f.wantMoved(i+1, Committed)
	}
	f.wantMoved(7, Committed)
	if got := r.record(id); !strings.HasPrefix(got, "committed|") {
		t.Errorf("record %q", got)
	}
	// What begins now has an epoch of the new primary.
	next := f.move(r, 6)
	wantOutcome(t, next.Commit(), Committed)
	f.waitClean(r)
	f.wantMoved(6, Committed)
}

// wantDamage waits until the transaction is named as damaged on the node, by the gateway's recovery and by a
// process that only asks, as pgpact check and pgpact transactions do.
func (f *failing) wantDamage(g *gateway, id participant.ID, node string) {
	f.t.Helper()
	damage := Damage{ID: id, Node: node, Decision: Commit}
	clustertest.WaitFor(f.t, "the damage is found", 30*time.Second, func() bool { return slices.Contains(g.Damage(), damage) })
	onlooker, err := New(g.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	list, err := onlooker.Transactions(f.t.Context())
	onlooker.log.close()
	if err != nil || len(list) != 1 || list[0].ID != id.String() || list[0].State != StateDamaged || list[0].Nodes[node] != NodeLost {
		f.t.Errorf("%+v, %v", list, err)
	}
	g.sweeps(3)
	if got := g.record(id); got != "committed|{a,b}|unfinished" {
		f.t.Errorf("record %q: damage is never a success", got)
	}
}

// A node fails over to an asynchronous standby that has not received everything.
func TestCaseL2(t *testing.T) {
	t.Run("an acknowledged prepare is lost", func(t *testing.T) {
		f := newFailing(t, "a", false)
		g := f.gateway("gateway", nil)
		f.standby.CatchUp()
		f.standby.Cut()
		s := g.stopCommit(f.move(g, 0), pointDecided)
		f.standby.Failover()
		result := s.end()
		wantOutcome(t, result, Committed)
		if !slices.Equal(result.Unfinished, []string{"a"}) {
			t.Errorf("unfinished %v", result.Unfinished)
		}
		f.wantDamage(f.resolver(), s.id, "a")
	})
	t.Run("a finished transaction is lost", func(t *testing.T) {
		f := newFailing(t, "a", false)
		g := f.resolver()
		f.standby.CatchUp()
		f.standby.Cut()
		result := f.move(g, 0).Commit()
		wantOutcome(t, result, Committed)
		g.waitFinished(result.ID)
		f.standby.Failover()
		f.wantDamage(g, result.ID, "a")
	})
	t.Run("a transaction is lost before it is marked finished", func(t *testing.T) {
		f := newFailing(t, "a", false)
		g := f.gateway("gateway", nil)
		f.standby.CatchUp()
		f.standby.Cut()
		reached, marks := make(chan struct{}), make(chan struct{})
		let := sync.OnceFunc(func() { close(marks) })
		t.Cleanup(let)
		g.at(pointFinishing, sync.OnceFunc(func() { close(reached); <-marks }))
		result := f.move(g, 0).Commit()
		wantOutcome(t, result, Committed)
		<-reached
		f.standby.Failover()
		r := f.resolver()
		clustertest.WaitFor(t, "the new server is noted, and its finished decisions are checked", 30*time.Second, func() bool {
			return f.Value(clustertest.CoordinatorServer, "SELECT timeline||unchecked::text FROM pgpact.nodes WHERE name='a'") == "2false"
		})
		let() // the word that was given before the failover arrives now
		clustertest.WaitFor(t, "what was to be marked is dealt with", 20*time.Second, func() bool { return !g.later.waiting() })
		f.wantDamage(r, result.ID, "a")
	})
	t.Run("a committed branch comes back as prepared", func(t *testing.T) {
		f := newFailing(t, "a", false)
		g := f.resolver()
		s := g.stopCommit(f.move(g, 0), pointDecided)
		f.standby.CatchUp()
		f.standby.Cut()
		wantOutcome(t, s.end(), Committed)
		g.waitFinished(s.id)
		f.standby.Failover()
		clustertest.WaitFor(t, "it is committed again", 30*time.Second, func() bool {
			return len(f.Prepared()) == 0 && g.branchRecord("a", s.id)
		})
		f.waitClean(g)
		f.wantMoved(0, Committed)
	})
}

// The decision database fails over asynchronously between two COMMIT PREPAREDs and loses the decision: the branch
// record on the node that has committed proves it. What no node has committed is aborted, as is said then.
func TestCaseD1(t *testing.T) {
	f := newFailing(t, clustertest.CoordinatorServer, false)
	dying, proxy := f.dying()
	undecided, _ := f.dying()
	f.standby.CatchUp()
	f.standby.Cut()
	keyed := f.move(dying, 0)
	dying.setKey(keyed, keyOfTests)
	s := dying.stopCommit(keyed, pointFirstCommitSent)
	open := undecided.stopCommit(f.move(undecided, 1), pointVoted)
	clustertest.WaitFor(t, "one node has committed", 20*time.Second, func() bool {
		return len(f.Prepared()) == 3 && dying.branchRecord("a", s.id)
	})
	proxy.Cut()
	f.standby.Failover()
	if got := dying.record(s.id); got != "" {
		t.Fatalf("the decision was not lost: %q", got)
	}
	r := f.resolver()
	again := f.move(r, 2) // the client has no answer, and repeats with its key
	if taken, ok := errors.AsType[*KeyTakenError](again.SetIdempotencyKey(t.Context(), "role", keyOfTests)); !ok || taken.Winner != s.id {
		t.Errorf("a repetition under the key of %v: %v", s.id, taken)
	}
	again.Rollback()
	f.waitClean(r)
	f.wantMoved(0, Committed)
	f.wantMoved(1, Aborted)
	if got := r.record(s.id); got != "committed|{a,b}|finished" {
		t.Errorf("record %q", got)
	}
	wantOutcome(t, s.end(), Committed) // the other gateway was faster, and the branch record says so
	wantOutcome(t, open.end(), Aborted)
	r.waitWhole()
	if winner, found, err := r.AskKey(t.Context(), "role", keyOfTests); !found || winner != s.id || err != nil {
		t.Errorf("the key: %v, %v, %v", winner, found, err)
	}
}
