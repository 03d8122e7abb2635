package drivers

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// productTables are on the nodes by migration; the plain server gets the same.
const productTables = `
create table accounts (id text primary key, balance bigint not null check (balance >= 0));
create table stock (sku text primary key, quantity bigint not null check (quantity >= 0));
create table orders (customer text, order_id uuid, sku text, quantity bigint, amount bigint, primary key (customer, order_id));`

// typesTable is made everywhere: one column of each type that the scripts send and read. In public, said so: the role has the name of our
// schema on the nodes, which would be first on its search_path there.
const typesTable = `create table public.types_demo (id text primary key, i int, b bigint, t text, u uuid, n numeric, ts timestamptz,
	f boolean, d double precision, y bytea, j jsonb, a int[], ta text[])`

// seeds are the rows that every script begins with. Their keys are in the first column, which says where they live.
var seeds = map[string]string{
	"accounts": `select * from (values ('alice', 1000::bigint), ('bob', 1000)) v
		union all select 'd-' || lpad(n::text, 2, '0'), 100 from generate_series(0, 39) n`,
	"orders": `select 'carol', ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'sku-' || n % 5, n, n * 7
		from generate_series(1, 57) n`,
	"types_demo": "",
	"stock":      "",
}

// tables in a fixed order.
func tables() []string {
	names := make([]string, 0, len(seeds))
	for name := range seeds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// target is a server that the scripts can be run against.
type target struct {
	name string
	// host, port, user, password, database: what a driver is told.
	host, port, user, password, database string
}

func newTarget(t *testing.T, name, address string) target {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	password, has := u.User.Password()
	if !has {
		// Drivers that insist on a password send it to a server that asks for none.
		password = harness.Password
	}
	return target{name: name, host: u.Hostname(), port: u.Port(), user: u.User.Username(), password: password, database: strings.TrimPrefix(u.Path, "/")}
}

// url leaves sslmode to the driver, because its default is a part of connecting in the default way.
func (t target) url() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(t.user, t.password), Host: t.host + ":" + t.port, Path: "/" + t.database}
	return u.String()
}

// rig is a plain server and a gateway with its nodes, with the same tables.
type rig struct {
	plain, gateway target
	plainConn      *pgx.Conn
	nodes          map[string]*pgx.Conn
	process        *harness.Gateway
	buckets        map[string][]int32 // node -> its buckets
	bucketCount    int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	// Drivers show the estimates of the catalog, which autovacuum writes when it likes.
	settings := map[string]string{"autovacuum": "off"}
	alone := harness.NewCluster(t, harness.Options{Nodes: []string{"plain"}, Settings: settings}).Node("plain")
	cluster := harness.NewCluster(t, harness.Options{Settings: settings})
	config := cluster.WriteConfig(t)
	harness.Migrate(t, config)

	// The gateway asks for no password; a driver is to take the same path to both, and Debian's pg8000 knows no SCRAM.
	super := alone.OpenSuper(t)
	path := texts(t, super, "show hba_file")[0]
	do(t, super, "copy (values ('local all all trust'), ('host all all all trust')) to '"+path+"'")
	do(t, super, "select pg_reload_conf()")

	r := &rig{plainConn: alone.Open(t), nodes: map[string]*pgx.Conn{}, buckets: map[string][]int32{}}
	for _, node := range cluster.Nodes() {
		r.nodes[node.Name()] = node.Open(t)
		do(t, r.nodes[node.Name()], typesTable)
	}
	do(t, r.plainConn, productTables)
	do(t, r.plainConn, typesTable)
	r.readBuckets(t, cluster.Coordinator().Open(t))

	gateway, address := harness.Serve(t, config)
	r.process = gateway
	r.plain, r.gateway = newTarget(t, "plain", alone.URL()), newTarget(t, "gateway", address)
	return r
}

func (r *rig) readBuckets(t *testing.T, coordinator *pgx.Conn) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	rows, err := coordinator.Query(ctx, "select bucket, node from pgpact.buckets")
	if err != nil {
		t.Fatal(err)
	}
	var bucket int32
	var node string
	if _, err := pgx.ForEachRow(rows, []any{&bucket, &node}, func() error {
		r.buckets[node] = append(r.buckets[node], bucket)
		r.bucketCount++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// seed empties all tables and fills them again, past the gateway: a script's failure is not to be the next one's.
func (r *rig) seed(t *testing.T) {
	t.Helper()
	for _, conn := range r.conns() {
		do(t, conn, "truncate public."+strings.Join(tables(), ", public."))
	}
	for _, table := range tables() {
		if seeds[table] == "" {
			continue
		}
		do(t, r.plainConn, "insert into public."+table+" "+seeds[table])
		for node, conn := range r.nodes {
			do(t, conn, fmt.Sprintf("insert into public.%s select * from (%s) v(key) where pgpact.bucket(v.key, %d) = any($1)", table, seeds[table], r.bucketCount),
				r.buckets[node])
		}
	}
}

func (r *rig) conns() []*pgx.Conn {
	conns := []*pgx.Conn{r.plainConn}
	for _, conn := range r.nodes {
		conns = append(conns, conn)
	}
	return conns
}

// finds looks at what is in the tables and says in words what is wrong: something is left prepared, or a row is not on its key's node; and
// how the rows of the nodes together are not those of the plain server.
func (r *rig) finds(t *testing.T) (wrong, different []string) {
	t.Helper()
	// Phase two may still run for a client that has gone.
	if err := harness.Poll(20*time.Second, func() error {
		for node, conn := range r.nodes {
			if gids := texts(t, conn, "select gid from pg_prepared_xacts where database = current_database()"); len(gids) > 0 {
				return fmt.Errorf("node %s still has prepared transactions %v", node, gids)
			}
		}
		return nil
	}); err != nil {
		wrong = append(wrong, err.Error())
	}
	for _, table := range tables() {
		key := map[string]string{"orders": "customer", "stock": "sku"}[table]
		if key == "" {
			key = "id"
		}
		all := "select v::text from public." + table + " v"
		want := texts(t, r.plainConn, all)
		var got []string
		for node, conn := range r.nodes {
			got = append(got, texts(t, conn, all)...)
			stray := fmt.Sprintf("select v::text from public.%s v where pgpact.bucket(%s, %d) <> all($1)", table, key, r.bucketCount)
			for _, row := range texts(t, conn, stray, r.buckets[node]) {
				wrong = append(wrong, fmt.Sprintf("%s on node %s, where it does not belong: %s", table, node, row))
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		different = append(different, onlyIn(want, got, table+" on the plain server only: ")...)
		different = append(different, onlyIn(got, want, table+" on the nodes only: ")...)
	}
	return wrong, different
}

func onlyIn(these, those []string, what string) []string {
	var found []string
	for _, row := range these {
		if _, has := slices.BinarySearch(those, row); !has {
			found = append(found, what+row)
		}
	}
	return found
}

func texts(t *testing.T, conn *pgx.Conn, query string, args ...any) []string {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

func do(t *testing.T, conn *pgx.Conn, statement string, args ...any) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	if _, err := conn.Exec(ctx, statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}
