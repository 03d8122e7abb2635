package integration

import (
	"context"
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

// bankVariable is for how many seconds balances are read in each part of TestBankReads; 60 is the long form.
const bankVariable = "PGPACT_TEST_BANK_SECONDS"

const (
	bankHot     = 8
	bankCold    = 1000
	bankWriters = 24
	bankReaders = 8
)

// TestBankReads is Jepsen's bank workload: transfers between few hot and many cold accounts on three nodes, through three gateways, while
// readers add up all balances. Atomic reads see the same total at every moment, also while gateways and servers are killed, frozen and cut
// off. Reads per node see wrong totals, or the test would not find any.
func TestBankReads(t *testing.T) {
	lasts := 8 * time.Second
	if text := os.Getenv(bankVariable); text != "" {
		seconds, err := strconv.Atoi(text)
		must(t, err)
		lasts = time.Duration(seconds) * time.Second
	}
	b := newBank(t)
	ctx, cancel := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer cancel()
	for n := range bankWriters {
		w := &bankWriter{bankClient: bankClient{b: b, choose: rand.New(rand.NewPCG(b.c.seed, uint64(n)))}}
		writers.Go(func() { w.run(ctx) })
	}
	t.Run("per node", func(t *testing.T) {
		f := b.read("per_node", func() {
			until := time.Now().Add(lasts)
			for time.Now().Before(until) && (b.wrong.Load() == 0 || lasts > 8*time.Second) {
				<-time.After(10 * time.Millisecond)
			}
		})
		t.Log(f)
		if f.wrong == 0 {
			t.Errorf("none of %d totals was wrong: the test would not find a wrong one", f.reads)
		}
	})
	t.Run("atomic", func(t *testing.T) {
		f := b.read("atomic", func() { <-time.After(lasts) })
		t.Log(f)
		f.judge(t)
		if f.failed > 0 {
			t.Errorf("%d reads failed, the last with %v", f.failed, f.last)
		}
	})
	t.Run("atomic, with faults", func(t *testing.T) {
		f := b.read("atomic", func() {
			b.c.makeFaults(t, lasts)
			must(t, b.c.fleet.Heal())
		})
		t.Log(f)
		f.judge(t)
	})
	cancel()
	writers.Wait()
	harness.Eventually(t, chaosQuiet, "in doubt", b.c.d.nothingPrepared)
	if sum, err := b.c.d.sum(); err != nil || sum != b.total {
		t.Errorf("the nodes hold %d (%v), want %d", sum, err, b.total)
	}
}

// bankReads is the workload: a fleet as TestChaos has it, and what has been read.
type bankReads struct {
	c         *chaos
	hot, cold []string
	total     int64

	moved, wrong atomic.Int64
}

func newBank(t *testing.T) *bankReads {
	t.Helper()
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	b := &bankReads{c: &chaos{d: d, seed: harness.Seed(t)}, total: (bankHot + bankCold) * startBalance}
	b.c.choose = rand.New(rand.NewPCG(b.c.seed, 1<<40))
	for i, node := range d.cluster.Nodes() {
		b.hot = append(b.hot, d.open(t, node.Name(), "hot-"+node.Name(), []int{3, 3, 2}[i])...)
		b.cold = append(b.cold, d.open(t, node.Name(), "cold-"+node.Name(), []int{334, 333, 333}[i])...)
	}
	b.c.fleet = harness.NewFleet(t, d.cluster, chaosGateways, fmt.Sprintf("slots: %d", chaosSlots),
		"connect_timeout: 2s", "prepare_timeout: 3s", "decision_timeout: 3s", "finish_timeout: 2s", "in_doubt_timeout: 7s", "drain_timeout: 2s", "sweep_interval: 500ms")
	b.c.fleet.Evidence.Keep("seed", func() string { return fmt.Sprintf("%s=%d\n", harness.SeedVariable, b.c.seed) })
	b.c.fleet.Evidence.Keep("faults", b.c.faultLines)
	return b
}

// figures are what readers have seen.
type bankFigures struct {
	consistency          string
	reads, wrong, failed int
	moved                int64
	median, p99          time.Duration
	totals               []int64 // wrong ones, some
	last                 error
}

func (f bankFigures) String() string {
	return fmt.Sprintf("%s: %d of %d totals wrong %v, %d reads failed (%v); median %v, p99 %v; %d transfers meanwhile",
		f.consistency, f.wrong, f.reads, f.totals, f.failed, f.last, f.median.Round(time.Millisecond), f.p99.Round(time.Millisecond), f.moved)
}

func (f bankFigures) judge(t *testing.T) {
	t.Helper()
	if f.wrong > 0 || f.reads == 0 || f.moved == 0 {
		t.Errorf("%d of %d totals are wrong (%v), after %d transfers", f.wrong, f.reads, f.totals, f.moved)
	}
}

// read has readers read until during returns.
func (b *bankReads) read(consistency string, during func()) bankFigures {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.wrong.Store(0)
	before := b.moved.Load()
	readers := make([]*bankReader, bankReaders)
	var running sync.WaitGroup
	for n := range readers {
		readers[n] = &bankReader{bankClient: bankClient{b: b, choose: rand.New(rand.NewPCG(b.c.seed, uint64(1000+n)))}, consistency: consistency}
		running.Go(func() { readers[n].run(ctx) })
	}
	during()
	cancel()
	running.Wait()
	f := bankFigures{consistency: consistency, moved: b.moved.Load() - before}
	var took []time.Duration
	for _, r := range readers {
		f.reads, f.wrong, f.failed = f.reads+len(r.took), f.wrong+len(r.wrong), f.failed+r.failed
		f.totals = append(f.totals, r.wrong[:min(3, len(r.wrong))]...)
		took = append(took, r.took...)
		if r.last != nil {
			f.last = r.last
		}
	}
	if slices.Sort(took); len(took) > 0 {
		f.median, f.p99 = took[len(took)/2], took[len(took)*99/100]
	}
	return f
}

// bankClient goes to any gateway, and to another when its connection is lost.
type bankClient struct {
	b      *bankReads
	choose *rand.Rand
	conn   *pgx.Conn
}

// connected connects to any gateway, if there is no connection; false when ctx has ended.
func (w *bankClient) connected(ctx context.Context, then string) bool {
	for ctx.Err() == nil {
		if w.conn != nil && !w.conn.IsClosed() {
			return true
		}
		sites := w.b.c.fleet.Sites
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		conn, err := pgx.Connect(attempt, sites[w.choose.IntN(len(sites))].URL())
		if err == nil && then != "" {
			_, err = conn.Exec(attempt, then)
		}
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

func (w *bankClient) leave() {
	if w.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.conn.Close(ctx) // the gateway may be gone
	}
}

type bankWriter struct{ bankClient }

func (w *bankWriter) run(ctx context.Context) {
	defer w.leave()
	for w.connected(ctx, "") {
		pick := func() string {
			if w.choose.IntN(2) == 0 {
				return w.b.hot[w.choose.IntN(len(w.b.hot))]
			}
			return w.b.cold[w.choose.IntN(len(w.b.cold))]
		}
		from, to := pick(), pick()
		if from == to {
			continue
		}
		amount := int64(w.choose.IntN(11) - 5)
		if from > to { // locks are taken in one order, or two transfers wait for each other on two nodes
			from, to = to, from
		}
		if told, _ := transactAtOnce(w.conn, move(from, -amount), move(to, amount)); told == knowsCommitted {
			w.b.moved.Add(1)
		}
	}
}

// bankReader reads all balances, in one of the ways in which clients do.
type bankReader struct {
	bankClient
	consistency string
	took        []time.Duration
	wrong       []int64
	failed      int
	last        error
}

func (r *bankReader) run(ctx context.Context) {
	defer r.leave()
	for n := 0; r.connected(ctx, "set pgpact.read_consistency = "+r.consistency); n++ {
		bounded, cancel := context.WithTimeout(context.Background(), transactionBound)
		began := time.Now()
		total, err := r.total(bounded, n%4)
		cancel()
		switch {
		case err != nil:
			r.failed, r.last = r.failed+1, err
			if r.conn.IsClosed() {
				continue
			}
			_, _ = simple(context.Background(), r.conn, "rollback") // the connection may be gone
		case total != r.b.total:
			r.wrong = append(r.wrong, total)
			r.b.wrong.Add(1)
			fallthrough
		default:
			r.took = append(r.took, time.Since(began))
		}
	}
}

// total adds up all balances.
func (r *bankReader) total(ctx context.Context, way int) (total int64, err error) {
	switch way {
	case 0: // one node combines what the nodes have added up
		err = r.conn.QueryRow(ctx, "select sum(balance)::bigint from accounts").Scan(&total)
		return total, err
	case 1: // the client does
		return r.addUp(ctx, "select balance from accounts")
	case 2: // statement by statement, in one transaction at REPEATABLE READ
		if _, err := r.conn.Exec(ctx, "begin isolation level repeatable read"); err != nil {
			return 0, err
		}
		for _, which := range []string{"balance < " + strconv.Itoa(startBalance), "balance >= " + strconv.Itoa(startBalance)} {
			part, err := r.addUp(ctx, "select balance from accounts where "+which)
			if err != nil {
				return 0, err
			}
			total += part
		}
		_, err = r.conn.Exec(ctx, "commit")
		return total, err
	default:
		var text strings.Builder
		if _, err := r.conn.PgConn().CopyTo(ctx, &text, "copy accounts(balance) to stdout"); err != nil {
			return 0, err
		}
		for line := range strings.Lines(text.String()) {
			n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
			if err != nil {
				return 0, err
			}
			total += n
		}
		return total, nil
	}
}

func (r *bankReader) addUp(ctx context.Context, sql string) (total int64, err error) {
	rows, err := r.conn.Query(ctx, sql)
	if err != nil {
		return 0, err
	}
	var balance int64
	_, err = pgx.ForEachRow(rows, []any{&balance}, func() error { total += balance; return nil })
	return total, err
}
