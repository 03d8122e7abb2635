package participant

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// cancelGrace is how long before the deadline a cancel is sent, at most half of
// the time there is.
const cancelGrace = time.Second

// Tags of the statements whose completion is a fact of the protocol. Anything
// else in their place is not.
const (
	tagPrepare          = "PREPARE TRANSACTION"
	tagCommit           = "COMMIT"
	tagCommitPrepared   = "COMMIT PREPARED"
	tagRollbackPrepared = "ROLLBACK PREPARED"
)

// Vote is a node's answer to PREPARE TRANSACTION.
type Vote struct {
	// Yes: the branch is prepared, durably, and will commit if asked to.
	Yes bool
	// Prepared: the branch is or may be prepared although the vote is not yes
	// (a cancelled standby wait): an abort must be told to the node.
	Prepared bool
	// Err is why the vote is no: the node's own error, or what was wrong with
	// its answer.
	Err error
	// Notices are for the client: what its own deferred triggers said.
	Notices []*pgconn.PgError
}

// SendPrepare sends everything of phase one in one simple message. Order and
// content are all there for a reason:
//
//   - SET CONSTRAINTS ALL IMMEDIATE makes deferred triggers run now, so that
//     their warnings are not taken for one of PREPARE's, and as the client's
//     role.
//   - SET ROLE NONE, when the client has a role of its own, makes the role that
//     has logged in write the branch record, which the client may not, and own the
//     prepared transaction: only its owner (or a superuser) may finish it, and
//     recovery must be able to. It is not LOCAL, because COMMIT PREPARED on this
//     connection asks who it is as well; sendFinish sets the role again.
//   - synchronous_commit and client_min_messages are set because a client's own
//     values could skip the standby wait, or hide the warning that it was
//     cancelled.
//   - the branch record is a plain INSERT: a second one for the same
//     transaction must fail.
func (b *Branch) SendPrepare(gid GID, record BranchRecord) error {
	b.begin()
	_, hasRole := b.conn.applied.Get(RoleName)
	b.conn.append(&pgproto3.Query{String: prepareSQL(gid, record, hasRole)})
	return b.conn.Send()
}

// prepareTags are what prepareSQL is answered with if all of it was done. INSERT
// 0 0 is not in it: a branch record that a trigger or rule has swallowed is none
// (I8).
func prepareTags(hasRole bool) []string {
	if hasRole {
		return tagsWithRole
	}
	return tagsWithoutRole
}

var (
	tagsWithoutRole = []string{"SET CONSTRAINTS", "SET", "SET", "INSERT 0 1", tagPrepare}
	tagsWithRole    = []string{"SET CONSTRAINTS", "SET", "SET", "SET", "INSERT 0 1", tagPrepare}
)

// prepareBegins, leaveRole if the client has a role, and prepareRecord are how
// prepareSQL begins, up to the names of the columns that a branch record may have
// besides. Who looks at lock waits knows phase one by it (waits.go).
const (
	prepareBegins = "SET CONSTRAINTS ALL IMMEDIATE;"
	leaveRole     = "SET ROLE NONE;"
	prepareRecord = "SET LOCAL synchronous_commit=on;SET LOCAL client_min_messages=warning;" +
		"INSERT INTO pgpact.branches(epoch,sequence,participants"
)

// prepareValues is what stands between the columns and the transaction's id.
const prepareValues = ") VALUES("

func prepareSQL(gid GID, record BranchRecord, hasRole bool) string {
	var s strings.Builder
	s.Grow(320 + 16*len(record.Participants) + len(record.Key))
	s.WriteString(prepareBegins)
	if hasRole {
		s.WriteString(leaveRole)
	}
	s.WriteString(prepareRecord)
	if record.Key != "" {
		s.WriteString(",role,idempotency_key")
	}
	s.WriteString(prepareValues)
	s.WriteString(strconv.FormatInt(gid.Epoch, 10))
	s.WriteByte(',')
	s.WriteString(strconv.FormatInt(gid.Sequence, 10))
	s.WriteString(",'{")
	for i, name := range record.Participants {
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteString(`"` + name + `"`) // quoted, or a node named null would be none
	}
	s.WriteString("}'")
	if record.Key != "" {
		s.WriteByte(',')
		s.WriteString(QuoteLiteral(record.Role))
		s.WriteByte(',')
		s.WriteString(QuoteLiteral(record.Key))
	}
	s.WriteString(");PREPARE TRANSACTION '")
	s.WriteString(gid.String())
	s.WriteByte('\'')
	return s.String()
}

// ReceiveVote reads the answer. The bound is the caller's: at the deadline the
// statement is cancelled, and if it still does not answer the connection is
// given up. An error (always a [*LostError]) means that there is no answer: the
// branch may be prepared, now or later, since a PREPARE whose connection was
// lost can still land.
func (b *Branch) ReceiveVote(deadline time.Time) (Vote, error) {
	a, err := b.conn.collectUntil(deadline)
	if err != nil {
		return Vote{Prepared: true}, err
	}
	role, hasRole := b.conn.applied.Get(RoleName)
	vote := judgePrepare(a, b.conn.status, hasRole)
	b.open = b.conn.status != 'I'
	if hasRole && vote.Prepared {
		b.leftRole = role
	} // else the transaction has taken its SET ROLE NONE with it
	return vote, nil
}

