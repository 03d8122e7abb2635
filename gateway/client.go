package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
)

const (
	// flushAt is how much output is gathered before it goes out by itself: large
	// results cost one write(2) per 64 KiB.
	flushAt = 64 << 10
	// keepOut is the largest output buffer that goes back to the pool.
	keepOut = 2 * flushAt
	// goodbyeTimeout bounds the write of a FATAL: whoever does not read it in
	// this time has lost interest.
	goodbyeTimeout = 5 * time.Second
)

// outBuffers lends output buffers: a session holds one only while it has
// something to say, so idle connections cost none.
var outBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

// errClientGone is the cause of a session's context when its client vanished.
var errClientGone = errors.New("client connection is gone")

// client is the wire to one authenticated client. It belongs to the goroutine
// of its session; only kill, drain, busyForATick and cancelRequested are called by others.
type client struct {
	conn    *frontConn
	reader  *pgwire.Reader    // over psql-wire's bufio.Reader; read through next
	startup map[string]string // user, database, options, application_name, ...; without _pq_ options
	pid     uint32            // BackendKeyData; pid is positive as an int32
	secret  uint32

	out      []byte  // pending output, whole frames only
	outBox   *[]byte // where out's memory was borrowed, nil when it was not
	queued   uint64  // all bytes that were ever put there
	writeErr error   // first failed write; the stream may be torn, nothing follows

	writeTimeout time.Duration
	writeUntil   time.Time // deadline now set on conn

	ctx    context.Context // the session's; its cause says why it was ended
	cancel context.CancelCauseFunc

	txStatus  atomic.Uint32 // as the last ReadyForQuery said, for Standing
	ending    atomic.Bool   // drain or kill was called: next takes the slow path
	cycle     atomic.Uint64 // calls of next, from 1
	mu        sync.Mutex
	waiting   bool   // blocked in next
	idle      bool   // ... and nothing would be lost if the session ended there
	draining  bool   // end at the next idle moment
	killed    error  // end now
	seenCycle uint64 // cycle at the last look of busyForATick
	cancelFn  func()
}

func newClient(base context.Context, conn *frontConn, br *bufio.Reader, startup map[string]string, cfg *FrontConfig) *client {
	c := &client{
		conn:         conn,
		reader:       pgwire.NewReader(br, cfg.MaxMessageSize),
		startup:      startup,
		writeTimeout: cfg.WriteTimeout,
	}
	c.ctx, c.cancel = context.WithCancelCause(base)
	return c
}

// wait says how a session waits for its client's next message.
type wait struct {
	// idle: no transaction is open and no series of messages is under way, so a
	// shutdown may end the session here.
	idle bool
	// timeout, when positive, bounds the arrival of the message
	// (idle_session_timeout, idle_in_transaction_session_timeout): errWaitTimeout.
	timeout time.Duration
}

// errWaitTimeout is returned by next when wait.timeout has passed.
var errWaitTimeout = errors.New("no message within the timeout")

// next returns the client's next message, which is valid until the following
// call. It does not flush. An error ends the session: it is what the handler
// returns (io.EOF: the client closed; errShutdown: say FATAL 57P01; ...), except
// errWaitTimeout, which the session may turn into the fitting FATAL.
func (c *client) next(w wait) (pgwire.Frame, error) {
	c.cycle.Add(1)
	if c.reader.Complete() && !c.ending.Load() {
		return c.reader.Next() // a pipelining client: no waiting, no locking
	}
	if err := c.enterWait(w); err != nil {
		return pgwire.Frame{}, err
	}
	frame, err := c.reader.Next()
	return frame, c.leaveWait(w, err)
}

func (c *client) enterWait(w wait) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.endErr(w); err != nil {
		return err
	}
	if w.timeout > 0 {
		if err := c.conn.SetReadDeadline(time.Now().Add(w.timeout)); err != nil {
			return err
		}
	}
	c.waiting, c.idle = true, w.idle
	return nil
}

func (c *client) leaveWait(w wait, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting, c.idle = false, false
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if end := c.endErr(w); end != nil {
				return end
			}
			return errWaitTimeout
		}
		return err
	}
	if w.timeout > 0 || c.draining || c.killed != nil {
		// A message arrived together with the deadline or with the wish to drain:
		// it is served, and what belongs to it may still have to be read.
		return c.conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// endErr is the reason not to wait any more, if there is one.
func (c *client) endErr(w wait) error {
	if c.killed != nil {
		return c.killed
	}
	if c.draining && w.idle {
		return errShutdown
	}
	return nil
}

// drain asks the session to end as soon as it is idle.
func (c *client) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.ending.Store(true)
	if c.waiting && c.idle {
		_ = c.conn.SetReadDeadline(past) // a closed connection needs no waking
	}
}

// kill ends the session: its context is cancelled with the cause, and a wait for
// the client ends with it, idle or not.
func (c *client) kill(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed == nil {
		c.killed = cause
	}
	c.ending.Store(true)
	c.cancel(cause)
	if c.waiting {
		_ = c.conn.SetReadDeadline(past)
	}
}

// past is a deadline that has passed: it wakes a blocked read.
var past = time.Unix(1, 0)

// busyForATick reports whether the session has been at work, without returning
// to its client, since the previous call. Half-closing clients (nc -N) with short
// statements are not taken for vanished ones.
func (c *client) busyForATick() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, now := c.seenCycle, c.cycle.Load()
	c.seenCycle = now
	return !c.waiting && now > 0 && before == now && c.killed == nil
}

// onCancel sets what a CancelRequest with this client's key does. It is called
// on another goroutine, must return at once or within a bound of its own, and
// may still be called shortly after the session ended. Nil: nothing.
func (c *client) onCancel(cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancelFn = cancel
}

