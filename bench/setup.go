package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/internal/pgserver"
)

// bench is everything that is running.
type bench struct {
	opts    options
	dir     string
	pgbench string

	gateway string   // URL: pgpact, or the stand-in
	nodes   []string // URLs of the servers that hold the gateway's rows
	plain   string   // URL
	// coordinator is the URL of pgpact's decision database; "" in a self-test.
	coordinator string
	super       []string // superuser URLs of all servers with rows, for checkpoints
	demoConfig  string   // the text of the configuration that the demo writes
	secured     *secured // the second pair; nil without -secure

	keys pairs
	stop []func() error // in reverse order
}

const (
	role     = "pgpact"
	database = "pgpact"
)

// setUp starts both sides and fills them with the same rows. What it returns is to be torn down, also with an error.
func setUp(ctx context.Context, dir string, opts options) (*bench, error) {
	b := &bench{opts: opts, dir: dir}
	binaries, err := pgserver.Find(os.Getenv("PGPACT_POSTGRES_BINDIR"))
	if err != nil {
		return b, err
	}
	b.pgbench = filepath.Join(binaries.Dir, "pgbench")
	if _, err := os.Stat(b.pgbench); err != nil {
		if b.pgbench, err = exec.LookPath("pgbench"); err != nil {
			return b, errors.New("no pgbench beside the server or in PATH (Debian: postgresql)")
		}
	}
	names := []string{"plain"}
	if opts.selfTest {
		names = append(names, "standin")
	}
	if opts.secure {
		if b.secured, err = b.newSecured(ctx); err != nil {
			return b, err
		}
	}
	if err := b.startPlain(ctx, binaries, names); err != nil {
		return b, err
	}
	if !opts.selfTest {
		if err := b.startDemo(ctx, binaries); err != nil {
			return b, err
		}
	}
	if err := b.compareSettings(ctx); err != nil {
		return b, err
	}
	if err := b.fill(ctx); err != nil || !opts.secure {
		return b, err
	}
	return b, b.startSecured(ctx)
}

// demoSettings are what `pgpact demo` adds to the defaults of its servers, for several gateways. compareSettings fails when it is no longer so.
var demoSettings = map[string]string{"max_prepared_transactions": "600", "max_connections": "600"}

// startPlain starts servers with the very settings that `pgpact demo` starts its own with; with -secure it also speaks TLS.
func (b *bench) startPlain(ctx context.Context, binaries pgserver.Binaries, names []string) error {
	settings := maps.Clone(demoSettings)
	if b.secured != nil {
		settings["ssl"] = "on"
	}
	set, err := pgserver.OpenSet(ctx, pgserver.SetConfig{Dir: filepath.Join(b.dir, "plain"), Binaries: binaries, Names: names, Settings: settings})
	if err != nil {
		return err
	}
	b.stop = append(b.stop, func() error { return set.Stop(context.Background()) })
	if b.secured != nil {
		if err := b.secured.guard(set.Server("plain").DataDir()); err != nil {
			return err
		}
	}
	if err := set.Start(ctx); err != nil {
		return err
	}
	for _, server := range set.Servers() {
		if err := server.CreateRoleAndDatabase(ctx, role, database); err != nil {
			return err
		}
		b.super = append(b.super, server.SuperURL(database))
	}
	b.plain = set.Server("plain").URL(role, database)
	if b.secured != nil {
		b.secured.plain = b.secured.url(set.Server("plain").Addr())
	}
	if standIn := set.Server("standin"); standIn != nil {
		b.gateway = standIn.URL(role, database)
		b.nodes = []string{b.gateway}
	}
	return nil
}

var anyURL = regexp.MustCompile(`postgres(?:ql)?://[^\s"']+`)

// startDemo starts `pgpact demo` and learns its addresses: the gateway's from the ready line, the servers' from the configuration it writes.
func (b *bench) startDemo(ctx context.Context, binaries pgserver.Binaries) error {
	data := filepath.Join(b.dir, "demo")
	// Not our context: it stops after pgbench, by tearDown.
	demo := b.program(context.WithoutCancel(ctx), "demo", "--listen", "127.0.0.1:0", "--nodes", "2", "--data", data, "--accounts", "100")
	demo.Env = append(demo.Env, "PATH="+binaries.Dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	var err error
	if b.gateway, err = b.serve(ctx, demo); err != nil {
		return err
	}
	b.demoConfig = readFile(filepath.Join(data, "pgpact.yaml"))
	return b.findNodes(ctx, b.demoConfig)
}

// findNodes asks every server that the configuration names whether it is a node.
func (b *bench) findNodes(ctx context.Context, configuration string) error {
	for _, url := range slices.Compact(slices.Sorted(slices.Values(anyURL.FindAllString(configuration, -1)))) {
		var isNode, isCoordinator bool
		err := query(ctx, url, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `select to_regclass('pgpact.node') is not null, to_regclass('pgpact.buckets') is not null`).
				Scan(&isNode, &isCoordinator)
		})
		if err != nil {
			return err
		}
		if isCoordinator {
			b.coordinator = url
		}
		if isNode {
			b.nodes = append(b.nodes, url)
			b.super = append(b.super, asRole(url, pgserver.Superuser))
		}
	}
	if len(b.nodes) != 2 || b.coordinator == "" {
		return fmt.Errorf("the demo's configuration names %d nodes, want 2, and coordinator %q", len(b.nodes), b.coordinator)
	}
	return nil
}

// asRole is a URL of the demo's own role with another one in its place.
func asRole(url, other string) string {
	return strings.Replace(url, "://"+role+"@", "://"+other+"@", 1)
}

// compareSettings refuses to compare servers that are not set alike. Names, ports and paths may differ, nothing that costs time. With -secure
// the plain server has ssl on, which costs those nothing who connect without, and the nodes, which only the gateways talk to, have not.
func (b *bench) compareSettings(ctx context.Context) error {
	read := func(url string) (map[string]string, error) {
		settings := map[string]string{}
		err := query(ctx, url, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, `select name, setting from pg_settings
				where category not like 'Preset%' and category not like 'File Locations%'
				and context <> 'internal' and name not in ('port', 'cluster_name', 'application_name', 'transaction_read_only',
					'unix_socket_directories', 'log_filename', 'log_line_prefix', 'log_directory')`)
			if err != nil {
				return err
			}
			var name, value string
			_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error { settings[name] = value; return nil })
			return err
		})
		return settings, err
	}
	want, err := read(b.plain)
	if err != nil {
		return err
	}
	for _, node := range b.nodes {
		have, err := read(node)
		if err != nil {
			return err
		}
		for name, value := range want {
			if name == "ssl" && b.secured != nil && value == "on" && have[name] == "off" {
				continue
			}
			if have[name] != value {
				return fmt.Errorf("the sides are not alike: %s is %q on the plain server and %q on a node", name, value, have[name])
			}
		}
	}
	if want["fsync"] != "on" || want["synchronous_commit"] != "on" || want["full_page_writes"] != "on" {
		return errors.New("fsync, synchronous_commit and full_page_writes must be on")
	}
	return nil
}

func (b *bench) tearDown() error {
	var errs []error
	for _, stop := range slices.Backward(b.stop) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// query opens a connection for one piece of work.
func query(ctx context.Context, url string, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(conn)
}
