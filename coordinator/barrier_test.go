//go:build unix

package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// openAll opens snapshots on all nodes of a new transaction, which it returns.
func (g *gateway) openAll(ctx context.Context) (*Transaction, error) {
	g.t.Helper()
	tx := g.begin()
	for _, node := range g.cfg.Nodes {
		if _, err := tx.Enlist(ctx, node, participant.Settings{}, []string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}); err != nil {
			tx.Rollback()
			return nil, err
		}
	}
	err := g.OpenSnapshots(ctx, g.cfg.Nodes, func() error {
		if err := restart(tx); err != nil {
			return err
		}
		_, err := onBoth(tx, "SELECT 1")
		return err
	})
	if err != nil {
		tx.Rollback()
		return nil, err
	}
	return tx, nil
}

// A transaction whose commit is decided and whose gateway stands still is seen by the next reader, who commits it where it is
// prepared; and its gateway, going on, finds it committed.
func TestReaderHelpsADecidedTransaction(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	reader := other(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
	decided, goOn := make(chan struct{}), make(chan struct{})
	g.at(pointDecided, func() {
		close(decided)
		<-goOn
	})
	tx := g.transfer(100)
	var group errgroup.Group
	var result Result
	group.Go(func() error {
		result = tx.Commit()
		return nil
	})
	<-decided
	read, err := reader.openAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := reader.must(read, "a", "SELECT balance FROM accounts")[0], reader.must(read, "b", "SELECT balance FROM accounts")[0]; a != "900" || b != "1100" {
		t.Errorf("read %s and %s, want 900 and 1100", a, b)
	}
	read.Rollback()
	close(goOn)
	_ = group.Wait()
	if wantOutcome(t, result, Committed); len(result.Unfinished) > 0 {
		t.Errorf("unfinished: %v", result.Unfinished)
	}
}

// A window in which its gateway stands still is ended by the server, and writers go on; its reader gets another.
func TestFrozenWindowFreesWriters(t *testing.T) {
	cluster := newCluster(t, 2)
	g, frozen := startGateway(t, cluster, nil), other(t, cluster, nil)
	locked, goOn := make(chan struct{}), make(chan struct{})
	frozen.at(pointWindowLocked, sync.OnceFunc(func() {
		close(locked)
		<-goOn
	}))
	var group errgroup.Group
	group.Go(func() error {
		tx, err := frozen.openAll(context.Background())
		if err == nil {
			tx.Rollback()
		}
		return err
	})
	<-locked
	tx := g.transfer(1)
	began := time.Now()
	wantOutcome(t, tx.Commit(), Committed)
	if took := time.Since(began); took > defaultBarrierTimes.whole+3*time.Second {
		t.Errorf("a commit took %v behind a window that stood still, want about %v", took, defaultBarrierTimes.whole)
	}
	close(goOn)
	if err := group.Wait(); err != nil {
		t.Errorf("the reader whose window was ended: %v", err)
	}
}

// A node that cannot be asked: those who need it get an error at the bound, the others are served.
func TestUnreachableNodeFailsItsReadersOnly(t *testing.T) {
	servers, stop, err := clustertest.NewServers(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop() })
	cluster := clustertest.Start(t, 3, clustertest.Options{Servers: servers})
	g := startGateway(t, cluster, func(c *Config) { c.SnapshotTimeout = 2 * time.Second })
	cluster.Kill("c")
	opened := func() error { return nil }
	if err := g.OpenSnapshots(t.Context(), g.cfg.Nodes[:2], opened); err != nil {
		t.Errorf("a and b: %v", err)
	}
	began := time.Now()
	err = g.OpenSnapshots(t.Context(), g.cfg.Nodes, opened)
	if _, ok := errors.AsType[*SnapshotError](err); !ok {
		t.Errorf("all nodes: %v, want a SnapshotError", err)
	}
	if e, ok := errors.AsType[*participant.ConnectError](err); !ok || e.Node != "c" {
		t.Errorf("all nodes: %v, want an error about node c", err)
	}
	if took := time.Since(began); took < 2*time.Second || took > 20*time.Second {
		t.Errorf("it took %v, want 2 s", took)
	}
	cluster.StartServer("c")
	clustertest.WaitFor(t, "node c can be read again", 30*time.Second, func() bool {
		return g.OpenSnapshots(t.Context(), g.cfg.Nodes, opened) == nil
	})
}

