package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
)

// userLine has `pgpact user` make a line for the configuration.
func userLine(t *testing.T, name, password string) string {
	t.Helper()
	root := newRootCommand()
	var out strings.Builder
	root.SetArgs([]string{"user", name})
	root.SetIn(strings.NewReader(password + "\n"))
	root.SetOut(&out)
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestUserCommand(t *testing.T) {
	for _, name := range []string{"alice", "Odd 'name': #1", "no", "12"} {
		line := userLine(t, name, "s3cret pässword")
		if strings.Contains(line, "s3cret") || line == userLine(t, name, "s3cret pässword") {
			t.Errorf("%s", line)
		}
		cfg, err := parseConfig("c.yaml", []byte(minimal+"auth: scram-sha-256\nverifiers:\n"+line), nil)
		if err != nil || cfg.Verifiers[name].IsZero() {
			t.Errorf("%s: %v", line, err)
		}
	}
	for in, want := range map[string]string{"": "no password on standard input", "\n": "an empty password is none", "a\x00b\n": "zero byte"} {
		if _, err := askPassword(strings.NewReader(in), nil, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// guarded is a gateway in this process, over servers on which its role has the
// least there is.
type guarded struct {
	*testCluster
	address, root string
}

// startGuarded makes the roles and tables, gives the gateway's role what `pgpact
// migrate --grant` gives it, and serves.
func startGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{testCluster: newTestCluster(t, servers, false)}
	dir := t.TempDir()
	authority := pgservertest.NewAuthority(t)
	authority.IssueFiles(t, dir, "gateway", "gateway", "127.0.0.1")
	g.root = authority.File(t, dir, "root.crt")
	g.exec(t, "a", "DROP ROLE IF EXISTS carol; DROP ROLE IF EXISTS dora; DROP ROLE IF EXISTS least; CREATE ROLE carol; "+
		"CREATE ROLE dora LOGIN PASSWORD 'doras'; CREATE ROLE least LOGIN")
	var b strings.Builder
	fmt.Fprintf(&b, "listen: 127.0.0.1:0\nrules:\n- {type: hostssl, database: all, user: all, address: 127.0.0.0/8, method: scram-sha-256}\n"+
		"tls: {cert: gateway.crt, key: gateway.key}\nusers: [carol, dora]\nauth_query: SELECT pgpact_auth.verifier($1)\n"+
		"verifiers:\n%scoordinator: {url: %q}\nnodes:\n", userLine(t, "carol", "carols"), asRole(g.cfg.Coordinator.URL, "least"))
	for _, n := range g.cfg.Nodes {
		fmt.Fprintf(&b, "  - {name: %s, url: %q}\n", n.Name, asRole(n.URL, "least"))
	}
	path := filepath.Join(dir, "pgpact.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it can be run again
		var out, errs strings.Builder
		if code := run(t.Context(), []string{"migrate", "--config", path, "--grant", "--admin", "postgres"}, &out, &errs); code != 0 ||
			strings.Count(out.String(), "role least has what a gateway needs") != 3 {
			t.Fatalf("migrate --grant: %d %s%s", code, &out, &errs)
		}
	}
	for _, node := range []string{"a", "b"} {
		g.exec(t, node, "GRANT SELECT, INSERT, UPDATE ON accounts TO carol, dora")
	}
	cfg, err := loadConfig(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range inspect(t.Context(), cfg, true) {
		if f.severity == danger {
			t.Errorf("check: %s", f)
		}
	}
	s, err := startService(t.Context(), cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.serve(asked, context.Background(), ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		// Roles are the server's, and the databases are gone only after this.
		for _, server := range []string{"coordinator", "a", "b"} {
			g.cleanup(g.super[server], "DROP OWNED BY carol, dora, least")
		}
		g.cleanup(g.super["a"], "DROP ROLE carol, dora, least")
	})
	g.address = ln.Addr().String()
	return g
}

func (g *guarded) url(user, password, options string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/?%s", user, password, g.address, options)
}

// TestLeastPrivilege runs the whole program as its administrators should: SCRAM
// and TLS, users in the configuration and in Postgres, and a role for the gateway
// that is no superuser and owns nothing.
func TestLeastPrivilege(t *testing.T) {
	g := startGuarded(t)
	secure := "sslmode=verify-full&sslrootcert=" + g.root
	database := g.cfg.Nodes[0].URL[strings.LastIndex(g.cfg.Nodes[0].URL, "/")+1:]
	database, _, _ = strings.Cut(database, "?")
	at := func(user, password, options string) string {
		return strings.Replace(g.url(user, password, options), "/?", "/"+database+"?", 1)
	}
	for user, password := range map[string]string{"carol": "carols", "dora": "doras"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "psql", "-X", "-w", "-At", at(user, password, secure+"&channel_binding=require"), "-c", "SELECT current_user").CombinedOutput()
		if err != nil || string(out) != user+"\n" {
			t.Errorf("psql as %s: %v %s", user, err, out)
		}
		conn, err := pgx.Connect(ctx, at(user, password, secure))
		if err != nil {
			t.Errorf("pgx as %s: %v", user, err)
			continue
		}
		// Both nodes: prepare, decide, commit prepared, all with the least privileges.
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			for i := range 20 {
				if _, err := tx.Exec(ctx, "INSERT INTO accounts VALUES ($1, 1)", fmt.Sprintf("%s-%d", user, i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s over two nodes: %v", user, err)
		}
		if _, err := conn.Exec(ctx, "DELETE FROM accounts"); serverCode(err) != "42501" {
			t.Errorf("%s may delete: %v", user, err)
		}
		_ = conn.Close(ctx)
	}
	for name, tc := range map[string]struct{ url, code string }{
		"wrong password":                  {at("dora", "carols", secure), "28P01"},
		"unknown user":                    {at("eve", "x", secure), "28P01"},
		"a role that cannot log in there": {at("postgres", "x", secure), "28P01"},
		"the gateway's own":               {at("least", "x", secure), "28P01"},
		"plaintext":                       {at("dora", "doras", "sslmode=disable"), "28000"},
		"another database":                {strings.Replace(at("dora", "doras", secure), "/"+database, "/nowhere", 1), "3D000"},
	} {
		if conn, err := pgx.Connect(t.Context(), tc.url); err == nil {
			_ = conn.Close(t.Context())
			t.Errorf("%s: connected", name)
		} else if serverCode(err) != tc.code {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}
	super := ""
	conn, err := pgx.Connect(t.Context(), g.super["a"])
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	err = conn.QueryRow(t.Context(), `SELECT (rolsuper OR rolinherit)::text || count(c.oid) FROM pg_roles r
		LEFT JOIN pg_class c ON c.relowner = r.oid WHERE rolname = 'least' GROUP BY r.rolsuper, r.rolinherit`).Scan(&super)
	if err != nil || super != "false0" {
		t.Errorf("the gateway's role is a superuser, inherits, or owns something: %s, %v", super, err)
	}
}

func serverCode(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}
