package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// Idempotency keys, and what becomes of them when the decision log loses
// decisions (I10, docs/adr/0011).
//
// A key stands with its decision, where a unique index lets one transaction
// commit under it. The branch records bear it too, since a lost decision is
// proven by them. As long as the log is in the life in which its keys are known
// to be whole, nobody looks there: one question to the log answers. After a
// failover or a restore of the decision database it is not, until recovery has
// gone through the keyed branch records of every node once (keysweep.go). Until
// then whoever asks for a key has the nodes asked for that key, all of them:
//
//   - a visible record proves that the key is used. The decision is settled, and
//     has its key back, before anybody hears of it.
//   - a prepared branch whose gid has the key's tag, of an epoch that began in an
//     earlier life, may have been decided there. It is settled first. What cannot
//     be settled, and a node that cannot be asked, leaves the question open.
//   - neither: nobody has committed under the key in an earlier life, and nobody
//     can any more, since a decision there was made with all branches prepared.
//     Who commits under it in this life meets the unique index.
//
// So "free" is true in the life in which it was found, and the decider takes it
// in no other (settleKeyed).

// KeyUnsureError says that nobody can tell now whether a transaction has
// committed under the key. It is not free, and not taken.
type KeyUnsureError struct{ Key, Reason string }

func (e *KeyUnsureError) Error() string {
	return fmt.Sprintf("it cannot be told whether idempotency key %q has been used: %s", e.Key, e.Reason)
}

// AskKey finds the transaction that has committed under an idempotency key of
// the role. Not found means not committed so far: an attempt may be under way,
// and repeating with the same key is safe. A *KeyUnsureError: it cannot be told.
func (c *Coordinator) AskKey(ctx context.Context, role, key string) (winner participant.ID, found bool, err error) {
	answer, err := c.askKey(ctx, role, key, participant.ID{})
	return answer.winner, answer.found, err
}

// askKey is AskKey for a transaction that may have prepared branches under the
// key itself. Its waits end with ctx, and after DecisionTimeout.
func (c *Coordinator) askKey(ctx context.Context, role, key string, self participant.ID) (keyAnswer, error) {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.DecisionTimeout)
	defer cancel()
	for {
		answer, err := c.log.byKey(bounded, role, key)
		switch {
		case err != nil:
			return answer, unanswered(ctx, err)
		case answer.found && answer.reason == reasonAborted:
			return answer, damagedKey(key, answer.winner)
		case answer.found, answer.whole:
			return answer, nil
		}
		c.recover.keysNotWhole()
		s := c.sightKey(bounded, role, key)
		switch {
		case ctx.Err() != nil:
			return answer, context.Cause(ctx)
		case len(s.records) > 0:
			return c.provenKey(bounded, answer, key, s)
		case len(s.silent) > 0:
			return answer, &KeyUnsureError{Key: key, Reason: fmt.Sprintf(
				"the decision database has changed (failover or restore), and node %s, which may hold a proof, cannot be asked", strings.Join(s.silent, ", "))}
		}
		open, err := c.settleAttempts(bounded, s.prepared, self)
		switch {
		case err != nil && !errors.Is(err, errEpochUnknown):
			return answer, unanswered(ctx, err)
		case open.IsZero():
			return answer, nil
		}
		if err == nil {
			pause(bounded, 100*time.Millisecond)
		}
		if err != nil || bounded.Err() != nil {
			return answer, &KeyUnsureError{Key: key, Reason: fmt.Sprintf(
				"transaction %s may have been committed under it before the decision database changed (failover or restore), and is still in doubt", open)}
		}
	}
}

func damagedKey(key string, id participant.ID) error {
	return &KeyUnsureError{Key: key, Reason: fmt.Sprintf("transaction %s bears it and is decided aborted, and a node has committed its part all the same", id)}
}

