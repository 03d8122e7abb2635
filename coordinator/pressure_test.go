package coordinator

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// newPressed is a cluster of two nodes with servers of its own, with rows "0" ... "15" of 1000 on each.
func newPressed(t *testing.T, settings map[string]string) *clustertest.Cluster {
	t.Helper()
	cluster := clustertest.Start(t, 2, clustertest.Options{Settings: settings})
	for _, node := range cluster.Names() {
		cluster.Exec(node, "INSERT INTO accounts SELECT i,1000 FROM generate_series(0,15) i")
	}
	return cluster
}

// tryMove moves 1 from row i of a to row i of b and commits. What cannot be begun or enlisted is Aborted.
func tryMove(g *gateway, row int) Result {
	tx, err := g.Begin(context.Background())
	if err != nil {
		return Result{Outcome: Aborted, Err: err}
	}
	for node, sign := range map[string]string{"a": "-", "b": "+"} {
		if _, err := run(tx, g.node(node), fmt.Sprintf("UPDATE accounts SET balance=balance%s1 WHERE id='%d'", sign, row)); err != nil {
			tx.Rollback()
			return Result{Outcome: Aborted, Err: err}
		}
	}
	return tx.Commit()
}

// crowd has n clients move, each on a row of its own, and counts what came of it: by row the moves committed, and by
// SQLSTATE those aborted.
func crowd(g *gateway, n, rounds int) (committed []int, refused map[string]int) {
	committed, refused = make([]int, n), map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for row := range n {
		wg.Go(func() {
			for range rounds {
				result := tryMove(g, row)
				mu.Lock()
				switch result.Outcome {
				case Committed:
					committed[row]++
				case Aborted:
					refused[participant.SQLState(result.Err)]++
				default:
					g.t.Errorf("row %d: %+v", row, result)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return committed, refused
}

// wantMoves fails the test unless exactly the committed moves are there.
func wantMoves(t *testing.T, cluster *clustertest.Cluster, committed []int) {
	t.Helper()
	for row, n := range committed {
		query := fmt.Sprintf("SELECT balance FROM accounts WHERE id='%d'", row)
		if got, want := cluster.Value("a", query)+" "+cluster.Value("b", query), fmt.Sprint(1000-n, " ", 1000+n); got != want {
			t.Errorf("row %d: %s, want %s", row, got, want)
		}
	}
	if left := cluster.Prepared(); len(left) > 0 {
		t.Errorf("left prepared: %v", left)
	}
}

// The nodes' slots for prepared transactions are used up: 53200, which is a certain no, and nothing else suffers.
func TestPressurePreparedSlots(t *testing.T) {
	cluster := newPressed(t, map[string]string{"max_prepared_transactions": "2"})
	g := startGateway(t, cluster, nil)
	committed, refused := crowd(g, 16, 20)
	total := 0
	for _, n := range committed {
		total += n
	}
	t.Logf("%d committed, refused by SQLSTATE: %v", total, refused)
	if total == 0 || refused["53200"] == 0 || len(refused) != 1 {
		t.Errorf("%d committed, refused %v", total, refused)
	}
	wantMoves(t, cluster, committed)
	wantOutcome(t, tryMove(g, 0), Committed) // the same, repeated when there is room
}

// occupy takes every connection that the role may have to the node's database, and returns how to let them go.
func occupy(t *testing.T, cluster *clustertest.Cluster, node string) (release func()) {
	t.Helper()
	var conns []*pgx.Conn
	release = func() {
		for _, c := range conns {
			_ = c.Close(context.Background())
		}
		conns = nil
	}
	t.Cleanup(func() { release() })
	for {
		c, err := pgx.Connect(t.Context(), cluster.URL(node))
		if participant.SQLState(err) == "53300" {
			return release
		}
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
}

// A node takes no more connections: what needs one there is refused, what has one goes on, and recovery waits for one
// without holding up the other node.
func TestPressureConnections(t *testing.T) {
	cluster := newPressed(t, nil)
	dying, proxy := mortal(t, cluster)
	tx := dying.begin()
	for _, node := range cluster.Names() {
		dying.must(tx, node, "UPDATE accounts SET balance=0 WHERE id='15'")
	}
	s := dying.stopCommit(tx, pointVoted)
	working := startGateway(t, cluster, func(c *Config) { c.Nodes, c.SweepInterval = cluster.Open(t, nil), time.Hour })
	wantOutcome(t, tryMove(working, 0), Committed) // has a connection to each node now
	cluster.SuperExec("a", "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 12', current_database()); END $$")
	release := occupy(t, cluster, "a")
	proxy.Cut()
	committed, refused := crowd(working, 8, 10)
	committed[0]++
	t.Logf("committed %v, refused by SQLSTATE: %v", committed, refused)
	if refused["53300"] == 0 || len(refused) != 1 {
		t.Errorf("refused %v", refused)
	}
	r := other(t, cluster, nil)
	clustertest.WaitFor(t, "the branch on b is rolled back", 20*time.Second, func() bool { return len(cluster.Prepared()) == 1 })
	release()
	clustertest.WaitFor(t, "so is that on a", 20*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
	wantMoves(t, cluster, committed)
	wantOutcome(t, s.end(), Aborted)
	proxy.Mend()
	wantOutcome(t, tryMove(r, 0), Committed)
}

// manyDecisions is how many finished decisions stand in the way (PGPACT_TEST_DECISIONS=5000000 for the full number).
func manyDecisions(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("PGPACT_TEST_DECISIONS"))
	if os.Getenv("PGPACT_TEST_DECISIONS") != "" && err != nil {
		t.Fatal(err)
	}
	return max(n, 200_000)
}

// recoverLeft has a dead gateway's 100 undecided transactions on the first node resolved and looks once more, and
// tells how long each took.
func recoverLeft(t *testing.T, cluster *clustertest.Cluster, g *gateway, epoch int64) (resolve, idle time.Duration) {
	t.Helper()
	cluster.Exec(clustertest.CoordinatorServer, fmt.Sprintf("INSERT INTO pgpact.gateways(epoch,name) VALUES(%d,'dead')", epoch))
	for sequence := range 100 {
		gid := participant.GID{Cluster: cluster.ClusterID, ID: participant.ID{Epoch: epoch, Sequence: int64(sequence + 1)}, Node: "a"}
		cluster.Exec("a", fmt.Sprintf("BEGIN; INSERT INTO accounts VALUES('%d-%d',0); PREPARE TRANSACTION '%s'", epoch, sequence, gid))
	}
	clustertest.WaitFor(t, "the grace is over", 20*time.Second, func() bool {
		looked, err := g.log.look(t.Context(), []participant.ID{{Epoch: epoch, Sequence: 1}}, g.cfg.GraceAfterRestart)
		return err == nil && looked[participant.ID{Epoch: epoch, Sequence: 1}].settled
	})
	begun := time.Now()
	g.sweeps(1)
	resolve, begun = time.Since(begun), time.Now()
	if left := cluster.Prepared(); len(left) != 0 {
		t.Fatalf("%d left prepared", len(left))
	}
	g.sweeps(1)
	return resolve, time.Since(begun)
}

// Millions of finished decisions make recovery no slower: none of its statements reads them.
func TestPressureManyDecisions(t *testing.T) {
	n := manyDecisions(t)
	cluster := newPressed(t, nil)
	g := startGateway(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
	resolveBefore, idleBefore := recoverLeft(t, cluster, g, 1001)
	cluster.Exec(clustertest.CoordinatorServer, "INSERT INTO pgpact.gateways(epoch,name) SELECT e,'gone' FROM generate_series(1,5) e")
	for first := 0; first < n; first += 200_000 { // each within the time for one statement
		cluster.Exec(clustertest.CoordinatorServer, fmt.Sprintf(`INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role,finished_at)
			SELECT 1+i%%5,1+i/5,'committed','{a,b}','app',now() FROM generate_series(%d,%d) i`, first, min(first+200_000, n)-1))
	}
	cluster.SuperExec(clustertest.CoordinatorServer, "ANALYZE pgpact.transactions")
	// What follows counts by itself how it reads the decisions.
	g.log.close() // what it has counted while there was nothing arrives when the session ends
	clustertest.WaitFor(t, "the sessions so far have ended", 20*time.Second, func() bool {
		return cluster.Value(clustertest.CoordinatorServer, `SELECT count(*) FROM pg_stat_activity WHERE datname=current_database()
			AND application_name='pgpact decisions' AND query<>'SELECT 1'`) == "0"
	})
	cluster.SuperExec(clustertest.CoordinatorServer, "SELECT pg_stat_reset()")
	scans := func() (seq, index int) {
		if _, err := fmt.Sscan(cluster.Value(clustertest.CoordinatorServer, `SELECT coalesce(sum(seq_scan),0)||' '||coalesce(sum(idx_scan),0)
			FROM pg_stat_user_tables WHERE schemaname='pgpact' AND relname='transactions'`), &seq, &index); err != nil {
			t.Fatal(err)
		}
		return seq, index
	}
	other(t, cluster, func(c *Config) { c.SweepInterval = time.Hour }) // one that starts does not read them either
	resolveAfter, idleAfter := recoverLeft(t, cluster, g, 1002)
	if _, err := g.Transactions(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.log.close() // the session tells what it has counted when it ends
	clustertest.WaitFor(t, "the statistics of the session arrive", 20*time.Second, func() bool { _, index := scans(); return index > 0 })
	if seq, index := scans(); seq > 0 {
		t.Errorf("recovery has read pgpact.transactions from end to end %d times, by index %d times", seq, index)
	}
	begun := time.Now()
	if forgotten, err := newPurger(g.Coordinator).purge(t.Context()); err != nil || forgotten != 0 {
		t.Errorf("purged %d, %v", forgotten, err)
	}
	t.Logf("%d decisions: 100 in doubt resolved in %s (without them %s), a sweep of nothing %s (%s), purge finds nothing in %s",
		n, resolveAfter, resolveBefore, idleAfter, idleBefore, time.Since(begun))
	_, before := scans()
	g.log.close()
	clustertest.WaitFor(t, "the statistics of purge arrive", 20*time.Second, func() bool { _, index := scans(); return index > before })
	if seq, index := scans(); seq > 0 {
		t.Errorf("pgpact.transactions was read from end to end %d times, by index %d times", seq, index)
	}
	if resolveAfter > 10*resolveBefore+time.Second {
		t.Errorf("resolving took %s, without the decisions %s", resolveAfter, resolveBefore)
	}
}
