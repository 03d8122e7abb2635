package main

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
)

// The commands in client_*.go are ordinary clients: they speak to gateways over
// the wire, as any other program could, and know nothing of what is behind them.

// demoURL is where `pgpact demo` listens when it is told nothing else.
const demoURL = "postgres://pgpact@127.0.0.1:6432/pgpact"

// urlVariable is the default of --url. The configuration of gateways leaves it alone.
const urlVariable = envPrefix + "URL"

// Exit codes of the client commands, beside 0, exitFailure (refused: nothing of
// it has happened, and repeating it will be refused again as long as the data
// are what they are) and exitUsage.
const (
	exitUnknown = 3 // it may or may not have happened; repeat it with the same key to find out, and to have it done once
	exitNotDone = 4 // nothing has happened, because of something that passes: no gateway, locks, too slow
)

const exitCodesHelp = "Exit codes: 0 done, now or by an earlier run with the same key; 1 refused, nothing of it has\n" +
	"happened; 2 the command line is wrong; 3 the outcome is not known: repeat it with the same\n" +
	"--key; 4 not done for a reason that may pass (no gateway can be reached, locks): repeat it."

// codedError is an error with its exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// client is what the flags of a client command say, and its connection.
type client struct {
	url     string
	timeout time.Duration // of the whole command; of a chunk for load
	asJSON  bool

	config *pgx.ConnConfig
	conn   *pgx.Conn // nil, or one that has had no error
}

func (c *client) flags(cmd *cobra.Command, timeoutOf string) {
	cmd.Flags().StringVar(&c.url, "url", "", "gateways, as postgres://USER@HOST:PORT,HOST:PORT/DATABASE (default $"+urlVariable+", else the demo's, "+demoURL+")")
	cmd.Flags().DurationVar(&c.timeout, "timeout", time.Minute, "give up "+timeoutOf+" after")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print the result as JSON")
}

// open checks the flags; nothing is connected yet.
func (c *client) open(cmd *cobra.Command) error {
	from := "--url"
	if c.url == "" && !cmd.Flags().Changed("url") {
		if c.url, from = os.Getenv(urlVariable), urlVariable; c.url == "" {
			c.url = demoURL
		}
	}
	if err := validURL(c.url); err != nil {
		return usageErrorf(cmd, "%s %w", from, err)
	}
	if c.timeout <= 0 {
		return usageErrorf(cmd, "--timeout must be more than 0")
	}
	config, err := pgx.ParseConfig(c.url)
	if err != nil {
		return usageErrorf(cmd, "%s cannot be used", from) // not err, which may hold the password
	}
	config.ConnectTimeout = 3 * time.Second
	c.config = config
	return nil
}

func usageErrorf(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(format, args...)}
}

// connection is the one of the last success, or a new one to any of the
// gateways, which are all alike.
func (c *client) connection(ctx context.Context) (*pgx.Conn, error) {
	if c.conn != nil && !c.conn.IsClosed() {
		return c.conn, nil
	}
	config := c.config.Copy()
	gateways := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	rand.Shuffle(len(gateways), func(i, j int) { gateways[i], gateways[j] = gateways[j], gateways[i] })
	config.Host, config.Port, config.TLSConfig = gateways[0].Host, gateways[0].Port, gateways[0].TLSConfig
	config.Fallbacks = gateways[1:]
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	return conn, nil
}

// drop ends the connection: after an error it is not worth finding out whether
// it still works.
func (c *client) drop() {
	if c.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // the gateway rolls back what was open, whether it hears of it or not
	c.conn = nil
}

// refusal is what a command itself has found to be impossible.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

func refusalf(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// isRefusal tells an error that would come again from one that may be gone
// next time, or after which it is not even known whether there was one.
func isRefusal(err error) bool {
	if _, ok := errors.AsType[*refusal](err); ok {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false // the connection was lost, or never made
	}
	switch {
	case pgErr.Code == "55P03": // a lock
		return false
	case len(pgErr.Code) < 2:
		return true
	}
	switch pgErr.Code[:2] {
	case "08", "40", "53", "57": // connection (08007: not known), another transaction won, resources, stopped or cancelled
		return false
	}
	return true
}

// keyFlag adds --key.
func keyFlag(cmd *cobra.Command, key *string) {
	cmd.Flags().StringVar(key, "key", "", "idempotency `KEY`, the name of this one operation: only one transaction can ever commit under it\n"+
		"(default: one is made and printed)")
}

// maxClientKey is the gateway's bound of an idempotency key, in bytes.
const maxClientKey = 200

// checkKey makes a key if none was given, and says it before anything happens:
// a command that is killed can be repeated with it.
func checkKey(cmd *cobra.Command, key *string) (made bool, err error) {
	if cmd.Flags().Changed("key") {
		if *key == "" || len(*key) > maxClientKey || strings.ContainsRune(*key, 0) {
			// Not taken for no key: that is how a script's empty variable would make two orders of one.
			return false, usageErrorf(cmd, "--key must have 1 to %d bytes", maxClientKey)
		}
		return false, nil
	}
	*key = "pgpact-" + crand.Text()
	fmt.Fprintf(cmd.ErrOrStderr(), "key: %s (repeating the command with --key %s is safe)\n", *key, *key)
	return true, nil
}

// clientResult is what a command that changes something prints with --json.
type clientResult struct {
	Command     string `json:"command"`
	Status      string `json:"status"`                // done, already done, refused, not done, unknown
	Transaction string `json:"transaction,omitempty"` // the one that has committed
	Key         string `json:"key"`
	Order       string `json:"order,omitempty"`  // of buy: the order's id
	Amount      int64  `json:"amount,omitempty"` // what is moved, or paid
	Error       string `json:"error,omitempty"`
	SQLState    string `json:"sqlstate,omitempty"`
}

// statusOf is the word for an exit code.
func statusOf(code int) string {
	switch code {
	case exitFailure:
		return "refused"
	case exitNotDone:
		return "not done"
	default:
		return "unknown"
	}
}

// describeError is what --json says of err: its word, its text and its SQLSTATE.
func describeError(err error) (status, text, state string) {
	code := exitUnknown
	if coded, ok := errors.AsType[*codedError](err); ok {
		code = coded.code
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		state = pgErr.Code
	}
	return statusOf(code), err.Error(), state
}

func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
