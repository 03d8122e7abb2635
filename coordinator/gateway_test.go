package coordinator

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// newCluster makes a cluster on the package's servers, with one account of 1000 on each node, and checks at
// the end of the test that nothing of it is left: no connection in use, no prepared branch, no goroutine.
func newCluster(t *testing.T, nodes int) *clustertest.Cluster {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	cluster := clustertest.Start(t, nodes, clustertest.Options{Servers: servers})
	for _, name := range cluster.Names() {
		cluster.Exec(name, "INSERT INTO accounts VALUES('"+name+"',1000)")
	}
	t.Cleanup(func() {
		if left := cluster.Prepared(); len(left) > 0 && !t.Failed() {
			t.Errorf("left prepared: %v", left)
		}
		for _, node := range cluster.Nodes {
			node.Close()
		}
		// A server that was started again has a goroutine that waits for its end.
		if err := goleak.Find(leaks, goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait")); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
	return cluster
}

// gateway is one coordinator under test, with the fault points it has passed.
type gateway struct {
	*Coordinator
	t       *testing.T
	cluster *clustertest.Cluster

	mu   sync.Mutex
	hook map[string]func()
}

// startGateway starts a coordinator on the cluster's own nodes. Sweeps and graces are short, so that what
// recovery does is seen soon.
func startGateway(t *testing.T, cluster *clustertest.Cluster, change func(*Config)) *gateway {
	t.Helper()
	g := &gateway{t: t, cluster: cluster, hook: map[string]func(){}}
	config := Config{
		Name: t.Name(), DecisionURL: cluster.DecisionURL, ClusterID: cluster.ClusterID, Nodes: cluster.Nodes,
		SweepInterval: 20 * time.Millisecond, GraceAfterRestart: time.Millisecond,
		FaultPoint: g.passed, Logger: clustertest.Logger(t),
	}
	if change != nil {
		change(&config)
	}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	g.Coordinator = c
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

// close stops the gateway and checks that every slot and connection came back.
func (g *gateway) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	g.Stop(ctx)
	if g.t.Failed() {
		return
	}
	if n := g.SlotsInUse(); n != 0 {
		g.t.Errorf("%d slots still in use", n)
	}
	for _, node := range g.cfg.Nodes {
		if n := node.Stats().InUse; n != 0 {
			g.t.Errorf("%d connections to node %q still in use", n, node.Name())
		}
	}
}

// passed is the gateway's Config.FaultPoint.
func (g *gateway) passed(point string) {
	visited.add(point)
	g.mu.Lock()
	hook := g.hook[point]
	g.mu.Unlock()
	if hook != nil {
		hook()
	}
}

// at has do run whenever the fault point is passed; nil takes that back.
func (g *gateway) at(point string, do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hook[point] = do
}

// visited are the fault points passed by any test.
var visited = visitedPoints{names: map[string]bool{}}

type visitedPoints struct {
	mu    sync.Mutex
	names map[string]bool
}

func (v *visitedPoints) add(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.names[name] = true
}

// node is a node by name.
func (g *gateway) node(name string) *participant.Node { return g.nodes[name] }

// begin begins a transaction.
func (g *gateway) begin() *Transaction {
	g.t.Helper()
	tx, err := g.Begin(context.Background())
	if err != nil {
		g.t.Fatal(err)
	}
	return tx
}

// run runs one statement in the transaction at a node, enlisting it if needed, and returns what the node
// refused. What the statement does is told to the branch as the gateway does.
func run(tx *Transaction, node *participant.Node, sql string) (rows []string, err error) {
	b := tx.Branch(node)
	if b == nil {
		if b, err = tx.Enlist(context.Background(), node, participant.Settings{}, []string{"BEGIN"}); err != nil {
			return nil, err
		}
	}
	switch {
	case !strings.HasPrefix(sql, "SELECT"):
		b.MarkWrites()
	case strings.Contains(sql, " FOR "):
		b.MarkLocks()
	}
	// A test that hangs says nothing: here it would be told which node did not answer.
	b.Conn().SetDeadline(time.Now().Add(2 * time.Minute))
	defer b.Conn().SetDeadline(time.Time{})
	b.Query(sql)
	if err := b.Send(); err != nil {
		return nil, err
	}
	var refused error
	for {
		frame, err := b.Receive()
		if err != nil {
			return nil, err
		}
		switch frame.Type() {
		case 'D':
			var row pgproto3.DataRow
			if err := row.Decode(frame.Body()); err != nil {
				return nil, err
			}
			values := make([]string, len(row.Values))
			for i, v := range row.Values {
				values[i] = string(v)
			}
			rows = append(rows, strings.Join(values, "|"))
		case 'E':
			pgErr, err := participant.DecodeError(frame.Body())
			if err != nil {
				return nil, err
			}
			refused = pgErr
		case 'Z':
			return rows, refused
		}
	}
}

// must is run for a statement that may not fail.
func (g *gateway) must(tx *Transaction, node, sql string) []string {
	g.t.Helper()
	rows, err := run(tx, g.node(node), sql)
	if err != nil {
		g.t.Fatalf("%s at %s: %v", sql, node, err)
	}
	return rows
}

// transfer moves amount from the account of node a to that of node b, in a transaction that has not committed
// yet.
func (g *gateway) transfer(amount int) *Transaction {
	g.t.Helper()
	tx := g.begin()
	g.must(tx, "a", fmt.Sprintf("UPDATE accounts SET balance=balance-%d WHERE id='a'", amount))
	g.must(tx, "b", fmt.Sprintf("UPDATE accounts SET balance=balance+%d WHERE id='b'", amount))
	return tx
}

// wantOutcome fails the test unless the result is as wanted.
func wantOutcome(t *testing.T, result Result, want Outcome) {
	t.Helper()
	if result.Outcome != want {
		t.Fatalf("outcome %v (%v), want %v", result.Outcome, result.Err, want)
	}
}

// wantBalances fails the test unless the accounts of nodes a, b ... hold this much.
func (g *gateway) wantBalances(want ...int) {
	g.t.Helper()
	for i, name := range clustertest.NodeNames(len(want)) {
		if got := g.cluster.Value(name, "SELECT balance FROM accounts WHERE id='"+name+"'"); got != strconv.Itoa(want[i]) {
			g.t.Errorf("account %s holds %s, want %d", name, got, want[i])
		}
	}
}

// waitFinished waits until the transaction's decision is marked finished.
func (g *gateway) waitFinished(id participant.ID) {
	g.t.Helper()
	clustertest.WaitFor(g.t, "the record of "+id.String()+" is marked finished", 10*time.Second, func() bool {
		return strings.HasSuffix(g.record(id), "|finished")
	})
}

// record is the transaction's decision record: "committed|{a,b}|finished", or "" if there is none.
func (g *gateway) record(id participant.ID) string {
	g.t.Helper()
	rows := g.cluster.Rows(clustertest.CoordinatorServer, fmt.Sprintf(`SELECT outcome,participants,
		CASE WHEN finished_at IS NULL THEN 'unfinished' ELSE 'finished' END
		FROM pgpact.transactions WHERE (epoch,sequence)=(%d,%d)`, id.Epoch, id.Sequence))
	return strings.Join(rows, "")
}

// branchRecord tells whether the node shows the transaction's branch record.
func (g *gateway) branchRecord(node string, id participant.ID) bool {
	g.t.Helper()
	return g.cluster.Value(node, fmt.Sprintf("SELECT count(*) FROM pgpact.branches WHERE (epoch,sequence)=(%d,%d)",
		id.Epoch, id.Sequence)) == "1"
}
