package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
)

// testCluster is a migrated cluster of two nodes whose databases are on one
// server, and the addresses at which the superuser breaks them.
type testCluster struct {
	cfg   *Config
	super map[string]string // "coordinator", "a", "b"
}

func newTestCluster(t *testing.T, set *pgservertest.Set, migrated bool) *testCluster {
	t.Helper()
	c := &testCluster{cfg: defaultConfig(), super: map[string]string{}}
	c.cfg.ConnectTimeout = 3 * time.Second
	c.cfg.Coordinator.URL, c.super["coordinator"] = set.NewDatabase(t, "x")
	for _, name := range []string{"a", "b"} {
		url, super := set.NewDatabase(t, "x")
		c.cfg.Nodes = append(c.cfg.Nodes, NodeConfig{name, url})
		c.super[name] = super
	}
	if migrated {
		if err := migrate(t.Context(), c.cfg, slog.New(slog.DiscardHandler), func(string) {}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *testCluster) exec(t *testing.T, server, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.super[server])
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	// One message for each statement: PREPARE TRANSACTION and CREATE DATABASE do
	// not share one.
	for statement := range strings.SplitSeq(sql, ";") {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func (c *testCluster) inspect(ctx context.Context) []finding {
	return (&inspection{cfg: c.cfg, thorough: true}).run(ctx)
}

func TestFindings(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, c *testCluster)
		want  []string // what the lines begin with and hold, in order: "beginning ... held"
	}{
		{"healthy", func(*testing.T, *testCluster) {}, nil},
		{"addresses mixed up", func(t *testing.T, c *testCluster) {
			c.cfg.Nodes[0].URL, c.cfg.Nodes[1].URL = c.cfg.Nodes[1].URL, c.cfg.Nodes[0].URL
		}, []string{"node a: error: the server at ... calls itself node b", "node b: error: the server at ... calls itself node a"}},
		{"another cluster", func(t *testing.T, c *testCluster) {
			c.cfg.Coordinator.URL = newTestCluster(t, servers, true).cfg.Coordinator.URL
		}, []string{"node a: error: it belongs to cluster ... and the decision database to", "node b: error: it belongs to cluster ..."}},
		{"one database twice", func(t *testing.T, c *testCluster) {
			c.cfg.Nodes[1].URL = strings.Replace(c.cfg.Nodes[0].URL, "127.0.0.1", "localhost", 1)
		}, []string{"node b: error: the server at localhost: ... calls itself node a",
			"cluster: error: node a and node b are the same database of the same server ..."}},
		{"bucket count", func(t *testing.T, c *testCluster) { c.cfg.Buckets = 128 },
			[]string{"cluster: error: the cluster has 256 buckets and the configuration says 128 ... set buckets: 256"}},
		{"node left out", func(t *testing.T, c *testCluster) { c.cfg.Nodes = c.cfg.Nodes[:1] },
			[]string{"cluster: error: buckets are placed on node b, which is not configured ..."}},
		{"node down", func(t *testing.T, c *testCluster) { c.cfg.Nodes[1].URL = "postgres://u:s3cret@127.0.0.1:1/d" },
			[]string{"node b: warning: cannot connect to 127.0.0.1:1/d: ... connection refused"}},
		{"decision database down", func(t *testing.T, c *testCluster) { c.cfg.Coordinator.URL = "postgres://u@127.0.0.1:1/d" },
			[]string{"coordinator: error: cannot connect to 127.0.0.1:1/d: ... connection refused"}},
		{"never migrated", func(t *testing.T, c *testCluster) { *c = *newTestCluster(t, servers, false) },
			[]string{"coordinator: error: it was never migrated: run pgpact migrate ...",
				"node a: error: it was never migrated ...", "node b: error: it was never migrated ..."}},
		{"migrated by a newer program", func(t *testing.T, c *testCluster) {
			c.exec(t, "b", "INSERT INTO pgpact.goose_participant (version_id, is_applied) VALUES (99, true)")
		}, []string{"node b: error: its schema is at version 99, and this program knows only ... migrated by a newer pgpact"}},
		{"migration pending", func(t *testing.T, c *testCluster) {
			c.exec(t, "b", "DELETE FROM pgpact.goose_participant WHERE version_id > 1")
		}, []string{"node b: error: its schema is at version 1, and this program needs 3: run pgpact migrate ..."}},
		{"migration pending that makes a table", func(t *testing.T, c *testCluster) {
			c.exec(t, "coordinator", "DELETE FROM pgpact.goose_coordinator WHERE version_id > 6")
			c.exec(t, "coordinator", "DROP TABLE pgpact.login_secret")
		}, []string{"coordinator: error: its schema is at version 6, and this program needs 7: run pgpact migrate ..."}},
		{"privileges", func(t *testing.T, c *testCluster) {
			c.exec(t, "a", "REVOKE SELECT, INSERT ON pgpact.branches FROM pgpact")
			c.exec(t, "b", "REVOKE UPDATE ON accounts FROM pgpact")
			c.exec(t, "coordinator", "REVOKE DELETE ON pgpact.gate FROM pgpact")
		}, []string{
			"coordinator: error: role pgpact lacks DELETE on pgpact.gate: GRANT DELETE ON pgpact.gate TO \"pgpact\" ...",
			"node a: error: role pgpact lacks SELECT, INSERT on pgpact.branches ...",
			"node b: warning: role pgpact lacks UPDATE on \"public\".\"accounts\" ..."}},
		{"tables that differ", func(t *testing.T, c *testCluster) {
			c.exec(t, "a", "CREATE TABLE only_here (id int PRIMARY KEY)")
		}, []string{"cluster: warning: ... only_here"}},
		{"reference tables", func(t *testing.T, c *testCluster) {
			for _, node := range []string{"a", "b"} {
				for _, table := range []string{"alike", "unlike"} {
					c.exec(t, node, "CREATE TABLE "+table+" (x text, at timestamptz, CONSTRAINT pgpact_reference CHECK (true)); GRANT ALL ON "+table+" TO pgpact")
				}
			}
			c.exec(t, "a", "INSERT INTO alike VALUES ('x', 'epoch'), ('y', NULL); INSERT INTO unlike VALUES ('x'), ('y')")
			c.exec(t, "b", "INSERT INTO alike VALUES ('y', NULL), ('x', '1970-01-01 00:00+00'); INSERT INTO unlike VALUES ('x'), ('z')")
		}, []string{"node b: warning: reference table public.unlike is not the same on all nodes: 2 rows, checksum ... on node a; clients read any of them"}},
		{"stray rows", func(t *testing.T, c *testCluster) {
			// Each of the two is at home on one of the nodes at most.
			c.exec(t, "a", "INSERT INTO accounts VALUES ('alice', 1), ('erin', 1), ('acct-00001', 1), ('acct-00002', 1)")
			c.exec(t, "a", "DELETE FROM accounts WHERE pgpact.bucket(id) % 2 = 0")
		}, []string{"node a: warning: table public.accounts: ... belong to other nodes by their key"}},
		{"in doubt", func(t *testing.T, c *testCluster) {
			var id string
			if cl, err := readCluster(t.Context(), c.cfg); err != nil {
				t.Fatal(err)
			} else {
				id = cl.id
			}
			gid := "pgpact/" + id + "/7/1/a"
			c.exec(t, "a", "BEGIN; INSERT INTO accounts VALUES ('zoe', 1); PREPARE TRANSACTION '"+gid+"'")
			c.exec(t, "b", "BEGIN; INSERT INTO accounts VALUES ('zoe', 1); PREPARE TRANSACTION 'somebody''s "+id+"'")
			t.Cleanup(func() {
				// The server's own cleanup cannot wait for them.
				c.cleanup(c.super["a"], "ROLLBACK PREPARED '"+gid+"'")
				c.cleanup(c.super["b"], "ROLLBACK PREPARED 'somebody''s "+id+"'")
			})
		}, []string{"node a: warning: transaction pgpact/ ... has been in doubt for",
			"node b: note: prepared transaction \"somebody's ... is not of this cluster"}},
		{"damage", func(t *testing.T, c *testCluster) {
			c.exec(t, "a", "INSERT INTO pgpact.branches VALUES (7, 1, '{a,b}')")
			c.exec(t, "coordinator", "INSERT INTO pgpact.transactions (epoch, sequence, outcome, participants, role) VALUES (7, 1, 'committed', '{a,b}', 'x')")
		}, []string{"cluster: warning: DAMAGE: transaction 7/1 is decided (committed), and node b contradicts it (a: committed, b: lost): ... by hand"}},
		{"forced and long finished", func(t *testing.T, c *testCluster) {
			c.exec(t, "coordinator", `INSERT INTO pgpact.transactions (epoch, sequence, outcome, participants, role, finished_at, heuristic)
				VALUES (7, 2, 'aborted', '{}', 'x', now() - interval '1 year', 'aborted by force of me')`)
		}, []string{"cluster: warning: transaction 7/2 has an outcome that was forced (aborted): ... (aborted by force of me)"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newTestCluster(t, servers, true)
			test.spoil(t, c)
			got := c.inspect(t.Context())
			compareFindings(t, test.want, got)
			for _, f := range got {
				if strings.Contains(f.text, "s3cret") {
					t.Errorf("a password: %s", f)
				}
			}
		})
	}
}

func (c *testCluster) cleanup(url, sql string) {
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		return // the server's end will tell
	}
	defer closeConn(conn)
	_, _ = conn.Exec(context.Background(), sql)
}

