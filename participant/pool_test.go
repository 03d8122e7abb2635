package participant_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// use takes a connection with the settings, runs sql on it and gives it back; the connection's process id.
func use(t *testing.T, node *participant.Node, settings participant.Settings, sql string) uint32 {
	t.Helper()
	b, err := node.NewBranch(t.Context(), settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	must(t, b, sql)
	return b.Conn().PID()
}

func TestPoolPrefersTheSettingsKey(t *testing.T) {
	_, node := newNode(t, nil)
	german := participant.NewSettings(map[string]string{"datestyle": "German"})
	big := participant.NewSettings(map[string]string{"work_mem": "8MB"})
	pids := map[string]uint32{}
	var branches []*participant.Branch
	for _, s := range []participant.Settings{german, big, {}} { // three at the same time
		b, err := node.NewBranch(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		branches = append(branches, b)
		pids[s.Key()] = b.Conn().PID()
	}
	if s := node.Stats(); s.InUse != 3 || s.Idle != 0 {
		t.Errorf("%+v", s)
	}
	for _, b := range branches {
		b.Release()
	}
	if s := node.Stats(); s.InUse != 0 || s.Idle != 3 {
		t.Errorf("%+v", s)
	}
	for range 3 {
		for _, s := range []participant.Settings{german, {}, big} {
			if pid := use(t, node, s, "SELECT 1"); pid != pids[s.Key()] {
				t.Errorf("settings %q got another connection", s.Key())
			}
		}
	}
	// None fits: the one used last, changed.
	if pid := use(t, node, big.With("datestyle", "ISO"), "SELECT 1"); pid != pids[big.Key()] {
		t.Error("not the connection used last")
	}
	if s := node.Stats(); s.Idle != 3 {
		t.Errorf("%+v", s)
	}
}

// A tainted connection is reset before anybody else gets it: nothing of the session before is left.
func TestTaintedConnectionIsReset(t *testing.T) {
	_, node := newNode(t, nil)
	b, err := node.NewBranch(t.Context(), participant.NewSettings(map[string]string{"work_mem": "8MB"}), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"SET my.secret='x'", "CREATE TEMP TABLE t(a int)", "PREPARE p AS SELECT 1", "SELECT pg_advisory_lock(1)", "SET enable_seqscan=off"} {
		must(t, b, sql)
	}
	name, _ := b.StatementName("SELECT 2")
	if r, err := parseAs(b, name, "SELECT 2"); err != nil || r.err != nil {
		t.Fatalf("%v, %v", r.err, err)
	}
	b.ConfirmStatement("SELECT 2")
	pid := b.Conn().PID()
	b.Conn().Taint()
	b.Release()

	b = newBranch(t, node)
	if b.Conn().PID() != pid {
		t.Error("another connection: the tainted one was thrown away")
	}
	for sql, want := range map[string]string{
		"SELECT coalesce(current_setting('my.secret',true),'')":                  "",
		"SELECT current_setting('work_mem')":                                     "4MB",
		"SELECT current_setting('enable_seqscan')":                               "on",
		"SELECT count(*) FROM pg_prepared_statements":                            "0",
		"SELECT count(*) FROM pg_locks WHERE locktype='advisory' AND granted":    "0",
		"SELECT count(*) FROM pg_class WHERE relname='t' AND relpersistence='t'": "0",
		"SELECT current_setting('standard_conforming_strings')":                  "on",
		"SELECT current_setting('client_encoding')":                              "UTF8",
	} {
		if got := must(t, b, sql).rows[0]; got != want {
			t.Errorf("%s: %s", sql, got)
		}
	}
	if _, parsed := b.StatementName("SELECT 2"); parsed {
		t.Error("the statement cache survived DISCARD ALL")
	}
}

func parseAs(b *participant.Branch, name, sql string) (reply, error) {
	b.StartSeries()
	b.Parse(&pgproto3.Parse{Name: name, Query: sql})
	b.Sync()
	if err := b.Send(); err != nil {
		return reply{}, err
	}
	return receive(b)
}

// A connection that the server closed while it was idle is not handed out.
func TestStaleConnectionIsNotHandedOut(t *testing.T) {
	cluster, node := newNode(t, nil)
	old := use(t, node, participant.Settings{}, "SELECT 1")
	cluster.Restart("a")
	if pid := use(t, node, participant.Settings{}, "SELECT 1"); pid == old {
		t.Error("the same server process")
	}
	if s := node.Stats(); s.Idle != 1 {
		t.Errorf("%+v", s)
	}
	// Recovery's own connection, too.
	if _, err := node.ListPrepared(t.Context()); err != nil {
		t.Fatal(err)
	}
	cluster.Restart("a")
	if _, err := node.ListPrepared(t.Context()); err != nil {
		t.Error(err)
	}
}

// A broken connection is released like any other, and closed.
func TestReleaseOfABrokenConnection(t *testing.T) {
	cluster, node := newNode(t, nil)
	b, err := node.NewBranch(t.Context(), participant.Settings{}, []string{"BEGIN"})
	if err != nil {
		t.Fatal(err)
	}
	must(t, b, "SELECT 1")
	cluster.SuperExec("a", fmt.Sprintf("SELECT pg_terminate_backend(%d)", b.Conn().PID()))
	_, err = query(b, "SELECT 2")
	if _, lost := errors.AsType[*participant.LostError](err); err != nil && !lost {
		t.Errorf("%v", err)
	}
	b.Rollback()
	b.Release()
	if s := node.Stats(); s.InUse != 0 || s.Idle != 0 {
		t.Errorf("%+v", s)
	}
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	_, node := newNode(t, func(c *participant.Config) { c.MaxIdle = 2 })
	var branches []*participant.Branch
	for range 5 {
		b, err := node.NewBranch(t.Context(), participant.Settings{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		branches = append(branches, b)
	}
	for _, b := range branches {
		b.Release()
	}
	if s := node.Stats(); s.Idle != 2 || s.InUse != 0 {
		t.Errorf("%+v", s)
	}
}

// After Close nothing is connected, and what is still in use is closed when it is given back.
func TestClosedNode(t *testing.T) {
	cluster, node := newNode(t, nil)
	b, err := node.NewBranch(t.Context(), participant.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	node.Close()
	must(t, b, "SELECT 1")
	b.Release()
	_, err = node.NewBranch(t.Context(), participant.Settings{}, nil)
	if _, ok := errors.AsType[*participant.ConnectError](err); !ok {
		t.Errorf("%v", err)
	}
	clustertest.WaitFor(t, "no connection is left at the server", wait, func() bool {
		return cluster.Value("a", "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgpact%' AND datname=current_database()") == "0"
	})
}

// Statements beyond the limit are given up, the least recently used first, and closed at the node.
func TestStatementCacheEviction(t *testing.T) {
	_, node := newNode(t, func(c *participant.Config) { c.StatementCacheSize = 2 })
	b := newBranch(t, node)
	run := func(sql string) (parsedBefore bool, r reply) {
		t.Helper()
		b.StartSeries()
		name, parsed := b.StatementName(sql)
		if !parsed {
			b.Parse(&pgproto3.Parse{Name: name, Query: sql})
		}
		b.Bind(&pgproto3.Bind{PreparedStatement: name})
		b.Execute(&pgproto3.Execute{})
		b.Sync()
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
		r, err := receive(b)
		if err != nil || r.err != nil {
			t.Fatalf("%s: %v, %v", sql, r.err, err)
		}
		b.ConfirmStatement(sql)
		return parsed, r
	}
	at := func() string {
		return must(t, b, "SELECT coalesce(string_agg(statement,';' ORDER BY statement),'') FROM pg_prepared_statements").rows[0]
	}
	for _, step := range []struct {
		sql    string
		parsed bool
		there  string // at the server after it
		types  string
	}{
		{"SELECT 1", false, "SELECT 1", "12DCZ"},
		{"SELECT 1", true, "SELECT 1", "2DCZ"},
		{"SELECT 2", false, "SELECT 1;SELECT 2", "12DCZ"},
		{"SELECT 1", true, "SELECT 1;SELECT 2", "2DCZ"},
		{"SELECT 3", false, "SELECT 1;SELECT 2;SELECT 3", "12DCZ"}, // SELECT 2 is closed with the next series
		{"SELECT 1", true, "SELECT 1;SELECT 3", "2DCZ"},
		{"SELECT 2", false, "SELECT 1;SELECT 2;SELECT 3", "12DCZ"},
		{"SELECT 2", true, "SELECT 1;SELECT 2", "2DCZ"},
	} {
		parsed, r := run(step.sql)
		if parsed != step.parsed || r.types != step.types {
			t.Errorf("%s: parsed before %v, answer %s", step.sql, parsed, r.types)
		}
		if got := at(); got != step.there {
			t.Errorf("after %s the server holds %q, want %q", step.sql, got, step.there)
		}
	}
	b.ForgetStatement("SELECT 1")
	if parsed, _ := run("SELECT 1"); parsed {
		t.Error("forgotten, and still known")
	}
}

// A series that fails early skips its Close messages; they are sent again.
func TestStatementClosedAfterAFailedSeries(t *testing.T) {
	_, node := newNode(t, func(c *participant.Config) { c.StatementCacheSize = 1 })
	b, err := node.NewBranch(t.Context(), participant.Settings{}, []string{"BEGIN"})
	if err != nil {
		t.Fatal(err)
	}
	must(t, b, "SELECT 1")
	for _, sql := range []string{"SELECT 1", "SELECT 2"} {
		name, _ := b.StatementName(sql)
		if r, err := parseAs(b, name, sql); err != nil || r.err != nil {
			t.Fatalf("%v, %v", r.err, err)
		}
		b.ConfirmStatement(sql)
	}
	if r, err := query(b, "SELECT 1/0"); err != nil || r.err == nil {
		t.Fatalf("%v, %v", r, err)
	}
	r, err := extended(b, "SELECT 3") // refused in a failed block, after the Close
	if err != nil || r.err == nil || r.types != "EZ" {
		t.Fatalf("%+v, %v", r, err)
	}
	b.Rollback()
	c := newBranchOn(t, b)
	if got := must(t, c, "SELECT string_agg(statement,';') FROM pg_prepared_statements").rows[0]; got != "SELECT 2" {
		if r, err := extended(c, "SELECT 4"); err != nil || r.err != nil || r.types != "12TDCZ" {
			t.Errorf("%+v, %v", r, err)
		}
		if got := must(t, c, "SELECT string_agg(statement,';') FROM pg_prepared_statements").rows[0]; got != "SELECT 2" {
			t.Errorf("the server holds %q", got)
		}
	}
}

// newBranchOn gives b back and begins another branch, which gets its connection.
func newBranchOn(t *testing.T, b *participant.Branch) *participant.Branch {
	t.Helper()
	node, pid := b.Node(), b.Conn().PID()
	b.Release()
	c, err := node.NewBranch(t.Context(), participant.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Conn().PID() != pid {
		t.Error("another connection")
	}
	t.Cleanup(c.Release)
	return c
}
