package coordinator

// Life of an UPDATE, step 11: the commit point.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// maxBatch bounds how many decisions one statement writes.
const maxBatch = 256

// decided is the decider's answer.
type decided struct {
	decision Decision
	err      error // why not Commit
	// undecided, with NoDecision: nothing was sent, or all of it was refused for
	// certain. Nobody can have decided commit.
	undecided bool
	changed   bool // with NoDecision: the log is in another life than its key was asked in (decision_key.go)
}

// decisionRequest is a transaction, all of whose participants have voted yes.
type decisionRequest struct {
	record
	deadline time.Time
	done     chan decided // buffered: the decider never waits for the asker
	lost     bool         // an answer did not count: what was sent may be written
}

// handToDecider hands the transaction over to the decider and waits, until the
// deadline and a little, for what is decided. From here on the outcome is not this
// goroutine's to choose.
func (t *Transaction) handToDecider(names []string, deadline time.Time) decided {
	request := &decisionRequest{
		record:   record{id: t.id, participants: names, role: t.role, key: t.key, keyFreeIn: t.keyFree},
		deadline: deadline,
		done:     make(chan decided, 1),
	}
	t.c.pass(pointDecisionHandedOver)
	shuttingDown := decided{err: fmt.Errorf("%w: %w", ErrDecisionUnreachable, ErrShuttingDown), undecided: true}
	select {
	case t.c.decider.requests <- request:
	case <-t.c.decider.stopped:
		return shuttingDown
	}
	// The decider bounds its own waits by the deadline; the slack covers a
	// statement that was under way at it.
	timer := time.NewTimer(time.Until(deadline) + t.c.cfg.ConnectTimeout)
	defer timer.Stop()
	select {
	case d := <-request.done:
		return d
	case <-t.c.decider.stopped:
		select {
		case d := <-request.done: // it answers all it takes before it ends
			return d
		default:
			return shuttingDown
		}
	case <-timer.C:
		return decided{err: ErrOutcomeUnknown}
	}
}

// decider writes commit decisions: one goroutine, one connection, batches of
// whatever is waiting (it never waits for company). It follows no client.
type decider struct {
	c        *Coordinator
	requests chan *decisionRequest
	stop     chan struct{}
	stopped  chan struct{}
	conn     *logConn
}

func newDecider(c *Coordinator) *decider {
	return &decider{c: c, requests: make(chan *decisionRequest, maxBatch), stop: make(chan struct{}), stopped: make(chan struct{})}
}

// run is the decider's goroutine.
func (d *decider) run() {
	defer close(d.stopped)
	defer func() {
		if d.conn != nil {
			d.conn.close()
		}
	}()
	for {
		select {
		case request := <-d.requests:
			d.decideBatch(d.gather(request))
		case <-d.stop:
			for { // what came in before the stop is still decided
				select {
				case request := <-d.requests:
					d.decideBatch(d.gather(request))
				default:
					return
				}
			}
		}
	}
}

// gather takes what is waiting, up to maxBatch.
func (d *decider) gather(first *decisionRequest) []*decisionRequest {
	batch := []*decisionRequest{first}
	for len(batch) < maxBatch {
		select {
		case request := <-d.requests:
			batch = append(batch, request)
		default:
			return batch
		}
	}
	return batch
}

// decideBatch decides every request of the batch, and answers each.
func (d *decider) decideBatch(batch []*decisionRequest) {
	// Sorted, so that two gateways' batches, or a batch and a settlement, take
	// their rows in the same order: unsorted ones deadlocked.
	slices.SortFunc(batch, func(a, b *decisionRequest) int {
		return cmp.Or(cmp.Compare(a.id.Epoch, b.id.Epoch), cmp.Compare(a.id.Sequence, b.id.Sequence))
	})
	var together, alone []*decisionRequest
	for _, request := range batch {
		if request.key != "" { // may fail on its key, and must not take others with it
			alone = append(alone, request)
		} else {
			together = append(together, request)
		}
	}
	alone = append(alone, d.insert(together)...)
	for _, request := range alone {
		request.done <- d.settle(request)
	}
}