func (c *client) cancelRequested() {
	c.mu.Lock()
	cancel := c.cancelFn
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// send appends a message to the pending output.
func (c *client) send(msg pgproto3.BackendMessage) {
	c.borrow()
	out, err := msg.Encode(c.out)
	if err != nil { // beyond the protocol's 1 GiB: nothing a stream could carry
		c.fail(err)
		return
	}
	c.queued += uint64(len(out) - len(c.out))
	c.out = out
	if len(c.out) >= flushAt {
		_ = c.flush() // sticky: the session's own flush returns it
	}
}

// sendRaw appends a whole frame to the pending output, which goes out by itself
// when it exceeds 64 KiB.
func (c *client) sendRaw(frame []byte) {
	c.queued += uint64(len(frame))
	if len(frame) >= flushAt {
		// Not worth copying; the order must be kept.
		if c.flush() == nil {
			c.fail(c.write(frame))
		}
		return
	}
	c.borrow()
	c.out = append(c.out, frame...)
	if len(c.out) >= flushAt {
		_ = c.flush() // sticky: the session's own flush returns it
	}
}

// flush writes the pending output. After a failed write nothing is written any
// more and every flush returns the first error.
func (c *client) flush() error {
	if len(c.out) > 0 && c.writeErr == nil {
		c.fail(c.write(c.out))
	}
	c.giveBack()
	return c.writeErr
}

func (c *client) fail(err error) {
	if c.writeErr == nil {
		c.writeErr = err
	}
}

func (c *client) borrow() {
	if c.out == nil {
		c.outBox = outBuffers.Get().(*[]byte)
		c.out = (*c.outBox)[:0]
	}
}

func (c *client) giveBack() {
	if c.out == nil {
		return
	}
	if cap(c.out) <= keepOut {
		*c.outBox = c.out[:0]
		outBuffers.Put(c.outBox)
	}
	c.out, c.outBox = nil, nil
}

// write sends b in pieces of flushAt, each under a deadline of its own: a slow
// reader of a large row is not a dead one.
func (c *client) write(b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), flushAt)]
		// Moving a deadline costs as much as a small message, so it is moved only
		// when a quarter of it has been used up.
		if now := time.Now(); c.writeUntil.Sub(now) < c.writeTimeout*3/4 {
			c.writeUntil = now.Add(c.writeTimeout)
			if err := c.conn.SetWriteDeadline(c.writeUntil); err != nil {
				return err
			}
		}
		if _, err := c.conn.Write(piece); err != nil {
			return err
		}
		b = b[len(piece):]
	}
	return nil
}

// end says goodbye according to what the handler returned. A *pgconn.PgError in
// it is sent as FATAL; nil and a client that went away need no words; all else
// is an error of ours: FATAL XX000. It reports whether err deserves the log.
func (c *client) end(err error) (unexpected bool) {
	if errors.Is(err, context.Canceled) && context.Cause(c.ctx) != nil {
		err = context.Cause(c.ctx)
	}
	var pgErr *pgconn.PgError
	switch {
	case err == nil:
		_ = c.flush() // the client has said Terminate; it may be gone
		return false
	case errors.As(err, &pgErr):
		c.fatal(pgErr)
		if pgErr == errShutdown {
			c.linger()
		}
		return false
	case errors.Is(err, pgwire.ErrFrameTooLong):
		// Postgres only logs this one and closes; a word of explanation harms nobody.
		c.fatal(frontError(pgerrcode.ProtocolViolation, "invalid message length"))
		return false
	case c.writeErr != nil, isGone(err):
		return false
	}
	c.fatal(frontError(pgerrcode.InternalError, "internal error of the gateway; its log says more"))
	return true
}

// fatal sends what is pending and then the error with severity FATAL.
func (c *client) fatal(err *pgconn.PgError) {
	c.writeTimeout = min(c.writeTimeout, goodbyeTimeout)
	c.writeUntil = time.Time{}
	c.send(fatalResponse(err))
	_ = c.flush() // the connection is closed next, in any case
}

// lingerTimeout bounds linger: a client that has read the FATAL closes at once.
const lingerTimeout = time.Second

// linger waits, within a bound, until the client has closed the connection too.
// Closing it over a message that is just coming in would make the kernel reset
// it, which takes the FATAL away from a client that has not read it yet; and a
// client that was told 57P01 knows that its message has not been served.
func (c *client) linger() {
	closer, ok := c.conn.Conn.(interface{ CloseWrite() error })
	if !ok {
		closer, ok = c.conn.raw.(interface{ CloseWrite() error })
	}
	if !ok || c.writeErr != nil || closer.CloseWrite() != nil {
		return
	}
	if c.conn.raw.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.conn.raw, 1<<20)) // whatever it is, nobody serves it
	}
}

// isGone recognises the ways in which a connection ends by the client's doing.
func isGone(err error) bool {
	for _, target := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, errClientGone,
		os.ErrDeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// frontError is an error that ends a connection; it is sent as FATAL.
func frontError(code, message string) *pgconn.PgError {
	return &pgconn.PgError{Severity: "FATAL", Code: code, Message: message}
}

var errTooManyClients = frontError(pgerrcode.TooManyConnections, "sorry, too many clients already")

// fatalResponse is the ErrorResponse for err, severity FATAL.
func fatalResponse(err *pgconn.PgError) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: err.Code, Message: err.Message,
		Detail: err.Detail, Hint: err.Hint, Position: err.Position, InternalPosition: err.InternalPosition,
		InternalQuery: err.InternalQuery, Where: err.Where, SchemaName: err.SchemaName, TableName: err.TableName,
		ColumnName: err.ColumnName, DataTypeName: err.DataTypeName, ConstraintName: err.ConstraintName,
		File: err.File, Line: err.Line, Routine: err.Routine,
	}
}
