//go:build unix

// Package pgservertest gives tests real Postgres servers, one line each:
//
//	set := pgservertest.StartForTest(t, "coordinator", "a", "b")
//	conn, err := pgx.Connect(ctx, set.URL("a"))
//
// Every server has a login role pgpact that is no superuser, and a database pgpact that it owns, as
// `pgpact demo` and a careful administrator would make them. Servers are stopped and their files removed
// when the test ends. Test packages that run at the same time share one initdb per machine and user.
//
// It is a package of its own so that `testing` is not linked into the program.
package pgservertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/internal/pgserver"
)

// Role and Database are what every server of a test has.
const (
	Role     = "pgpact"
	Database = "pgpact"
)

// Options change how the servers run.
type Options struct {
	// FsyncOff trades durability across a crash of the machine, which no test can make, for speed. Leave it
	// on where a test measures, or where it speaks of fsync.
	FsyncOff bool
	// Settings override the servers' settings.
	Settings map[string]string
}

// Set is a running pgserver.Set with the role and the database made.
type Set struct {
	*pgserver.Set
}

// StartForTest starts servers with these names and stops them when the test ends.
func StartForTest(tb testing.TB, names ...string) *Set {
	tb.Helper()
	return Start(tb, Options{}, names...)
}

// Start is StartForTest with options. A machine without Postgres fails the test rather than skipping it:
// a skipped test proves nothing and is not noticed.
func Start(tb testing.TB, options Options, names ...string) *Set {
	tb.Helper()
	set, stop, err := New(context.Background(), options, names...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			for _, server := range set.Servers() {
				tb.Logf("log of server %s ends:\n%s", server.Name(), logTail(server.LogFile()))
			}
		}
		if err := stop(); err != nil {
			tb.Error(err)
		}
	})
	return set
}

// New is for TestMain, where one set serves a whole package and no testing.TB exists. Call stop before
// os.Exit.
func New(ctx context.Context, options Options, names ...string) (_ *Set, stop func() error, err error) {
	binaries, err := pgserver.Find(os.Getenv("PGPACT_TEST_POSTGRES_BIN"))
	if err != nil {
		return nil, nil, err
	}
	template, err := pgserver.EnsureTemplate(ctx, binaries, templateDir(binaries))
	if err != nil {
		return nil, nil, err
	}
	dir, err := makeScratch()
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	set, err := pgserver.OpenSet(ctx, pgserver.SetConfig{
		Dir: dir, Binaries: binaries, Names: names, Settings: options.settings(binaries.Major), Template: template,
	})
	if err != nil {
		return nil, nil, firstOf(err, remove())
	}
	stop = func() error { return firstOf(set.Stop(context.Background()), remove()) }
	if err := startAll(ctx, set); err != nil {
		return nil, nil, firstOf(err, stop())
	}
	return &Set{Set: set}, stop, nil
}

func startAll(ctx context.Context, set *pgserver.Set) error {
	if err := set.Start(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, server := range set.Servers() {
		group.Go(func() error { return server.CreateRoleAndDatabase(ctx, Role, Database) })
	}
	return group.Wait()
}

func firstOf(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// templateDir is shared by all tests of this user with this version of Postgres.
func templateDir(b pgserver.Binaries) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("pgpact-template-%s-%d", b.Version, os.Geteuid()))
}

// settings keep crash recovery short: a package's tests make a hundred databases on one server, and after a
// kill it would replay how they were made, and sync each of their files by itself, for up to a minute.
func (o Options) settings(major int) map[string]string {
	settings := map[string]string{"max_wal_size": "64MB", "min_wal_size": "32MB"}
	if major >= 14 && runtime.GOOS == "linux" {
		settings["recovery_init_sync_method"] = "syncfs"
	}
	if o.FsyncOff {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	for key, value := range o.Settings {
		settings[key] = value
	}
	return settings
}

// URL connects to the server's database pgpact as its owner.
func (s *Set) URL(name string) string { return s.must(name).URL(Role, Database) }

// SuperURL connects to the same database as the superuser.
func (s *Set) SuperURL(name string) string { return s.must(name).SuperURL(Database) }

// must finds a server; a name that was not started is a mistake in the test.
func (s *Set) must(name string) *pgserver.Server {
	server := s.Server(name)
	if server == nil {
		panic(fmt.Sprintf("pgservertest: no server %q in this set", name))
	}
	return server
}

// NewDatabase makes an empty database, owned by pgpact, with a name of its own, and returns the URLs for its
// owner and for the superuser. It lets tests of a package share servers without sharing tables; prepared
// transactions are still listed for the whole server. It goes away with the server.
func (s *Set) NewDatabase(tb testing.TB, name string) (url, superURL string) {
	tb.Helper()
	ctx := context.Background()
	database := "t_" + strings.ToLower(rand.Text()[:12])
	server := s.must(name)
	conn, err := pgx.Connect(ctx, server.SuperURL("postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+database+" OWNER "+Role); err != nil {
		tb.Fatal(err)
	}
	return server.URL(Role, database), server.SuperURL(database)
}

func logTail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	const most = 4000
	if len(content) > most {
		content = content[len(content)-most:]
	}
	return string(content)
}