// judgePrepare decides what an answer to prepareSQL is worth. A failed block
// answers PREPARE with the tag ROLLBACK and no error, a cancelled standby wait
// with success and a warning: only the exact tags, without a warning after the
// record's, from a connection that is idle again, are a yes.
func judgePrepare(a answer, status byte, hasRole bool) Vote {
	var vote Vote
	want := prepareTags(hasRole)
	warned := false
	for _, w := range a.warnings {
		if w.after >= len(want)-1 {
			warned = true
			// Not the notice itself: it is no error, and must not reach a client as one.
			vote.Err = fmt.Errorf("PREPARE TRANSACTION was answered with a warning: %s (%s)", w.notice.Message, w.notice.Code)
		} else {
			vote.Notices = append(vote.Notices, w.notice)
		}
	}
	vote.Prepared = slices.Contains(a.tags, tagPrepare) // wherever it stands
	switch {
	case a.err != nil:
		vote.Err = a.err
	case !slices.Equal(a.tags, want) || len(a.rows) > 0:
		vote.Err = fmt.Errorf("PREPARE TRANSACTION was answered %q", a.tags)
	case status != 'I':
		vote.Err = errors.New("PREPARE TRANSACTION left the connection in a transaction")
	case !warned:
		vote.Yes = true
	}
	return vote
}

// collectUntil is collect with a bound: shortly before the deadline a cancel is
// sent, and the answer to that is waited for until the deadline.
func (c *Conn) collectUntil(deadline time.Time) (answer, error) {
	left := time.Until(deadline)
	c.SetDeadline(deadline)
	defer c.SetDeadline(time.Time{})
	asked := make(chan struct{})
	timer := time.AfterFunc(left-min(cancelGrace, left/2), func() {
		c.Cancel()
		close(asked)
	})
	a, err := c.collect()
	if !timer.Stop() {
		<-asked // so that quiesce knows of it before anything else is sent
	}
	return a, err
}

// CommitAnswer is what a node said to COMMIT.
type CommitAnswer struct {
	Committed bool
	Err       *pgconn.PgError // why it did not commit, nil if it just rolled back
	Notices   []*pgconn.PgError
}

// SendCommit sends a plain COMMIT: of a read-only branch, or of the only
// writing one.
func (b *Branch) SendCommit() error {
	b.begin()
	b.conn.append(&pgproto3.Query{String: "COMMIT"})
	return b.conn.Send()
}

// ReceiveCommit reads the answer to SendCommit; at the deadline the COMMIT is
// cancelled and, if that is not answered either, the connection given up. With
// an error (a [*LostError]) the outcome at the node is not known.
//
// The tag COMMIT is a fact, whatever comes after it: a cancel or a timeout that
// the server takes note of only then (with log_min_duration_statement it looks
// once more after its line in the log) is an ErrorResponse behind the
// CommandComplete of a transaction that has committed.
func (b *Branch) ReceiveCommit(deadline time.Time) (CommitAnswer, error) {
	a, err := b.conn.collectUntil(deadline)
	committed := a.lastTag() == tagCommit
	if err != nil && !committed {
		return CommitAnswer{}, err
	}
	result := CommitAnswer{Committed: committed}
	if err == nil {
		b.open = b.conn.status != 'I'
	}
	if !committed {
		result.Err = a.err
	}
	for _, w := range a.warnings {
		result.Notices = append(result.Notices, w.notice)
	}
	return result, nil
}

// Rollback rolls the branch's block back. Errors do not matter: a connection
// that fails at it is closed, which rolls back as well.
func (b *Branch) Rollback() {
	if b.SendRollback() {
		b.ReceiveRollback()
	}
}

// SendRollback sends ROLLBACK if there is a block to roll back.
func (b *Branch) SendRollback() bool {
	if b.conn.err != nil || !b.open {
		return false
	}
	if !b.conn.Whole() { // an answer is outstanding: only closing ends it
		b.conn.Abandon(errors.New("rolled back in the middle of a statement"))
		return false
	}
	b.begin()
	b.conn.append(&pgproto3.Query{String: "ROLLBACK"})
	return b.conn.Send() == nil
}

// rollbackTimeout bounds the wait for ROLLBACK's answer; past it the connection
// is closed instead.
const rollbackTimeout = 5 * time.Second

// ReceiveRollback reads the answer to SendRollback.
func (b *Branch) ReceiveRollback() {
	b.conn.SetDeadline(time.Now().Add(rollbackTimeout))
	defer b.conn.SetDeadline(time.Time{})
	if _, err := b.conn.collect(); err == nil {
		b.open = b.conn.status != 'I'
	}
}
