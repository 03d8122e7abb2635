package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/migrations"
)

// Whatever the number of nodes, everybody named has a home, every node has
// somebody, and alice and bob live apart.
func TestSampleData(t *testing.T) {
	for nodes := 1; nodes <= maxDemoNodes; nodes++ {
		names := (&demoState{Nodes: nodes}).nodeNames()
		owners := migrations.EvenPlacement(names, defaultConfig().Buckets)
		s := sampleData(owners, 1000)
		if nodes > 1 && ownerOf(owners, "alice") == ownerOf(owners, "bob") {
			t.Errorf("%d nodes: alice and bob live together", nodes)
		}
		seen := map[string]bool{}
		for _, name := range names {
			named := 0
			for _, id := range s.ids[name] {
				if seen[id] {
					t.Errorf("%d nodes: %s twice", nodes, id)
				}
				seen[id] = true
				if !strings.HasPrefix(id, "acct-") {
					named++
				}
			}
			if named == 0 || len(s.skus[name]) == 0 {
				t.Errorf("%d nodes: node %s has %d named people and %d articles", nodes, name, named, len(s.skus[name]))
			}
			if fair := 1000 / nodes; len(s.ids[name]) < fair/2 || len(s.ids[name]) > 2*fair+10 {
				t.Errorf("%d nodes: node %s has %d accounts of about %d", nodes, name, len(s.ids[name]), fair)
			}
		}
		if len(seen) != s.accounts || !seen["acct-00001"] || !seen["acct-01000"] {
			t.Errorf("%d nodes: %d accounts, counted as %d", nodes, len(seen), s.accounts)
		}
	}
}

// demoProcess is a running `pgpact demo`.
type demoProcess struct {
	cmd    *exec.Cmd
	url    string // of the ready line
	stdout *lockedBuffer
	stderr *lockedBuffer
	ended  chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// demoDir is a directory that the servers' account can pass, unlike t.TempDir.
func demoDir(t *testing.T) string {
	t.Helper()
	above, err := os.MkdirTemp("", "pgpact-demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(above) })
	if err := os.Chmod(above, 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(above, "data")
}

var readyLine = regexp.MustCompile(`(?m)^ready: (postgres://\S+)$`)

// startDemo starts a demo and waits until it is ready.
func startDemo(t *testing.T, dir string, args ...string) *demoProcess {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &demoProcess{stdout: &lockedBuffer{}, stderr: &lockedBuffer{}, ended: make(chan struct{})}
	d.cmd = exec.Command(program, append([]string{"demo", "--data", dir, "--listen", "127.0.0.1:0"}, args...)...)
	d.cmd.Env = append(os.Environ(), asProgram+"=1")
	d.cmd.Stderr = d.stderr
	d.cmd.WaitDelay = 10 * time.Second // servers that outlive a killed demo hold its output open for a moment
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			_, _ = d.stdout.Write([]byte(lines.Text() + "\n"))
			if found := readyLine.FindStringSubmatch(lines.Text()); found != nil {
				select {
				case ready <- found[1]:
				default: // of further gateways
				}
			}
		}
		_ = d.cmd.Wait() // how it ended is in ProcessState
		close(d.ended)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		d.wait(t)
		if t.Failed() {
			t.Logf("demo wrote:\n%s%s", d.stdout, d.stderr)
		}
	})
	select {
	case d.url = <-ready:
	case <-d.ended:
		t.Fatalf("demo ended: %s%s", d.stdout, d.stderr)
	case <-time.After(time.Minute):
		t.Fatalf("demo is not ready: %s%s", d.stdout, d.stderr)
	}
	return d
}

// wait waits for the process's end.
func (d *demoProcess) wait(t *testing.T) {
	t.Helper()
	select {
	case <-d.ended:
	case <-time.After(40 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.ended
		t.Errorf("demo did not end")
	}
}

func (d *demoProcess) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	d.wait(t)
}

// query asks at an address, in the simple protocol, and returns the first
// column of all rows.
func query(t *testing.T, url, sql string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	defer closeConn(conn)
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var values []string
	for _, result := range results {
		for _, row := range result.Rows {
			values = append(values, string(row[0]))
		}
	}
	return values
}

const transfer = `BEGIN; UPDATE accounts SET balance = balance - 100 WHERE id = 'alice';
	UPDATE accounts SET balance = balance + 100 WHERE id = 'bob'; COMMIT`

