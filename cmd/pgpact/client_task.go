package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
)

// attemptTimeout bounds one attempt of a task, settleTimeout the questions
// after its outcome.
const (
	attemptTimeout = 15 * time.Second
	settleTimeout  = 10 * time.Second
)

// task is one transaction to be committed exactly once, however many attempts
// of however many runs that takes.
type task struct {
	client *client
	key    string
	made   bool // the key was made by this run: no earlier one can have committed under it
	do     func(ctx context.Context, tx pgx.Tx) error

	attempts []string // ids of transactions whose COMMIT may have been sent
}

// run tries until the task is committed, by this run or an earlier one
// (already), or certainly is not. Every error is a codedError: refused, not
// done, or unknown.
func (t *task) run(ctx context.Context) (id string, already bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.client.timeout)
	defer cancel()
	for {
		id, err := t.once(ctx)
		if err == nil {
			return id, false, nil
		}
		if refused, over := isRefusal(err), ctx.Err() != nil; refused || over || len(t.attempts) > 0 {
			id, settleErr := t.settle(ctx)
			switch {
			case id != "":
				return id, !slices.Contains(t.attempts, id), nil
			case settleErr == nil && refused:
				return "", false, &codedError{exitFailure, err}
			case settleErr == nil && over:
				return "", false, &codedError{exitNotDone, fmt.Errorf("not done, it can be repeated: %w", err)}
			case settleErr != nil && (over || isRefusal(settleErr)):
				return "", false, &codedError{exitUnknown, fmt.Errorf(
					"it is not known whether this has been done; repeat it with --key %s: %w (asked for the outcome: %v)", t.key, err, settleErr)}
			}
		}
		t.pause(ctx)
	}
}

// once is one attempt.
func (t *task) once(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			t.client.drop()
		}
	}()
	conn, err := t.client.connection(ctx)
	if err != nil {
		return "", err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return "", err
	}
	// Its name, with which its outcome can be asked for whatever happens to us.
	if err := tx.QueryRow(ctx, "SHOW pgpact.transaction_id").Scan(&id); err != nil {
		return "", err
	}
	// SET takes no parameters. E'' means the same whatever standard_conforming_strings is.
	quoted := "E'" + strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(t.key) + "'"
	if _, err := tx.Exec(ctx, "SET LOCAL pgpact.idempotency_key = "+quoted); err != nil {
		return "", err
	}
	if err := t.do(ctx, tx); err != nil {
		return "", err
	}
	t.attempts = append(t.attempts, id) // from here on it may commit
	if err := tx.Commit(ctx); err != nil {
		return "", err
	}
	return id, nil
}

// settle finds out what has become of the attempts: the id of the transaction
// that has committed under the key, or "" when none has and none of ours can
// any more. An error: that could not be found out.
func (t *task) settle(ctx context.Context) (id string, err error) {
	if t.made && len(t.attempts) == 0 {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			t.client.drop()
		}
	}()
	conn, err := t.client.connection(ctx)
	if err != nil {
		return "", err
	}
	for _, attempt := range t.attempts {
		var outcome string
		if err := conn.QueryRow(ctx, "SELECT pgpact.outcome($1)", attempt).Scan(&outcome); err != nil {
			return "", err
		}
		switch outcome {
		case "committed":
			return attempt, nil
		case "aborted":
		default:
			return "", fmt.Errorf("transaction %s is %s", attempt, outcome)
		}
	}
	return t.committed(ctx, conn)
}

// committed is the id of the transaction that has committed under the key so
// far, "" for none.
func (t *task) committed(ctx context.Context, conn *pgx.Conn) (id string, err error) {
	var answer string
	if err := conn.QueryRow(ctx, "SELECT pgpact.outcome_of_key($1)", t.key).Scan(&answer); err != nil {
		return "", err
	}
	if id, committed := strings.CutPrefix(answer, "committed "); committed {
		return id, nil
	}
	return "", nil
}

// pause waits a little, and not always equally long: clients that were all cut
// off at once should not all come back at once.
func (t *task) pause(ctx context.Context) {
	select {
	case <-time.After(50*time.Millisecond + rand.N(200*time.Millisecond)):
	case <-ctx.Done():
	}
}

// perform runs a task for a command and prints what has become of it.
func (c *client) perform(cmd *cobra.Command, result clientResult, do func(context.Context, pgx.Tx) error, made bool, what string) error {
	defer c.drop()
	t := &task{client: c, key: result.Key, made: made, do: do}
	id, already, err := t.run(cmd.Context())
	result.Command, result.Transaction, result.Status = cmd.Name(), id, "done"
	switch {
	case err != nil:
		result.Status, result.Error, result.SQLState = describeError(err)
	case already:
		result.Status = "already done"
	}
	if c.asJSON {
		return errors.Join(writeJSON(cmd.OutOrStdout(), result), err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s (transaction %s)\n", result.Status, what, id)
	return err
}
