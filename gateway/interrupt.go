package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/pgpact/pgpact/coordinator"
)

// errCanceled is what a CancelRequest ends a wait of ours with. A node that was
// cancelled says the same in its own words.
var errCanceled = sqlError("57014", "canceling statement due to user request")

// interrupt is how a CancelRequest, or the client's disappearance, reaches what
// the session is doing just now: waiting for a slot or a connection, or for a
// node. While the session does nothing it is without effect, as in Postgres.
type interrupt struct {
	mu      sync.Mutex
	session context.Context // the session's whole life
	busy    bool
	t       *coordinator.Transaction // under way, also between the messages of a block
	ctx     context.Context          // of the waits; made anew after it was cancelled
	cancel  context.CancelCauseFunc
	last    *time.Timer // of end

	clock    *time.Timer // of the transaction's time, nil when that is not counted
	clockRun uint64      // which transaction's: a timer that was too late to stop does nothing
	expired  bool        // its time is up
}

// enter begins the work on a message, leave ends it.
func (i *interrupt) enter() {
	i.mu.Lock()
	i.busy = true
	i.mu.Unlock()
}

func (i *interrupt) leave() {
	i.mu.Lock()
	i.busy = false
	i.mu.Unlock()
}

// context bounds the waits of the message being worked on. It is kept from
// message to message: one that was not cancelled is as good as a new one.
func (i *interrupt) context() context.Context {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ctx == nil || i.ctx.Err() != nil && i.session.Err() == nil {
		i.ctx, i.cancel = context.WithCancelCause(i.session)
	}
	if i.expired {
		i.cancel(errTransactionTimeout)
	}
	return i.ctx
}

// aim makes t what an interruption cancels. A transaction that has ended takes
// no harm from it.
func (i *interrupt) aim(t *coordinator.Transaction) {
	i.mu.Lock()
	i.t = t
	i.mu.Unlock()
}

// fire interrupts what is under way. It is called from other goroutines.
func (i *interrupt) fire(cause error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.busy {
		return
	}
	if i.cancel != nil {
		i.cancel(cause)
	}
	if i.t != nil {
		i.t.Cancel()
	}
}

// brokenAfter is how long a node may take to answer the cancel of a session
// that has ended. A cancel by a client waits as long as Postgres takes.
const brokenAfter = 5 * time.Second

// end is fire for a session whose client is gone, or whose shutdown has run out
// of patience: a node that does not answer the cancel loses its connection, so
// that nothing keeps the session.
func (i *interrupt) end(cause error) {
	i.fire(cause)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy && i.last == nil {
		i.last = time.AfterFunc(brokenAfter, func() {
			i.mu.Lock()
			defer i.mu.Unlock()
			if i.busy && i.t != nil {
				i.t.Break()
			}
		})
	}
}

// startClock ends the transaction under way after a time: see expire. stopClock
// says that it is over.
func (i *interrupt) startClock(after time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.resetClock()
	run := i.clockRun
	i.clock = time.AfterFunc(after, func() { i.expire(run, time.Now().Add(brokenAfter)) })
}

func (i *interrupt) stopClock() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.resetClock()
}

func (i *interrupt) resetClock() {
	if i.clock != nil {
		i.clock.Stop()
	}
	i.clock, i.expired = nil, false
	i.clockRun++
}

func (i *interrupt) hasExpired() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.expired
}

// expireAgain is the pause between two cancels of a transaction whose time is
// up: a cancel may come too early for the statement that is just being sent.
const expireAgain = 200 * time.Millisecond

// expire interrupts what a transaction does when its time is up, until the
// session has noticed; a node that has not answered by then loses its
// connection. A session that waits for its client has a deadline for that. As
// with any cancel, nothing changes once the commit has been handed over to the
// decider.
func (i *interrupt) expire(run uint64, breakAt time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if run != i.clockRun {
		return
	}
	i.expired = true
	if !i.busy {
		return
	}
	if i.cancel != nil {
		i.cancel(errTransactionTimeout)
	}
	switch {
	case i.t == nil:
	case time.Now().After(breakAt):
		i.t.Break()
	default:
		i.t.Cancel()
	}
	i.clock = time.AfterFunc(expireAgain, func() { i.expire(run, breakAt) })
}

// stop releases the context when the session ends.
func (i *interrupt) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.last != nil {
		i.last.Stop()
	}
	i.resetClock()
	i.busy = false
	if i.cancel != nil {
		i.cancel(context.Canceled)
	}
}
