package coordinator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// A savepoint reaches every branch: those that are open now, and those that open later.
func TestBroadcast(t *testing.T) {
	cluster := newCluster(t, 3)
	g := startGateway(t, cluster, nil)
	tx := g.begin()
	g.must(tx, "a", "UPDATE accounts SET balance=1")
	opening := []string{"BEGIN"}
	for _, node := range []string{"b", "c"} { // enlisted, and not open yet
		if _, err := tx.Enlist(t.Context(), g.node(node), participant.Settings{}, opening); err != nil {
			t.Fatal(err)
		}
	}
	g.must(tx, "b", "UPDATE accounts SET balance=1")
	if err := tx.Broadcast("SAVEPOINT s"); err != nil {
		t.Fatal(err)
	}
	for _, node := range cluster.Names() {
		g.must(tx, node, "UPDATE accounts SET balance=2")
	}
	if err := tx.Broadcast("ROLLBACK TO s"); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, tx.Commit(), Committed)
	g.wantBalances(1, 1, 1000)

	tx = g.transfer(1)
	if err := tx.Broadcast("ROLLBACK TO nowhere"); participant.SQLState(err) != "3B001" {
		t.Errorf("%v", err)
	}
	wantOutcome(t, tx.Commit(), Aborted)
}

// Cancel reaches what runs at a node, and nothing once the transaction has ended.
func TestCancel(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(1)
	done := make(chan error, 1)
	go func() {
		_, err := run(tx, g.node("b"), "SELECT pg_sleep(60)")
		done <- err
	}()
	clustertest.WaitFor(t, "it sleeps", 10*time.Second, func() bool {
		return cluster.Value("b", "SELECT count(*) FROM pg_stat_activity WHERE wait_event='PgSleep' AND datname=current_database()") == "1"
	})
	tx.Cancel()
	if err := <-done; participant.SQLState(err) != "57014" {
		t.Errorf("%v", err)
	}
	tx.Rollback()
	tx.Cancel()
	wantOutcome(t, g.transfer(1).Commit(), Committed)
}

// In-doubt transactions are listed with what a person needs.
func TestTransactionsAreListed(t *testing.T) {
	cluster := newCluster(t, 2)
	a := startGateway(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
	s := a.stopAt(pointVoted)
	b := other(t, cluster, nil)
	list, err := b.Transactions(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	i := list[0]
	slices.Sort(i.Prepared)
	if i.ID != s.id.String() || i.State != "in doubt" || i.Decision != "none" || !slices.Equal(i.Prepared, []string{"a", "b"}) ||
		i.Gateway != t.Name() || !i.Alive || i.Age <= 0 {
		t.Errorf("%+v", i)
	}
	wantOutcome(t, s.end(), Committed)
	a.waitFinished(s.id)
	if list, err := b.Transactions(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// attempt is one transfer that leaves a mark on both nodes, and what its client heard.
type attempt struct {
	mark    int
	outcome Outcome
}

// Transfers at random while server processes are ended at random, on the nodes and on the decision database:
// the sum stays, and what the client heard is true on both nodes.
func TestRandomTransfersWhileConnectionsBreak(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	cluster := newCluster(t, 2)
	for _, node := range cluster.Names() {
		cluster.Exec(node, "CREATE TABLE marks(mark int PRIMARY KEY); INSERT INTO accounts SELECT 'x'||i,1000 FROM generate_series(0,9) i")
	}
	gateways := []*gateway{startGateway(t, cluster, nil), other(t, cluster, nil)}
	sum := cluster.Sum()
	const clients, each = 6, 100
	var mu sync.Mutex
	var attempts []attempt
	var group errgroup.Group
	for client := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		group.Go(func() error {
			for i := range each {
				a := attempt{mark: client*each + i}
				a.outcome = transferAtRandom(gateways[client%2], random, a.mark)
				mu.Lock()
				attempts = append(attempts, a)
				mu.Unlock()
			}
			return nil
		})
	}
	stop := make(chan struct{})
	var breaking sync.WaitGroup
	breaking.Go(func() { breakConnections(t.Context(), cluster, rand.New(rand.NewPCG(seed, 99)), stop) })
	_ = group.Wait()
	close(stop)
	breaking.Wait()

	clustertest.WaitFor(t, "nothing is prepared", 60*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
	if got := cluster.Sum(); got != sum {
		t.Errorf("sum %d, want %d", got, sum)
	}
	marks := map[string][]string{}
	for _, node := range cluster.Names() {
		marks[node] = cluster.Rows(node, "SELECT mark FROM marks ORDER BY mark")
	}
	if !slices.Equal(marks["a"], marks["b"]) {
		t.Errorf("a has %v, b has %v", marks["a"], marks["b"])
	}
	heard := map[Outcome]int{}
	for _, a := range attempts {
		heard[a.outcome]++
		there := slices.Contains(marks["a"], fmt.Sprint(a.mark))
		if a.outcome == Committed && !there || a.outcome == Aborted && there {
			t.Errorf("%d: the client heard %v, there: %v", a.mark, a.outcome, there)
		}
	}
	t.Logf("the clients heard %v", heard)
	if heard[Committed] == 0 {
		t.Error("nothing was committed")
	}
}

// transferAtRandom moves money between random accounts, in either direction.
func transferAtRandom(g *gateway, random *rand.Rand, mark int) Outcome {
	tx, err := g.Begin(g.t.Context())
	if err != nil {
		return Aborted
	}
	nodes := []string{"a", "b"} // always in this order: two nodes see no deadlock between them
	amount := random.IntN(21) - 10
	for _, node := range nodes {
		for _, sql := range []string{
			fmt.Sprintf("UPDATE accounts SET balance=balance+%d WHERE id='x%d'", amount, random.IntN(10)),
			fmt.Sprintf("INSERT INTO marks VALUES(%d)", mark),
		} {
			if _, err := run(tx, g.node(node), sql); err != nil {
				tx.Rollback()
				return Aborted
			}
		}
		amount = -amount
	}
	return tx.Commit().Outcome
}

// breakConnections ends a random server process of the cluster's now and then.
func breakConnections(ctx context.Context, cluster *clustertest.Cluster, random *rand.Rand, stop <-chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		server := []string{"a", "b", clustertest.CoordinatorServer}[random.IntN(3)]
		// Its own failure does not matter: then a connection more lives.
		conn, err := pgconn.Connect(ctx, cluster.SuperURL(server))
		if err != nil {
			continue
		}
		_, _ = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE usename='pgpact' AND datname=current_database() ORDER BY random() LIMIT 1`).ReadAll()
		_ = conn.Close(ctx)
	}
}
