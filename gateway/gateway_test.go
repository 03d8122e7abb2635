package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
	"github.com/pgpact/pgpact/migrations"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// stack is a whole gateway, in this process, over real servers: a decision
// database and the nodes a, b and c. alice lives on a or wherever her bucket
// is; key tells a key of a given node.
type stack struct {
	set     *pgservertest.Set
	gateway *Gateway
	place   *Placement
	nodes   []*participant.Node
	url     string               // of the gateway
	direct  map[string]*pgx.Conn // straight to the nodes, as a superuser
}

// stackOptions change a stack.
type stackOptions struct {
	slots  int
	config func(*Config)
	coord  func(*coordinator.Config)
}

func startStack(t testing.TB, options stackOptions) *stack {
	t.Helper()
	names := []string{"a", "b", "c"}
	set := pgservertest.Start(t, pgservertest.Options{}, append([]string{"coordinator"}, names...)...)
	ctx := t.Context()
	if _, err := migrations.Coordinator(ctx, set.URL("coordinator"), migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	id, err := migrations.ClusterID(ctx, set.URL("coordinator"))
	if err != nil {
		t.Fatal(err)
	}
	s := &stack{set: set, direct: map[string]*pgx.Conn{}}
	owners := make([]string, DefaultBuckets)
	for i := range owners {
		owners[i] = names[i%len(names)]
	}
	for _, name := range names {
		s.addNode(t, id, name)
	}
	if s.place, err = NewPlacement(s.nodes, owners); err != nil {
		t.Fatal(err)
	}
	s.start(t, id, options)
	return s
}

func (s *stack) addNode(t testing.TB, cluster, name string) {
	t.Helper()
	url := s.set.URL(name)
	if _, err := migrations.Participant(t.Context(), url, migrations.NodeIdentity{ClusterID: cluster, Name: name}, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	node, err := participant.Open(participant.Config{Name: name, URL: url, ClusterID: cluster})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	s.nodes = append(s.nodes, node)
	conn, err := pgx.Connect(t.Context(), s.set.SuperURL(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	s.direct[name] = conn
}

func (s *stack) start(t testing.TB, cluster string, options stackOptions) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("PGPACT_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	coordConfig := coordinator.Config{
		DecisionURL: s.set.URL("coordinator"), ClusterID: cluster, Nodes: s.nodes, Slots: options.slots, Logger: logger,
	}
	if options.coord != nil {
		options.coord(&coordConfig)
	}
	c, err := coordinator.New(coordConfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	config := Config{
		Coordinator: c, Nodes: s.nodes, Placement: s.place, Parser: sqlparse.NewParser(1000), Logger: logger,
		Database: "pgpact",
	}
	if options.config != nil {
		options.config(&config)
	}
	if s.gateway, err = New(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.gateway.Serve(context.Background(), ln) }()
	s.url = fmt.Sprintf("postgres://carol@%s/pgpact?sslmode=disable", ln.Addr())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.gateway.Shutdown(ctx); err != nil {
			t.Errorf("sessions did not end: %v", err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		s.gateway.Close()
		c.Stop(ctx)
	})
}

// key is the n-th account whose bucket is at the node.
func (s *stack) key(node string, n int) string {
	for i := 0; ; i++ {
		key := fmt.Sprintf("acct-%04d", i)
		if s.place.NodeFor(key).Name() == node {
			if n == 0 {
				return key
			}
			n--
		}
	}
}

// fill gives each node two accounts with 1000 each, and returns their keys:
// those of a, b and c, first and second.
func (s *stack) fill(t testing.TB) (keys [3][2]string) {
	t.Helper()
	for i, node := range []string{"a", "b", "c"} {
		if _, err := s.direct[node].Exec(t.Context(), "TRUNCATE accounts"); err != nil {
			t.Fatal(err)
		}
		for j := range 2 {
			keys[i][j] = s.key(node, j)
			if _, err := s.direct[node].Exec(t.Context(), "INSERT INTO accounts VALUES ($1, 1000)", keys[i][j]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return keys
}

// balance looks at the node itself.
func (s *stack) balance(t *testing.T, key string) int64 {
	t.Helper()
	var balance int64
	err := s.direct[s.place.NodeFor(key).Name()].QueryRow(t.Context(), "SELECT balance FROM accounts WHERE id = $1", key).Scan(&balance)
	if err != nil {
		t.Fatal(err)
	}
	return balance
}

func (s *stack) wantBalances(t *testing.T, want map[string]int64) {
	t.Helper()
	for key, amount := range want {
		if got := s.balance(t, key); got != amount {
			t.Errorf("balance of %s is %d, want %d", key, got, amount)
		}
	}
}

// idle checks that no node has a transaction open or prepared and that no
// connection is taken: whatever happened, nothing was left behind.
func (s *stack) idle(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		busy := s.busy(t)
		if busy == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %s", busy)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func (s *stack) busy(t *testing.T) string {
	for _, node := range s.nodes {
		if stats := node.Stats(); stats.InUse > 0 {
			return fmt.Sprintf("%d connections of %s in use", stats.InUse, node.Name())
		}
		var prepared, open int
		err := s.direct[node.Name()].QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_prepared_xacts),
			(SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%')`).Scan(&prepared, &open)
		if err != nil {
			t.Fatal(err)
		}
		if prepared+open > 0 {
			return fmt.Sprintf("%d prepared, %d open on %s", prepared, open, node.Name())
		}
	}
	return ""
}

// client is a connection to the gateway, with pgx's simple machinery.
func (s *stack) client(t testing.TB, options ...func(*pgconn.Config)) *pgconn.PgConn {
	t.Helper()
	config, err := pgconn.ParseConfig(s.url)
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range options {
		option(config)
	}
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// run executes a query string and writes down what came back: one line per
// result, "tag" or "tag: row row", and the error as its last line.
func run(t *testing.T, conn *pgconn.PgConn, sql string) string {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	var lines []string
	for _, result := range results {
		line := result.CommandTag.String()
		for i, row := range result.Rows {
			cells := make([]string, len(row))
			for j, cell := range row {
				cells[j] = string(cell)
			}
			if i == 0 {
				line += ":"
			}
			line += " " + strings.Join(cells, ",")
		}
		lines = append(lines, line)
	}
	if err != nil {
		lines = append(lines, errorText(err))
	}
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return l == "" }), "\n")
}

func errorText(err error) string {
	if pgErr, ok := err.(*pgconn.PgError); ok {
		return "ERROR " + pgErr.Code + " " + pgErr.Message
	}
	return "FAILED " + err.Error()
}

func wantRun(t *testing.T, conn *pgconn.PgConn, sql, want string) {
	t.Helper()
	if got := run(t, conn, sql); got != want {
		t.Errorf("%s\n got %q\nwant %q", sql, got, want)
	}
}

func wantStatus(t *testing.T, conn *pgconn.PgConn, want byte) {
	t.Helper()
	if got := conn.TxStatus(); got != want {
		t.Errorf("transaction status %c, want %c", got, want)
	}
}
