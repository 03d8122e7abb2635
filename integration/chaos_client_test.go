package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/integration/checker"
	"github.com/pgpact/pgpact/integration/harness"
)

// chaosClient is one client. It goes to any gateway, and to another when its connection is lost.
type chaosClient struct {
	c      *chaos
	n      int
	choose *rand.Rand
	conn   *pgx.Conn
	site   *harness.Site
}

func (w *chaosClient) run(ctx context.Context) {
	defer w.leave()
	for ctx.Err() == nil {
		switch {
		case !w.connected(ctx):
			return
		case w.n < chaosBankers:
			w.transfer(ctx)
		default:
			w.count()
		}
		if w.choose.IntN(200) == 0 {
			w.leave()
		}
	}
}

func (w *chaosClient) leave() {
	if w.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.conn.Close(ctx) // the gateway may be gone
		w.conn = nil
	}
}

// connected connects to any gateway, if there is no connection; false when ctx has ended.
func (w *chaosClient) connected(ctx context.Context) bool {
	for ctx.Err() == nil {
		if w.conn != nil && !w.conn.IsClosed() {
			return true
		}
		w.leave()
		w.site = w.c.fleet.Sites[w.choose.IntN(len(w.c.fleet.Sites))]
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		conn, err := pgx.Connect(attempt, w.site.URL())
		cancel()
		if err == nil {
			w.conn = conn
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

// transfer moves something between two accounts, in one of the ways in which clients do.
func (w *chaosClient) transfer(ctx context.Context) {
	accounts := w.c.accounts
	i, j := w.choose.IntN(len(accounts)), w.choose.IntN(len(accounts)-1)
	if j >= i {
		j++
	}
	if j < i {
		i, j = j, i // locks are taken in one order, or two transfers wait for each other on two nodes
	}
	amount := 1 + w.choose.Int64N(50)
	if w.choose.IntN(2) == 0 {
		amount = -amount
	}
	if w.choose.IntN(10) == 0 {
		amount = 100 * startBalance // nobody has that much
	}
	legs := []checker.Leg{
		{Node: w.c.d.owner(accounts[i]), Account: accounts[i], Delta: -amount},
		{Node: w.c.d.owner(accounts[j]), Account: accounts[j], Delta: amount},
	}
	switch style := w.choose.IntN(10); style {
	case 0, 1:
		made := w.attempt(legs, "", "at once")
		w.note(made)
	case 2, 3:
		made := w.attempt(legs, "", "tracked")
		if made.Told == checker.Unknown && made.ID != "" {
			made.Asked = w.ask(ctx, made.ID)
		}
		w.note(made)
	case 4, 5:
		w.c.mu.Lock()
		w.c.next++
		key := fmt.Sprintf("key-%d", w.c.next)
		w.c.mu.Unlock()
		// Repeated with the same key until it is known: that is what keys are for.
		for try := 0; try < 20 && w.connected(ctx); try++ {
			made := w.attempt(legs, key, "plain")
			w.note(made)
			if made.Told != checker.Unknown {
				break
			}
		}
	default:
		w.note(w.attempt(legs, "", map[bool]string{true: "rolled back", false: "plain"}[style == 6 && amount < 10]))
	}
}

// attempt is one try.
func (w *chaosClient) attempt(legs []checker.Leg, key, way string) checker.Transfer {
	w.c.mu.Lock()
	w.c.next++
	made := checker.Transfer{Name: fmt.Sprintf("t%07d", w.c.next), Key: key, Gateway: w.site.Name(), Began: time.Now(), Legs: legs}
	w.c.mu.Unlock()
	var statements []string
	if key != "" {
		statements = append(statements, "set local pgpact.idempotency_key = '"+key+"'")
	}
	for _, leg := range legs {
		row := w.c.d.keyOn(leg.Node, made.Name+"."+leg.Account)
		statements = append(statements, move(leg.Account, leg.Delta),
			fmt.Sprintf("insert into journal values ('%s', '%s', '%s', %d)", row, made.Name, leg.Account, leg.Delta))
	}
	var told knowledge
	var err error
	switch way {
	case "at once":
		told, err = transactAtOnce(w.conn, statements...)
	case "tracked":
		told, made.ID, err = transactTracked(w.conn, statements...)
	case "rolled back":
		told, err = transact(w.conn, append(statements, "rollback", "begin")...)
		if told == knowsCommitted {
			told = knowsAborted // committed was the empty block after it
		}
	default:
		told, err = transact(w.conn, statements...)
	}
	made.Ended, made.Told = time.Now(), checker.Told(told)
	if err != nil {
		var pgErr *pgconn.PgError
		made.Error = err.Error()
		made.KeyTaken = key != "" && errors.As(err, &pgErr) && pgErr.Code == "23505"
	}
	return made
}

// ask asks for an outcome, through whatever gateway answers, until it is definitive; "" when the time is over.
func (w *chaosClient) ask(ctx context.Context, id string) checker.Told {
	ctx, cancel := context.WithTimeout(ctx, transactionBound)
	defer cancel()
	for w.connected(ctx) {
		answer, err := ask(w.conn, "select pgpact.outcome('"+id+"')")
		if told := checker.Told(answer); err == nil && (told == checker.Committed || told == checker.Aborted) {
			return told
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return ""
}

func (w *chaosClient) note(made checker.Transfer) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.transfers = append(w.c.transfers, made)
}

// counterKeys are a node's counters. A key is used for a while only: the time to judge a history grows steeply with its unknown
// operations.
type counterKeys struct {
	keys []string
	used atomic.Int64
}

const (
	counterWindow = 4   // keys in use at a time
	counterUses   = 800 // of a window, before the next
)

func newCounterKeys(t *testing.T, d *deployment, node *harness.Server) *counterKeys {
	t.Helper()
	k := &counterKeys{}
	for i := range 800 {
		k.keys = append(k.keys, d.keyOn(node.Name(), fmt.Sprintf("n%d", i)))
	}
	must(t, run(node.URL(), "create table public.counters(id text primary key, n bigint not null)"))
	must(t, run(node.URL(), "insert into public.counters select unnest($1::text[]), 0", k.keys))
	return k
}

func (k *counterKeys) pick(choose *rand.Rand) string {
	window := k.used.Add(1) / counterUses
	return k.keys[(int(window)*counterWindow+choose.IntN(counterWindow))%len(k.keys)]
}

// count is one statement on one row.
func (w *chaosClient) count() {
	node := w.c.d.cluster.Nodes()[w.choose.IntN(len(w.c.d.cluster.Nodes()))].Name()
	o := checker.Operation{Client: w.n, Key: w.c.counters[node].pick(w.choose)}
	statement := "select n from counters where id = '" + o.Key + "'"
	if w.choose.IntN(3) > 0 {
		o.Delta = 1 + w.choose.Int64N(1<<30) // hardly ever twice the same sum
		statement = fmt.Sprintf("update counters set n = n + %d where id = '%s' returning n", o.Delta, o.Key)
	}
	site := w.site.Name()
	o.Call = time.Now()
	answer, err := ask(w.conn, statement)
	o.Return = time.Now()
	var pgErr *pgconn.PgError
	switch {
	case err == nil:
		o.Told = checker.Committed
		o.Value, err = strconv.ParseInt(answer, 10, 64)
	case errors.As(err, &pgErr) && pgErr.Code != resolutionUnknown:
		o.Told = checker.Aborted
	default:
		o.Told = checker.Unknown
	}
	if err != nil {
		o.Error = err.Error()
	}
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.operations, w.c.sites = append(w.c.operations, o), append(w.c.sites, site+"/"+node)
}

// jsonLines writes a history, one record on a line.
func jsonLines[T any](c *chaos, records *[]T) string {
	c.mu.Lock()
	all := slices.Clone(*records)
	c.mu.Unlock()
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	for _, record := range all {
		if err := encoder.Encode(record); err != nil {
			return err.Error()
		}
	}
	return text.String()
}
