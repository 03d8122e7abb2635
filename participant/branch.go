package participant

// Life of an UPDATE, step 7 (the statement runs here) and step 10 (PREPARE
// TRANSACTION, in vote.go).

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
)

// errBlockEnded dooms a branch whose transaction block is no longer there
// although nobody ended it: what was done in it is rolled back or, worse,
// committed by a statement that smuggled a COMMIT. The connection is closed.
var errBlockEnded = errors.New("the node's transaction block ended unexpectedly")

// errBlockStayed: ROLLBACK has not ended the block.
var errBlockStayed = errors.New("the node's transaction block did not end with ROLLBACK")

// Branch is a transaction's part at one node: one connection, and a block that
// is opened by the first statement that runs in it.
//
// A statement is run by appending messages (Query, or StartSeries, Parse ...
// Sync), Send, and Receive until ReadyForQuery. What the branch itself adds in
// front (BEGIN, savepoints, settings) rides in the same message or series, so
// that a refused BEGIN takes the statement with it, and its answers are hidden
// from the caller.
type Branch struct {
	conn *Conn

	autocommit bool
	opening    []string // BEGIN and what must follow it, until the block is open
	open       bool
	writes     bool   // takes part in two-phase commit
	changes    bool   // has, or may have, changed rows; otherwise it has only locked some
	leftRole   string // the role that its connection has left to prepare, "" for none

	watch func(began time.Time) // see Watch
	began time.Time             // of the exchange under way, while somebody watches

	// of the exchange under way
	hiddenTags   int  // completions of our own statements still to come
	hiddenCloses int  // CloseComplete messages of our own still to come
	shift        int  // characters that stand before the client's statement
	failed       bool // an error has been received
	simple       bool // it is a simple query
	committed    bool // and, in autocommit, completed: the server commits first and says so then
}

// NewBranch takes a connection for a branch. opening are the statements that
// open it: BEGIN with its options first, then the savepoints and settings that
// the transaction already has. With none the branch is in autocommit: each
// statement is a transaction of its own.
func (n *Node) NewBranch(ctx context.Context, settings Settings, opening []string) (*Branch, error) {
	conn, err := n.acquire(ctx, settings)
	if err != nil {
		return nil, err
	}
	return &Branch{conn: conn, autocommit: len(opening) == 0, opening: opening}, nil
}

// Node is where the branch is.
func (b *Branch) Node() *Node { return b.conn.node }

// Conn is the connection the branch runs on.
func (b *Branch) Conn() *Conn { return b.conn }

// Server is who the branch's connection was made to.
func (b *Branch) Server() Identity {
	if b.conn.identity == nil {
		return Identity{}
	}
	return *b.conn.identity
}

// Open tells whether the node has an open block for the branch.
func (b *Branch) Open() bool { return b.open }

// Failed tells whether the block at the node is in the failed state.
func (b *Branch) Failed() bool { return b.open && b.conn.status == 'E' }

// Lost is not nil once the branch's connection is gone. The whole transaction
// is doomed then: even ROLLBACK TO cannot bring back what the branch did.
func (b *Branch) Lost() error { return b.conn.err }

// Writes tells whether the branch has, or may have, a transaction id at the
// node, and so takes part in two-phase commit.
func (b *Branch) Writes() bool { return b.writes }

// MarkWrites records that a statement that writes, or may do so, is about to
// run.
func (b *Branch) MarkWrites() { b.writes, b.changes = true, true }

// MarkLocks records that a statement that locks rows but changes nothing
// (SELECT ... FOR UPDATE) is about to run. The branch writes all the same: a
// lock is a transaction id at the node, and must survive a crash of the gateway
// as long as the changes it protects elsewhere are in doubt.
func (b *Branch) MarkLocks() { b.writes = true }

// OnlyLocks tells whether the branch writes, but nothing except row locks. What
// these protect may lie on other nodes, so they are let go last.
func (b *Branch) OnlyLocks() bool { return b.writes && !b.changes }

// AddOpening adds a statement (a savepoint, a setting) to be run before the
// branch's first one. It is only for a branch that is not open yet.
func (b *Branch) AddOpening(sql string) { b.opening = append(b.opening, sql) }

// begin starts an exchange.
func (b *Branch) begin() {
	b.hiddenTags, b.hiddenCloses, b.shift, b.failed = 0, 0, 0, false
	b.simple, b.committed = false, false
}

// Query appends a simple query. The statement must be a single one.
func (b *Branch) Query(sql string) {
	b.begin()
	b.simple = true
	if !b.open && !b.autocommit {
		prefix := strings.Join(b.opening, ";") + ";"
		b.hiddenTags = len(b.opening)
		b.shift = utf8.RuneCountInString(prefix)
		sql = prefix + sql
	}
	b.conn.append(&pgproto3.Query{String: sql})
}

// StartSeries begins a series of extended-protocol messages that Sync will
// end.
func (b *Branch) StartSeries() {
	b.begin()
	for _, name := range b.conn.statements.closing {
		b.conn.append(&pgproto3.Close{ObjectType: 'S', Name: name})
		b.hiddenCloses++
	}
	if b.open || b.autocommit {
		return
	}
	for _, sql := range b.opening {
		b.conn.append(&pgproto3.Parse{Query: sql})
		b.conn.append(&pgproto3.Bind{})
		b.conn.append(&pgproto3.Execute{})
		b.hiddenTags++
	}
}

// Parse appends a Parse message.
func (b *Branch) Parse(msg *pgproto3.Parse) { b.conn.append(msg) }

// Bind appends a Bind message.
func (b *Branch) Bind(msg *pgproto3.Bind) { b.conn.append(msg) }

// Describe appends a Describe message.
func (b *Branch) Describe(msg *pgproto3.Describe) { b.conn.append(msg) }

