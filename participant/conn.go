package participant

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
)

const (
	readBufferSize = 16 << 10
	// maxFrame is the protocol's own limit for one message (a field holds at
	// most 1 GB): nothing longer comes from a healthy node.
	maxFrame = 1<<30 - 1
	// keepOutBuffer bounds what an idle connection keeps of its send buffer.
	keepOutBuffer = 32 << 10
)

// ErrCancelPending is the reason a connection is given up for when a cancel
// sent for it could not be seen through to its end in time: it might hit the
// next statement.
var ErrCancelPending = errors.New("a cancel request did not finish in time")

// Conn is one physical connection to a node. It is made by Node.acquire, used
// by one goroutine at a time (Cancel excepted) and speaks in frames: messages
// are appended, sent with Send, and answers read with Receive until
// ReadyForQuery.
type Conn struct {
	node   *Node
	nc     net.Conn
	in     *pgwire.Reader
	out    []byte
	pid    uint32
	secret []byte

	status   byte // transaction status of the last ReadyForQuery: I, T or E
	awaiting int  // ReadyForQuery messages still to come
	err      error
	deadline time.Time

	applied    Settings // session parameters set on this connection
	tainted    bool     // carries state that nobody tracks: reset before reuse
	statements *statementCache
	parameters map[string]string // as reported by the server (ParameterStatus)
	made, used time.Time

	cancelMu sync.Mutex
	cancels  []chan struct{} // each closed when its cancel connection has reached EOF
	noCancel bool            // set between sessions and around commits
}

// newConn takes over the connection that pgconn has authenticated.
func newConn(node *Node, hijacked *pgconn.HijackedConn) *Conn {
	return &Conn{
		node:       node,
		nc:         hijacked.Conn,
		in:         pgwire.NewReader(bufio.NewReaderSize(hijacked.Conn, readBufferSize), maxFrame),
		pid:        hijacked.PID,
		secret:     hijacked.SecretKey,
		status:     hijacked.TxStatus,
		parameters: hijacked.ParameterStatuses,
		statements: newStatementCache(node.cfg.StatementCacheSize),
		made:       time.Now(),
		noCancel:   true,
	}
}

// Node is the node at the other end.
func (c *Conn) Node() *Node { return c.node }

// PID is the process id of the server process that serves this connection.
func (c *Conn) PID() uint32 { return c.pid }

// Err is not nil once the connection is of no more use: a [*LostError].
func (c *Conn) Err() error { return c.err }

// TxStatus is the transaction status that the last ReadyForQuery told: 'I'
// idle, 'T' in a block, 'E' in a failed block.
func (c *Conn) TxStatus() byte { return c.status }

// Parameters are the parameters the server has reported, kept current.
func (c *Conn) Parameters() map[string]string { return c.parameters }

// Taint marks the connection as carrying session state that is not tracked in
// its Settings (a DO block, CALL, an unknown function, SET inside a prepared
// transaction): it is reset before anybody else gets it.
func (c *Conn) Taint() { c.tainted = true }

// SetApplied records that a statement the session ran has changed the
// connection's parameters to these.
func (c *Conn) SetApplied(s Settings) { c.applied = s }

// SetDeadline bounds everything that is sent and received from now on; the
// zero time lifts the bound. A connection that misses it is lost.
func (c *Conn) SetDeadline(t time.Time) {
	if c.deadline.Equal(t) {
		return
	}
	c.deadline = t
	_ = c.nc.SetDeadline(t)
}

// append encodes msg into the send buffer.
func (c *Conn) append(msg pgproto3.FrontendMessage) {
	out, err := msg.Encode(c.out)
	if err != nil { // longer than the protocol allows
		_ = c.fail(err)
		return
	}
	c.out = out
	switch msg.(type) {
	case *pgproto3.Query, *pgproto3.Sync:
		c.awaiting++
	}
}

// Send writes what has been appended.
func (c *Conn) Send() error {
	if c.err != nil {
		return c.err
	}
	if err := c.quiesce(); err != nil {
		return err
	}
	return c.write()
}

func (c *Conn) write() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.nc.Write(c.out)
	if cap(c.out) > keepOutBuffer {
		c.out = nil
	} else {
		c.out = c.out[:0]
	}
	if err != nil {
		return c.fail(err)
	}
	return nil
}

// Receive returns the next message of the server. ParameterStatus messages are
// recorded and returned, ReadyForQuery updates TxStatus. The frame is valid
// until the next Receive.
func (c *Conn) Receive() (pgwire.Frame, error) {
	if c.err != nil {
		return pgwire.Frame{}, c.err
	}
	frame, err := c.in.Next()
	if err != nil {
		return pgwire.Frame{}, c.fail(err)
	}
	switch frame.Type() {
	case 'Z':
		if body := frame.Body(); len(body) != 1 || strings.IndexByte("ITE", body[0]) < 0 {
			return pgwire.Frame{}, c.fail(errors.New("malformed ReadyForQuery"))
		}
		c.status = frame.Body()[0]
		c.awaiting--
	case 'S':
		var msg pgproto3.ParameterStatus
		if err := msg.Decode(frame.Body()); err != nil {
			return pgwire.Frame{}, c.fail(err)
		}
		c.parameters[msg.Name] = msg.Value
	}
	return frame, nil
}

