package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// The same key a second time: the first one is named, at SET and in a race at the decision.
func TestIdempotencyKey(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	keyed := func(role, key string) (Result, error) {
		tx := g.transfer(10)
		if err := tx.SetIdempotencyKey(t.Context(), role, key); err != nil {
			tx.Rollback()
			return Result{}, err
		}
		return tx.Commit(), nil
	}
	first, err := keyed("alice", "order-1")
	if err != nil || first.Outcome != Committed {
		t.Fatalf("%+v, %v", first, err)
	}
	_, err = keyed("alice", "order-1")
	if taken, ok := errors.AsType[*KeyTakenError](err); !ok || taken.Winner != first.ID || taken.Key != "order-1" {
		t.Errorf("the same key: %v", err)
	}
	if other, err := keyed("bob", "order-1"); err != nil || other.Outcome != Committed {
		t.Errorf("another role's key: %+v, %v", other, err)
	}
	// One that rolled back has not taken its key.
	tx := g.transfer(10)
	if err := tx.SetIdempotencyKey(t.Context(), "alice", "order-2"); err != nil {
		t.Fatal(err)
	}
	tx.Rollback()
	if again, err := keyed("alice", "order-2"); err != nil || again.Outcome != Committed {
		t.Errorf("after a rollback: %+v, %v", again, err)
	}
	g.wantBalances(970, 1030)
}

func TestIdempotencyKeyRace(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	const racers = 4
	cluster.Exec("a", "INSERT INTO accounts SELECT 'x'||i, 0 FROM generate_series(1,4) i")
	results := make([]Result, racers)
	var group errgroup.Group
	var ready sync.WaitGroup
	ready.Add(racers)
	for i := range racers {
		tx := g.begin()
		g.must(tx, "a", fmt.Sprintf("UPDATE accounts SET balance=1 WHERE id='x%d'", i+1))
		if err := tx.SetIdempotencyKey(t.Context(), "alice", `it's "a" key \`); err != nil {
			t.Fatal(err)
		}
		group.Go(func() error {
			ready.Done()
			ready.Wait()
			results[i] = tx.Commit()
			return nil
		})
	}
	_ = group.Wait()
	var winner participant.ID
	for _, r := range results {
		if r.Outcome == Committed {
			if !winner.IsZero() {
				t.Error("two winners")
			}
			winner = r.ID
		}
	}
	if winner.IsZero() {
		t.Fatalf("no winner: %+v", results)
	}
	for _, r := range results {
		if r.ID == winner {
			continue
		}
		taken, ok := errors.AsType[*KeyTakenError](r.Err)
		if r.Outcome != Aborted || !ok || taken.Winner != winner {
			t.Errorf("%v: %v", r.Outcome, r.Err)
		}
		if d, err := g.AskOutcome(t.Context(), r.ID); d != Abort || err != nil {
			t.Errorf("a loser's outcome: %v, %v", d, err)
		}
	}
	if n := cluster.Value("a", "SELECT count(*) FROM accounts WHERE balance=1"); n != "1" {
		t.Errorf("%s of them are there", n)
	}
}

// A tracked transaction always leaves a record, however few nodes it wrote on.
func TestTrackedTransactionsLeaveARecord(t *testing.T) {
	for _, test := range []struct{ name, sql, want string }{
		{"one node", "UPDATE accounts SET balance=5", "committed|{a}|finished"},
		{"no write", "SELECT balance FROM accounts", "committed|{}|finished"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cluster := newCluster(t, 2)
			g := startGateway(t, cluster, nil)
			tx := g.begin()
			id := tx.Track()
			g.must(tx, "a", test.sql)
			if d, err := g.AskOutcome(t.Context(), id); d != NoDecision || err != nil {
				t.Errorf("in progress: %v, %v", d, err)
			}
			result := tx.Commit()
			wantOutcome(t, result, Committed)
			g.waitFinished(id)
			if got := g.record(id); got != test.want || result.ID != id {
				t.Errorf("record %q of %v", got, result.ID)
			}
			if d, err := g.AskOutcome(t.Context(), id); d != Commit || err != nil {
				t.Errorf("outcome %v, %v", d, err)
			}
		})
	}
}

// Questions that the decision database cannot answer say so: found by chaos, which was told of an internal error instead.
func TestQuestionsWithoutDecisionDatabase(t *testing.T) {
	cluster := newCluster(t, 1)
	g := startGateway(t, cluster, nil)
	cluster.Kill(clustertest.CoordinatorServer)
	defer cluster.StartServer(clustertest.CoordinatorServer)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tx := g.begin()
	defer tx.End()
	if err := tx.SetIdempotencyKey(ctx, "role", "key"); !errors.Is(err, ErrDecisionUnreachable) {
		t.Errorf("a key: %v", err)
	}
	if _, _, err := g.AskKey(ctx, "role", "key"); !errors.Is(err, ErrDecisionUnreachable) {
		t.Errorf("whether a key has committed: %v", err)
	}
	if _, err := g.AskOutcome(ctx, participant.ID{Epoch: 1, Sequence: 1}); !errors.Is(err, ErrDecisionUnreachable) {
		t.Errorf("an outcome: %v", err)
	}
	if list, err := g.Transactions(ctx); list != nil || !errors.Is(err, ErrDecisionUnreachable) {
		t.Errorf("what is in doubt: %v, %v", list, err)
	}
	gone, giveUp := context.WithCancel(ctx)
	giveUp()
	if _, _, err := g.AskKey(gone, "role", "key"); errors.Is(err, ErrDecisionUnreachable) || !errors.Is(err, context.Canceled) {
		t.Errorf("a client that has given up: %v", err)
	}
}
