package gateway

// The only place where Go errors become what a client sees: SQLSTATEs and
// words. SQLSTATEs are those Postgres would use, so that drivers do the right
// thing (class 08: connect again; 40001: repeat; 08007: nobody knows).

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// sqlError is an error of the gateway's own.
func sqlError(code, message string) *pgconn.PgError {
	return &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: message}
}

func sqlErrorf(code, format string, args ...any) *pgconn.PgError {
	return sqlError(code, fmt.Sprintf(format, args...))
}

func withHint(err *pgconn.PgError, hint string) *pgconn.PgError {
	err.Hint = hint
	return err
}

// errSerializable: each node's serializable snapshot isolation sees its own
// part only, so no order over both nodes is guaranteed.
var errSerializable = withHint(
	sqlError(pgerrcode.FeatureNotSupported, "a SERIALIZABLE transaction cannot span several nodes"),
	"Use REPEATABLE READ or READ COMMITTED and lock what you read with SELECT ... FOR UPDATE.")

// unknownOutcome says that what was asked may or may not have happened (I5).
type unknownOutcome struct {
	id  participant.ID // zero when there is none to ask for
	err error
}

func (e *unknownOutcome) Error() string { return fmt.Sprintf("outcome unknown: %v", e.err) }
func (e *unknownOutcome) Unwrap() error { return e.err }

// rolledBack is a certain abort for a reason that has no SQLSTATE of its own.
type rolledBack struct{ err error }

func (e *rolledBack) Error() string { return "the transaction was rolled back: " + e.err.Error() }
func (e *rolledBack) Unwrap() error { return e.err }

// nodeEnded is a node's FATAL: it ended the connection, and the branch with it.
type nodeEnded struct {
	node string
	err  *pgconn.PgError
}

func (e *nodeEnded) Error() string {
	return fmt.Sprintf("node %q ended the connection: %s", e.node, e.err.Message)
}

// clientError turns err into what the client is told. known is false for an
// error that should not have come here; it is logged.
func clientError(err error) (pgErr *pgconn.PgError, known bool) {
	if e, ok := errors.AsType[*unknownOutcome](err); ok {
		return e.clientError(), true
	}
	if e, ok := errors.AsType[*rolledBack](err); ok {
		return sqlError(pgerrcode.TransactionRollback, e.Error()), true
	}
	if e, ok := errors.AsType[*coordinator.SnapshotError](err); ok {
		return snapshotError(e), true
	}
	if pgErr := nodeError(err); pgErr != nil {
		return pgErr, true
	}
	if pgErr := coordinatorError(err); pgErr != nil {
		return pgErr, true
	}
	if e, ok := errors.AsType[*sqlparse.SyntaxError](err); ok {
		pgErr := sqlError(e.SQLSTATE(), e.Message)
		pgErr.Position, pgErr.Hint = int32(e.Position), e.Hint
		return pgErr, true
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr, true // a node's own, with all its fields, or one of ours
	}
	if errors.Is(err, context.Canceled) {
		return errCanceled, true
	}
	return sqlError(pgerrcode.InternalError, "internal error of the gateway; its log says more"), false
}

// nodeError words an error about the connection to a node, nil for another.
func nodeError(err error) *pgconn.PgError {
	if e, ok := errors.AsType[*participant.ConnectError](err); ok {
		pgErr := sqlErrorf(pgerrcode.ConnectionFailure, "cannot connect to node %q", e.Node)
		pgErr.Detail = reachability(e.Err)
		return pgErr
	}
	if e, ok := errors.AsType[*participant.IdentityError](err); ok {
		pgErr := sqlErrorf(pgerrcode.ConnectionFailure, "node %q cannot be used", e.Node)
		pgErr.Detail = e.Reason
		return pgErr
	}
	if e, ok := errors.AsType[*nodeEnded](err); ok {
		pgErr := sqlErrorf(pgerrcode.ConnectionFailure, "node %q ended the connection", e.node)
		pgErr.Detail = e.err.Message
		return pgErr
	}
	if e, ok := errors.AsType[*participant.LostError](err); ok {
		return sqlErrorf(pgerrcode.ConnectionFailure, "connection to node %q was lost", e.Node)
	}
	return nil
}

// snapshotError: nothing has been read. What cannot be reached is a connection
// failure, as everywhere; otherwise it was waited for others in vain, for which
// Postgres says lock_not_available.
func snapshotError(e *coordinator.SnapshotError) *pgconn.PgError {
	pgErr := sqlErrorf(pgerrcode.LockNotAvailable, "the nodes could not be read at one instant within %s", e.Waited)
	pgErr.Detail = strings.ToUpper(e.Err.Error()[:1]) + e.Err.Error()[1:] + "."
	if why := cmp.Or(nodeError(e.Err), coordinatorError(e.Err)); why != nil {
		pgErr.Code, pgErr.Detail = why.Code, strings.ToUpper(why.Message[:1])+why.Message[1:]+"."
		if why.Detail != "" {
			pgErr.Detail += " (" + why.Detail + ")"
		}
	}
	pgErr.Hint = "Try again, or SET " + consistencyName + " = " + ReadPerNode + " to read each node at a moment of its own."
	return pgErr
}