// Readers that come while another's window is being opened go through the same, or the next.
func TestReadersShareWindows(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	var windows atomic.Int64
	g.at(pointWindowLocked, func() { windows.Add(1) })
	var group errgroup.Group
	const readers = 40
	for range readers {
		group.Go(func() error { return g.OpenSnapshots(context.Background(), g.cfg.Nodes, func() error { return nil }) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := windows.Load(); n > readers/4 {
		t.Errorf("%d windows for %d readers", n, readers)
	}
}

// A reader whose client has given up leaves, and one that is too slow goes through another window without holding up the others.
func TestSlowAndCancelledReaders(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client is gone")
	cancel(gone)
	if err := g.OpenSnapshots(ctx, g.cfg.Nodes, func() error { return nil }); err != nil && !errors.Is(err, gone) {
		t.Errorf("a reader that has given up: %v", err)
	}
	tries := 0
	err := g.OpenSnapshots(t.Context(), g.cfg.Nodes, func() error {
		if tries++; tries == 1 {
			pause(t.Context(), g.barrier.times.whole+500*time.Millisecond) // longer than any window
		}
		return nil
	})
	if err != nil || tries != 2 {
		t.Errorf("a slow reader: %v after %d tries, want success at the second", err, tries)
	}
	failed := errors.New("the node has refused")
	if err := g.OpenSnapshots(t.Context(), g.cfg.Nodes, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("a reader that fails: %v", err)
	}
}

// Decisions that take longer than a window waits for them, one after another without a gap: a reader gets its snapshots all the same.
func TestReaderAmongSlowDecisions(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var deciders errgroup.Group
	slow := defaultBarrierTimes.lock * 2
	for range 2 {
		conn, err := pgconn.Connect(t.Context(), cluster.URL(clustertest.CoordinatorServer))
		if err != nil {
			t.Fatal(err)
		}
		deciders.Go(func() error {
			defer conn.Close(context.Background())
			for ctx.Err() == nil {
				_, err := conn.Exec(t.Context(), fmt.Sprintf("BEGIN; DELETE FROM pgpact.gate; SELECT pg_sleep(%f); COMMIT", slow.Seconds())).ReadAll()
				if err != nil {
					return err
				}
			}
			return nil
		})
		pause(t.Context(), slow/2)
	}
	for range 3 {
		if err := g.OpenSnapshots(t.Context(), g.cfg.Nodes, func() error { return nil }); err != nil {
			t.Error(err)
		}
	}
	cancel()
	if err := deciders.Wait(); err != nil {
		t.Error(err)
	}
}

// What docs/guarantees.md does not promise: a reader whose window is open may see the later of two single-node commits, and not the
// earlier.
func TestSingleNodeCommitsHaveNoOrder(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.begin()
	for _, node := range g.cfg.Nodes {
		if _, err := tx.Enlist(t.Context(), node, participant.Settings{}, []string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}); err != nil {
			t.Fatal(err)
		}
	}
	err := g.OpenSnapshots(t.Context(), g.cfg.Nodes, func() error {
		if err := restart(tx); err != nil {
			return err
		}
		g.must(tx, "a", "SELECT 1")
		for _, node := range []string{"a", "b"} { // first on a, then on b: neither waits for the window
			single := g.begin()
			g.must(single, node, "UPDATE accounts SET balance=1")
			wantOutcome(t, single.Commit(), Committed)
		}
		g.must(tx, "b", "SELECT 1")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a, b := g.must(tx, "a", "SELECT balance FROM accounts")[0], g.must(tx, "b", "SELECT balance FROM accounts")[0]
	if a != "1000" || b != "1" {
		t.Errorf("read %s and %s, want the second commit only", a, b)
	}
	tx.Rollback()
}