// balances asks the nodes themselves, by the addresses in DIR/pgpact.yaml.
func balances(t *testing.T, dir string) (alice, bob string) {
	t.Helper()
	cfg, err := loadConfig(filepath.Join(dir, demoConfigName), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range cfg.Nodes {
		for _, found := range query(t, node.URL, "SELECT id || balance FROM accounts WHERE id IN ('alice', 'bob')") {
			switch {
			case strings.HasPrefix(found, "alice"):
				alice += node.Name + strings.TrimPrefix(found, "alice")
			default:
				bob += node.Name + strings.TrimPrefix(found, "bob")
			}
		}
	}
	return alice, bob
}

func wantBalances(t *testing.T, dir, alice, bob string) {
	t.Helper()
	if gotAlice, gotBob := balances(t, dir); gotAlice != alice || gotBob != bob {
		t.Errorf("on the nodes: alice %s, bob %s; want %s, %s", gotAlice, gotBob, alice, bob)
	}
}

// noServers wants every server of the directory's configuration gone.
func noServers(t *testing.T, dir string) {
	t.Helper()
	cfg, err := loadConfig(filepath.Join(dir, demoConfigName), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{cfg.Coordinator.URL, cfg.Nodes[0].URL, cfg.Nodes[1].URL} {
		conf, err := pgconn.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		_, address := pgconn.NetworkAddress(conf.Host, conf.Port)
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			conn.Close()
			t.Errorf("a server still listens on %s", address)
		}
	}
}

// The life of a demo: made, used, stopped, started again, killed, started
// again, and refused where it must be.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := demoDir(t)
	d := startDemo(t, dir, "--accounts", "20")
	if got := strings.Join(query(t, d.url, "SELECT balance FROM accounts WHERE id = 'alice'; SELECT balance FROM accounts WHERE id = 'bob'"), " "); got != "1000 1000" {
		t.Errorf("alice and bob begin with %s", got)
	}
	if got := query(t, d.url, "SELECT id FROM accounts"); len(got) != 22 {
		t.Errorf("%d accounts, want 22", len(got))
	}
	query(t, d.url, transfer)
	wantBalances(t, dir, "a900", "b1100")

	path := filepath.Join(dir, demoConfigName)
	for _, command := range []string{"check", "transactions"} {
		var out, errs strings.Builder
		if code := run(t.Context(), []string{command, "--config", path}, &out, &errs); code != 0 {
			t.Errorf("%s: exit %d: %s%s", command, code, &out, &errs)
		}
	}
	refuseDemo(t, "in use by another pgpact", "--data", dir, "--listen", "127.0.0.1:0")
	refuseDemo(t, "give another address with --listen", "--data", demoDir(t), "--listen", strings.Split(strings.Split(d.url, "@")[1], "/")[0])

	d.signal(t, syscall.SIGTERM)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("SIGTERM: %v", d.cmd.ProcessState)
	}
	if strings.Count(d.stdout.String(), "ready: ") != 1 || !strings.Contains(d.stdout.String(), "psql "+d.url+"\n") {
		t.Errorf("output: %s", d.stdout)
	}
	noServers(t, dir)
	refuseDemo(t, "holds a demo with 2 nodes, not 3", "--data", dir, "--nodes", "3", "--listen", "127.0.0.1:0")

	d = startDemo(t, dir)
	wantBalances(t, dir, "a900", "b1100")
	query(t, d.url, transfer)
	d.signal(t, syscall.SIGKILL)

	d = startDemo(t, dir, "--nodes", "2")
	wantBalances(t, dir, "a800", "b1200")
	d.signal(t, syscall.SIGINT)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("SIGINT: %v", d.cmd.ProcessState)
	}
	noServers(t, dir)
}

// refuseDemo wants a demo that does not start, and says why.
func refuseDemo(t *testing.T, why string, args ...string) {
	t.Helper()
	var out, errs strings.Builder
	if code := run(t.Context(), append([]string{"demo"}, args...), &out, &errs); code == 0 ||
		!strings.Contains(errs.String(), why) || out.String() != "" {
		t.Errorf("demo %v: exit %d, %s%s; want a refusal with %q", args, code, &out, &errs, why)
	}
}

// A demo that kills itself after the decision is written has committed, though
// no node knows it: the next start finishes it.
func TestDemoCrashAt(t *testing.T) {
	t.Parallel()
	dir := demoDir(t)
	d := startDemo(t, dir, "--accounts", "0", "--crash-at", "decided")
	conn, err := pgx.Connect(t.Context(), d.url)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	_, err = conn.PgConn().Exec(t.Context(), transfer).ReadAll()
	var answered *pgconn.PgError
	if err == nil || errors.As(err, &answered) {
		t.Errorf("the transfer was answered: %v", err)
	}
	d.wait(t)
	if status := d.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("demo ended with %v", d.cmd.ProcessState)
	}
	startDemo(t, dir)
	deadline := time.After(15 * time.Second)
	for {
		if alice, bob := balances(t, dir); alice == "a900" && bob == "b1100" {
			return
		}
		select {
		case <-deadline:
			alice, bob := balances(t, dir)
			t.Fatalf("after 15 s: alice %s, bob %s", alice, bob)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A session in the middle of a transaction holds a stop up until drain_timeout,
// or until the second signal; two signals at once are one.
func TestSecondSignalHurries(t *testing.T) {
	t.Parallel()
	dir := demoDir(t)
	d := startDemo(t, dir, "--accounts", "0", "--nodes", "1", "--log-level", "info")
	conn, err := pgx.Connect(t.Context(), d.url)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; UPDATE accounts SET balance = 0").ReadAll(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 2 {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	again := time.After(sameWish + 100*time.Millisecond)
	select {
	case <-d.ended:
		t.Fatalf("an open transaction was not waited for: %s", d.stderr)
	case <-again:
	}
	d.signal(t, syscall.SIGTERM)
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("took %s, the drain's timeout is 10 s", took)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%v", d.cmd.ProcessState)
	}
	d = startDemo(t, dir)
	if got := query(t, d.url, "SELECT balance FROM accounts WHERE id = 'alice'"); len(got) != 1 || got[0] != "1000" {
		t.Errorf("the transaction was not rolled back: %v", got)
	}
}

func TestDemoWithoutPostgres(t *testing.T) {
	refuseDemo(t, "install them (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17) or name their directory with --postgres-bin",
		"--postgres-bin", "/nonexistent", "--data", demoDir(t))
}
