//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// testBound is for conditions that hold at once on any machine that is not in trouble.
const testBound = 20 * time.Second

func binaries(t *testing.T) Binaries {
	t.Helper()
	b, err := Find("")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openDir is a directory that the account of root's children can pass, removed at the end.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgpact-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// open opens a set in dir, to be stopped at the end.
func open(t *testing.T, dir string, names ...string) *Set {
	t.Helper()
	set, err := OpenSet(t.Context(), SetConfig{Dir: dir, Binaries: binaries(t), Names: names})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return set
}

func start(t *testing.T, set *Set) {
	t.Helper()
	if err := set.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// query runs statements as the superuser and returns the last one's only value, "" if it has none.
func query(t *testing.T, s *Server, statements ...string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.SuperURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var value string
	for _, sql := range statements {
		value = ""
		results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if last := results[len(results)-1]; len(last.Rows) == 1 {
			value = string(last.Rows[0][0])
		}
	}
	return value
}

func TestStartStopStart(t *testing.T) {
	dir := openDir(t)
	set := open(t, dir, "a", "b")
	start(t, set)
	a := set.Server("a")
	query(t, a, "CREATE TABLE t (v text)", "INSERT INTO t VALUES ('kept')")
	port, pid := a.Port(), a.PID()
	if set.Server("b").Port() == port {
		t.Error("both servers on one port")
	}
	if group, err := syscall.Getpgid(pid); err != nil || group == syscall.Getpgrp() {
		t.Errorf("the postmaster is in our process group: Ctrl-C would reach it (%v)", err)
	}
	if set.Server("none") != nil {
		t.Error("a server that is not there was found")
	}

	// A context that has ended makes stopping ruder, not incomplete.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := set.Stop(ended); err != nil {
		t.Fatal(err)
	}
	if a.PID() != 0 || alive(pid) {
		t.Error("still running after Stop")
	}

	// A later life of the program.
	again := open(t, dir, "a", "b")
	start(t, again)
	if again.Server("a").Port() != port {
		t.Errorf("port %d became %d", port, again.Server("a").Port())
	}
	if got := query(t, again.Server("a"), "SELECT v FROM t"); got != "kept" {
		t.Errorf("data after a restart: %q", got)
	}
	if err := again.Server("a").Restart(t.Context()); err != nil || again.Server("a").Port() != port {
		t.Errorf("after Restart on port %d, %v", again.Server("a").Port(), err)
	}
}

// A crash of a node: nothing of it is left running, and a prepared transaction is there afterwards.
func TestKillAndStart(t *testing.T) {
	set := open(t, openDir(t), "a")
	start(t, set)
	a := set.Server("a")
	query(t, a, "CREATE TABLE t (v text)", "BEGIN; INSERT INTO t VALUES ('x'); PREPARE TRANSACTION 'g'")
	// A backend that is stopped does not notice by itself that its postmaster is gone.
	conn, err := pgx.Connect(t.Context(), a.SuperURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := syscall.Kill(int(conn.PgConn().PID()), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	family := append(children(a.PID()), a.PID())
	if len(family) < 3 {
		t.Fatalf("only processes %v found", family)
	}
	done := a.Done()
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if !noneAlive(family) || a.PID() != 0 {
		t.Errorf("of %v something is left", family)
	}
	select {
	case <-done:
	default:
		t.Error("Done is not closed after Kill returned")
	}
	port := a.Port()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Port() != port {
		t.Errorf("port %d became %d", port, a.Port())
	}
	if got := query(t, a, "COMMIT PREPARED 'g'", "SELECT v FROM t"); got != "x" {
		t.Errorf("after recovery: %q", got)
	}
}

func TestDirInUse(t *testing.T) {
	dir := openDir(t)
	set := open(t, dir, "a")
	_, err := OpenSet(t.Context(), SetConfig{Dir: dir, Binaries: binaries(t), Names: []string{"a"}})
	var inUse *DirInUseError
	if !errors.As(err, &inUse) || inUse.PID != fmt.Sprint(os.Getpid()) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
	if err := set.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	open(t, dir, "a")
}

// Servers copied from one template are different servers, to themselves and to pg_controldata.
func TestSystemIdentifiersDiffer(t *testing.T) {
	set := open(t, openDir(t), "a", "b")
	start(t, set)
	seen := make(map[string]string)
	for _, s := range set.Servers() {
		id := query(t, s, "SELECT system_identifier FROM pg_control_system()")
		if other, dup := seen[id]; dup || id == "" {
			t.Errorf("servers %s and %s are both %q", s.Name(), other, id)
		}
		seen[id] = s.Name()
		// Crash recovery reads the WAL and refuses what bears another identifier.
		query(t, s, "CREATE TABLE t (v text)", "INSERT INTO t VALUES ('x')")
		if err := errors.Join(s.Kill(), s.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
		if got := query(t, s, "SELECT v FROM t"); got != "x" {
			t.Errorf("after recovery: %q", got)
		}
	}
	cmd := command(t.Context(), set.config.Binaries, set.account, set.Server("a").data, "pg_controldata", "-D", set.Server("a").data)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "WARNING") || seen["a"] != "" {
		t.Errorf("pg_controldata: %v %s", err, out)
	}
}

// A remembered port that somebody else took meanwhile is given up.
func TestPortTaken(t *testing.T) {
	dir := openDir(t)
	set := open(t, dir, "a")
	start(t, set)
	a := set.Server("a")
	port := a.Port()
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", a.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Port() == port {
		t.Error("it says it is on a port that another listener has")
	}
	// Even when the port is taken between the look and the start.
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = a.startOn(t.Context(), port)
	var failed *startError
	if !errors.As(err, &failed) || !failed.transient() {
		t.Errorf("on a taken port: %v", err)
	}
}

func TestStartFailureTellsWhy(t *testing.T) {
	set, err := OpenSet(t.Context(), SetConfig{Dir: openDir(t), Binaries: binaries(t), Names: []string{"a"},
		Settings: map[string]string{"max_connections": "many"}})
	if err != nil {
		t.Fatal(err)
	}
	err = set.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "server a") || !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("got %v", err)
	}
	if err := set.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSettingsOverride(t *testing.T) {
	set, err := OpenSet(t.Context(), SetConfig{Dir: openDir(t), Binaries: binaries(t), Names: []string{"a"},
		Settings: map[string]string{"max_prepared_transactions": "7"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	start(t, set)
	for setting, want := range map[string]string{"max_prepared_transactions": "7", "max_connections": "300", "fsync": "on",
		"listen_addresses": "127.0.0.1", "server_encoding": "UTF8"} {
		if got := query(t, set.Server("a"), "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
}

func TestOtherMajorIsRefused(t *testing.T) {
	dir := openDir(t)
	set := open(t, dir, "a")
	if err := set.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "PG_VERSION"), []byte("11\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenSet(t.Context(), SetConfig{Dir: dir, Binaries: binaries(t), Names: []string{"a"}})
	if err == nil || !strings.Contains(err.Error(), "made by Postgres 11") {
		t.Errorf("got %v", err)
	}
}

// Only root meets this: its children are somebody else, and that somebody must be able to get there.
func TestClosedParentIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the account of the servers is ours")
	}
	closed := openDir(t)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := OpenSet(t.Context(), SetConfig{Dir: filepath.Join(closed, "x"), Binaries: binaries(t), Names: []string{"a"}})
	if err == nil || !strings.Contains(err.Error(), "chmod a+x "+closed) {
		t.Errorf("got %v", err)
	}
}

func TestCreateRoleAndDatabase(t *testing.T) {
	set := open(t, openDir(t), "a")
	start(t, set)
	a := set.Server("a")
	for range 2 {
		if err := a.CreateRoleAndDatabase(t.Context(), `odd "role`, "Data base"); err != nil {
			t.Fatal(err)
		}
	}
	got := query(t, a, `SELECT rolname || ' ' || rolsuper || ' ' || rolcanlogin FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE datname = 'Data base'`)
	if got != `odd "role false true` {
		t.Errorf("owner: %q", got)
	}
}

func TestNamesAreChecked(t *testing.T) {
	for _, names := range [][]string{nil, {""}, {"a", "a"}, {"../a"}, {"template"}, {"a b"}, {"-a"}} {
		if _, err := OpenSet(t.Context(), SetConfig{Dir: openDir(t), Binaries: binaries(t), Names: names}); err == nil {
			t.Errorf("names %q were accepted", names)
		}
	}
}