// compareFindings wants as many findings as patterns, each in its place.
func compareFindings(t *testing.T, want []string, got []finding) {
	t.Helper()
	var lines []string
	for _, f := range got {
		lines = append(lines, f.String())
	}
	bad := len(lines) != len(want)
	for i := 0; i < min(len(want), len(lines)); i++ {
		beginning, held, _ := strings.Cut(want[i], " ...")
		bad = bad || !strings.HasPrefix(lines[i], beginning) || !strings.Contains(lines[i], strings.TrimSpace(held))
	}
	if bad {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// Servers set in ways that must be told, and with which serve does not start.
func TestFindingsOfBadSettings(t *testing.T) {
	set := pgservertest.Start(t, pgservertest.Options{Settings: map[string]string{
		"max_prepared_transactions": "0", "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off",
		"max_connections": "30",
	}}, "x")
	c := newTestCluster(t, set, true)
	common := func(server string) []string {
		return []string{server + ": error: fsync is off ...", server + ": warning: full_page_writes is off ...", server + ": note: synchronous_commit is off ..."}
	}
	node := func(server string) []string {
		return append(common(server), server+": warning: it lets this role have 27 connections, and this gateway may need 69 ...",
			server+": error: max_prepared_transactions is 0 ... set it to 64 or more and restart the server")
	}
	want := append(append(common("coordinator"), node("node a")...), node("node b")...)
	compareFindings(t, want, c.inspect(t.Context()))

	path := c.write(t)
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"serve", "--config", path}, &out, &errs); code != exitFailure ||
		!strings.Contains(errs.String(), "pgpact: node a: error: max_prepared_transactions is 0") ||
		!strings.Contains(errs.String(), "pgpact: not started, because promises could not be kept") || out.String() != "" {
		t.Errorf("serve: exit %d, %q, %q", code, out.String(), errs.String())
	}
}