// provenKey answers for a key that visible branch records bear, and gives it back
// to the decision log.
func (c *Coordinator) provenKey(ctx context.Context, answer keyAnswer, key string, s keySighting) (keyAnswer, error) {
	ids := make([]participant.ID, 0, len(s.records))
	for id := range s.records {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b participant.ID) int {
		if a.Less(b) {
			return -1
		}
		return 1
	})
	answer.found, answer.winner = true, ids[0]
	for _, id := range ids {
		decision, err := c.restore(ctx, id, s.records[id])
		switch {
		case err != nil:
			// The proof stands, whoever writes it down (recovery will).
			c.cfg.Logger.Warn("an idempotency key is proven, and not written down yet", "transaction", id.String(), "error", err)
		case decision == Abort && len(ids) == 1:
			return answer, damagedKey(key, id)
		case decision == Commit:
			answer.winner = id
		}
	}
	return answer, nil
}

// restore has the decision log know what a visible branch record proves, with
// its key (I8, I10).
func (c *Coordinator) restore(ctx context.Context, id participant.ID, proof participant.BranchRecord) (Decision, error) {
	decision, reason, err := c.log.restore(ctx, id, proof)
	switch {
	case err != nil:
	case reason == reasonUsedAgain:
		c.cfg.Logger.Error("DAMAGE: two transactions have committed under one idempotency key: the decision of one was lost",
			"transaction", id.String(), "role", proof.Role, "key", proof.Key)
	case reason == reasonAborted:
		c.cfg.Logger.Error("DAMAGE: an idempotency key belongs to a transaction that is decided aborted, and that a node has committed",
			"transaction", id.String(), "role", proof.Role, "key", proof.Key)
	case proof.Key != "":
		c.cfg.Logger.Info("idempotency key restored from a branch record", "transaction", id.String(), "decision", decision.String())
	}
	return decision, err
}

// keySighting is what the nodes show of a key.
type keySighting struct {
	prepared []participant.PreparedBranch // with the key's tag: their records cannot be read
	records  map[participant.ID]participant.BranchRecord
	silent   []string // nodes of which it cannot be known
}

// sightKey asks every node, in parallel, for a key: first for what is prepared,
// then for records, so that a branch that commits in between is seen.
func (c *Coordinator) sightKey(ctx context.Context, role, key string) keySighting {
	s := keySighting{records: map[participant.ID]participant.BranchRecord{}}
	tag := participant.KeyTag(role, key)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range c.cfg.Nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
			defer cancel()
			prepared, err := node.ListPrepared(ctx)
			var records map[participant.ID]participant.BranchRecord
			if err == nil {
				records, err = node.RecordsOfKey(ctx, role, key)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.silent = append(s.silent, node.Name())
				return
			}
			for _, p := range prepared {
				if p.KeyTag == tag {
					s.prepared = append(s.prepared, p)
				}
			}
			for id, record := range records {
				s.records[id] = record
			}
		})
	}
	wg.Wait()
	slices.Sort(s.silent)
	return s
}

// errEpochUnknown: only a person can tell what became of the attempt.
var errEpochUnknown = errors.New("its epoch is not known here")

// settleAttempts settles those prepared branches that an earlier life of the log
// may have decided to commit, and rolls back what is decided aborted, so that
// nobody who remembers another decision can commit it any more. open is one of
// which this is not over yet: it is looked for again.
func (c *Coordinator) settleAttempts(ctx context.Context, prepared []participant.PreparedBranch, self participant.ID) (open participant.ID, err error) {
	prepared = slices.DeleteFunc(prepared, func(p participant.PreparedBranch) bool { return p.ID == self })
	ids := make([]participant.ID, len(prepared))
	for i, p := range prepared {
		ids[i] = p.ID
	}
	looked, err := c.log.look(ctx, ids, c.cfg.GraceAfterRestart)
	if err != nil {
		return open, err
	}
	var undecided []doubtful
	for _, p := range prepared {
		k := looked[p.ID]
		if k.epoch && k.sameLog {
			continue // its decision cannot have been lost: it meets the unique index
		}
		open = p.ID
		switch {
		case k.decision == Abort:
			_ = c.nodes[p.Node].RollbackPrepared(ctx, p.GID) // whatever it says, the next look tells
		case k.decision == Commit: // committed by its gateway or by recovery, then its record is visible
		case k.forgottenOrUnknown(p.ID):
			c.recover.reportUnknown(p.ID)
			return open, errEpochUnknown
		default:
			undecided = append(undecided, doubtful{id: p.ID, age: p.Age})
		}
	}
	if len(undecided) > 0 {
		_, err = c.presume(ctx, undecided)
	}
	return open, err
}