// insert writes the batch in one statement. It answers those whose row was
// written and returns the others, to be settled one by one: after an error as
// after a row that did not come back.
func (d *decider) insert(batch []*decisionRequest) (rest []*decisionRequest) {
	if len(batch) == 0 {
		return nil
	}
	deadline := batch[0].deadline
	records := make([]record, len(batch))
	for i, request := range batch {
		records[i] = request.record
		if request.deadline.Before(deadline) {
			deadline = request.deadline
		}
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if err := d.connect(ctx); err != nil {
		for _, request := range batch {
			request.done <- decided{err: fmt.Errorf("%w: %w", ErrDecisionUnreachable, err), undecided: true}
		}
		return nil
	}
	d.c.pass(pointDecisionWriting)
	written, err := d.conn.insertCommits(ctx, d.c.log.commitsSQL, records)
	if err != nil {
		for _, request := range batch {
			request.lost = request.lost || !isRefused(err)
		}
		d.c.cfg.Logger.Warn("a batch of decisions was not confirmed, each is settled alone", "decisions", len(batch), "error", err)
		return batch
	}
	d.c.pass(pointDecisionWritten)
	d.c.cfg.Observer.DecisionsWritten(len(batch))
	for _, request := range batch {
		if written[request.id] {
			request.done <- decided{decision: Commit}
		} else {
			rest = append(rest, request)
		}
	}
	return rest
}

// settle decides one transaction, asking again with the same statement as long
// as its answer does not count and the deadline has not passed.
func (d *decider) settle(request *decisionRequest) decided {
	ctx, cancel := context.WithDeadline(context.Background(), request.deadline)
	defer cancel()
	var lastErr error
	sent := request.key == "" // an unkeyed one has been in a batch already
	for ctx.Err() == nil {
		if err := d.connect(ctx); err != nil {
			lastErr = err
			pause(ctx, 50*time.Millisecond)
			continue
		}
		if !sent {
			d.c.pass(pointDecisionWriting)
			sent = true
		}
		decision, changed, err := d.conn.settleCommit(ctx, request.record)
		switch {
		case changed:
			return decided{changed: true, undecided: !request.lost}
		case err == nil:
			d.c.pass(pointDecisionWritten)
			d.c.cfg.Observer.DecisionsWritten(1)
			return d.settled(request, decision)
		case isRefused(err) && participant.SQLState(err) == "23505" && request.key != "":
			return d.keyLost(ctx, request)
		case isRefused(err):
			return d.refused(ctx, request, err)
		}
		lastErr, request.lost = err, true
	}
	if !sent {
		// Without lastErr those before it in the batch have used up its time.
		return decided{err: fmt.Errorf("%w: %w", ErrDecisionUnreachable, errors.Join(lastErr, ctx.Err())), undecided: true}
	}
	return decided{err: fmt.Errorf("%w: %w", ErrOutcomeUnknown, errors.Join(lastErr, ctx.Err()))}
}

// settled interprets what is recorded now.
func (d *decider) settled(request *decisionRequest, decision Decision) decided {
	switch decision {
	case Commit:
		return decided{decision: Commit}
	case Abort:
		return decided{decision: Abort, err: ErrAbortDecided}
	default:
		d.c.cfg.Logger.Error("the decision database does not know this gateway's epoch; the transaction stays in doubt",
			"transaction", request.id.String())
		return decided{err: fmt.Errorf("%w: the decision database does not know epoch %d", ErrOutcomeUnknown, request.id.Epoch)}
	}
}

// refused: the database said a certain no to this very row. After the
// hand-over only a recorded abort may roll back a yes-voter, unless the database
// refuses the abort as well (its disk is full) and every answer so far was such a
// no: then no decision is written or under way, and giving up is ours again (I4).
func (d *decider) refused(ctx context.Context, request *decisionRequest, reason error) decided {
	decision, err := d.conn.settle(ctx, request.record, Abort)
	if isRefused(err) && !request.lost {
		return decided{err: reason, undecided: true}
	}
	if err != nil {
		return decided{err: fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)}
	}
	answer := d.settled(request, decision)
	if answer.decision == Abort {
		answer.err = reason
	}
	return answer
}

// keyLost: another transaction has committed under the idempotency key.
func (d *decider) keyLost(ctx context.Context, request *decisionRequest) decided {
	answer := d.refused(ctx, request, nil)
	if answer.decision != Abort && !answer.undecided {
		return answer
	}
	who, err := d.conn.byKey(ctx, request.role, request.key)
	if err != nil {
		d.c.cfg.Logger.Warn("winner of an idempotency key not read", "error", err)
	}
	answer.err = &KeyTakenError{Key: request.key, Winner: who.winner}
	return answer
}

// connect makes the decider's connection if there is none. One that has ended
// while it was idle must not cost a client its answer: on it, nobody could tell
// whether the decision had been sent.
func (d *decider) connect(ctx context.Context) error {
	if d.conn != nil && d.conn.fit() {
		return nil
	}
	conn, err := d.c.log.connect(ctx, "decisions")
	if err != nil {
		return err
	}
	if err := conn.prepare(ctx, d.c.log.commitsSQL); err != nil {
		conn.close()
		return err
	}
	d.conn = conn
	return nil
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
