package participant

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/internal/quickconn"
)

const (
	readBufferSize = 16 << 10
	// maxFrame is the protocol's own limit for one message (a field holds at
	// most 1 GB): nothing longer comes from a healthy node.
	maxFrame = 1<<30 - 1
	// keepOutBuffer bounds what an idle connection keeps of its send buffer.
	keepOutBuffer = 32 << 10
)

// Conn is one physical connection to a node. It is made by Node.acquire, used
// by one goroutine at a time (Cancel excepted) and speaks in frames: messages
// are appended, sent with Send, and answers read with Receive until
// ReadyForQuery.
type Conn struct {
	node   *Node
	nc     net.Conn
	remote net.Addr // the server it was made to: of several hosts, the one that was the primary
	in     *pgwire.Reader
	out    []byte
	pid    uint32
	secret []byte

	identity *Identity // who that server is

	status   byte // transaction status of the last ReadyForQuery: I, T or E
	awaiting int  // ReadyForQuery messages still to come
	turn     atomic.Uint64
	inSeries bool // messages of a series were appended, and no Sync yet
	within   bool // and some of them sent
	err      error
	deadline time.Time

	applied    Settings // session parameters set on this connection
	tainted    bool     // carries state that nobody tracks: reset before reuse
	statements *statementCache
	parameters map[string]string // as reported by the server (ParameterStatus)
	made, used time.Time

	cancelMu sync.Mutex
	cancels  []chan struct{} // each closed when its cancel connection has reached EOF
	instead  instead
	noCancel bool // set between sessions and around commits
}

// newConn takes over the connection that pgconn has authenticated.
func newConn(node *Node, hijacked *pgconn.HijackedConn) *Conn {
	nc := quickconn.Wrap(hijacked.Conn)
	return &Conn{
		node:       node,
		nc:         nc,
		remote:     hijacked.Conn.RemoteAddr(),
		in:         pgwire.NewReader(bufio.NewReaderSize(nc, readBufferSize), maxFrame),
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

// Turn counts the times that this side and the server have taken turns: it is
// odd while an answer is outstanding. Two looks that see the same odd number see
// the same wait for one answer. It may be called from any goroutine.
func (c *Conn) Turn() uint64 { return c.turn.Load() }

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
		c.inSeries = false
	default:
		c.inSeries = true
	}
}

// Send writes what has been appended.
func (c *Conn) Send() error {
	if c.err != nil {
		return c.err
	}
	// A cancel that hits the rest of a series hits what it was meant for.
	if !c.within {
		if err := c.quiesce(); err != nil {
			return err
		}
	}
	c.within = c.inSeries
	return c.write()
}

func (c *Conn) write() error {
	if len(c.out) == 0 {
		return nil
	}
	if c.awaiting > 0 && c.turn.Load()%2 == 0 {
		c.turn.Add(1)
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
		if c.awaiting--; c.awaiting == 0 {
			c.turn.Add(1)
		}
	case 'E':
		return c.excused(frame)
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
// no answer outstanding, no series without its Sync, and nothing received that
// nobody asked for, which the next exchange would take for its own answer.
func (c *Conn) Whole() bool {
	return c.err == nil && c.awaiting == 0 && !c.inSeries && len(c.out) == 0 && c.in.Buffered() == 0
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
