package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
)

// copyChunk is how much data is gathered for a node before it is sent.
const copyChunk = 64 << 10

// copyNode is the COPY FROM STDIN at one node.
type copyNode struct {
	branch *participant.Branch
	feed   *participant.Feed
	out    []byte // CopyData under way, its header reserved
	lines  lineMap
	styled bool // a line with its end has been added
	begun  bool // what has been added last is the beginning of a row

	ended   bool // ReadyForQuery has come, or the connection is lost
	count   uint64
	failure error  // the first
	line    uint64 // of the client's, where it happened; 0: not known
}

// errCopyEnded says that a node has ended its COPY before its time, with the
// failure that it holds.
var errCopyEnded = errors.New("a node has ended COPY")

// addHeader adds the client's header.
func (n *copyNode) addHeader(c *copyIn) error {
	p := c.header
	if c.format.kind != binaryFormat {
		// Each node reads it first, as it is the client's first.
		n.lines.add(0, p.lines(p.eol), p.lines(p.eol))
		n.markStyled(c, p)
	}
	return n.add(c, p.data)
}

// addRow adds the client's next row.
func (n *copyNode) addRow(c *copyIn, p *piece) error {
	before := eolUnknown
	if n.styled {
		before = p.eol
	}
	lines := p.lines(p.eol)
	n.lines.add(c.line, lines, p.lines(before))
	c.line += lines
	n.markStyled(c, p)
	return n.add(c, p.data)
}

func (n *copyNode) markStyled(c *copyIn, p *piece) {
	if p.ends && !n.styled {
		n.styled = true
		if c.styled == nil {
			c.styled = n
		}
	}
}

// add appends data, and sends what has been gathered when it is enough.
func (n *copyNode) add(c *copyIn, data []byte) error {
	n.open()
	n.out = append(n.out, data...)
	if len(n.out) >= copyChunk {
		return n.flush(c)
	}
	return nil
}

func (n *copyNode) open() {
	if n.out == nil {
		if n.out = n.feed.Spare(); n.out == nil || cap(n.out) > 4*copyChunk {
			n.out = make([]byte, 0, copyChunk+copyChunk/4)
		}
		n.out = append(n.out, 'd', 0, 0, 0, 0)
	}
}

// flush hands over what has been gathered, with the messages behind it.
func (n *copyNode) flush(c *copyIn, behind ...byte) error {
	chunk := n.out
	if len(chunk) > pgwire.HeaderLen {
		binary.BigEndian.PutUint32(chunk[1:], uint32(len(chunk)-1))
	} else {
		chunk = chunk[:0]
	}
	n.out = nil
	chunk = append(chunk, behind...)
	for !n.ended && len(chunk) > 0 {
		taken, err := n.feed.Write(chunk)
		switch {
		case err != nil:
			n.lost(err)
		case taken:
			return nil
		default:
			n.receive(c)
		}
	}
	if n.ended {
		return errCopyEnded
	}
	return nil
}

func (n *copyNode) lost(err error) {
	n.ended = true
	if n.failure == nil {
		n.failure = err
	}
}

// receive takes one message of the node.
func (n *copyNode) receive(c *copyIn) {
	frame, err := n.branch.Receive()
	if err != nil {
		n.lost(err)
		return
	}
	n.take(c, frame)
	if n.failure != nil && frame.Type() == 'E' {
		// What follows an error is ReadyForQuery.
		for !n.ended {
			n.receive(c)
		}
	}
}

// take notes what one message says.
func (n *copyNode) take(c *copyIn, frame pgwire.Frame) {
	switch frame.Type() {
	case 'Z':
		n.ended = true
	case 'E':
		if n.failure == nil {
			n.line, n.failure = n.located(c, refusedBy(n.branch, frame))
		}
	case 'N':
		c.notice(n, frame)
	case 'S':
		c.s.relayParameter(frame)
	case 'C':
		_, n.count, _ = cutCount(string(bytes.TrimSuffix(frame.Body(), []byte{0})))
	}
}

// located is the error with the client's line number in the place of the
// node's.
func (n *copyNode) located(c *copyIn, err error) (line uint64, located error) {
	pgErr, ok := err.(*pgconn.PgError) //nolint:errorlint // just decoded
	if !ok || c.whole {
		return 0, err
	}
	pgErr.Where, line = n.clientWhere(c, pgErr.Where)
	return line, pgErr
}

func (n *copyNode) clientWhere(c *copyIn, where string) (string, uint64) {
	before, line, after, ok := cutCopyContext(where, c.table.Name)
	if !ok {
		return where, 0
	}
	if line, ok = n.lines.client(line, c.line); !ok {
		return where, 0
	}
	return before + strconv.FormatUint(line, 10) + after, line
}

// notice passes a notice on; a trigger's has the line in its context as well.
func (c *copyIn) notice(n *copyNode, frame pgwire.Frame) {
	if c.whole || !bytes.Contains(frame.Body(), []byte("COPY ")) {
		c.s.client.sendRaw(frame.Raw())
		return
	}
	var msg pgproto3.NoticeResponse
	if msg.Decode(frame.Body()) == nil {
		msg.Where, _ = n.clientWhere(c, msg.Where)
		c.s.client.send(&msg)
	}
}

// The ends of a node's COPY.
var (
	copyDone, _ = (&pgproto3.CopyDone{}).Encode(nil)
	// abortMessage is found again in the errors that it makes.
	abortMessage = "pgpact gives up this COPY"
	copyAbort, _ = (&pgproto3.CopyFail{Message: abortMessage}).Encode(nil)
)

