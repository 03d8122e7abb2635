package integration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// group is one transaction of a case, over keys that no other transaction touches: an account on each of its nodes (two, where there is
// one node). One group in two asks for its id, one in three has an idempotency key, all of them write in two phases.
type group struct {
	books    *books
	tracked  bool
	accounts []string
	deltas   []int64
	key      string // "" without
	id       string // "" when it was not asked for

	conn *pgx.Conn
	told knowledge
	err  error
}

const groupAmount = 10

// newGroup names the accounts of a group, the index-th of its case.
func newGroup(r *caseRig, nodes, serial, index int) *group {
	g := &group{books: r.books}
	for i := range max(nodes, 2) {
		node := r.d.cluster.Nodes()[i%nodes].Name()
		g.accounts = append(g.accounts, r.d.keyOn(node, fmt.Sprintf("g%d-%d", serial, i)))
		g.deltas = append(g.deltas, groupAmount)
	}
	g.deltas[0] = -groupAmount * int64(len(g.accounts)-1)
	if index%3 == 0 {
		g.key = fmt.Sprintf("key-%d", serial)
	}
	g.tracked = g.key != "" || nodes == 1 || index%2 == 0
	return g
}

// statements are what the group's transaction does, its key included.
func (g *group) statements() (all []string) {
	if g.key != "" {
		all = append(all, fmt.Sprintf("set local pgpact.idempotency_key = '%s'", g.key))
	}
	for i, account := range g.accounts {
		all = append(all, move(account, g.deltas[i]))
	}
	return all
}

// begin runs everything before COMMIT; nothing may fail there.
func (g *group) begin(t *testing.T, url string) {
	t.Helper()
	g.conn = harness.Open(t, url)
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	_, err := simple(ctx, g.conn, "begin")
	must(t, err)
	if g.tracked {
		g.id, err = ask(g.conn, "show pgpact.transaction_id")
		must(t, err)
	}
	for _, statement := range g.statements() {
		_, err := simple(ctx, g.conn, statement)
		must(t, err)
	}
}

// also runs one more statement in the block.
func (g *group) also(t *testing.T, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	_, err := simple(ctx, g.conn, statement)
	must(t, err)
}

func (g *group) commit() {
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	g.told, g.err = end(simple(ctx, g.conn, "commit"))
}

// committed is read on the nodes: all of it, or nothing.
func (g *group) committed() (bool, error) {
	balances, err := g.books.balances(g.accounts)
	if err != nil {
		return false, err
	}
	var whole, none []string
	for i, account := range g.accounts {
		switch balances[i] {
		case startBalance:
			none = append(none, account)
		case startBalance + g.deltas[i]:
			whole = append(whole, account)
		default:
			return false, fmt.Errorf("%s has %d", account, balances[i])
		}
	}
	if len(whole) > 0 && len(none) > 0 {
		return false, fmt.Errorf("torn: %v have changed, %v have not", whole, none)
	}
	return len(whole) > 0, nil
}

type groups []*group

// commit sends all COMMITs at once. The function that it returns waits for the answers.
func (all groups) commit() (answered func()) {
	var committing sync.WaitGroup
	for _, g := range all {
		committing.Go(g.commit)
	}
	return committing.Wait
}

// want is the outcome that a case promises.
type want string

const (
	allCommitted want = "all committed"
	oneCommitted want = "at least one committed" // the one that passed the point; the others may be anywhere
	allAborted   want = "all aborted"
	anyOutcome   want = "any outcome"
)

// judge holds what the nodes have against what was promised and told; asks for the outcomes; and tries again what has not committed, by
// way of url. In the end every group has committed exactly once.
func (all groups) judge(t *testing.T, url string, promised want) {
	t.Helper()
	conn := harness.Open(t, url)
	committed, told := 0, map[knowledge]int{}
	for _, g := range all {
		found, err := g.committed()
		if err != nil {
			t.Errorf("the nodes do not agree (the client was told %s, %v): %v", g.told, g.err, err)
			continue
		}
		told[g.told]++
		if found {
			committed++
		}
		if g.told.contradicts(found) {
			t.Errorf("the client was told %s, %v, and committed is %t", g.told, g.err, found)
		}
		must(t, g.asked(conn, found))
		must(t, g.again(t, conn, found))
	}
	t.Logf("%d of %d committed, told %v, the first %v", committed, len(all), told, all[0].err)
	switch {
	case promised == allCommitted && committed < len(all), promised == oneCommitted && committed == 0, promised == allAborted && committed > 0:
		t.Errorf("%d of %d committed, want %s", committed, len(all), promised)
	}
}

