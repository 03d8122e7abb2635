package participant

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
)

// Cancels: how a connection is interrupted from outside, and how it is made sure
// that what comes next is not hit.

// ErrCancelPending is the reason a connection is given up for when a cancel
// sent for it could not be seen through to its end in time: it might hit the
// next statement.
var ErrCancelPending = errors.New("a cancel request did not finish in time")

// allowCancel says from when to when Cancel may aim at this connection.
func (c *Conn) allowCancel(allow bool) {
	c.cancelMu.Lock()
	c.noCancel = !allow
	c.cancelMu.Unlock()
}

// Cancel asks the server to cancel what this connection is doing. It may be
// called from any goroutine and returns at once. Before the connection's next
// statement, quiesce waits until the request cannot hit it any more.
func (c *Conn) Cancel() {
	c.cancelMu.Lock()
	defer c.cancelMu.Unlock()
	if !c.noCancel {
		c.cancel()
	}
}

// instead is what the owner of a connection reads in place of "canceling
// statement due to user request".
type instead struct {
	turn uint64
	err  *pgconn.PgError
}

// CancelAs is Cancel for the answer that is outstanding at the turn; if the
// server then says that it was cancelled, the owner reads err instead. False: that
// answer has arrived, or nothing may be cancelled any more.
func (c *Conn) CancelAs(turn uint64, err *pgconn.PgError) bool {
	c.cancelMu.Lock()
	defer c.cancelMu.Unlock()
	if c.noCancel || turn%2 == 0 || turn != c.turn.Load() {
		return false
	}
	c.instead = instead{turn: turn, err: err}
	c.cancel()
	return true
}

// excused is an error of the server, or what CancelAs has put in its place.
func (c *Conn) excused(frame pgwire.Frame) (pgwire.Frame, error) {
	c.cancelMu.Lock()
	in := c.instead
	c.cancelMu.Unlock()
	if in.err == nil || in.turn != c.turn.Load() {
		return frame, nil
	}
	said, err := DecodeError(frame.Body())
	if err != nil {
		return frame, c.fail(err)
	}
	if said.Code != "57014" {
		return frame, nil
	}
	raw, err := (&pgproto3.ErrorResponse{
		Severity: said.Severity, SeverityUnlocalized: said.SeverityUnlocalized, Code: in.err.Code, Message: in.err.Message,
		Detail: in.err.Detail, Hint: in.err.Hint, Where: said.Where,
	}).Encode(nil)
	if err != nil {
		return frame, c.fail(err)
	}
	return pgwire.NewFrame(raw), nil
}

// cancel sends the request; the caller holds cancelMu.
func (c *Conn) cancel() {
	done := make(chan struct{})
	c.cancels = append(c.cancels, done)
	c.node.cancels.Add(1)
	go func() {
		defer c.node.cancels.Done()
		defer close(done)
		c.node.sendCancel(c.remote, c.pid, c.secret)
	}()
}

// Break closes the connection under whoever is waiting for it, from any
// goroutine: for a node that answers neither the statement nor its cancel. The
// owner sees a [*LostError].
func (c *Conn) Break() {
	c.cancelMu.Lock()
	defer c.cancelMu.Unlock()
	if !c.noCancel {
		_ = c.nc.Close()
	}
}

// cancelled tells whether a cancel was aimed at the connection since it was
// last quiet.
func (c *Conn) cancelled() bool {
	c.cancelMu.Lock()
	defer c.cancelMu.Unlock()
	return len(c.cancels) > 0
}

// quiesce makes sure that no cancel request is under way: each cancel
// connection has reached EOF (the postmaster has sent the signal) and one empty
// round trip has passed (the signal has been taken). Without both, 45 of 400
// cancels hit the statement after the one they were meant for.
func (c *Conn) quiesce() error {
	c.cancelMu.Lock()
	pending := c.cancels
	c.cancels = nil
	c.cancelMu.Unlock()
	if len(pending) == 0 {
		return nil
	}
	timer := time.NewTimer(c.node.cfg.ConnectTimeout)
	defer timer.Stop()
	for _, done := range pending {
		select {
		case <-done:
		case <-timer.C:
			return c.fail(ErrCancelPending)
		}
	}
	if c.deadline.IsZero() { // nothing else bounds the wait for a node that hangs
		c.SetDeadline(time.Now().Add(c.node.cfg.ConnectTimeout))
		defer c.SetDeadline(time.Time{})
	}
	// What the caller has appended must wait for the empty round trip.
	waiting, expected := c.out, c.awaiting
	c.out, c.awaiting = nil, 0
	c.append(&pgproto3.Sync{})
	if err := c.write(); err != nil {
		return err
	}
	if _, err := c.collect(); err != nil {
		return err
	}
	c.out, c.awaiting = append(c.out, waiting...), expected
	return nil
}
