package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

func TestTwoPhaseCommitLeavesRecordAndBranchRecords(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(10)
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	if result.ID.IsZero() || len(result.Unfinished) != 0 || result.Err != nil {
		t.Errorf("result %+v", result)
	}
	g.wantBalances(990, 1010)
	g.waitFinished(result.ID)
	if got := g.record(result.ID); got != "committed|{a,b}|finished" {
		t.Errorf("record %q", got)
	}
	for _, node := range cluster.Names() {
		if !g.branchRecord(node, result.ID) {
			t.Errorf("no branch record on %s", node)
		}
	}
}

func TestOnePhaseCommitLeavesNoRecord(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.begin()
	g.must(tx, "a", "UPDATE accounts SET balance=7 WHERE id='a'")
	g.must(tx, "b", "SELECT balance FROM accounts")
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	if !result.ID.IsZero() {
		t.Errorf("it has an id: %v", result.ID)
	}
	g.wantBalances(7, 1000)
	if n := cluster.Value(clustertest.CoordinatorServer, "SELECT count(*) FROM pgpact.transactions"); n != "0" {
		t.Errorf("%s decision records", n)
	}
	if n := cluster.Value("a", "SELECT count(*) FROM pgpact.branches"); n != "0" {
		t.Errorf("%s branch records", n)
	}
}

func TestReadOnlyTransactionHasNoIDAndNoRecord(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.begin()
	g.must(tx, "a", "SELECT balance FROM accounts")
	g.must(tx, "b", "SELECT balance FROM accounts")
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	if !result.ID.IsZero() {
		t.Errorf("it has an id: %v", result.ID)
	}
	tx = g.begin()
	wantOutcome(t, tx.Commit(), Committed) // of nothing at all
}

// A read-only branch keeps its snapshot and connection until phase two is over.
func TestReadOnlyBranchIsReleasedLast(t *testing.T) {
	cluster := newCluster(t, 3)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(1)
	g.must(tx, "c", "SELECT balance FROM accounts")
	reader := tx.Branch(g.node("c"))
	for _, point := range []string{pointVoted, pointDecided, pointCommitted} {
		g.at(point, func() {
			if !reader.Open() {
				t.Errorf("released before %s", point)
			}
		})
	}
	var released bool
	g.at(pointReleased, func() { released = !reader.Open() })
	wantOutcome(t, tx.Commit(), Committed)
	if !released {
		t.Error("not released at all")
	}
}