// asked is nil when the outcome that a client can ask for is the one found. A gateway that has given up, and told its client so, writes
// the abort down a moment later: until then it is in progress for others.
func (g *group) asked(conn *pgx.Conn, committed bool) error {
	if g.id != "" {
		outcome := map[bool]string{true: "committed", false: "aborted"}[committed]
		got, err := "in progress", error(nil)
		_ = harness.Poll(settleBound, func() error { // what it was at last is looked at below
			if got, err = ask(conn, "select pgpact.outcome('"+g.id+"')"); err == nil && got == "in progress" {
				return errors.New(got)
			}
			return nil
		})
		if err != nil || got != outcome {
			return fmt.Errorf("pgpact.outcome says %q (%v), want %q", got, err, outcome)
		}
	}
	if g.key != "" {
		outcome := map[bool]string{true: "committed " + g.id, false: "not committed so far"}[committed]
		if got, err := ask(conn, "select pgpact.outcome_of_key('"+g.key+"')"); err != nil || got != outcome {
			return fmt.Errorf("pgpact.outcome_of_key says %q (%v), want %q", got, err, outcome)
		}
	}
	return nil
}

// again is the client's second attempt: safe under a key, and without one made when the first has aborted.
func (g *group) again(t *testing.T, conn *pgx.Conn, committed bool) error {
	if committed && g.key == "" {
		return nil
	}
	told, err := transact(conn, g.statements()...)
	if want := map[bool]knowledge{true: knowsAborted, false: knowsCommitted}[committed]; told != want {
		return fmt.Errorf("committed is %t, and a second attempt: %s, %v", committed, told, err)
	}
	if committed {
		wantState(t, "a second attempt under the key", err, "23505", g.id)
	}
	if whole, err := g.committed(); err != nil || !whole {
		return fmt.Errorf("after the second attempt: committed is %t, %v", whole, err)
	}
	return nil
}

// books reads and writes on the servers themselves, over connections that it keeps: what has to be looked at is looked at often.
type books struct {
	d     *deployment
	conns map[string]*pgx.Conn
}

func newBooks(t testing.TB, d *deployment) *books {
	b := &books{d: d, conns: map[string]*pgx.Conn{}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, conn := range b.conns {
			_ = conn.Close(ctx) // the server may be gone
		}
	})
	return b
}

// read is a column's values on a server, harness.CoordinatorName or a node. A connection that the server's death has ended is made anew.
func read[T any](b *books, server, query string, args ...any) ([]T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for again := false; ; again = true {
		conn := b.conns[server]
		if conn == nil || conn.IsClosed() {
			url := b.d.cluster.Coordinator().URL()
			if server != harness.CoordinatorName {
				url = b.d.cluster.Node(server).URL()
			}
			var err error
			if conn, err = pgx.Connect(ctx, url); err != nil {
				return nil, fmt.Errorf("server %s: %w", server, err)
			}
			b.conns[server] = conn
		}
		rows, err := conn.Query(ctx, query, args...)
		if err == nil {
			var values []T
			if values, err = pgx.CollectRows(rows, pgx.RowTo[T]); err == nil {
				return values, nil
			}
		}
		if again || !conn.IsClosed() {
			return nil, fmt.Errorf("server %s: %w", server, err)
		}
	}
}

// open makes accounts, each on the node of its key.
func (b *books) open(t testing.TB, accounts []string) {
	t.Helper()
	for node, keys := range b.byNode(accounts) {
		_, err := read[string](b, node, "insert into accounts select unnest($1::text[]), $2 returning id", keys, startBalance)
		must(t, err)
	}
}

// balances are those of the accounts, in their order.
func (b *books) balances(accounts []string) ([]int64, error) {
	found := map[string]int64{}
	for node, keys := range b.byNode(accounts) {
		values, err := read[int64](b, node, "select balance from accounts where id = any($1) order by array_position($1, id)", keys)
		if err == nil && len(values) != len(keys) {
			err = fmt.Errorf("node %s has %d of %v", node, len(values), keys)
		}
		if err != nil {
			return nil, err
		}
		for i, key := range keys {
			found[key] = values[i]
		}
	}
	all := make([]int64, len(accounts))
	for i, account := range accounts {
		all[i] = found[account]
	}
	return all, nil
}

func (b *books) byNode(accounts []string) map[string][]string {
	all := map[string][]string{}
	for _, account := range accounts {
		all[b.d.owner(account)] = append(all[b.d.owner(account)], account)
	}
	return all
}
