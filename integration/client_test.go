package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// knowledge is what a client knows of its transaction once the answer, or the end of the connection, has come. It is the client's side of
// promise 2: what it has been told must be true.
type knowledge string

const (
	knowsCommitted knowledge = "committed"
	knowsAborted   knowledge = "aborted"
	knowsNothing   knowledge = "unknown"
)

// contradicts tells whether the outcome, committed or not, makes what the client was told a lie.
func (k knowledge) contradicts(committed bool) bool {
	return k == knowsCommitted && !committed || k == knowsAborted && committed
}

// transactionBound is how long a client waits before it calls its gateway hung, which fails the test: no server is down that long.
const transactionBound = 30 * time.Second

// resolutionUnknown is the SQLSTATE with which the gateway says that it does not know either.
const resolutionUnknown = "08007"

// transact runs statements in a block, one message each like a program would, and says what the client knows afterwards. The error is what
// it was told, nil after COMMIT.
func transact(conn *pgx.Conn, statements ...string) (knowledge, error) {
	_, told, err := transactAsking(conn, "", statements...)
	return told, err
}

// transactTracked is transact that asks for the transaction's id first, so that its outcome can be asked for later.
func transactTracked(conn *pgx.Conn, statements ...string) (told knowledge, id string, err error) {
	id, told, err = transactAsking(conn, "show pgpact.transaction_id", statements...)
	return told, id, err
}

func transactAsking(conn *pgx.Conn, question string, statements ...string) (answer string, told knowledge, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	// COMMIT was never sent, so whatever has happened, nothing was committed.
	giveUp := func(statement string, err error) (string, knowledge, error) {
		_, _ = simple(ctx, conn, "rollback") // the connection may be gone
		return answer, knowsAborted, fmt.Errorf("%s: %w", statement, err)
	}
	if _, err := simple(ctx, conn, "begin"); err != nil {
		return giveUp("begin", err)
	}
	if question != "" {
		if answer, err = ask(conn, question); err != nil {
			return giveUp(question, err)
		}
	}
	for _, statement := range statements {
		if _, err := simple(ctx, conn, statement); err != nil {
			return giveUp(statement, err)
		}
	}
	told, err = end(simple(ctx, conn, "commit"))
	return answer, told, err
}

// transactAtOnce is transact in a single message: when the connection ends, COMMIT was sent with the rest.
func transactAtOnce(conn *pgx.Conn, statements ...string) (knowledge, error) {
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	told, err := end(simple(ctx, conn, "begin;"+strings.Join(statements, ";")+";commit"))
	if told != knowsCommitted {
		_, _ = simple(ctx, conn, "rollback") // the block of a failed statement is still open
	}
	return told, err
}

// end reads the answer to COMMIT. Every error but 08007 claims that the transaction is certainly aborted (I5).
func end(tag string, err error) (knowledge, error) {
	var pgErr *pgconn.PgError
	switch {
	case err == nil && tag == "COMMIT":
		return knowsCommitted, nil
	case err == nil && tag == "ROLLBACK":
		return knowsAborted, errors.New("COMMIT was answered ROLLBACK")
	case err == nil:
		return knowsNothing, fmt.Errorf("COMMIT was answered with the tag %q", tag)
	case errors.As(err, &pgErr) && pgErr.Code != resolutionUnknown:
		return knowsAborted, err
	}
	return knowsNothing, err
}

// simple sends one message of the simple protocol and returns the last tag.
func simple(ctx context.Context, conn *pgx.Conn, text string) (tag string, err error) {
	results, err := conn.PgConn().Exec(ctx, text).ReadAll()
	if err != nil || len(results) == 0 {
		return "", err
	}
	return results[len(results)-1].CommandTag.String(), nil
}

// ask returns the one value that a simple message answers.
func ask(conn *pgx.Conn, text string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, text).ReadAll()
	if err != nil {
		return "", err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return "", fmt.Errorf("%s: not one value", text)
	}
	return string(results[0].Rows[0][0]), nil
}

// move is the statement that adds to a balance.
func move(account string, delta int64) string {
	return fmt.Sprintf("update accounts set balance = balance + %d where id = '%s'", delta, account)
}
