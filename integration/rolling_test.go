package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/integration/harness"
)

// rollingClients is how many clients go on through a rolling restart.
const rollingClients = 32

// rolling is a fleet of gateways that are restarted one after the other, and clients that go to another when theirs says 57P01.
type rolling struct {
	d      *deployment
	l      *ledger
	config []string
	urls   []string
	lives  []*harness.Gateway

	mu    sync.Mutex
	kinds map[string]int // what clients have seen, by kind
}

// TestRollingRestart restarts three gateways under load, one after the other, by SIGTERM: no client sees a transaction fail. A client's
// part is to connect again when it is told 57P01 between two transactions, as with any Postgres.
//
// PGPACT_TEST_ROLLING_SECONDS=120 is the long form: for so long the gateways are restarted in turn, and every server too, with which
// transactions do fail; how many and how is logged, and what they were told must be true.
func TestRollingRestart(t *testing.T) {
	r := startRolling(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var clients sync.WaitGroup
	for worker := range rollingClients {
		clients.Go(func() { r.client(ctx, worker) })
	}
	for i := range r.lives {
		r.restart(t, i)
	}
	seen := r.seen()
	for kind, n := range seen {
		if kind != kindCommitted && kind != kindTooMuch && kind != kindToldToLeave && kind != kindNoConnection {
			t.Errorf("%d transactions: %s", n, kind)
		}
	}
	// Else nothing was under way, and the test has shown nothing.
	if seen[kindToldToLeave] < 3 {
		t.Errorf("only %d clients were told to leave: %v", seen[kindToldToLeave], seen)
	}
	r.longForm(t)
	cancel()
	clients.Wait()
	for _, kind := range slices.Sorted(maps.Keys(r.seen())) {
		t.Logf("%7d %s", r.seen()[kind], kind)
	}
	r.l.audit(t, r.urls[0])
}

func startRolling(t *testing.T) *rolling {
	t.Helper()
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	r := &rolling{d: d, l: newLedger(t, d, 40), kinds: map[string]int{}}
	for i := range 3 {
		r.config = append(r.config, d.cluster.WriteConfig(t, fmt.Sprintf("name: roll-%d", i), "listen: 127.0.0.1:"+harness.FreePort(t), "drain_timeout: 20s"))
		gateway, url := harness.Serve(t, r.config[i])
		r.lives, r.urls = append(r.lives, gateway), append(r.urls, url)
	}
	return r
}

// restart ends gateway i while transactions go on everywhere, and starts it again.
func (r *rolling) restart(t *testing.T, i int) {
	t.Helper()
	before := r.seen()[kindCommitted]
	harness.Eventually(t, time.Minute, "transactions go on", func() error {
		if now := r.seen()[kindCommitted]; now < before+100 {
			return fmt.Errorf("%d committed, %d before", now, before)
		}
		return nil
	})
	began := time.Now()
	exit := r.lives[i].Stop(t)
	took := time.Since(began).Round(time.Millisecond)
	if exit != (harness.Exit{}) {
		t.Errorf("gateway %d: %v, want exit status 0", i, exit)
	}
	// From then on: in the long form a server may have been away before, in the middle of a commit.
	_, log, stopping := strings.Cut(r.lives[i].Log(), "msg=stopping")
	if !stopping || strings.Contains(log, "before they became idle") || strings.Contains(log, "left to recovery") {
		t.Errorf("gateway %d has not ended in order:\n%s", i, log)
	}
	harness.Eventually(t, 5*time.Second, "its epoch is released", func() error {
		held, err := column[string](r.d.cluster.Coordinator().SuperURL(), `select g.name from pg_locks l, pgpact.gateways g where l.locktype = 'advisory'
			and (l.classid::bigint << 32) | l.objid::bigint = g.epoch and g.name = $1`, fmt.Sprintf("roll-%d", i))
		if err == nil && len(held) > 0 {
			err = errors.New("the lock is held")
		}
		return err
	})
	gateway, url := harness.Serve(t, r.config[i])
	r.mu.Lock()
	r.lives[i], r.urls[i] = gateway, url
	r.mu.Unlock()
	t.Logf("gateway %d ended in %v, and was back after %v", i, took, time.Since(began).Round(time.Millisecond))
}

// longForm goes on with every server, too.
func (r *rolling) longForm(t *testing.T) {
	seconds, _ := strconv.Atoi(os.Getenv("PGPACT_TEST_ROLLING_SECONDS"))
	before := r.seen()
	for until := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(until); {
		for i, server := range r.d.cluster.Servers() {
			if time.Now().After(until) {
				break
			}
			began := time.Now()
			server.Stop(t)
			server.Start(t)
			t.Logf("server %s was away for %v", server.Name(), time.Since(began).Round(time.Millisecond))
			r.restart(t, i%len(r.lives))
		}
	}
	if seconds > 0 {
		t.Logf("before the servers were restarted: %v", before)
	}
}

func (r *rolling) seen() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.kinds)
}

func (r *rolling) count(kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds[kind]++
}

// What clients see.
const (
	kindCommitted    = "committed"
	kindTooMuch      = "refused: more than the account has (23514), or rolled back by the client"
	kindToldToLeave  = "told 57P01 before the transaction began, and gone to another gateway"
	kindNoConnection = "a gateway that could not be connected to, and gone to another"
)

// client runs transactions through whichever gateway it gets.
func (r *rolling) client(ctx context.Context, worker int) {
	choose := rand.New(rand.NewPCG(r.l.seed, uint64(worker)))
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background()) // the gateway may be gone
		}
	}()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			r.mu.Lock()
			url := r.urls[choose.IntN(len(r.urls))]
			r.mu.Unlock()
			var err error
			attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
			conn, err = pgx.Connect(attempt, url)
			cancel()
			if err != nil {
				if ctx.Err() == nil {
					r.count(kindNoConnection)
				}
				conn = nil
				continue
			}
		}
		r.count(kindOf(r.l.transfer(conn, choose)))
	}
}

// kindOf says what a client has seen of one transaction.
func kindOf(made entry) string {
	if made.err == nil {
		if made.told == knowsCommitted {
			return kindCommitted
		}
		return kindTooMuch
	}
	atBegin := strings.HasPrefix(made.err.Error(), "begin: ") || !strings.Contains(made.err.Error(), ": FATAL")
	var pgErr *pgconn.PgError
	if !errors.As(made.err, &pgErr) {
		return fmt.Sprintf("connection lost, outcome %s", made.told)
	}
	switch {
	case pgErr.Code == "23514":
		return kindTooMuch
	case pgErr.Code == "57P01" && atBegin:
		return kindToldToLeave
	}
	return fmt.Sprintf("%s, outcome %s: %s", pgErr.Code, made.told, pgErr.Message)
}