// aborted tells whether a failure is just the answer to copyAbort.
func aborted(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == pgerrcode.QueryCanceled && strings.HasSuffix(pgErr.Message, abortMessage)
}

// done ends the COPY as the client has: all rows are there.
func (c *copyIn) done() error {
	if !c.whole {
		c.split.end()
		if err := c.pieces(); err != nil || c.instead != nil {
			return err
		}
		if c.marked != nil {
			if err := c.place(c.marked); err != nil {
				return c.stopped(err)
			}
		}
	}
	if c.header != nil && c.format.kind == binaryFormat {
		for _, n := range c.nodes {
			if n != nil && !n.ended {
				n.open()
				n.out = append(n.out, binaryTrailer...)
			}
		}
	}
	if err := c.finish(); err != nil {
		return err
	}
	count := uint64(0)
	for _, n := range c.nodes {
		if n != nil {
			count += n.count
		}
	}
	if c.everywhere {
		count = c.first.count
		c.stop() // the connections are for statements again
		if err := c.s.sameEverywhere(c.table); err != nil {
			return err
		}
	}
	c.s.complete("COPY " + strconv.FormatUint(count, 10))
	return nil
}

// finish gives every node what it still has to get, ends its COPY and says what
// has come of it. If the data is known to be wrong, the node that judges it
// comes to its regular end, and the others up to where they are.
func (c *copyIn) finish() error {
	for _, n := range c.nodes {
		switch {
		case n == nil:
		case c.instead == nil || n == c.judge:
			_ = n.flush(c, copyDone...) // its failure is kept
		default:
			n.abandon(c)
		}
	}
	if err := c.await(); err != nil {
		return err
	}
	return c.instead
}

// giveUp ends the COPY early, behind the rows that have been placed.
func (c *copyIn) giveUp() error {
	for _, n := range c.nodes {
		if n != nil {
			n.abandon(c)
		}
	}
	return c.await()
}

// abandon ends a node's COPY behind the rows that it has been given. Postgres
// looks one byte behind a \r before it believes that the line is at its end, and
// takes a row at its word only then: so it is given the beginning of another.
func (n *copyNode) abandon(c *copyIn) {
	if n.ended {
		return
	}
	if n.styled && !n.begun {
		_ = n.add(c, []byte{'x'}) // a failure is kept
	}
	_ = n.flush(c, copyAbort...)
}

// await waits for the end of every node's COPY. The error is the failure that
// one Postgres would have met first.
func (c *copyIn) await() error {
	var found error
	var first *copyNode
	for _, n := range c.nodes {
		if n == nil {
			continue
		}
		for !n.ended {
			n.receive(c)
		}
		if n.failure == nil || aborted(n.failure) {
			continue
		}
		if found == nil || n.earlier(first) {
			found, first = n.failure, n
		}
	}
	return found
}

// insertBatch is how many rows Postgres reads before it inserts them
// (MAX_BUFFERED_TUPLES): what is found wrong on insertion comes up that late.
const insertBatch = 1000

// earlier tells whether one Postgres would meet n's failure before other's.
func (n *copyNode) earlier(other *copyNode) bool {
	ours, theirs := n.discovered(), other.discovered()
	return ours < theirs || ours == theirs && n.line < other.line
}

// discovered is twice the line at which Postgres meets the failure, and one more
// if it does so behind it.
func (n *copyNode) discovered() uint64 {
	pgErr, ok := errors.AsType[*pgconn.PgError](n.failure)
	switch {
	case !ok || n.line == 0:
		return math.MaxUint64
	case pgErr.Code == pgerrcode.UniqueViolation || pgErr.Code == pgerrcode.ExclusionViolation:
		return (n.line/insertBatch+1)*insertBatch*2 + 1
	}
	return n.line * 2
}

// stopped ends the COPY after the placing of a row has failed: at a node, whose
// failure may not be the first, or because a node could not be enlisted.
func (c *copyIn) stopped(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errCopyEnded):
		if failed := c.giveUp(); failed != nil {
			return failed
		}
		return sqlError("XX000", "a node ended COPY without an error")
	}
	return c.abort(err)
}

// abort ends the COPY everywhere for a reason of the gateway's own.
func (c *copyIn) abort(reason error) error {
	for _, n := range c.nodes {
		if n != nil {
			n.out = nil
		}
	}
	_ = c.giveUp()
	return reason
}

// failedByClient ends the COPY with the error that the client has asked for,
// unless a row before it is wrong. One node hears of the row begun, so that the
// error says where Postgres is then.
func (c *copyIn) failedByClient(message string) error {
	n := c.judgeOfLines()
	if begun := c.split.begun(); len(begun) > 0 && !c.whole && !n.ended {
		n.begun = true
		_ = n.add(c, begun) // a failure is kept
	}
	if err := c.giveUp(); err != nil {
		return err
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](n.failure)
	if !ok {
		return sqlErrorf(pgerrcode.QueryCanceled, "COPY from stdin failed: %s", message)
	}
	pgErr.Message = strings.TrimSuffix(pgErr.Message, abortMessage) + message
	return pgErr
}

// stop ends the feeds, unless they have been ended.
func (c *copyIn) stop() {
	for _, n := range c.nodes {
		if n != nil && n.feed != nil {
			n.feed.Stop()
			n.feed = nil
		}
	}
}
