package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/migrations"
)

// startBalance is what everybody begins with, startQuantity what lies in stock.
const (
	startBalance  = 1000
	startQuantity = 100
	demoArticles  = 100
)

// people are who may get a name. alice and bob always do; of the others as many
// as it takes for every node to have somebody.
var people = strings.Fields(`alice bob carol dave erin frank grace heidi ivan judy kevin laura mallory nina oscar peggy quinn
	rupert sybil trent ursula victor wendy xavier yvonne zoe adam beth clara dora emil fay gina hugo ida jack kate leo mia noah
	olga paul rosa sam tina uma vera walt xena yuri zara anton bella cyrus diana edgar flora`)

// fill brings a new directory to the state in which it is served, and finds
// nothing to do in an old one.
func (o *demoOptions) fill(ctx context.Context, cfg *Config, dir string, state *demoState) error {
	opts, say := migrations.Options{Logger: newLogger(o.progress, cfg)}, func(line string) { o.say("%s", line) }
	if err := migrateCoordinator(ctx, cfg, opts, say); err != nil {
		return err
	}
	if err := migrateRest(ctx, cfg, opts, say); err != nil {
		return err
	}
	if state.Filled {
		return nil
	}
	owners, err := placement(ctx, cfg)
	if err != nil {
		return err
	}
	samples := sampleData(owners, state.Accounts)
	o.say("filling %d accounts and %d articles into %d nodes", samples.accounts, demoArticles, state.Nodes)
	for _, node := range cfg.Nodes {
		if err := samples.insert(ctx, cfg, node); err != nil {
			return fmt.Errorf("node %s: %w", node.Name, err)
		}
	}
	state.Filled = true
	return state.write(dir)
}

// placement is the node of each bucket, as migrate has stored it.
func placement(ctx context.Context, cfg *Config) ([]string, error) {
	conn, err := connectDirect(ctx, cfg.Coordinator.URL, cfg.ConnectTimeout)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	return readPlacement(ctx, conn)
}

// samples are the rows of a new demo, by the node that owns them.
type samples struct {
	accounts int
	ids      map[string][]string // node -> accounts.id
	skus     map[string][]string // node -> stock.sku
}

// sampleData decides who exists and where.
func sampleData(owners []string, accounts int) *samples {
	s := &samples{ids: map[string][]string{}, skus: map[string][]string{}}
	add := func(to map[string][]string, key string) {
		node := ownerOf(owners, key)
		to[node] = append(to[node], key)
	}
	for i, name := range people {
		if i < 2 || len(s.ids[ownerOf(owners, name)]) == 0 {
			add(s.ids, name)
			s.accounts++
		}
	}
	for i := range accounts {
		add(s.ids, fmt.Sprintf("acct-%05d", i+1))
		s.accounts++
	}
	for i := range demoArticles {
		add(s.skus, fmt.Sprintf("sku-%04d", i+1))
	}
	return s
}

func ownerOf(owners []string, key string) string { return owners[gateway.Bucket(key, len(owners))] }

// insert writes a node's rows in one transaction. Rows that are there stay as
// they are: if an earlier demo was killed between filling and writing it down,
// nobody has been served since, and nothing is done twice.
func (s *samples) insert(ctx context.Context, cfg *Config, node NodeConfig) error {
	conn, err := connectDirect(ctx, node.URL, cfg.ConnectTimeout)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO public.accounts (id, balance) SELECT unnest($1::text[]), $2 ON CONFLICT DO NOTHING",
			s.ids[node.Name], startBalance); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO public.stock (sku, quantity) SELECT unnest($1::text[]), $2 ON CONFLICT DO NOTHING",
			s.skus[node.Name], startQuantity)
		return err
	})
}

// whereabouts says which named people live where.
func whereabouts(owners []string) string {
	var parts []string
	seen := map[string]bool{}
	for i, name := range people {
		node := ownerOf(owners, name)
		if i < 2 || !seen[node] {
			parts = append(parts, fmt.Sprintf("%s lives on node %s", name, node))
		}
		seen[node] = true
	}
	return strings.Join(parts, ", ") + "."
}