// Execute appends an Execute message.
func (b *Branch) Execute(msg *pgproto3.Execute) { b.conn.append(msg) }

// Close appends a Close message.
func (b *Branch) Close(msg *pgproto3.Close) { b.conn.append(msg) }

// Flush has the node answer what has been appended so far, in the middle of a
// series.
func (b *Branch) Flush() { b.conn.append(&pgproto3.Flush{}) }

// Sync ends the series.
func (b *Branch) Sync() { b.conn.append(&pgproto3.Sync{}) }

// InSeries tells whether a series has been begun that no Sync has ended yet.
func (b *Branch) InSeries() bool { return b.conn.inSeries }

// Restart rolls back what the branch has, which is nothing but its opening, and
// makes it one that is not open yet.
func (b *Branch) Restart(opening []string) error {
	if b.open {
		b.Rollback()
	}
	switch {
	case b.conn.err != nil:
		return b.conn.err
	case b.open:
		return b.conn.fail(errBlockStayed)
	}
	b.opening = opening
	return nil
}

// StatementName is the name under which this connection holds the statement
// key prepared; parsed is false when it must be parsed first, with Parse under
// that name. A successful ParseComplete is reported with ConfirmStatement, a
// failed one with ForgetStatement.
func (b *Branch) StatementName(key string) (name string, parsed bool) {
	return b.conn.statements.lookup(key)
}

// ConfirmStatement records that the node has prepared the statement key.
func (b *Branch) ConfirmStatement(key string) { b.conn.statements.confirm(key) }

// ForgetStatement drops the statement key, for instance because its plan no
// longer fits the tables; it is closed at the node with the next series.
func (b *Branch) ForgetStatement(key string) { b.conn.statements.forget(key) }

// Watch has told called at the end of each exchange with the node (ReadyForQuery,
// or the loss of the connection) with the time of its first Send. PREPARE
// TRANSACTION and what follows it are not among them.
func (b *Branch) Watch(told func(began time.Time)) { b.watch = told }

// Send writes the messages appended.
func (b *Branch) Send() error {
	if b.watch != nil && b.began.IsZero() {
		b.began = time.Now()
	}
	return b.conn.Send()
}

// exchanged tells who watches that an exchange is over.
func (b *Branch) exchanged() {
	if b.watch != nil && !b.began.IsZero() {
		b.watch(b.began)
		b.began = time.Time{}
	}
}

// Receive returns the next message that answers the caller's own messages:
// those of the branch's opening are hidden, error positions count from the
// caller's statement. After ReadyForQuery the branch is open (or, in
// autocommit, idle again); a block that is not there although it should be
// dooms the branch with a [*LostError].
func (b *Branch) Receive() (pgwire.Frame, error) {
	for {
		frame, err := b.conn.Receive()
		if err != nil {
			b.exchanged()
			return frame, err
		}
		switch frame.Type() {
		case 'Z':
			b.exchanged()
			if err := b.ready(); err != nil {
				return frame, err
			}
			return frame, nil
		case 'E':
			if b.committed && !fatal(frame) {
				continue // a cancel or a timeout that came too late: see ReceiveCommit
			}
			b.failed = true
			if b.shift > 0 || b.hiddenTags > 0 {
				return b.shiftPosition(frame)
			}
			return frame, nil
		case 'N', 'S', 'A':
			return frame, nil
		case '3':
			if b.hiddenCloses > 0 {
				b.hiddenCloses--
				b.conn.statements.closing = b.conn.statements.closing[1:]
				continue
			}
			return frame, nil
		case 'C':
			if b.hiddenTags > 0 {
				b.hiddenTags--
				continue
			}
			b.committed = b.autocommit && b.simple
			return frame, nil
		default:
			if b.hiddenTags > 0 { // ParseComplete, rows of a set_config, ...
				continue
			}
			return frame, nil
		}
	}
}

// ready takes the transaction status at the end of an exchange.
func (b *Branch) ready() error {
	status := b.conn.status
	switch {
	case b.autocommit:
		if status != 'I' {
			return b.conn.fail(errBlockEnded)
		}
	case status != 'I':
		b.open = true
		b.opening = nil
	case b.open || !b.failed:
		return b.conn.fail(errBlockEnded)
	}
	return nil
}

// shiftPosition rewrites the position of an error (field P, in characters) so
// that it counts from the client's statement rather than from our BEGIN.
func (b *Branch) shiftPosition(frame pgwire.Frame) (pgwire.Frame, error) {
	var msg pgproto3.ErrorResponse
	if err := msg.Decode(frame.Body()); err != nil {
		return frame, b.conn.fail(err)
	}
	if msg.Position == 0 {
		return frame, nil
	}
	msg.Position = max(0, msg.Position-int32(b.shift))
	if b.hiddenTags > 0 && b.shift == 0 { // one of our own statements, in a series
		msg.Position = 0
	}
	raw, err := msg.Encode(nil)
	if err != nil {
		return frame, b.conn.fail(err)
	}
	return pgwire.NewFrame(raw), nil
}

// Release gives the connection back to the node. A block that is still open is
// rolled back by closing the connection; use Rollback first to keep it.
func (b *Branch) Release() {
	if b.leftRole != "" { // it carries less than it is taken to
		b.conn.Taint()
	}
	b.conn.node.release(b.conn)
}

// ForbidCancel ends the time in which Cancel may aim at the branch: from the
// hand-over of the commit on, nothing follows the client's wishes.
func (b *Branch) ForbidCancel() { b.conn.allowCancel(false) }

// StillWhole looks, without waiting, whether the branch's connection is as it
// was after the last answer: nothing received since, not closed.
func (b *Branch) StillWhole() bool { return b.conn.Whole() && Alive(b.conn.nc) }
