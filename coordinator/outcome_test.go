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

func (g *gateway) wantAnswer(id participant.ID, want Decision) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if d, err := g.AskOutcome(ctx, id); d != want || err != nil {
		g.t.Errorf("outcome of %v: %v, %v, want %v", id, d, err, want)
	}
}

func TestAskOutcome(t *testing.T) {
	cluster := newCluster(t, 2)
	a := startGateway(t, cluster, nil)
	b := other(t, cluster, nil)
	both := func(id participant.ID, want Decision) {
		t.Helper()
		a.wantAnswer(id, want)
		b.wantAnswer(id, want)
	}

	tx := a.transfer(10)
	id := tx.Track()
	both(id, NoDecision) // it lives, and has not decided
	wantOutcome(t, tx.Commit(), Committed)
	both(id, Commit)

	tx = a.transfer(10)
	id = tx.Track()
	tx.Rollback()
	a.wantAnswer(id, Abort) // by its own gateway, whatever has been written yet
	both(id, Abort)

	_, err := b.AskOutcome(t.Context(), participant.ID{Epoch: 4711, Sequence: 1})
	if e, ok := errors.AsType[*UnknownEpochError](err); !ok || e.ID.Epoch != 4711 {
		t.Errorf("unknown epoch: %v", err)
	}

	cluster.Exec(clustertest.CoordinatorServer, "INSERT INTO pgpact.gateways(epoch,name,forgotten) VALUES(4711,'old',10)")
	_, err = b.AskOutcome(t.Context(), participant.ID{Epoch: 4711, Sequence: 10})
	if e, ok := errors.AsType[*ForgottenError](err); !ok || e.ID.Sequence != 10 {
		t.Errorf("below the horizon: %v", err)
	}
	// Above it, of a dead gateway: presumed, and written first, so that the answer stays true.
	gone := participant.ID{Epoch: 4711, Sequence: 11}
	b.wantAnswer(gone, Abort)
	if got := b.record(gone); !strings.HasPrefix(got, "aborted|") {
		t.Errorf("record %q", got)
	}
	both(gone, Abort)
}

// A question about an id that a live gateway has not given out yet must not abort the transaction that gets it.
func TestAskOutcomeOfAnIDNotGivenYet(t *testing.T) {
	cluster := newCluster(t, 2)
	a := startGateway(t, cluster, nil)
	b := other(t, cluster, nil)
	next := participant.ID{Epoch: a.epoch.Load().number, Sequence: a.epoch.Load().next.Load() + 1}
	a.wantAnswer(next, NoDecision)
	b.wantAnswer(next, NoDecision)
	result := a.transfer(10).Commit()
	wantOutcome(t, result, Committed)
	if result.ID != next {
		t.Errorf("it got id %v, not %v", result.ID, next)
	}
}