// coordinatorError words an error of the transaction manager, nil for another.
func coordinatorError(err error) *pgconn.PgError {
	if e, ok := errors.AsType[*coordinator.KeyTakenError](err); ok {
		pgErr := sqlErrorf(pgerrcode.UniqueViolation, "idempotency key %q has already been used", e.Key)
		pgErr.Detail = fmt.Sprintf("Transaction %s has committed with it.", e.Winner)
		return pgErr
	}
	if e, ok := errors.AsType[*coordinator.KeyUnsureError](err); ok {
		pgErr := sqlErrorf(pgerrcode.ObjectNotInPrerequisiteState, "it cannot be told whether idempotency key %q has been used", e.Key)
		pgErr.Detail = e.Reason + "."
		return withHint(pgErr, "Nothing has been done under it now. Ask again; SHOW pgpact.in_doubt and pgpact check tell what stands in the way.")
	}
	if e, ok := errors.AsType[*coordinator.ForgottenError](err); ok {
		return sqlError(pgerrcode.UndefinedObject, e.Error())
	}
	if e, ok := errors.AsType[*coordinator.UnknownEpochError](err); ok {
		return sqlError(pgerrcode.UndefinedObject, e.Error())
	}
	switch {
	case errors.Is(err, coordinator.ErrNoSlot):
		return withHint(sqlError(pgerrcode.TooManyConnections, err.Error()),
			"Nothing has been done. Try again, or raise the number of transaction slots.")
	case errors.Is(err, coordinator.ErrAbortDecided):
		return withHint(sqlError(pgerrcode.SerializationFailure, err.Error()), "The transaction can be repeated.")
	case errors.Is(err, coordinator.ErrDecisionUnreachable):
		// Not err's own words: they hold the database's address, and what its
		// server said before anybody was authenticated.
		pgErr := sqlError(pgerrcode.ConnectionFailure, coordinator.ErrDecisionUnreachable.Error())
		pgErr.Detail = reachability(err)
		if errors.Is(err, coordinator.ErrShuttingDown) {
			pgErr.Detail = coordinator.ErrShuttingDown.Error()
		}
		return pgErr
	}
	return nil
}

// clientError says that nobody knows, and how to find out, or how to be able to
// next time.
func (e *unknownOutcome) clientError() *pgconn.PgError {
	pgErr := sqlError(pgerrcode.TransactionResolutionUnknown, "it is not known whether the transaction has been committed")
	if reason := nodeError(e.err); reason != nil {
		pgErr.Message += ": " + reason.Message
	}
	if e.id.IsZero() {
		pgErr.Hint = "Look at the data. To be able to ask for the outcome next time, run the statements in a transaction block with " +
			"SHOW pgpact.transaction_id or SET LOCAL pgpact.idempotency_key."
		return pgErr
	}
	pgErr.Detail = "The transaction's id is " + e.id.String() + "."
	pgErr.Hint = "SELECT pgpact.outcome('" + e.id.String() + "') tells its outcome."
	return pgErr
}

// reachability is why a node could not be reached, if that can be said without
// repeating what its server wrote before anybody was authenticated.
func reachability(err error) string {
	if opErr, ok := errors.AsType[*net.OpError](err); ok {
		return opErr.Err.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer within the connect timeout"
	}
	return ""
}

// shifted is err with its position counted from the beginning of the text that
// the client sent, where its statement begins behind prefix.
func shifted(err error, prefix string) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Position == 0 || prefix == "" {
		return err
	}
	moved := *pgErr
	moved.Position += int32(utf8.RuneCountInString(prefix))
	return &moved
}

// errorResponse is err as a message. Only the front ends sessions, so whatever
// a node's severity was it is an error here.
func errorResponse(err *pgconn.PgError) *pgproto3.ErrorResponse {
	msg := fatalResponse(err)
	msg.Severity, msg.SeverityUnlocalized = "ERROR", "ERROR"
	if err.SeverityUnlocalized == "ERROR" {
		msg.Severity = err.Severity
	}
	return msg
}

// noticeResponse is a notice or warning as a message.
func noticeResponse(notice *pgconn.PgError) *pgproto3.NoticeResponse {
	msg := fatalResponse(notice)
	msg.Severity, msg.SeverityUnlocalized = notice.Severity, notice.SeverityUnlocalized
	return (*pgproto3.NoticeResponse)(msg)
}
