package integration

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// settleBound is the promise that the tests hold pgpact to: so long after a gateway is back, nothing is in doubt any more.
const settleBound = 10 * time.Second

// deployment is a migrated cluster and the configuration of one gateway on it. What it says of rows it has read on the servers
// themselves: no gateway vouches for its own work.
type deployment struct {
	cluster *harness.Cluster
	config  string
	id      string   // of the cluster, as in gids
	owners  []string // the node of each bucket
}

// startBalance is what every account of the tests begins with.
const startBalance = 1000

// deploy starts servers, migrates them, and adds the tests' own tables: made on the nodes directly, because pgpact has no DDL of its own.
//
// journal is where transfers leave a trace, one row for each account they touch. pledges refuses at PREPARE, and not before, what names
// no account: the deferred foreign key makes a node vote no. Their schema is written out because the role has the name of ours, which
// search_path would put first.
func deploy(t testing.TB, options harness.Options, lines ...string) *deployment {
	t.Helper()
	d := &deployment{cluster: harness.NewCluster(t, options)}
	d.config = d.cluster.WriteConfig(t, lines...)
	harness.Migrate(t, d.config)
	for _, node := range d.cluster.Nodes() {
		must(t, run(node.URL(), `
			create table public.journal(id text primary key, transfer text not null, account text not null, delta bigint not null);
			create table public.pledges(id text primary key, account text not null references public.accounts deferrable initially deferred)`))
	}
	coordinator := d.cluster.Coordinator().URL()
	ids := mustColumn[string](t, coordinator, "select id from pgpact.cluster")
	d.id, d.owners = ids[0], mustColumn[string](t, coordinator, "select node from pgpact.buckets order by bucket")
	return d
}

// owner is the node of a key: DESIGN section 6, computed here a third time (after Go's and SQL's) so that the tests do not believe the
// program about where things are.
func (d *deployment) owner(key string) string {
	digest := sha256.Sum256([]byte(key))
	return d.owners[int(binary.BigEndian.Uint16(digest[:2]))%len(d.owners)]
}

// keyOn is a key that lives on the node.
func (d *deployment) keyOn(node, prefix string) string {
	for i := 0; ; i++ {
		if key := fmt.Sprintf("%s.%d", prefix, i); d.owner(key) == node {
			return key
		}
	}
}

// open makes n accounts on a node, there, and returns their names in order.
func (d *deployment) open(t testing.TB, node, prefix string, n int) []string {
	t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = d.keyOn(node, fmt.Sprintf("%s-%02d", prefix, i))
	}
	must(t, run(d.cluster.Node(node).URL(), "insert into accounts select unnest($1::text[]), $2", names, startBalance))
	return names
}

// balance is what a node says that an account has.
func (d *deployment) balance(account string) (int64, error) {
	found, err := column[int64](d.cluster.Node(d.owner(account)).URL(), "select balance from accounts where id = $1", account)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("node %s has %d accounts %q", d.owner(account), len(found), account)
	}
	if err != nil {
		return 0, err
	}
	return found[0], nil
}

// sum adds up all balances.
func (d *deployment) sum() (total int64, err error) {
	for _, node := range d.cluster.Nodes() {
		part, err := column[int64](node.URL(), "select coalesce(sum(balance), 0)::bigint from accounts")
		if err != nil {
			return 0, err
		}
		total += part[0]
	}
	return total, nil
}

// prepared lists what is prepared, on all nodes: the gids are ours by their cluster.
func (d *deployment) prepared() ([]string, error) {
	var all []string
	for _, node := range d.cluster.Nodes() {
		gids, err := column[string](node.URL(), "select gid from pg_prepared_xacts where gid like $1", "pgpact/"+d.id+"/%")
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", node.Name(), err)
		}
		all = append(all, gids...)
	}
	return all, nil
}

// nothingPrepared is nil when nothing is in doubt on any node.
func (d *deployment) nothingPrepared() error {
	gids, err := d.prepared()
	if err == nil && len(gids) > 0 {
		err = fmt.Errorf("prepared: %v", gids)
	}
	return err
}

// backends are the server processes that work for pgpact right now, the asking one left out.
func (d *deployment) backends(t testing.TB) map[*harness.Server][]int32 {
	t.Helper()
	pids := map[*harness.Server][]int32{}
	for _, server := range d.cluster.Servers() {
		pids[server] = mustColumn[int32](t, server.URL(), "select pid from pg_stat_activity where usename = current_user and pid <> pg_backend_pid()")
	}
	return pids
}

// gone is nil when none of these backends is left. A backend whose gateway has died may still be at its last message: until it has ended,
// a look at its node proves nothing.
func gone(backends map[*harness.Server][]int32) error {
	for server, pids := range backends {
		left, err := column[int32](server.URL(), "select pid from pg_stat_activity where pid = any($1)", pids)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("server %s still has backends %v of the dead gateway", server.Name(), left)
		}
	}
	return nil
}

// recordsAgree holds the decision log against the branch records (I8): a node shows the record of exactly those committed transactions
// that it took part in, and nothing is left to finish.
func (d *deployment) recordsAgree() error {
	const key = "epoch || '/' || sequence"
	coordinator := d.cluster.Coordinator().URL()
	unfinished, err := column[string](coordinator, "select "+key+" || ' ' || outcome from pgpact.transactions where finished_at is null")
	if err != nil {
		return err
	}
	if len(unfinished) > 0 {
		return fmt.Errorf("unfinished: %v", unfinished)
	}
	var errs []error
	for _, node := range d.cluster.Nodes() {
		decided, err := column[string](coordinator,
			"select "+key+" from pgpact.transactions where outcome = 'committed' and $1 = any(participants)", node.Name())
		if err != nil {
			return err
		}
		shown, err := column[string](node.URL(), "select "+key+" from pgpact.branches")
		if err != nil {
			return err
		}
		slices.Sort(decided)
		slices.Sort(shown)
		if !slices.Equal(decided, shown) {
			errs = append(errs, fmt.Errorf("node %s: committed by the decision log %v, by its branch records %v", node.Name(),
				without(decided, shown), without(shown, decided)))
		}
	}
	return errors.Join(errs...)
}

// without is what is in all and not in some; both are sorted.
func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool {
		_, found := slices.BinarySearch(some, s)
		return found
	})
}

// column reads the one column of a query, on a connection of its own: servers come and go in these tests.
func column[T any](url, query string, args ...any) ([]T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

func mustColumn[T any](t testing.TB, url, query string, args ...any) []T {
	t.Helper()
	values, err := column[T](url, query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return values
}

// run executes a statement, or without arguments several, on a connection of its own.
func run(url, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if len(args) == 0 {
		_, err = conn.PgConn().Exec(ctx, statement).ReadAll()
	} else {
		_, err = conn.Exec(ctx, statement, args...)
	}
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
