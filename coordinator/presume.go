package coordinator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// doubtful is a transaction without a decision, and how long it has been
// prepared.
type doubtful struct {
	id  participant.ID
	age time.Duration
}

// presume settles transactions without a decision, for recovery and outcome
// questions alike (I3). It returns what is decided now; an id that is missing
// from the answer must be left alone.
//
// An abort is presumed only if the epoch is known here and the sequence above
// its horizon (I7), if the gateway is gone (or the branch older than
// in_doubt_timeout), and if no node shows the branch record: a visible one
// proves a commit whose decision was lost, and is settled as committed.
func (c *Coordinator) presume(ctx context.Context, candidates []doubtful) (map[participant.ID]Decision, error) {
	ids := make([]participant.ID, len(candidates))
	for i, d := range candidates {
		ids[i] = d.id
	}
	looked, err := c.log.look(ctx, ids, c.cfg.GraceAfterRestart)
	if err != nil {
		return nil, err
	}
	decisions := map[participant.ID]Decision{}
	var open []participant.ID
	for _, d := range candidates {
		k := looked[d.id]
		switch {
		case k.decision != NoDecision:
			decisions[d.id] = k.decision
		case c.mayPresume(d, k):
			open = append(open, d.id)
		}
	}
	if len(open) == 0 {
		return decisions, nil
	}
	proven, silent := c.branchRecords(ctx, open)
	for _, id := range open {
		wish := Abort
		switch {
		case len(proven[id]) > 0:
			wish = Commit
		case len(silent) > 0 && !looked[id].sameLog:
			// The log may have lost the decision, and the node that cannot be asked
			// may hold the proof.
			c.cfg.Logger.Warn("abort not presumed: the decision database has changed and a node cannot be asked",
				"transaction", id.String(), "nodes", silent)
			continue
		}
		c.pass(pointRecoverSettle)
		decision, err := c.log.settle(ctx, record{id: id}, wish)
		if err != nil {
			return decisions, err
		}
		c.pass(pointRecoverSettled)
		if decision == NoDecision {
			continue // forgotten or unknown meanwhile
		}
		c.cfg.Logger.Info("transaction settled by recovery", "transaction", id.String(), "wish", wish.String(), "decision", decision.String())
		decisions[id] = decision
	}
	return decisions, nil
}

// mayPresume: is it time to presume anything of an undecided transaction?
func (c *Coordinator) mayPresume(d doubtful, k known) bool {
	switch {
	case k.forgottenOrUnknown(d.id):
		c.recover.reportUnknown(d.id)
		return false
	case c.running.has(d.id):
		return d.age >= c.cfg.InDoubtTimeout
	case d.id.Epoch == c.epoch.Load().number:
		return true // ours, and we have given it up
	case k.alive:
		return d.age >= c.cfg.InDoubtTimeout
	}
	return k.settled
}

// notBegun: the id is one that this gateway has not given to anybody yet. An
// abort recorded for it now would hit the transaction that gets it.
func (c *Coordinator) notBegun(id participant.ID) bool {
	e := c.epoch.Load()
	return id.Epoch == e.number && id.Sequence > e.next.Load()
}

// branchRecords asks every node, in parallel, which of ids have committed
// there. silent are the nodes of which it cannot be known.
func (c *Coordinator) branchRecords(ctx context.Context, ids []participant.ID) (proven map[participant.ID][]string, silent []string) {
	proven = map[participant.ID][]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range c.cfg.Nodes {
		wg.Go(func() {
			// A node that hangs is one that cannot be asked: it must not use up the
			// time that the others' transactions need.
			ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
			defer cancel()
			records, err := node.BranchRecords(ctx, ids)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, node.Name())
				return
			}
			for id := range records {
				proven[id] = append(proven[id], node.Name())
			}
		})
	}
	wg.Wait()
	return proven, silent
}

// ForgottenError answers a question about a transaction whose record has been
// purged: nobody can tell any more, and nobody guesses.
type ForgottenError struct{ ID participant.ID }

func (e *ForgottenError) Error() string {
	return fmt.Sprintf("the outcome of transaction %s is forgotten", e.ID)
}

// UnknownEpochError answers a question about a transaction of an epoch that the
// decision database has never heard of.
type UnknownEpochError struct{ ID participant.ID }

func (e *UnknownEpochError) Error() string {
	return fmt.Sprintf("transaction %s belongs to no known gateway", e.ID)
}

// AskOutcome is the definitive answer to "what became of it?": Commit, Abort,
// or NoDecision while its gateway lives and has not decided. An undecided
// transaction of a dead gateway is settled first, so that the answer stays true.
func (c *Coordinator) AskOutcome(ctx context.Context, id participant.ID) (Decision, error) {
	for {
		looked, err := c.log.look(ctx, []participant.ID{id}, c.cfg.GraceAfterRestart)
		if err != nil {
			return NoDecision, err
		}
		k := looked[id]
		switch {
		case k.decision != NoDecision:
			return k.decision, nil
		case !k.epoch:
			return NoDecision, &UnknownEpochError{ID: id}
		case id.Sequence <= k.forgotten:
			return NoDecision, &ForgottenError{ID: id}
		case c.running.has(id), k.alive && id.Epoch != c.epoch.Load().number, c.notBegun(id):
			return NoDecision, nil
		}
		decisions, err := c.presume(ctx, []doubtful{{id: id}})
		if err != nil {
			return NoDecision, err
		}
		if d := decisions[id]; d != NoDecision {
			return d, nil
		}
		// Nobody is presumed dead right after the decision database came back, or
		// while a node that may hold the proof cannot be asked. ctx bounds this.
		pause(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return NoDecision, ctx.Err()
		}
	}
}

// AskKey finds the transaction that has committed under an idempotency key of
// the role. Not found means not committed so far: an attempt may be under way,
// and repeating with the same key is safe.
func (c *Coordinator) AskKey(ctx context.Context, role, key string) (winner participant.ID, found bool, err error) {
	return c.log.byKey(ctx, role, key)
}
