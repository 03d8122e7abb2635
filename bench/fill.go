package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The table of the bench has numbers for keys, because that is all that pgbench can make: it has no text functions, and with prepared
// statements it puts no value inside quotes.
//
// In public by name: pgpact's role has a schema of its own name on the nodes, which "$user" in the search path would find first.
const createTable = `create table public.bench_accounts (id bigint primary key, balance bigint not null)`

// startBalance is far from anything the scripts can do in a run.
const startBalance = 1_000_000

// pairs are ids on the first and on the second node, for transfers that are certainly cross-node.
type pairs struct{ from, to []int64 }

// mostPairs bounds the length of the scripts; with 64 clients, two of them want the same row once in a while, as in life.
const mostPairs = 4096

// fill makes the table on every server, over direct connections, every id on the node where pgpact will look for it.
func (b *bench) fill(ctx context.Context) error {
	all := make([]int64, b.opts.accounts)
	for i := range all {
		all[i] = int64(i + 1)
	}
	placed := [][]int64{all}
	if !b.opts.selfTest {
		var err error
		if placed, err = b.place(ctx, all); err != nil {
			return err
		}
	}
	for i, node := range b.nodes {
		if err := load(ctx, node, placed[i]); err != nil {
			return err
		}
	}
	if err := load(ctx, b.plain, all); err != nil {
		return err
	}
	if b.opts.selfTest {
		half := len(all) / 2
		placed = [][]int64{all[:half], all[half:]}
	}
	n := min(mostPairs, len(placed[0]), len(placed[1]))
	b.keys = pairs{from: placed[0][:n], to: placed[1][:n]}
	return nil
}

// place asks pgpact itself where the ids belong: its own function for the bucket, its own table for the node.
func (b *bench) place(ctx context.Context, all []int64) ([][]int64, error) {
	bucketOf := make([]int, len(all))
	err := query(ctx, b.nodes[0], func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "select pgpact.bucket(id::text) from unnest($1::bigint[]) with ordinality as ids(id, n) order by n", all)
		if err != nil {
			return err
		}
		i, bucket := 0, 0
		_, err = pgx.ForEachRow(rows, []any{&bucket}, func() error { bucketOf[i] = bucket; i++; return nil })
		return err
	})
	if err != nil {
		return nil, err
	}
	nodeOf, err := b.bucketNodes(ctx)
	if err != nil {
		return nil, err
	}
	placed := make([][]int64, len(b.nodes))
	for i, id := range all {
		node, known := nodeOf[bucketOf[i]]
		if !known {
			return nil, fmt.Errorf("bucket %d of id %d belongs to no node", bucketOf[i], id)
		}
		placed[node] = append(placed[node], id)
	}
	return placed, nil
}

// bucketNodes reads the placement: bucket to index in b.nodes.
func (b *bench) bucketNodes(ctx context.Context) (map[int]int, error) {
	index := map[string]int{}
	for i, url := range b.nodes {
		var name string
		err := query(ctx, url, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "select name from pgpact.node").Scan(&name)
		})
		if err != nil {
			return nil, err
		}
		index[name] = i
	}
	nodeOf := map[int]int{}
	err := query(ctx, b.coordinator, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "select bucket, node from pgpact.buckets")
		if err != nil {
			return err
		}
		var bucket int
		var node string
		_, err = pgx.ForEachRow(rows, []any{&bucket, &node}, func() error {
			i, known := index[node]
			if !known {
				return fmt.Errorf("bucket %d belongs to node %q, which the configuration does not name", bucket, node)
			}
			nodeOf[bucket] = i
			return nil
		})
		return err
	})
	return nodeOf, err
}

func load(ctx context.Context, url string, ids []int64) error {
	return query(ctx, url, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, createTable); err != nil {
			return err
		}
		_, err := conn.CopyFrom(ctx, pgx.Identifier{"public", "bench_accounts"}, []string{"id", "balance"},
			pgx.CopyFromSlice(len(ids), func(i int) ([]any, error) { return []any{ids[i], int64(startBalance)}, nil }))
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "vacuum analyze public.bench_accounts")
		return err
	})
}

// sum is the money on these servers.
func sum(ctx context.Context, urls []string) (int64, error) {
	var total int64
	for _, url := range urls {
		err := query(ctx, url, func(conn *pgx.Conn) error {
			var part int64
			err := conn.QueryRow(ctx, "select sum(balance)::bigint from public.bench_accounts").Scan(&part)
			total += part
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return total, nil
}

// choice is a pgbench expression that is ids[index]. pgbench has no arrays, but it has CASE: a tree of them takes log2(n) comparisons, about
// a microsecond, the same on both sides.
func choice(index string, ids []int64) string {
	var text strings.Builder
	var write func(low, high int)
	write = func(low, high int) {
		if high-low == 1 {
			fmt.Fprintf(&text, "%d", ids[low])
			return
		}
		middle := (low + high) / 2
		fmt.Fprintf(&text, "CASE WHEN :%s < %d THEN ", index, middle)
		write(low, middle)
		text.WriteString(" ELSE ")
		write(middle, high)
		text.WriteString(" END")
	}
	write(0, len(ids))
	return text.String()
}
