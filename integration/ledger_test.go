package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// ledger is what clients know of their random transfers, to be held against the books of the nodes when all is over. Every transfer writes
// a journal row beside each of the two accounts, in the same transaction, so the nodes tell of every transfer what has become of it.
type ledger struct {
	d        *deployment
	accounts []string // all of them, over all nodes
	seed     uint64

	next    atomic.Int64
	mu      sync.Mutex
	entries map[string]entry // by transfer
	failed  []error          // what must not happen to a client at all
}

// entry is a transfer as its client remembers it.
type entry struct {
	id   string // of the transaction, "" when it was not asked for
	told knowledge
	err  error // what the client was told with it
}

// seedOf is PGPACT_TEST_SEED, or drawn; either way it is printed.
func seedOf(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("PGPACT_TEST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("PGPACT_TEST_SEED=%d", seed)
	return seed
}

// newLedger opens n accounts on every node. PGPACT_TEST_SEED repeats a run's choices, as far as the scheduler allows.
func newLedger(t testing.TB, d *deployment, n int) *ledger {
	t.Helper()
	l := &ledger{d: d, seed: seedOf(t), entries: map[string]entry{}}
	for _, node := range d.cluster.Nodes() {
		l.accounts = append(l.accounts, d.open(t, node.Name(), "l-"+node.Name(), n)...)
	}
	// Locks are taken in this order: two transfers in opposite orders on two nodes would wait for each other for ever.
	slices.Sort(l.accounts)
	return l
}

// work runs transfers as one client until ctx ends, connecting again whenever the connection is lost.
func (l *ledger) work(ctx context.Context, url string, worker int) {
	choose := rand.New(rand.NewPCG(l.seed, uint64(worker)))
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background()) // the gateway may be gone
		}
	}()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			if conn = connect(ctx, url); conn == nil {
				return
			}
		}
		l.transfer(conn, choose)
	}
}

