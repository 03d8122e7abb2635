package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// decide has the transaction decided within DecisionTimeout.
//
// The decider takes a key only in the life of the decision log in which it was
// found to be free (I10). If the decision database has failed over meanwhile,
// the key is asked for again there, by this goroutine: that may mean to ask nodes,
// for which the decider, who decides for everybody, must not wait.
func (t *Transaction) decide(names []string) decided {
	deadline := time.Now().Add(t.c.cfg.DecisionTimeout)
	sent := false // a decision may have been written, in a life of the log that is over
	for {
		d := t.handToDecider(names, deadline)
		sent = sent || !d.undecided
		if !d.changed {
			d.undecided = d.undecided && !sent
			return d
		}
		if d, again := t.askKeyAgain(deadline, sent); !again {
			return d
		}
	}
}

// askKeyAgain asks for the transaction's key in the present life of the log.
// again: it is free there, and the decider may have it. If the key is not free,
// and nothing has been sent, giving up is ours (I4); otherwise only a recorded
// abort gives up, and every node was asked before it is recorded (I3).
func (t *Transaction) askKeyAgain(deadline time.Time, sent bool) (d decided, again bool) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	t.c.cfg.Logger.Warn("the decision database has changed: an idempotency key is asked for again", "transaction", t.id.String())
	answer, err := t.c.askKey(ctx, t.role, t.key, t.id)
	switch {
	case err == nil && !answer.found:
		t.keyFree = answer.life
		return d, true
	case err == nil && answer.winner == t.id:
		return decided{decision: Commit}, false // its own record was found, or its decision has survived
	case err == nil:
		err = &KeyTakenError{Key: t.key, Winner: answer.winner}
	}
	if !sent {
		return decided{err: err, undecided: true}, false
	}
	if _, taken := errors.AsType[*KeyTakenError](err); taken {
		switch decision, settleErr := t.c.log.settle(ctx, record{id: t.id}, Abort); {
		case settleErr != nil:
			err = settleErr
		case decision == Abort:
			return decided{decision: Abort, err: err}, false
		case decision == Commit:
			return decided{decision: Commit}, false
		}
	}
	return decided{err: fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)}, false
}
