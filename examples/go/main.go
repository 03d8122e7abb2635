// Transfer moves money from one account to another exactly once, whatever
// breaks, and however often it is started: it is an example of a client of
// pgpact that retries safely. See examples/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Exit codes.
const (
	exitNotDone = 1 // certainly not committed
	exitUnknown = 3 // to be run again with the same key
)

// transfer is one transfer and what has been tried so far.
type transfer struct {
	url, key, from, to string
	amount             int64

	attempts []string // ids of transactions whose COMMIT may have been sent
}

// notDone is why the transfer has failed for good.
type notDone struct{ reason error }

func (e notDone) Error() string { return e.reason.Error() }

func main() {
	t := &transfer{}
	flag.StringVar(&t.url, "url", "postgres://pgpact@127.0.0.1:6432/pgpact", "gateways, as postgres://USER@HOST:PORT,HOST:PORT/DATABASE")
	flag.StringVar(&t.key, "key", "", "the transfer's own name: only one transaction can commit under it")
	flag.StringVar(&t.from, "from", "", "account to take from")
	flag.StringVar(&t.to, "to", "", "account to give to")
	flag.Int64Var(&t.amount, "amount", 0, "how much")
	timeout := flag.Duration("timeout", time.Minute, "give up after")
	flag.Parse()
	if t.key == "" || t.from == "" || t.to == "" || t.amount <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	id, err := t.run(ctx)
	var failed notDone
	switch {
	case err == nil:
		fmt.Println("committed", id)
	case errors.As(err, &failed):
		fmt.Println("not done:", err)
		os.Exit(exitNotDone)
	default:
		fmt.Println("not known, run it again with the same key:", err)
		os.Exit(exitUnknown)
	}
}

// run tries until the transfer is committed, by us or by an earlier run, or
// certainly is not; it returns the id of the transaction that has committed.
func (t *transfer) run(ctx context.Context) (id string, err error) {
	for {
		id, err := t.once(ctx)
		if err == nil {
			return id, nil
		}
		fmt.Fprintln(os.Stderr, "attempt:", err)
		if !worthRepeating(err) {
			id, err = t.settle(ctx, err)
			if err == nil || errors.As(err, new(notDone)) {
				return id, err
			}
		}
		if ctx.Err() != nil {
			return "", err
		}
		pause(ctx)
	}
}

// once is one attempt, on a connection of its own: after an error it is not
// worth finding out whether the old one still works.
func (t *transfer) once(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := connect(ctx, t.url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)

	tx, err := conn.Begin(ctx)
	if err != nil {
		return "", err
	}
	// Its name, with which its outcome can be asked for whatever happens to us.
	if err := tx.QueryRow(ctx, "SHOW pgpact.transaction_id").Scan(&id); err != nil {
		return "", err
	}
	// SET takes no parameters, so the key is quoted here.
	_, err = tx.Exec(ctx, "SET LOCAL pgpact.idempotency_key = '"+strings.ReplaceAll(t.key, "'", "''")+"'")
	if err != nil {
		return "", err
	}
	// The lesser account first: two transfers in opposite directions must not wait for each other on two nodes.
	legs := []struct {
		account string
		delta   int64
	}{{t.from, -t.amount}, {t.to, t.amount}}
	if t.to < t.from {
		legs[0], legs[1] = legs[1], legs[0]
	}
	for _, leg := range legs {
		tag, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance + $1 WHERE id = $2", leg.delta, leg.account)
		if err != nil {
			return "", err
		}
		if tag.RowsAffected() != 1 {
			return "", notDone{fmt.Errorf("there is no account %q", leg.account)}
		}
	}
	t.attempts = append(t.attempts, id) // from here on it may commit
	if err := tx.Commit(ctx); err != nil {
		return "", err
	}
	return id, nil
}

// worthRepeating: the attempt has failed for a reason that may be gone next
// time, or it is not known whether it has failed.
func worthRepeating(err error) bool {
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, new(notDone)):
		return false
	case !errors.As(err, &pgErr): // the connection was lost, or never made
		return true
	}
	switch pgErr.Code {
	case "40001", "40P01", "55P03", "57014": // the other one won; a lock; too slow
		return true
	}
	switch pgErr.Code[:2] {
	case "08", "53", "57": // connection (08007: outcome not known), resources, a gateway or node that stops
		return true
	}
	return false
}

// settle is for an error that would come again. Committed, all the same, if a
// transaction bears the key; failed only if none of our attempts can commit any
// more; otherwise an error that is neither.
func (t *transfer) settle(ctx context.Context, reason error) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := connect(ctx, t.url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	for _, attempt := range t.attempts {
		var outcome string
		if err := conn.QueryRow(ctx, "SELECT pgpact.outcome($1)", attempt).Scan(&outcome); err != nil {
			return "", err
		}
		if outcome == "in progress" {
			return "", fmt.Errorf("attempt %s is in progress", attempt)
		}
	}
	var answer string
	if err := conn.QueryRow(ctx, "SELECT pgpact.outcome_of_key($1)", t.key).Scan(&answer); err != nil {
		return "", err
	}
	if id, committed := strings.CutPrefix(answer, "committed "); committed {
		return id, nil
	}
	return "", notDone{reason}
}

// connect tries one gateway after the other, beginning anywhere.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, notDone{err}
	}
	config.ConnectTimeout = 3 * time.Second
	first := &pgconn.FallbackConfig{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}
	gateways := append([]*pgconn.FallbackConfig{first}, config.Fallbacks...)
	rand.Shuffle(len(gateways), func(i, j int) { gateways[i], gateways[j] = gateways[j], gateways[i] })
	config.Host, config.Port, config.TLSConfig = gateways[0].Host, gateways[0].Port, gateways[0].TLSConfig
	config.Fallbacks = gateways[1:]
	return pgx.ConnectConfig(ctx, config)
}

// pause waits a little, and not always equally long: clients that were all cut
// off at once should not all come back at once.
func pause(ctx context.Context) {
	select {
	case <-time.After(50*time.Millisecond + rand.N(200*time.Millisecond)):
	case <-ctx.Done():
	}
}
