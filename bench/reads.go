package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// `-reads`: what it costs that a read of all balances sees every transfer wholly or not at all. 16 writers transfer between two nodes, alone
// and with readers that add up all balances without a pause, atomically and per node, one right after the other in each round.

const (
	readsWriters   = 16
	readsAccounts  = 1008 // as in Jepsen's bank with hot and cold accounts
	loseAtMost     = 0.15 // of the writers' throughput, to one reader
	slowerAtMost   = 5.0  // p99 of an atomic read, against one per node
	readsStatement = "select sum(balance)::bigint from public.bench_accounts"
)

// readsCell is a line of the table.
type readsCell struct {
	readers     int
	consistency string // "" for writers alone

	commits, reads   []time.Duration // of all rounds
	perSecond, share []float64       // of each round: commits, and their part of those of writers alone
	readsPerSecond   []float64
	wrong            int // sums
}

func readsCells() []*readsCell {
	cells := []*readsCell{{}}
	for _, readers := range []int{1, 4, 16} {
		for _, consistency := range []string{"atomic", "per_node"} {
			cells = append(cells, &readsCell{readers: readers, consistency: consistency})
		}
	}
	return cells
}

// measureReads runs all rounds and prints the table.
func (b *bench) measureReads(ctx context.Context, out io.Writer) error {
	want, err := sum(ctx, b.nodes)
	if err != nil {
		return err
	}
	cells := readsCells()
	for round := range b.opts.rounds {
		order := slices.Clone(cells)
		if round%2 == 1 {
			slices.Reverse(order[1:])
		}
		for _, c := range order {
			if err := b.readsRound(ctx, c, want); err != nil {
				return err
			}
			alone := cells[0].perSecond[round]
			c.share = append(c.share, c.perSecond[round]/alone)
		}
	}
	if after, err := sum(ctx, b.nodes); err != nil || after != want {
		return errors.Join(err, fmt.Errorf("the sum over the nodes was %d and is %d", want, after))
	}
	printReads(out, cells, b.opts)
	for _, c := range cells {
		if c.consistency == "atomic" && c.wrong > 0 {
			return fmt.Errorf("%d atomic sums were wrong", c.wrong)
		}
	}
	return nil
}

// readsRound is one cell in one round.
func (b *bench) readsRound(ctx context.Context, c *readsCell, want int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var clients []*readsClient
	for n := range readsWriters {
		clients = append(clients, &readsClient{b: b, choose: rand.New(rand.NewPCG(uint64(n), 1))})
	}
	for range c.readers {
		clients = append(clients, &readsClient{b: b, consistency: c.consistency, want: want})
	}
	for _, client := range clients {
		conn, err := client.connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		client.conn = conn
	}
	seconds := float64(b.opts.seconds)
	end := time.Now().Add(time.Duration(b.opts.seconds) * time.Second)
	errs := make([]error, len(clients))
	var group sync.WaitGroup
	for i, client := range clients {
		group.Go(func() { errs[i] = client.run(ctx, end) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	commits, reads := 0, 0
	for _, client := range clients {
		if client.consistency == "" {
			commits += len(client.took)
			c.commits = append(c.commits, client.took...)
			continue
		}
		reads += len(client.took)
		c.reads = append(c.reads, client.took...)
		c.wrong += client.wrong
	}
	c.perSecond = append(c.perSecond, float64(commits)/seconds)
	c.readsPerSecond = append(c.readsPerSecond, float64(reads)/seconds)
	return nil
}

// readsClient is a writer, or a reader with its consistency.
type readsClient struct {
	b           *bench
	conn        *pgx.Conn
	choose      *rand.Rand
	consistency string
	want        int64

	took  []time.Duration
	wrong int
}

func (w *readsClient) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, w.b.gateway)
	if err == nil && w.consistency != "" {
		_, err = conn.Exec(ctx, "set pgpact.read_consistency = "+w.consistency)
	}
	return conn, err
}

func (w *readsClient) run(ctx context.Context, end time.Time) error {
	for time.Now().Before(end) {
		began := time.Now()
		if w.consistency == "" {
			keys := &w.b.keys
			amount := w.choose.IntN(11) - 5
			_, err := w.conn.PgConn().Exec(ctx, fmt.Sprintf("begin; update public.bench_accounts set balance = balance - %d where id = %d; "+
				"update public.bench_accounts set balance = balance + %d where id = %d; commit", amount, keys.from[w.choose.IntN(len(keys.from))],
				amount, keys.to[w.choose.IntN(len(keys.to))])).ReadAll()
			if err != nil {
				return fmt.Errorf("transfer: %w", err)
			}
		} else {
			var total int64
			if err := w.conn.QueryRow(ctx, readsStatement).Scan(&total); err != nil {
				return fmt.Errorf("read: %w", err)
			}
			if total != w.want {
				w.wrong++
			}
		}
		w.took = append(w.took, time.Since(began))
	}
	return nil
}

// quantile of durations, in milliseconds; 0 of none.
func quantile(took []time.Duration, q float64) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return float64(took[int(float64(len(took)-1)*q)].Microseconds()) / 1000
}

// printReads writes Markdown, and whether the aims are met.
func printReads(out io.Writer, cells []*readsCell, opts options) {
	fmt.Fprintf(out, "\n%d writers, readers of %d balances on two nodes; %d rounds of %d s, medians of the rounds; fsync on; everything on this machine\n\n",
		readsWriters, opts.accounts, opts.rounds, opts.seconds)
	fmt.Fprintln(out, "| readers | consistency | commits/s | of alone | commit ms | commit p99 | reads/s | read ms | read p99 | wrong sums | aim |")
	fmt.Fprintln(out, "| ------: | ----------- | --------: | -------: | --------: | ---------: | ------: | ------: | -------: | ---------: | --- |")
	for i, c := range cells {
		name := c.consistency
		if name == "" {
			name = "(alone)"
		}
		fmt.Fprintf(out, "| %7d | %-11s | %9.0f | %8.2f | %9.2f | %10.2f | %7.0f | %7.2f | %8.2f | %10d | %s |\n",
			c.readers, name, median(c.perSecond), median(c.share), quantile(c.commits, 0.5), quantile(c.commits, 0.99),
			median(c.readsPerSecond), quantile(c.reads, 0.5), quantile(c.reads, 0.99), c.wrong, readsAims(cells, i))
	}
}

// readsAims says of an atomic cell whether it meets the project's aims.
func readsAims(cells []*readsCell, i int) string {
	c := cells[i]
	if c.consistency != "atomic" {
		return ""
	}
	verdict := map[bool]string{true: "met", false: "MISS"}
	times := quantile(c.reads, 0.99) / quantile(cells[i+1].reads, 0.99) // per node, beside it
	text := fmt.Sprintf("p99 %.1f times per_node's: %s", times, verdict[times < slowerAtMost])
	if c.readers == 1 {
		// What the reader costs by itself, per node, is not the barrier's.
		text += fmt.Sprintf("; writers lose %.0f %%: %s", 100*(1-median(c.share)), verdict[median(c.share) >= 1-loseAtMost])
	}
	return text
}