// Buffered tells whether another message of the server, or part of one, has
// already arrived.
func (c *Conn) Buffered() bool {
	_, ok := c.in.PeekType()
	return ok
}

// Whole tells whether the connection is fit for another exchange: not broken,
// no answer outstanding, and nothing received that nobody asked for, which the
// next exchange would take for its own answer.
func (c *Conn) Whole() bool {
	return c.err == nil && c.awaiting == 0 && len(c.out) == 0 && c.in.Buffered() == 0
}

// fail marks the connection lost and closes it. The server notices that and
// rolls an open block back; what was prepared stays prepared.
func (c *Conn) fail(err error) error {
	if c.err == nil {
		c.err = &LostError{Node: c.node.cfg.Name, Err: err}
		_ = c.nc.Close()
	}
	return c.err
}

// Abandon gives the connection up, with the reason, although it still works:
// after a missed deadline, or when its state is not known.
func (c *Conn) Abandon(reason error) { _ = c.fail(reason) }

// exchange runs sql as one simple query, collecting rows (first result only),
// tags and the first error. It is for our own statements, whose results are
// small.
func (c *Conn) exchange(sql string) (answer, error) {
	c.append(&pgproto3.Query{String: sql})
	if err := c.Send(); err != nil {
		return answer{}, err
	}
	return c.collect()
}

// answer is what a simple query of our own came to.
type answer struct {
	rows     [][]string // "" for null: our own statements have none that matter
	tags     []string
	warnings []warning
	err      *pgconn.PgError
}

// warning is a NoticeResponse with the number of tags that preceded it.
type warning struct {
	after  int
	notice *pgconn.PgError
}

// lastTag is the tag of the last statement that completed.
func (a answer) lastTag() string {
	if len(a.tags) == 0 {
		return ""
	}
	return a.tags[len(a.tags)-1]
}

// collect reads up to and including ReadyForQuery. The error is a lost
// connection; what the server refused is in the answer.
func (c *Conn) collect() (answer, error) {
	var a answer
	for {
		frame, err := c.Receive()
		if err != nil {
			return a, err
		}
		switch frame.Type() {
		case 'D':
			row, err := decodeRow(frame.Body())
			if err != nil {
				return a, c.fail(err)
			}
			a.rows = append(a.rows, row)
		case 'C':
			var msg pgproto3.CommandComplete
			if err := msg.Decode(frame.Body()); err != nil {
				return a, c.fail(err)
			}
			a.tags = append(a.tags, string(msg.CommandTag))
		case 'E', 'N':
			pgErr, err := DecodeError(frame.Body())
			if err != nil {
				return a, c.fail(err)
			}
			if frame.Type() == 'N' {
				a.warnings = append(a.warnings, warning{after: len(a.tags), notice: pgErr})
			} else if a.err == nil {
				a.err = pgErr
			}
		case 'Z':
			return a, nil
		case 'G', 'W':
			return a, c.fail(errors.New("unexpected COPY"))
		case 'T', 'I', 'S', 'A': // nothing to us
		default:
			// No answer to a simple query: the two ends do not mean the same exchange.
			return a, c.fail(fmt.Errorf("unexpected message of type %q", frame.Type()))
		}
	}
}

func decodeRow(body []byte) ([]string, error) {
	var msg pgproto3.DataRow
	if err := msg.Decode(body); err != nil {
		return nil, err
	}
	row := make([]string, len(msg.Values))
	for i, v := range msg.Values {
		row[i] = string(v)
	}
	return row, nil
}

// DecodeError reads the body of an ErrorResponse or NoticeResponse.
func DecodeError(body []byte) (*pgconn.PgError, error) {
	var msg pgproto3.ErrorResponse
	if err := msg.Decode(body); err != nil {
		return nil, err
	}
	return pgconn.ErrorResponseToPgError(&msg), nil
}

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
	if c.noCancel {
		return
	}
	done := make(chan struct{})
	c.cancels = append(c.cancels, done)
	c.node.cancels.Add(1)
	go func() {
		defer c.node.cancels.Done()
		defer close(done)
		c.node.sendCancel(c.pid, c.secret)
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

// reset brings the connection back to the state it had when it was made.
func (c *Conn) reset(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
		defer c.SetDeadline(time.Time{})
	}
	a, err := c.exchange("DISCARD ALL")
	if err != nil {
		return err
	}
	if a.err != nil || c.status != 'I' {
		return c.fail(fmt.Errorf("DISCARD ALL failed: %v, status %c", a.err, c.status))
	}
	c.statements.clear()
	c.applied, c.tainted = Settings{}, false
	return nil
}

// apply gives the connection the session parameters it must carry. A refused
// value is the node's error, and leaves the parameters as they were (the
// message is one implicit transaction).
func (c *Conn) apply(to Settings) error {
	sql := c.applied.change(to)
	if sql == "" {
		return nil
	}
	c.SetDeadline(time.Now().Add(c.node.cfg.ConnectTimeout)) // it is part of getting a connection
	defer c.SetDeadline(time.Time{})
	a, err := c.exchange(sql)
	if err != nil {
		return err
	}
	if a.err != nil {
		return a.err
	}
	c.applied = to
	return nil
}
