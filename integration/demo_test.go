package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestDemo is a newcomer's first quarter of an hour: the README's statements through a real psql, looked at on the nodes themselves; the
// demo is stopped, started, killed in the middle of a transfer, and started again.
func TestDemo(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip("SKIPPED: psql is not installed")
	}
	demo := &demo{data: harness.DataDir(t)}
	demo.start(t)
	must(t, demo.balances(1000, 1000))
	// The README's own lines: a transfer, and one that fails.
	output := demo.psql(t, readmeStatements(t))
	if !strings.Contains(output, "accounts_balance_check") || !strings.Contains(output, "ROLLBACK") {
		t.Errorf("psql saw no failed transfer:\n%s", output)
	}
	if table := regexp.MustCompile(`alice \| +900\b(?s:.*)bob +\| +1100\b|bob +\| +1100\b(?s:.*)alice \| +900\b`); !table.MatchString(output) {
		t.Errorf("psql saw other balances:\n%s", output)
	}
	must(t, demo.balances(900, 1100))
	demo.psql(t, "BEGIN; "+move("alice", -300)+"; "+move("bob", 300)+"; ROLLBACK;")
	must(t, demo.balances(900, 1100))

	demo.stop(t)
	demo.start(t)
	must(t, demo.balances(900, 1100))

	// kill -9 at a quiet moment, and at the worst one.
	demo.gateway.Kill9(t)
	demo.start(t, "--crash-at", "decided")
	must(t, demo.balances(900, 1100))
	if output := demo.psql(t, move("alice", -50)+"; "+move("bob", 50)+";"); strings.Contains(output, "ERROR") {
		t.Error(output)
	}
	demo.psql(t, "BEGIN;\n"+move("alice", -100)+";\n"+move("bob", 100)+";\nCOMMIT;\n")
	dies(t, demo.gateway)
	demo.start(t)
	harness.Eventually(t, settleBound, "the decided transfer after kill -9", func() error { return demo.balances(750, 1250) })
	nodes, err := demo.nodes()
	must(t, err)
	for name, address := range nodes {
		if gids := mustColumn[string](t, address, "select gid from pg_prepared_xacts"); len(gids) > 0 {
			t.Errorf("node %s: prepared: %v", name, gids)
		}
	}
	demo.stop(t)
}

// demo is one data directory and the demo that runs on it.
type demo struct {
	data    string
	gateway *harness.Gateway
	url     string
}

func (d *demo) start(t *testing.T, args ...string) {
	t.Helper()
	d.gateway = harness.Start(t, append([]string{"demo", "--data", d.data, "--listen", "127.0.0.1:" + harness.FreePort(t)}, args...)...)
	d.url = d.gateway.WaitReady(t)
}

// stop ends the demo as Ctrl-C and SIGTERM do, and wants no server to outlive it.
func (d *demo) stop(t *testing.T) {
	t.Helper()
	pids := d.servers(t)
	if len(pids) != 3 {
		t.Errorf("%d servers run, want coordinator and two nodes", len(pids))
	}
	if exit := d.gateway.Stop(t); exit != (harness.Exit{}) {
		t.Errorf("SIGTERM: %v, want exit status 0", exit)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("server process %d has outlived the demo", pid)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(d.data, "*", "postmaster.pid")); len(files) > 0 {
		t.Errorf("not shut down: %v", files)
	}
}

// servers are the processes of the Postgres servers under the data directory.
func (d *demo) servers(t *testing.T) (pids []int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.data, "*", "postmaster.pid"))
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		first, _, _ := strings.Cut(string(text), "\n")
		pid, err := strconv.Atoi(first)
		must(t, err)
		pids = append(pids, pid)
	}
	return pids
}

// psql feeds a script to psql as a person would paste it, and returns all it prints.
func (d *demo) psql(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "psql", "--no-psqlrc", "--echo-all", d.url)
	command.Stdin = strings.NewReader(script)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	_ = command.Run() // a lost connection is among what is tried
	return output.String()
}

// readmeStatements are the SQL lines that the README tells people to try.
func readmeStatements(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), "README.md"))
	must(t, err)
	_, rest, found := strings.Cut(string(text), "```sql\n")
	statements, _, closed := strings.Cut(rest, "```")
	if !found || !closed || !strings.Contains(statements, "COMMIT") {
		t.Fatalf("the README's first SQL is %q", statements)
	}
	return statements
}

var nodeEntry = regexp.MustCompile(`(?m)^ +- name: (\S+)\n +url: (\S+)$`)

// nodes are the addresses that the demo has written down for everybody to look with their own eyes.
func (d *demo) nodes() (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(d.data, "pgpact.yaml"))
	if err != nil {
		return nil, err
	}
	nodes := map[string]string{}
	for _, entry := range nodeEntry.FindAllStringSubmatch(string(text), -1) {
		nodes[entry[1]] = entry[2]
	}
	if len(nodes) != 2 {
		return nil, fmt.Errorf("pgpact.yaml names nodes %v:\n%s", nodes, text)
	}
	return nodes, nil
}

// balances asks the nodes for alice and bob, who live on different ones.
func (d *demo) balances(alice, bob int64) error {
	nodes, err := d.nodes()
	if err != nil {
		return err
	}
	var found []string
	for name, address := range nodes {
		rows, err := column[string](address, "select id || ' ' || balance from accounts where id in ('alice', 'bob')")
		if err != nil {
			return err
		}
		if len(rows) != 1 {
			return fmt.Errorf("node %s has %v, want either alice or bob", name, rows)
		}
		found = append(found, rows...)
	}
	slices.Sort(found)
	if want := []string{fmt.Sprintf("alice %d", alice), fmt.Sprintf("bob %d", bob)}; !slices.Equal(found, want) {
		return fmt.Errorf("the nodes have %v, want %v", found, want)
	}
	return nil
}
