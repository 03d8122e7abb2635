package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	wishes := map[Decision][]record{}
	for _, id := range open {
		switch {
		case len(proven[id].nodes) > 0:
			// What is settled as committed names its participants like any other: else a
			// node that has lost its branch would not be missed.
			proof := proven[id]
			wishes[Commit] = append(wishes[Commit], record{id: id, participants: proof.participants, role: proof.role, key: proof.key})
		case len(silent) > 0 && !looked[id].sameLog:
			// The log may have lost the decision, and the node that cannot be asked
			// may hold the proof.
			c.cfg.Logger.Warn("abort not presumed: the decision database has changed and a node cannot be asked",
				"transaction", id.String(), "nodes", silent)
		default:
			wishes[Abort] = append(wishes[Abort], record{id: id})
		}
	}
	for wish, records := range wishes {
		for batch := range slices.Chunk(records, settleBatch) {
			if err := c.settlePresumed(ctx, batch, wish, looked, decisions); err != nil {
				return decisions, err
			}
		}
	}
	return decisions, nil
}

// settleBatch is how many presumptions are written in one statement: a dead
// gateway may leave thousands, and one flush for each would take seconds.
const settleBatch = 250

// settlePresumed settles transactions of one wish, and adds what is decided of
// them now, whatever the wish was. One that is not added has been forgotten or
// belongs to an epoch that is not known.
func (c *Coordinator) settlePresumed(ctx context.Context, records []record, wish Decision, looked map[participant.ID]known, decisions map[participant.ID]Decision) error {
	c.pass(pointRecoverSettle)
	var keyed, unkeyed []record
	for _, r := range records {
		if r.key != "" {
			keyed = append(keyed, r)
		} else {
			unkeyed = append(unkeyed, r)
		}
	}
	settled, err := c.log.settleMany(ctx, unkeyed, wish)
	if err != nil {
		return err
	}
	for _, r := range keyed { // each may meet its key in use, and must not take others with it
		decision, err := c.restore(ctx, r.id, participant.BranchRecord{Participants: r.participants, Role: r.role, Key: r.key})
		if err != nil {
			return err
		}
		if decision != NoDecision {
			settled[r.id] = decision
		}
	}
	c.pass(pointRecoverSettled)
	for _, r := range records {
		id := r.id
		decision, ok := settled[id]
		if !ok {
			continue
		}
		decisions[id] = decision
		c.cfg.Observer.Recovered(RecoveryAction{What: settledAs(decision), ID: id, Count: 1})
		c.cfg.Logger.Info("transaction settled by recovery", "transaction", id.String(), "wish", wish.String(), "decision", decision.String(),
			"gateway", looked[id].gateway, "gateway_alive", looked[id].alive)
	}
	return nil
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

// proof is what the visible branch records of a transaction tell: that it is
// committed (I8).
type proof struct {
	nodes        []string // those that show the record
	participants []string // as the records name them: the branches that changed rows first
	role, key    string   // under which it has committed, as the records say
}

// branchRecords asks every node, in parallel, which of ids have committed
// there. silent are the nodes of which it cannot be known.
func (c *Coordinator) branchRecords(ctx context.Context, ids []participant.ID) (proven map[participant.ID]proof, silent []string) {
	proven = map[participant.ID]proof{}
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
			for id, r := range records {
				proven[id] = proof{nodes: append(proven[id].nodes, node.Name()), participants: r.Participants, role: r.Role, key: r.Key}
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
			return NoDecision, unanswered(ctx, err)
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
			return NoDecision, unanswered(ctx, err)
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

// unanswered is err, which a question to the decision log has ended with, as
// ErrDecisionUnreachable, unless the asker has given up or the database itself
// has answered with an error.
func unanswered(ctx context.Context, err error) error {
	if err == nil || isRefused(err) || errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDecisionUnreachable, err)
}
