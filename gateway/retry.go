package gateway

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/sqlparse"
)

// A statement that is a transaction of its own, and that its nodes have rolled
// back because of others (40001, 40P01), is run again by the gateway itself where
// its client cannot see it: nothing of its answer has been sent, and nothing of
// the client's depends on what it has read. In a block, or with other statements
// in one message or pipeline, all of them would have to be repeated, and only the
// client knows what it made of their answers. SET pgpact.retry = off turns it off.

const retryName = ownPrefix + "retry"

const (
	// maxAttempts counts the first one.
	maxAttempts = 5
	// firstRetryPause is the shortest pause before the second attempt, three times as
	// long the longest; both double. What is waited is random: who has met once must
	// not meet again. Those who had to wait for the victim go first: one that is back
	// at once takes the row from under who is just waking up for it.
	firstRetryPause = 10 * time.Millisecond
)

// retries tells whether a statement that is about to run may be run again. Only
// kinds that do nothing outside of their transaction are; and a statement that is
// alone cannot be tracked, so that no outcome of it has been promised to anybody.
func (s *session) retries(st *sqlparse.Statement) bool {
	if s.state != idle || s.block != nil {
		return false
	}
	switch st.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete:
	default:
		return false
	}
	return s.ownSwitch(retryName)
}

// retrying runs attempt until it succeeds, fails for a reason of its own, or has
// failed too often.
func (s *session) retrying(attempt func() error) error {
	var began time.Time
	if s.timeouts.statement > 0 {
		began = time.Now()
	}
	sent := s.visible()
	err := attempt()
	for n := 1; n < maxAttempts && s.visible() == sent && isRepeatable(err); n++ {
		if again, failure := s.pauseBefore(n, began); !again {
			return cmp.Or(failure, err)
		}
		s.undoAttempt()
		err = s.againWithin(began, attempt)
	}
	return err
}

// visible counts what the client has been sent of answers that it must not be
// sent twice.
func (s *session) visible() uint64 { return s.client.queued - s.unseen }

// isRepeatable tells whether err says that the statement was certainly rolled
// back on all nodes, because of other transactions.
func isRepeatable(err error) bool {
	if _, unknown := errors.AsType[*unknownOutcome](err); unknown {
		return false
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == pgerrcode.SerializationFailure || pgErr.Code == pgerrcode.DeadlockDetected)
}

// pauseBefore waits before the attempt after n of them. There is to be none when
// the client has cancelled, which is the error then, or when the time that a
// statement may take would be over.
func (s *session) pauseBefore(n int, began time.Time) (again bool, err error) {
	least := firstRetryPause << (n - 1)
	pause := least + rand.N(2*least)
	if limit := s.timeouts.statement; limit > 0 && time.Since(began)+pause >= limit {
		return false, nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	ctx := s.interrupt.context()
	select {
	case <-timer.C:
		return !s.timedOut(), nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// undoAttempt brings the session back to where it was before the statement.
func (s *session) undoAttempt() {
	_ = s.advance(onError) // rolling back cannot fail
	s.hold, s.held = false, s.held[:0]
}

// againWithin is attempt, bounded by what is left of statement_timeout: each node
// counts it from the attempt's beginning, the client from the statement's.
func (s *session) againWithin(began time.Time, attempt func() error) error {
	limit := s.timeouts.statement
	if limit == 0 {
		return attempt()
	}
	over, cancel := context.WithDeadline(context.Background(), began.Add(limit))
	defer cancel()
	stop := context.AfterFunc(over, func() { s.interrupt.fire(errStatementTimeout) })
	err := attempt()
	if stop() {
		return err
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == pgerrcode.QueryCanceled {
		return errStatementTimeout
	}
	return err
}