// connect tries until the gateway is there or ctx ends; then it returns nil.
func connect(ctx context.Context, url string) *pgx.Conn {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		conn, err := pgx.Connect(attempt, url)
		cancel()
		if err == nil {
			return conn
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// transfer moves something between two random accounts and notes what the client learns of it. Some transfers are too large, some are
// rolled back, some are one message, some are tracked.
func (l *ledger) transfer(conn *pgx.Conn, choose *rand.Rand) (made entry) {
	name := fmt.Sprintf("t%07d", l.next.Add(1))
	i, j := choose.IntN(len(l.accounts)), choose.IntN(len(l.accounts)-1)
	if j >= i {
		j++
	}
	from, to, amount := l.accounts[i], l.accounts[j], 1+choose.Int64N(50)
	if choose.IntN(10) == 0 {
		amount = 100 * startBalance // nobody has that much
	}
	legs := []string{l.leg(name, from, -amount), l.leg(name, to, amount)}
	if j < i {
		slices.Reverse(legs)
	}
	began := time.Now()
	switch choose.IntN(10) {
	case 0:
		made.told, made.err = transact(conn, append(legs, "rollback", "begin")...)
		if made.told == knowsCommitted {
			made.told = knowsAborted // committed was the empty block after it
		}
	case 1, 2:
		made.told, made.err = transactAtOnce(conn, legs...)
	case 3, 4:
		made.told, made.id, made.err = transactTracked(conn, legs...)
	default:
		made.told, made.err = transact(conn, legs...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[name] = made
	if took := time.Since(began); took >= transactionBound {
		l.failed = append(l.failed, fmt.Errorf("%s hung for %v: %v", name, took, made.err))
	}
	return made
}

// leg is one half of a transfer: the balance, and its trace on the same node.
func (l *ledger) leg(transfer, account string, delta int64) string {
	key := l.d.keyOn(l.d.owner(account), transfer+"."+account)
	return fmt.Sprintf("%s; insert into journal values ('%s', '%s', '%s', %d)", move(account, delta), key, transfer, account, delta)
}

// counts says how often clients came to know what.
func (l *ledger) counts() map[knowledge]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[knowledge]int{}
	for _, e := range l.entries {
		counts[e.told]++
	}
	return counts
}

// audit holds everything that was said against what the nodes have, through a gateway that runs.
func (l *ledger) audit(t testing.TB, url string) {
	t.Helper()
	harness.Eventually(t, settleBound, "in doubt", l.d.nothingPrepared)
	if total, err := l.d.sum(); err != nil || total != int64(len(l.accounts))*startBalance {
		t.Errorf("the sum of %d accounts is %d (%v)", len(l.accounts), total, err)
	}
	counts := l.counts()
	t.Logf("%d transfers: %v", len(l.entries), counts)
	if counts[knowsCommitted] == 0 {
		t.Error("no transfer has committed")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := append(slices.Clone(l.failed), l.compare()...)
	errs = append(errs, l.balances()...)
	errs = append(errs, l.outcomes(url)...)
	for i, err := range errs {
		if i == 20 {
			t.Errorf("and %d more", len(errs)-i)
			break
		}
		t.Error(err)
	}
	// A live gateway leaves what it thinks a session is still at alone for a while.
	harness.Eventually(t, 40*time.Second, "decisions and branch records", l.d.recordsAgree)
	for _, command := range [][]string{{"check", "--config", l.d.config}, {"transactions", "--config", l.d.config}} {
		if result := harness.Run(t, command...); result.Code != 0 {
			t.Errorf("pgpact %s: exit status %d\n%s%s", command[0], result.Code, result.Stdout, result.Stderr)
		}
	}
}

// legs counts the journal rows of each transfer, over all nodes.
func (l *ledger) legs() (map[string]int, error) {
	legs := map[string]int{}
	for _, node := range l.d.cluster.Nodes() {
		names, err := column[string](node.URL(), "select transfer from journal")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			legs[name]++
		}
	}
	return legs, nil
}

// compare: whole or not at all, and as the client was told.
func (l *ledger) compare() (errs []error) {
	legs, err := l.legs()
	if err != nil {
		return []error{err}
	}
	for name, e := range l.entries {
		switch n := legs[name]; {
		case n != 0 && n != 2:
			errs = append(errs, fmt.Errorf("%s: %d of its 2 halves are there; the client knows %s", name, n, e.told))
		case e.told.contradicts(n == 2):
			errs = append(errs, fmt.Errorf("%s: the client was told %s (%v), and committed is %t", name, e.told, e.err, n == 2))
		}
	}
	for name := range legs {
		if _, known := l.entries[name]; !known {
			errs = append(errs, fmt.Errorf("%s is in the journal, and nobody made it", name))
		}
	}
	return errs
}

// balances holds every account against its own journal: a journal row whose balance was lost, or the reverse, would be a torn branch.
func (l *ledger) balances() (errs []error) {
	for _, node := range l.d.cluster.Nodes() {
		wrong, err := column[string](node.URL(), `select a.id || ' has ' || a.balance || ', by the journal ' || $1 + coalesce(sum(j.delta), 0)
			from accounts a left join journal j on j.account = a.id group by a.id, a.balance having a.balance <> $1 + coalesce(sum(j.delta), 0)`, startBalance)
		if err != nil {
			errs = append(errs, err)
		}
		for _, line := range wrong {
			errs = append(errs, errors.New(line))
		}
	}
	return errs
}

// outcomes asks the gateway for the outcome of tracked transactions: of all whose client was left without an answer, and of as many others.
func (l *ledger) outcomes(url string) (errs []error) {
	legs, err := l.legs()
	if err != nil {
		return []error{err}
	}
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		return []error{err}
	}
	defer conn.Close(context.Background())
	others := 200
	for name, e := range l.entries {
		if e.id == "" {
			continue
		}
		if e.told != knowsNothing {
			if others--; others < 0 {
				continue
			}
		}
		want := "aborted"
		if legs[name] == 2 {
			want = "committed"
		}
		got, err := ask(conn, "select pgpact.outcome('"+e.id+"')")
		if err != nil || got != want {
			errs = append(errs, fmt.Errorf("%s: pgpact.outcome(%s) is %q (%v), the journal says %s", name, e.id, got, err, want))
		}
	}
	return errs
}

// errorsTold lists, without doubles, what clients were told when a transfer did not commit.
func (l *ledger) errorsTold() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]int{}
	for _, e := range l.entries {
		if e.err != nil {
			text := e.err.Error()
			if _, rest, cut := strings.Cut(text, "): "); cut && strings.HasPrefix(text, "update ") {
				text = rest // without the statement, which differs every time
			}
			seen[text]++
		}
	}
	var lines []string
	for text, n := range seen {
		lines = append(lines, fmt.Sprintf("%6d %s", n, text))
	}
	slices.Sort(lines)
	return lines
}
