package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/integration/harness"
)

// fullVariable, when set, makes the tests of many connections run in full; make test has a small variant of each.
const fullVariable = "PGPACT_TEST_FULL"

func fullOr(small, full int) int {
	if os.Getenv(fullVariable) != "" {
		return full
	}
	return small
}

// TestIdleConnectionsOfTheProgram holds idle connections that have all been used and prints what each costs the process.
func TestIdleConnectionsOfTheProgram(t *testing.T) {
	count := fullOr(500, 2000)
	cluster := harness.NewCluster(t, harness.Options{})
	config := cluster.WriteConfig(t)
	harness.Migrate(t, config)
	gateway, url := harness.Serve(t, config)

	// The first client makes the process read catalogs and connect to nodes; that is no connection's share.
	if err := use(t.Context(), open(t, url)); err != nil {
		t.Fatal(err)
	}
	empty := usage(t, gateway)
	conns := make([]*pgconn.PgConn, count)
	for i := range conns {
		conns[i] = open(t, url)
		if err := use(t.Context(), conns[i]); err != nil {
			t.Fatal(err)
		}
	}
	held := usage(t, gateway)
	each := (held.rss - empty.rss) / int64(count)
	t.Logf("empty process: %s; with %d idle connections: %s; %d bytes per connection", empty, count, held, each)
	const limit = 64 << 10
	if each > limit {
		t.Errorf("%d bytes per idle connection, at most %d wanted", each, limit)
	}
	if fds := held.fds - empty.fds; fds > count+8 {
		t.Errorf("%d connections hold %d descriptors", count, fds)
	}
	for _, conn := range []*pgconn.PgConn{conns[0], conns[count/2], conns[count-1]} { // they are alive
		if err := use(t.Context(), conn); err != nil {
			t.Error(err)
		}
	}
}

// TestOpeningAndClosingConnections opens and closes connections in the ways clients do, and looks for what they leave behind.
func TestOpeningAndClosingConnections(t *testing.T) {
	count := fullOr(1000, 10_000)
	cluster := harness.NewCluster(t, harness.Options{})
	config := cluster.WriteConfig(t)
	harness.Migrate(t, config)
	gateway, url := harness.Serve(t, config)

	empty := usage(t, gateway)
	// A quarter first: heap and threads grow to what the concurrency needs, once.
	openAndClose(t, url, count/4)
	warm := settled(t, gateway, empty)
	openAndClose(t, url, count-count/4)
	after := settled(t, gateway, warm)
	t.Logf("empty process: %s; after %d connections: %s; after %d: %s", empty, count/4, warm, count, after)
	const allowance = 8 << 20 // the collector's to and fro; a leak of 1 KiB per connection would show
	if grown := after.rss - warm.rss; grown > allowance {
		t.Errorf("resident memory grew by %d bytes", grown)
	}
	if after.threads > warm.threads+4 {
		t.Errorf("%d threads, %d after the first quarter", after.threads, warm.threads)
	}
	if err := use(t.Context(), open(t, url)); err != nil {
		t.Error(err)
	}
}

// openAndClose opens connections, 32 at a time. A third says goodbye, a third vanishes in a transaction, a third never gets to a session.
func openAndClose(t *testing.T, url string, count int) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(32)
	for i := range count {
		group.Go(func() error {
			if i%3 == 2 {
				_, err := pgconn.Connect(ctx, url+"x") // no such database
				if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "3D000" {
					return fmt.Errorf("a wrong database: %w", err)
				}
				return nil
			}
			conn, err := pgconn.Connect(ctx, url)
			if err != nil {
				return err
			}
			if err := use(ctx, conn); err != nil {
				return err
			}
			if i%3 == 0 {
				return conn.Close(ctx)
			}
			if _, err := conn.Exec(ctx, "BEGIN; UPDATE accounts SET balance = balance WHERE id = 'alice'").ReadAll(); err != nil {
				return err
			}
			return conn.Conn().Close()
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, url string) *pgconn.PgConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// use runs a simple query, a prepared statement and a transaction over both nodes.
func use(ctx context.Context, conn *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT 1; BEGIN; SELECT count(*) FROM accounts WHERE id = 'alice'; SELECT count(*) FROM accounts WHERE id = 'bob'; COMMIT").ReadAll(); err != nil {
		return err
	}
	if _, err := conn.Prepare(ctx, "held", "SELECT balance FROM accounts WHERE id = $1", nil); err != nil {
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "42P05" { // used before
			return err
		}
	}
	return conn.ExecPrepared(ctx, "held", [][]byte{[]byte("alice")}, nil, nil).Read().Err
}

// processUsage is what Linux says of a process.
type processUsage struct {
	rss          int64
	fds, threads int
}

func (u processUsage) String() string {
	return fmt.Sprintf("%.1f MiB resident, %d descriptors, %d threads", float64(u.rss)/(1<<20), u.fds, u.threads)
}

func usage(t *testing.T, gateway *harness.Gateway) (u processUsage) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", gateway.PID())
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		name, value, _ := strings.Cut(line, ":")
		number, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			u.rss = number << 10
		case "Threads":
			u.threads = int(number)
		}
	}
	fds, err := os.ReadDir(dir + "fd")
	if err != nil || u.rss == 0 || u.threads == 0 {
		t.Fatalf("/proc of %d: %v, %+v", gateway.PID(), err, u)
	}
	u.fds = len(fds)
	return u
}

// settled waits until the connections' descriptors are gone. Those to the nodes may stay: they are kept for the next client.
func settled(t *testing.T, gateway *harness.Gateway, before processUsage) (now processUsage) {
	t.Helper()
	const toNodes = 2*64 + 16 // kept idle at most, and the gateway's own
	harness.Eventually(t, 20*time.Second, "the descriptors of closed connections are closed", func() error {
		if now = usage(t, gateway); now.fds > before.fds+toNodes {
			return fmt.Errorf("%s, before: %s", now, before)
		}
		return nil
	})
	return now
}
