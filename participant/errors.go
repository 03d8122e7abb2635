package participant

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// ConnectError says that no connection to the node could be made. Nothing was
// sent: whatever was wanted has certainly not happened there.
type ConnectError struct {
	Node string
	Err  error
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("cannot connect to node %q: %v", e.Node, e.Err)
}
func (e *ConnectError) Unwrap() error { return e.Err }

// LostError says that a connection broke, or was given up, after something may
// have been sent on it. What was sent last may or may not have happened.
type LostError struct {
	Node string
	Err  error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("connection to node %q was lost: %v", e.Node, e.Err)
}
func (e *LostError) Unwrap() error { return e.Err }

// IdentityError says that the server behind a node's address is not the node:
// another cluster, another name, a standby, or settings under which a promise
// could not be kept. It is never used, not even for reading.
type IdentityError struct {
	Node   string
	Reason string
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("node %q: %s", e.Node, e.Reason)
}

// SQLState is the SQLSTATE a node answered with, or "" when err is not a
// node's answer.
func SQLState(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}