// FOR UPDATE on a third node protects a counter across nodes: the lock is on c, what it protects is read and
// written on a and b. 2,000 increments by 8 clients, none lost.
func TestForUpdateOnAThirdNodeProtectsACounter(t *testing.T) {
	cluster := newCluster(t, 3)
	g := startGateway(t, cluster, nil)
	cluster.Exec("a", "UPDATE accounts SET balance=0")
	cluster.Exec("b", "UPDATE accounts SET balance=0")
	const clients, each = 8, 250
	var group errgroup.Group
	for range clients {
		group.Go(func() error {
			for range each {
				if err := increment(g); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	g.wantBalances(clients*each, clients*each, 1000)
}

func increment(g *gateway) error {
	tx, err := g.Begin(context.Background())
	if err != nil {
		return err
	}
	if _, err := run(tx, g.node("c"), "SELECT balance FROM accounts WHERE id='c' FOR UPDATE"); err != nil {
		tx.Rollback()
		return err
	}
	for _, node := range []string{"a", "b"} {
		rows, err := run(tx, g.node(node), "SELECT balance FROM accounts")
		if err == nil {
			var n int
			if n, err = strconv.Atoi(rows[0]); err == nil {
				_, err = run(tx, g.node(node), fmt.Sprintf("UPDATE accounts SET balance=%d", n+1))
			}
		}
		if err != nil {
			tx.Rollback()
			return err
		}
	}
	if result := tx.Commit(); result.Outcome != Committed {
		return fmt.Errorf("%v: %w", result.Outcome, result.Err)
	}
	return nil
}

// A no of one node is a no of all, and its own error is the reason.
func TestNoVoteAbortsEverywhere(t *testing.T) {
	cluster := newCluster(t, 2)
	cluster.Exec("b", "CREATE TABLE p(a int PRIMARY KEY); CREATE TABLE f(a int REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
	g := startGateway(t, cluster, nil)
	tx := g.transfer(10)
	g.must(tx, "b", "INSERT INTO f VALUES(5)")
	result := tx.Commit()
	wantOutcome(t, result, Aborted)
	pgErr, ok := errors.AsType[*pgconn.PgError](result.Err)
	if !ok || pgErr.Code != "23503" || pgErr.ConstraintName != "f_a_fkey" {
		t.Errorf("%v", result.Err)
	}
	if left := cluster.Prepared(); len(left) != 0 {
		t.Errorf("prepared: %v", left)
	}
	g.wantBalances(1000, 1000)
	if got := g.record(result.ID); got != "" {
		t.Errorf("record %q", got)
	}
}

// A branch on which nothing has run takes no part.
func TestBranchThatNeverOpenedTakesNoPart(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.begin()
	g.must(tx, "a", "UPDATE accounts SET balance=1")
	b, err := tx.Enlist(t.Context(), g.node("b"), participant.Settings{}, []string{"BEGIN"})
	if err != nil {
		t.Fatal(err)
	}
	b.MarkWrites()
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	if !result.ID.IsZero() {
		t.Error("it took two phases")
	}
	g.wantBalances(1, 1000)
}

// A lost or failed branch cannot be committed; nothing of the others is.
func TestUnfitTransactionAborts(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(10)
	if _, err := run(tx, g.node("b"), "SELECT 1/0"); participant.SQLState(err) != "22012" {
		t.Fatal(err)
	}
	wantOutcome(t, tx.Commit(), Aborted)

	tx = g.transfer(10)
	pid := tx.Branch(g.node("b")).Conn().PID()
	cluster.SuperExec("b", fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
	if _, err := run(tx, g.node("b"), "SELECT 1"); err == nil || tx.Doomed() == nil {
		t.Errorf("%v, doomed %v", err, tx.Doomed())
	}
	result := tx.Commit()
	wantOutcome(t, result, Aborted)
	if _, lost := errors.AsType[*participant.LostError](result.Err); !lost {
		t.Errorf("%v", result.Err)
	}
	g.wantBalances(1000, 1000)
}

// A connection that fails after its vote may tell of a node that has lost it: the transaction is aborted, and
// the abort recorded.
func TestConnectionLostAfterTheVoteAborts(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(10)
	first := tx.Branch(g.node("a"))
	g.at(pointFirstVote, func() { // a has voted; it loses its connection before b's vote is read
		cluster.SuperExec("a", fmt.Sprintf("SELECT pg_terminate_backend(%d)", first.Conn().PID()))
		clustertest.WaitFor(t, "the loss is seen", 10*time.Second, func() bool { return !first.StillWhole() })
	})
	result := tx.Commit()
	wantOutcome(t, result, Aborted)
	clustertest.WaitFor(t, "the abort is recorded and applied", 10*time.Second, func() bool {
		return g.record(result.ID) == "aborted|{a,b}|finished" && len(cluster.Prepared()) == 0
	})
	g.wantBalances(1000, 1000)
}

func TestRollback(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(10)
	tx.Rollback()
	g.wantBalances(1000, 1000)
	for _, node := range g.cfg.Nodes {
		if s := node.Stats(); s.Idle != 1 || s.InUse != 0 {
			t.Errorf("%s: %+v", node.Name(), s)
		}
	}
	// Of a tracked one the abort is recorded, since it may be asked for.
	tx = g.transfer(10)
	id := tx.Track()
	tx.Rollback()
	clustertest.WaitFor(t, "the abort is recorded", 10*time.Second, func() bool { return strings.HasPrefix(g.record(id), "aborted|") })
}

func TestSlots(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, func(c *Config) { c.Slots, c.SlotTimeout = 2, 50*time.Millisecond })
	first, second := g.begin(), g.transfer(1)
	if _, err := g.Begin(t.Context()); !errors.Is(err, ErrNoSlot) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client is gone")
	cancel(gone)
	if _, err := g.Begin(ctx); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	if n := g.SlotsInUse(); n != 2 {
		t.Errorf("%d slots in use", n)
	}
	first.End()
	first.End() // gives nothing back twice
	if n := g.SlotsInUse(); n != 1 {
		t.Errorf("%d slots in use", n)
	}
	third := g.begin()
	wantOutcome(t, second.Commit(), Committed)
	third.Rollback()
}

// A deferred trigger's warning reaches the client; the commit is not spoilt by it.
func TestNoticesOfTheCommit(t *testing.T) {
	cluster := newCluster(t, 2)
	cluster.Exec("b", `CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE WARNING 'low'; RETURN NULL; END$$;
		CREATE CONSTRAINT TRIGGER warn AFTER UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn()`)
	g := startGateway(t, cluster, nil)
	result := g.transfer(1).Commit()
	wantOutcome(t, result, Committed)
	if len(result.Notices) != 1 || result.Notices[0].Message != "low" {
		t.Errorf("notices %v", result.Notices)
	}
}

// PREPARE that does not answer is given up at the deadline; the abort is recorded, and meets whatever landed.
func TestPrepareThatHangsAborts(t *testing.T) {
	cluster := newCluster(t, 2)
	cluster.Exec("b", `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(60); RETURN NULL; END$$;
		CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`)
	g := startGateway(t, cluster, func(c *Config) { c.PrepareTimeout = 600 * time.Millisecond })
	result := g.transfer(1).Commit()
	wantOutcome(t, result, Aborted)
	clustertest.WaitFor(t, "nothing is prepared", 10*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
	g.wantBalances(1000, 1000)
}
