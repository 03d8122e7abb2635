//go:build unix

// Package clustertest gives tests a whole cluster: a decision database and nodes on real Postgres servers,
// migrated, with participant.Nodes opened on them:
//
//	cluster := clustertest.Start(t, 2, clustertest.Options{})
//	coordinator.New(coordinator.Config{DecisionURL: cluster.DecisionURL, ClusterID: cluster.ClusterID, Nodes: cluster.Nodes})
//
// A package with many tests starts the servers once, in TestMain, with NewServers, and gives them to every
// Start: each cluster then is a set of databases of its own, copied from migrated templates, which takes a
// tenth of a second. fsync is on, because participants and the decision log refuse servers without it.
package clustertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/internal/pgserver"
	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
	"github.com/pgpact/pgpact/migrations"
	"github.com/pgpact/pgpact/participant"
)

// CoordinatorServer is the name of the decision database's server; the nodes' are "a", "b", "c" ...
const CoordinatorServer = "coordinator"

// template is the migrated database that clusters are copied from.
const template = "cluster_template"

// Servers are running servers for any number of clusters, one after the other or at the same time.
type Servers struct {
	*pgservertest.Set
	nodes     []string
	clusterID string

	copying sync.Mutex // CREATE DATABASE refuses a template that is being copied already
}

// NewServers starts a decision server and the number of node servers, for TestMain. Call stop before
// os.Exit.
func NewServers(ctx context.Context, nodes int, settings map[string]string) (s *Servers, stop func() error, err error) {
	names := NodeNames(nodes)
	set, stop, err := pgservertest.New(ctx, pgservertest.Options{Settings: settings}, append([]string{CoordinatorServer}, names...)...)
	if err != nil {
		return nil, nil, err
	}
	s = &Servers{Set: set, nodes: names}
	if err := s.makeTemplates(ctx); err != nil {
		_ = stop()
		return nil, nil, err
	}
	return s, stop, nil
}

// NodeNames are the names of a cluster's nodes: a, b, c ...
func NodeNames(nodes int) []string {
	names := make([]string, nodes)
	for i := range names {
		names[i] = string(rune('a' + i))
	}
	return names
}

func (s *Servers) makeTemplates(ctx context.Context) error {
	all := append([]string{CoordinatorServer}, s.nodes...)
	err := parallel(all, func(name string) error {
		return s.Server(name).CreateRoleAndDatabase(ctx, pgservertest.Role, template)
	})
	if err != nil {
		return err
	}
	url := s.Server(CoordinatorServer).URL(pgservertest.Role, template)
	if _, err := migrations.Coordinator(ctx, url, migrations.Options{}); err != nil {
		return err
	}
	if s.clusterID, err = migrations.ClusterID(ctx, url); err != nil {
		return err
	}
	return parallel(s.nodes, func(name string) error {
		identity := migrations.NodeIdentity{ClusterID: s.clusterID, Name: name}
		_, err := migrations.Participant(ctx, s.Server(name).URL(pgservertest.Role, template), identity, migrations.Options{})
		return err
	})
}

// Options of a cluster.
type Options struct {
	// Servers to make the databases on; nil: servers of its own, stopped when the test ends.
	Servers *Servers
	// Settings of the servers, if they are its own.
	Settings map[string]string
	// Node changes the configuration of the participant.Nodes that are opened; nil: nothing.
	Node func(*participant.Config)
}

// Cluster is one cluster. All clusters made on the same Servers bear the same id; they are told apart by
// their databases, and by their epochs.
type Cluster struct {
	DecisionURL string
	ClusterID   string
	Nodes       []*participant.Node

	tb       testing.TB
	servers  *Servers
	database string
	names    []string
	moved    map[string]string // by server: the standby that was promoted in its place
}

// server is the server of that name, or the standby that was promoted in its place.
func (c *Cluster) server(name string) *pgserver.Server {
	if promoted, ok := c.moved[name]; ok {
		name = promoted
	}
	return c.servers.Server(name)
}

// Start makes a cluster with the number of nodes. Its nodes are closed when the test ends.
func Start(tb testing.TB, nodes int, options Options) *Cluster {
	tb.Helper()
	ctx := context.Background()
	servers := options.Servers
	if servers == nil {
		own, stop, err := NewServers(ctx, nodes, options.Settings)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := stop(); err != nil {
				tb.Error(err)
			}
		})
		servers = own
	}
	if nodes > len(servers.nodes) {
		tb.Fatalf("clustertest: %d nodes wanted, %d servers there", nodes, len(servers.nodes))
	}
	c := &Cluster{tb: tb, servers: servers, ClusterID: servers.clusterID, names: servers.nodes[:nodes],
		database: "cluster_" + strings.ToLower(rand.Text()[:12])}
	if err := c.makeDatabases(ctx); err != nil {
		tb.Fatal(err)
	}
	c.DecisionURL = c.URL(CoordinatorServer)
	c.Nodes = c.Open(tb, options.Node)
	return c
}

func (c *Cluster) makeDatabases(ctx context.Context) error {
	c.servers.copying.Lock()
	defer c.servers.copying.Unlock()
	err := parallel(append([]string{CoordinatorServer}, c.names...), func(name string) error {
		conn, err := pgx.Connect(ctx, c.servers.Server(name).SuperURL("postgres"))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "CREATE DATABASE "+c.database+" OWNER "+pgservertest.Role+" TEMPLATE "+template)
		return err
	})
	if err != nil {
		return err
	}
	_, err = migrations.EnsureBuckets(ctx, c.URL(CoordinatorServer), c.names, 0)
	return err
}

