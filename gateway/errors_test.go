package gateway

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/participant"
)

// A client hears that the decision database is not there, and neither where that is nor what a server, which may
// be anybody's, has answered.
func TestUnreachableDecisionDatabaseIsNotDescribed(t *testing.T) {
	_, err := pgconn.Connect(t.Context(), "postgres://secret-role@127.0.0.1:1/secret-name?sslmode=disable")
	if err == nil {
		t.Fatal("port 1 answers")
	}
	result := coordinator.Result{Outcome: coordinator.Aborted, Err: fmt.Errorf("%w: %w", coordinator.ErrDecisionUnreachable, err)}
	pgErr, known := clientError(commitError(result))
	if !known || pgErr.Code != pgerrcode.ConnectionFailure || pgErr.Detail == "" {
		t.Errorf("%v %+v", known, pgErr)
	}
	for _, private := range []string{"secret", "127.0.0.1"} {
		if text := pgErr.Message + pgErr.Detail + pgErr.Hint; strings.Contains(text, private) {
			t.Errorf("%q is told to clients: %s", private, text)
		}
	}
}

// Every way in which a node fails a transaction at its COMMIT names the node and is 08006.
func TestNodeLostAtCommitIsNamed(t *testing.T) {
	for _, err := range []error{
		&participant.LostError{Node: "b", Err: fmt.Errorf("the connection failed after the vote")},
		&participant.ConnectError{Node: "b", Err: fmt.Errorf("refused")},
	} {
		pgErr, known := clientError(commitError(coordinator.Result{Outcome: coordinator.Aborted, Err: err}))
		if !known || pgErr.Code != pgerrcode.ConnectionFailure || !strings.Contains(pgErr.Message, `node "b"`) {
			t.Errorf("%v: %v %+v", err, known, pgErr)
		}
	}
}

// What is used up on a node passes: the client is told that the commit has certainly failed and can be repeated.
func TestCommitSaysThatResourcesPass(t *testing.T) {
	for code, want := range map[string]bool{"53200": true, "53100": true, "23503": false} {
		err := commitError(coordinator.Result{Outcome: coordinator.Aborted, Err: &pgconn.PgError{Code: code, Message: "m"}})
		pgErr, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || pgErr.Code != code || (pgErr.Detail != "") != want {
			t.Errorf("%s: %#v", code, err)
		}
	}
}