// A dead gateway's transaction, prepared and undecided: the question settles it.
func TestAskOutcomeOfADeadGatewaysTransaction(t *testing.T) {
	cluster := newCluster(t, 2)
	a, proxy := mortal(t, cluster)
	s := a.stopAt(pointVoted)
	b := other(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
	b.wantAnswer(s.id, NoDecision)
	proxy.Cut()
	clustertest.WaitFor(t, "it is answered: aborted", 10*time.Second, func() bool {
		d, err := b.AskOutcome(t.Context(), s.id)
		if err != nil || d == Commit {
			t.Fatalf("%v, %v", d, err)
		}
		return d == Abort
	})
	proxy.Mend()
	result := s.end()
	wantOutcome(t, result, Aborted)
	if !errors.Is(result.Err, ErrAbortDecided) {
		t.Errorf("%v", result.Err)
	}
	// The other's sweep may have taken a branch out of the session's hands: then it is the one that ends it.
	clustertest.WaitFor(t, "nothing is prepared", 20*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
}

// Nobody is presumed dead right after the decision database has come back.
func TestNobodyIsPresumedDeadInTheGrace(t *testing.T) {
	cluster := newCluster(t, 2)
	a, proxy := mortal(t, cluster)
	s := a.stopAt(pointVoted)
	proxy.Cut()
	b := other(t, cluster, func(c *Config) { c.GraceAfterRestart = time.Hour })
	b.sweeps(3)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if d, err := b.AskOutcome(ctx, s.id); d != NoDecision || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", d, err)
	}
	if left := cluster.Prepared(); len(left) != 2 || b.record(s.id) != "" {
		t.Errorf("prepared %v, record %q", left, b.record(s.id))
	}
	proxy.Mend()
	wantOutcome(t, s.end(), Committed)
}

// A recorded abort is applied at once, though the gateway lives: nothing of its owner's is under way any more
// that could end otherwise.
func TestRecoveryAppliesALiveGatewaysAbortAtOnce(t *testing.T) {
	cluster := newCluster(t, 2)
	a := startGateway(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
	s := a.stopAt(pointVoted)
	b := other(t, cluster, func(c *Config) { c.FinishTimeout = time.Hour })
	a.insertDecision(s.id, "aborted")
	clustertest.WaitFor(t, "the branches are rolled back", 10*time.Second, func() bool {
		b.sweeps(1)
		return len(cluster.Prepared()) == 0
	})
	wantOutcome(t, s.end(), Aborted)
	a.wantBalances(1000, 1000)
}

// Older than in_doubt_timeout, a prepared branch is presumed aborted although its gateway lives; which then
// meets the abort.
func TestInDoubtTimeout(t *testing.T) {
	cluster := newCluster(t, 2)
	short := func(c *Config) {
		c.PrepareTimeout, c.DecisionTimeout, c.InDoubtTimeout = 500*time.Millisecond, 500*time.Millisecond, 1100*time.Millisecond
		c.FinishTimeout = 100 * time.Millisecond // twice that is how long the owner is given to apply a decision
	}
	a := startGateway(t, cluster, func(c *Config) {
		short(c)
		c.SweepInterval, c.PrepareTimeout, c.InDoubtTimeout, c.FinishTimeout = time.Hour, 10*time.Second, time.Minute, 5*time.Second
	})
	s := a.stopAt(pointVoted)
	other(t, cluster, short)
	clustertest.WaitFor(t, "the branches are rolled back", 20*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
	result := s.end()
	wantOutcome(t, result, Aborted)
	if !errors.Is(result.Err, ErrAbortDecided) {
		t.Errorf("%v", result.Err)
	}
	a.wantBalances(1000, 1000)
}

// A person has rolled back a prepared branch of a committed transaction: that is damage. It is named, and the
// transaction is never counted as finished.
func TestDamageIsReported(t *testing.T) {
	cluster := newCluster(t, 2)
	a, proxy := mortal(t, cluster)
	s := a.stopAt(pointDecided)
	cluster.Exec("b", "ROLLBACK PREPARED '"+participant.GID{Cluster: cluster.ClusterID, ID: s.id, Node: "b"}.String()+"'")
	proxy.Cut()
	b := other(t, cluster, func(c *Config) { c.FinishTimeout = 100 * time.Millisecond })
	want := Damage{ID: s.id, Node: "b", Decision: Commit}
	clustertest.WaitFor(t, "the damage is reported", 20*time.Second, func() bool {
		d := b.Damage()
		return len(d) == 1 && d[0] == want
	})
	b.sweeps(5)
	if got := b.record(s.id); got != "committed|{a,b}|unfinished" {
		t.Errorf("record %q", got)
	}
	list, err := b.Transactions(t.Context())
	if err != nil || len(list) != 1 || list[0].State != StateDamaged || list[0].Decision != "committed" ||
		!slices.Equal(list[0].Damaged, []string{"b"}) || list[0].Nodes["b"] != NodeLost {
		t.Errorf("%+v, %v", list, err)
	}
	proxy.Mend()
	result := s.end()
	wantOutcome(t, result, Committed)
	if len(result.Unfinished) != 1 || result.Unfinished[0] != "b" {
		t.Errorf("unfinished %v", result.Unfinished)
	}
}

// The other damage: aborted, and a node shows the branch record.
func TestCommittedBranchOfAnAbortedTransactionIsDamage(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(1)
	id := tx.Track()
	tx.Rollback()
	clustertest.WaitFor(t, "the abort is recorded", 10*time.Second, func() bool { return strings.HasPrefix(g.record(id), "aborted|") })
	cluster.Exec("a", fmt.Sprintf("INSERT INTO pgpact.branches VALUES(%d,%d,'{a}')", id.Epoch, id.Sequence))
	cluster.Exec(clustertest.CoordinatorServer, "UPDATE pgpact.transactions SET finished_at=NULL, decided_at=decided_at-interval '1 h'")
	clustertest.WaitFor(t, "the damage is reported", 10*time.Second, func() bool {
		d := g.Damage()
		return len(d) == 1 && d[0] == Damage{ID: id, Node: "a", Decision: Abort}
	})
}

// When the server behind a node's name is another one, what was finished within retention is looked at again:
// a failover may have lost it.
func TestFinishedTransactionsAreCheckedAgainAfterAFailover(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	result := g.transfer(10).Commit()
	wantOutcome(t, result, Committed)
	g.waitFinished(result.ID)
	clustertest.WaitFor(t, "the node is noted", 10*time.Second, func() bool {
		return cluster.Value(clustertest.CoordinatorServer, "SELECT count(*) FROM pgpact.nodes WHERE system_identifier IS NOT NULL") == "2"
	})
	// As if b had been another server until now, and had lost the transaction.
	cluster.Exec("b", "DELETE FROM pgpact.branches")
	cluster.Exec(clustertest.CoordinatorServer, `UPDATE pgpact.nodes SET timeline=0 WHERE name='b';
		UPDATE pgpact.transactions SET decided_at=decided_at-interval '1 h'`)
	b := other(t, cluster, nil)
	clustertest.WaitFor(t, "the loss is found", 10*time.Second, func() bool {
		d := b.Damage()
		return len(d) == 1 && d[0] == Damage{ID: result.ID, Node: "b", Decision: Commit}
	})
	if got := b.record(result.ID); got != "committed|{a,b}|unfinished" {
		t.Errorf("record %q", got)
	}
}

// The lock on the epoch is lost with its connection: new transactions get a new epoch, and commits go on.
func TestLostEpochLock(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	old := g.epoch.Load().number
	running := g.transfer(10)
	oldID := running.Track()
	cluster.SuperExec(clustertest.CoordinatorServer, `SELECT pg_terminate_backend(pid) FROM pg_locks
		WHERE locktype='advisory' AND database=(SELECT oid FROM pg_database WHERE datname=current_database())`)
	clustertest.WaitFor(t, "a new epoch", 20*time.Second, func() bool { return g.epoch.Load().number != old })
	wantOutcome(t, running.Commit(), Committed) // begun in the old one
	result := g.transfer(10).Commit()
	wantOutcome(t, result, Committed)
	if oldID.Epoch != old || result.ID.Epoch != g.epoch.Load().number {
		t.Errorf("ids %v and %v", oldID, result.ID)
	}
	g.wantBalances(980, 1020)
	g.waitFinished(oldID)
	g.waitFinished(result.ID)
	g.wantAnswer(oldID, Commit)
	// The old epoch is dead to everybody: what it never decided is aborted.
	g.wantAnswer(participant.ID{Epoch: old, Sequence: 1000}, Abort)
}

// Stop writes the finished marks that are waiting.
func TestStopFlushesFinishedMarks(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	var ids []participant.ID
	for range 20 {
		result := g.transfer(1).Commit()
		wantOutcome(t, result, Committed)
		ids = append(ids, result.ID)
	}
	g.Stop(t.Context())
	for _, id := range ids {
		if got := g.record(id); got != "committed|{a,b}|finished" {
			t.Errorf("record %q", got)
		}
	}
	g.later.mu.Lock()
	defer g.later.mu.Unlock()
	if len(g.later.finished) != 0 {
		t.Errorf("%d marks were not written", len(g.later.finished))
	}
}

// After Stop nothing is decided, and a commit says so at once.
func TestCommitAfterStopAborts(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	for range 5 { // whichever way the hand-over goes
		tx := g.transfer(10)
		g.Stop(t.Context())
		began := time.Now()
		result := tx.Commit()
		wantOutcome(t, result, Aborted)
		if !errors.Is(result.Err, ErrDecisionUnreachable) {
			t.Errorf("%v", result.Err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
	}
	g.wantBalances(1000, 1000)
}

// How long to be patient is told by the connection's age, or, to a gateway that has just started, by the server's.
func TestSettled(t *testing.T) {
	const grace = time.Hour
	for _, tc := range []struct {
		connected, up  time.Duration
		again, sameLog bool
		want           bool
	}{
		{connected: 0, up: 2 * grace, sameLog: true, want: true},
		{connected: 0, up: 2 * grace, sameLog: true, again: true, want: false}, // lost to a crash of the server's?
		{connected: 0, up: 2 * grace, sameLog: false, want: false},             // promoted a moment ago?
		{connected: 0, up: grace / 2, sameLog: true, want: false},
		{connected: grace/2 + time.Minute, up: grace / 2, sameLog: true, want: true},
		{connected: 2 * grace, again: true, want: true},
	} {
		c := &logConn{connected: time.Now().Add(-tc.connected), up: tc.up, again: tc.again}
		if got := c.settled(tc.sameLog, grace); got != tc.want {
			t.Errorf("%+v: %t", tc, got)
		}
	}
}