// Open opens participant.Nodes of their own on the cluster's nodes, as another gateway would.
func (c *Cluster) Open(tb testing.TB, change func(*participant.Config)) []*participant.Node {
	tb.Helper()
	nodes := make([]*participant.Node, len(c.names))
	for i, name := range c.names {
		config := participant.Config{Name: name, URL: c.URL(name), ClusterID: c.ClusterID, Logger: Logger(tb)}
		if change != nil {
			change(&config)
		}
		node, err := participant.Open(config)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(node.Close)
		nodes[i] = node
	}
	return nodes
}

// Names are the nodes' names.
func (c *Cluster) Names() []string { return c.names }

// URL connects as the owner to the cluster's database at the server: CoordinatorServer, "a", "b" ...
func (c *Cluster) URL(server string) string {
	return c.server(server).URL(pgservertest.Role, c.database)
}

// SuperURL connects to the same database as the superuser.
func (c *Cluster) SuperURL(server string) string {
	return c.server(server).SuperURL(c.database)
}

// Address is the server's host:port.
func (c *Cluster) Address(server string) string { return c.server(server).Addr() }

// Kill ends a server with SIGKILL, for every cluster on it.
func (c *Cluster) Kill(server string) {
	c.tb.Helper()
	if err := c.server(server).Kill(); err != nil {
		c.tb.Fatal(err)
	}
}

// Restart stops the server in good order and starts it again, on the same port.
func (c *Cluster) Restart(server string) {
	c.tb.Helper()
	if err := c.server(server).Restart(context.Background()); err != nil {
		c.tb.Fatal(err)
	}
}

// StartServer starts a server that was killed, on the same port. It is no error if it runs.
func (c *Cluster) StartServer(server string) {
	c.tb.Helper()
	if err := c.server(server).Start(context.Background()); err != nil {
		c.tb.Fatal(err)
	}
}

// Exec runs SQL, which may be several statements, at a server as the owner of the database.
func (c *Cluster) Exec(server, sql string) {
	c.tb.Helper()
	c.run(c.URL(server), sql)
}

// SuperExec is Exec as the superuser.
func (c *Cluster) SuperExec(server, sql string) {
	c.tb.Helper()
	c.run(c.SuperURL(server), sql)
}

func (c *Cluster) run(url, sql string) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// Not what "$user" gives: schema pgpact, to a role of that name.
	conn, err := pgx.Connect(ctx, url+"&search_path=public")
	if err != nil {
		c.tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		c.tb.Fatalf("%s: %v", sql, err)
	}
}

// Rows runs one query at a server as the superuser. A row's columns are joined with '|', as psql -At does.
func (c *Cluster) Rows(server, sql string) []string {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.SuperURL(server))
	if err != nil {
		c.tb.Fatal(err)
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		c.tb.Fatalf("%s: %v", sql, err)
	}
	var rows []string
	for _, result := range results {
		for _, values := range result.Rows {
			columns := make([]string, len(values))
			for i, v := range values {
				columns[i] = string(v)
			}
			rows = append(rows, strings.Join(columns, "|"))
		}
	}
	return rows
}

// Value is the only row of a query.
func (c *Cluster) Value(server, sql string) string {
	c.tb.Helper()
	rows := c.Rows(server, sql)
	if len(rows) != 1 {
		c.tb.Fatalf("%s: %d rows, want 1", sql, len(rows))
	}
	return rows[0]
}

// Sum is the sum of all balances in accounts over all nodes.
func (c *Cluster) Sum() int64 {
	c.tb.Helper()
	var sum int64
	for _, name := range c.names {
		var n int64
		if _, err := fmt.Sscan(c.Value(name, "SELECT coalesce(sum(balance),0)::bigint FROM public.accounts"), &n); err != nil {
			c.tb.Fatal(err)
		}
		sum += n
	}
	return sum
}

// Prepared are the gids that are prepared in the cluster's databases, each with its node: "a:pgpact/...".
func (c *Cluster) Prepared() []string {
	c.tb.Helper()
	var all []string
	for _, name := range c.names {
		for _, gid := range c.Rows(name, "SELECT gid FROM pg_prepared_xacts WHERE database=current_database() ORDER BY gid") {
			all = append(all, name+":"+gid)
		}
	}
	return all
}

// Logger writes to the test's log, so that it is seen when the test fails.
func Logger(tb testing.TB) *slog.Logger {
	w := &testWriter{tb: tb}
	tb.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.done = true
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// testWriter drops what is logged after the test has ended: tb.Log panics then.
type testWriter struct {
	tb   testing.TB
	mu   sync.Mutex
	done bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		w.tb.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

// WaitFor waits until the condition holds, and fails the test if it does not within the bound.
func WaitFor(tb testing.TB, what string, bound time.Duration, condition func() bool) {
	tb.Helper()
	deadline := time.Now().Add(bound)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %s: %s", bound, what)
		}
		<-tick.C
	}
}

func parallel(names []string, do func(name string) error) error {
	var group errgroup.Group
	for _, name := range names {
		group.Go(func() error { return do(name) })
	}
	return group.Wait()
}