// Fewer prepared transactions than slots is worth a warning, and no refusal.
func TestFewPreparedTransactions(t *testing.T) {
	c := newTestCluster(t, servers, true)
	c.cfg.Slots = 201
	for _, f := range c.inspect(t.Context()) {
		if strings.Contains(f.text, "max_prepared_transactions is 200, below the 201 slots") && f.severity == warning {
			return
		}
	}
	t.Error("not found")
}

func TestEncoding(t *testing.T) {
	c := newTestCluster(t, servers, true)
	c.exec(t, "a", "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 OWNER pgpact")
	conf, err := pgx.ParseConfig(c.cfg.Nodes[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	c.cfg.Nodes[0].URL = strings.Replace(c.cfg.Nodes[0].URL, "/"+conf.Database+"?", "/latin?", 1)
	want := "node a: error: the database's encoding is LATIN1, and must be UTF8"
	if got := c.inspect(t.Context()); len(got) == 0 || got[0].String() != want {
		t.Errorf("%v, want %s first", got, want)
	}
}

// write writes the cluster's configuration to a file.
func (c *testCluster) write(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "listen: 127.0.0.1:0\ncoordinator: {url: %q}\nnodes:\n", c.cfg.Coordinator.URL)
	for _, n := range c.cfg.Nodes {
		fmt.Fprintf(&b, "  - {name: %s, url: %q}\n", n.Name, n.URL)
	}
	path := filepath.Join(t.TempDir(), "pgpact.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The commands around it: migrate twice, check before and after, transactions.
func TestOperatorCommands(t *testing.T) {
	c := newTestCluster(t, servers, false)
	path := c.write(t)
	command := func(wantCode int, args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		if code := run(t.Context(), append(args, "--config", path), &out, &errs); code != wantCode {
			t.Errorf("%v: exit %d: %s%s", args, code, out.String(), errs.String())
		}
		return out.String()
	}
	if out := command(exitFailure, "check"); !strings.Contains(out, "never migrated") || !strings.HasSuffix(out, ": 3 errors\n") {
		t.Errorf("check before: %s", out)
	}
	command(exitFailure, "transactions")
	first := command(0, "migrate")
	for _, line := range []string{"coordinator database: version 0 to ", "node a: version 0 to ", "placed 256 buckets on a, b\n"} {
		if !strings.Contains(first, line) {
			t.Errorf("first migrate lacks %q: %s", line, first)
		}
	}
	if again := command(0, "migrate"); strings.Count(again, "up to date") != 3 || strings.Contains(again, "placed") {
		t.Errorf("second migrate: %s", again)
	}
	if out := command(0, "check"); out != "2 nodes and the coordinator's database: nothing is wrong\n" {
		t.Errorf("check after: %s", out)
	}
	if out := command(0, "transactions"); out != "nothing is in doubt or unfinished\n" {
		t.Errorf("transactions: %s", out)
	}
	if out := command(0, "transactions", "--json"); out != "[]\n" {
		t.Errorf("transactions --json: %s", out)
	}
	cl, err := readCluster(t.Context(), c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	gid := "pgpact/" + cl.id + "/7/1/b"
	c.exec(t, "b", "SET ROLE pgpact; BEGIN; INSERT INTO accounts VALUES ('zoe', 1); PREPARE TRANSACTION '"+gid+"'")
	t.Cleanup(func() { c.cleanup(c.super["b"], "ROLLBACK PREPARED '"+gid+"'") })
	if out := command(0, "transactions"); !strings.Contains(out, "7/1") || !strings.Contains(out, "b: prepared") || !strings.Contains(out, "unknown") {
		t.Errorf("transactions with one: %s", out)
	}
	if out := command(0, "transactions", "--json"); !strings.Contains(out, `"id": "7/1"`) || !strings.Contains(out, `"b": "prepared"`) {
		t.Errorf("transactions --json with one: %s", out)
	}
	for _, args := range [][]string{{"resolve"}, {"resolve", "7"}, {"resolve", "7/1", "--force"}, {"resolve", "7/1", "--commit", "--abort"}} {
		command(exitUsage, args...)
	}
	command(exitFailure, "resolve", "pgpact/another/7/1/b", "--abort")
	command(exitFailure, "resolve", gid, "--abort") // nobody knows the epoch
	if out := command(0, "resolve", gid, "--abort", "--force"); !strings.Contains(out, "7/1: aborted") || !strings.Contains(out, "finished on node b") ||
		!strings.Contains(out, "MAY BE BROKEN") {
		t.Errorf("resolve --force: %s", out)
	}
	for range 2 {
		if out := command(exitFailure, "check"); !strings.Contains(out, "7/1 has an outcome that was forced (aborted)") {
			t.Errorf("check after a forced outcome: %s", out)
		}
		command(0, "resolve", "7/1") // there is nothing more to do, and it stays named
	}
	if out := command(0, "transactions"); !strings.Contains(out, "7/1 was forced: ") {
		t.Errorf("transactions after a forced outcome: %s", out)
	}
}
