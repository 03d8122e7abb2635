package harness

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Role, Password and Database are what every server has. In Processes mode the password is not asked for.
const (
	Role     = "pgpact"
	Password = "pgpact"
	Database = "pgpact"
)

// CoordinatorName is the server that holds the decisions.
const CoordinatorName = "coordinator"

// bound is how long starting, stopping and reaching a server may take on a busy machine.
const bound = 90 * time.Second

// Options say what a cluster looks like; the zero value is a coordinator and two nodes.
type Options struct {
	Nodes    []string          // default: a, b
	Settings map[string]string // added to those of every server, and stronger
	// SmallDisks puts the data and the WAL of every server, and what a fleet's gateways write, on small file systems of their own, for
	// FillDisk. DisksWhy tells whether this machine can.
	SmallDisks bool
}

// defaultSettings are those of a small production server, as far as pgpact cares. fsync stays on: pgpact refuses a decision database
// without it, and rightly.
func (o Options) settings() map[string]string {
	settings := map[string]string{"max_prepared_transactions": "200", "max_connections": "300"}
	if o.SmallDisks {
		maps.Copy(settings, smallWAL)
	}
	maps.Copy(settings, o.Settings)
	return settings
}

func (o Options) names() []string {
	nodes := o.Nodes
	if len(nodes) == 0 {
		nodes = []string{"a", "b"}
	}
	return append([]string{CoordinatorName}, nodes...)
}

// Cluster is a coordinator database and the nodes.
type Cluster struct {
	mode    Mode
	label   string // of its containers
	servers []*Server
	disks   bool
}

// NewCluster starts the servers side by side and removes them, with their data, when the test ends.
func NewCluster(t testing.TB, options Options) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cluster := &Cluster{mode: CurrentMode(), disks: options.SmallDisks}
	if err := DisksWhy(); options.SmallDisks && err != nil {
		t.Skipf("SKIPPED: disks cannot be filled here: %v", err)
	}
	if cluster.mode == Containers {
		cluster.startContainers(ctx, t, options)
	} else {
		cluster.startProcesses(t, options)
	}
	return cluster
}

// Mode is what this cluster's servers are.
func (c *Cluster) Mode() Mode { return c.mode }

// Coordinator is the server of the decision database.
func (c *Cluster) Coordinator() *Server { return c.servers[0] }

// Nodes are the servers that hold the rows, in the order of Options.Nodes.
func (c *Cluster) Nodes() []*Server { return c.servers[1:] }

// Servers are all of them, the coordinator first.
func (c *Cluster) Servers() []*Server { return c.servers }

// Node finds a node by name; it panics when there is none, because then the test is wrong.
func (c *Cluster) Node(name string) *Server {
	for _, server := range c.Nodes() {
		if server.name == name {
			return server
		}
	}
	panic("no node " + name)
}

// Server is one Postgres server that tests can break.
type Server struct {
	name  string
	disks map[DiskPart]disk // nil without Options.SmallDisks
	machine
}

// machine is what differs between a container and a process.
type machine interface {
	url(super bool) string
	direct(super bool) string
	kill(ctx context.Context) error
	start(ctx context.Context) error
	stop(ctx context.Context) error
	running(ctx context.Context) (bool, error)
	pause(ctx context.Context, paused bool) error
	connected(ctx context.Context, connected bool) error
	log(ctx context.Context) string
	run(ctx context.Context, user, script string) error
}

// Name is "coordinator" or the node's name.
func (s *Server) Name() string { return s.name }

// URL reaches the database as pgpact's role. It stays the same over Kill9 and Start.
func (s *Server) URL() string { return s.url(false) }

// SuperURL reaches the same database as the superuser.
func (s *Server) SuperURL() string { return s.url(true) }

// DirectURL is URL over the container's own address. There Disconnect is a silent black hole, a true partition, while over URL it resets
// the connections at once. "" where there is no such address.
func (s *Server) DirectURL() string { return s.direct(false) }

// Kill9 kills all of the server's processes with SIGKILL: what was flushed survives, nothing else.
func (s *Server) Kill9(t testing.TB) { t.Helper(); s.fault(t, "kill", s.kill) }

// Stop shuts the server down in order (fast shutdown).
func (s *Server) Stop(t testing.TB) { t.Helper(); s.fault(t, "stop", s.stop) }

// Start starts the server again, at the same address, and returns when it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.fault(t, "start", s.start)
	if err := s.answers(bound); err != nil {
		t.Fatalf("server %s was started and does not answer: %v\n%s", s.name, err, s.tail())
	}
}

// Pause freezes the server: connections stay open, new ones are accepted, nothing answers.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.fault(t, "pause", func(ctx context.Context) error { return s.pause(ctx, true) })
}

// Unpause ends Pause.
func (s *Server) Unpause(t testing.TB) {
	t.Helper()
	s.fault(t, "unpause", func(ctx context.Context) error { return s.pause(ctx, false) })
}

// Disconnect takes the server off the network while it runs on; see DirectURL. It skips the test in Processes mode, loudly.
func (s *Server) Disconnect(t testing.TB) {
	t.Helper()
	if CurrentMode() == Processes {
		t.Skip("SKIPPED: taking a server off the network needs containers")
	}
	s.fault(t, "disconnect", func(ctx context.Context) error { return s.connected(ctx, false) })
}

// Reconnect ends Disconnect; the server has its old addresses again.
func (s *Server) Reconnect(t testing.TB) {
	t.Helper()
	s.fault(t, "reconnect", func(ctx context.Context) error { return s.connected(ctx, true) })
	if err := s.answers(bound); err != nil {
		t.Fatalf("server %s is on the network again and does not answer: %v", s.name, err)
	}
}

func (s *Server) fault(t testing.TB, what string, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	if err := do(ctx); err != nil {
		t.Fatalf("%s server %s: %v", what, s.name, err)
	}
}

// Open connects as pgpact's role and closes the connection when the test ends.
func (s *Server) Open(t testing.TB) *pgx.Conn { t.Helper(); return Open(t, s.URL()) }

// OpenSuper connects as the superuser and closes the connection when the test ends.
func (s *Server) OpenSuper(t testing.TB) *pgx.Conn { t.Helper(); return Open(t, s.SuperURL()) }

// Open connects to a URL, within the bound, and closes the connection when the test ends.
func Open(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	t.Cleanup(func() { closeConn(conn) })
	return conn
}

// closeConn bounds what pgx does not: Close tells the server good-bye, and a paused one never reads it.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the connection is gone either way
}

// answers waits until a query is answered.
func (s *Server) answers(within time.Duration) error {
	return Poll(within, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, s.SuperURL())
		if err != nil {
			return err
		}
		defer closeConn(conn)
		return conn.QueryRow(ctx, "select 1").Scan(new(int))
	})
}

// Log is all that the server has written to its log, over all its lives.
func (s *Server) Log() string {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	return s.log(ctx)
}

// tail is the end of the server's log.
func (s *Server) tail() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return lastLines(s.log(ctx), 60)
}

func hostOf(address string) string {
	where, err := url.Parse(address)
	if err != nil {
		panic(err) // we have made it ourselves
	}
	return where.Host
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > n {
		lines = append([]string{fmt.Sprintf("(%d lines left out)", len(lines)-n)}, lines[len(lines)-n:]...)
	}
	return strings.Join(lines, "\n")
}

// logOnFailure shows the end of every server's log when the test has failed.
func (c *Cluster) logOnFailure(t testing.TB) {
	if !t.Failed() {
		return
	}
	for _, server := range c.servers {
		t.Logf("log of server %s ends:\n%s", server.name, server.tail())
	}
}
