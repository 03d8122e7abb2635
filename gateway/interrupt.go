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

// stop releases the context when the session ends.
func (i *interrupt) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.last != nil {
		i.last.Stop()
	}
	i.busy = false
	if i.cancel != nil {
		i.cancel(context.Canceled)
	}
}
