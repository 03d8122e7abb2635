package migrations

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
)

func migrated(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	url, conn := database(t)
	if _, err := Coordinator(t.Context(), url, Options{}); err != nil {
		t.Fatal(err)
	}
	return url, conn
}

func TestClusterIDIsMadeOnce(t *testing.T) {
	empty, _ := database(t)
	if _, err := ClusterID(t.Context(), empty); !errors.Is(err, ErrNotMigrated) {
		t.Errorf("before migrating: %v", err)
	}
	url, conn := migrated(t)
	id, err := ClusterID(t.Context(), url)
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(id) {
		t.Fatalf("id %q, %v", id, err)
	}
	other, _ := migrated(t)
	if otherID, err := ClusterID(t.Context(), other); err != nil || otherID == id {
		t.Errorf("another cluster has id %q, %v", otherID, err)
	}
	for _, sql := range []string{"UPDATE pgpact.cluster SET id = 'x'", "DELETE FROM pgpact.cluster", "TRUNCATE pgpact.cluster"} {
		wantState(t, conn, sql, pgerrcode.RestrictViolation)
	}
	wantState(t, conn, "INSERT INTO pgpact.cluster VALUES ('second')", pgerrcode.UniqueViolation)
}

// The statement that settles a doubt (DESIGN section 4) works on these tables, and the rules about keys hold.
func TestDecisionTable(t *testing.T) {
	_, conn := migrated(t)
	exec(t, conn, "INSERT INTO pgpact.gateways (epoch, name) VALUES (7, 'g')")
	settle := func(epoch, sequence int64, wish string) string {
		t.Helper()
		var outcome string
		err := conn.QueryRow(t.Context(), `WITH gate AS (DELETE FROM pgpact.gate)
			INSERT INTO pgpact.transactions (epoch, sequence, outcome, participants, role)
			SELECT $1::bigint, $2::bigint, $3, '{a,b}', 'r' FROM pgpact.gateways g WHERE g.epoch = $1 AND $2 > g.forgotten
			ON CONFLICT (epoch, sequence) DO UPDATE SET epoch = excluded.epoch RETURNING outcome`, epoch, sequence, wish).Scan(&outcome)
		if errors.Is(err, pgx.ErrNoRows) {
			return "none"
		}
		if err != nil {
			t.Fatal(err)
		}
		return outcome
	}
	for _, step := range []struct {
		epoch, sequence int64
		wish, want      string
	}{
		{7, 1, "committed", "committed"}, {7, 1, "aborted", "committed"},
		{7, 2, "aborted", "aborted"}, {7, 2, "committed", "aborted"},
		{8, 1, "aborted", "none"},
	} {
		if got := settle(step.epoch, step.sequence, step.wish); got != step.want {
			t.Errorf("settle %+v: %s", step, got)
		}
	}
	exec(t, conn, "UPDATE pgpact.gateways SET forgotten = 5")
	if got := settle(7, 5, "aborted"); got != "none" {
		t.Errorf("at the horizon: %s", got)
	}
	const insert = "INSERT INTO pgpact.transactions (epoch, sequence, outcome, participants, role, idempotency_key) VALUES "
	exec(t, conn, insert+"(7, 10, 'committed', '{a}', 'r', 'k'), (7, 11, 'committed', '{a}', 'other', 'k'), (7, 12, 'aborted', '{a}', 'r', NULL)")
	wantState(t, conn, insert+"(7, 13, 'committed', '{a}', 'r', 'k')", pgerrcode.UniqueViolation)
	wantState(t, conn, insert+"(7, 14, 'aborted', '{a}', 'r', 'k2')", pgerrcode.CheckViolation)
	wantState(t, conn, insert+"(7, 15, 'maybe', '{a}', 'r', NULL)", pgerrcode.CheckViolation)
}

func TestEnsureBuckets(t *testing.T) {
	url, conn := migrated(t)
	ctx := t.Context()
	if applied, err := EnsureBuckets(ctx, url, []string{"b", "a", "c"}, 256); !applied || err != nil {
		t.Fatalf("first: %v, %v", applied, err)
	}
	before := bucketMap(t, conn)
	if len(before) != 256 {
		t.Fatalf("%d buckets", len(before))
	}
	counts := make(map[string]int)
	for i, node := range before {
		counts[node]++
		if want := []string{"b", "a", "c"}[i/2%3]; node != want {
			t.Errorf("bucket %d on %s, want %s", i, node, want)
		}
	}
	if counts["b"] != 86 || counts["a"] != 86 || counts["c"] != 84 { // even to a pair
		t.Errorf("not even: %v", counts)
	}

	if applied, err := EnsureBuckets(ctx, url, []string{"a", "b", "c"}, 256); applied || err != nil {
		t.Errorf("again in another order: %v, %v", applied, err)
	}
	applied, err := EnsureBuckets(ctx, url, []string{"a", "b", "c", "d"}, 256)
	var idle *WithoutBucketsError
	if applied || !errors.As(err, &idle) || !slices.Equal(idle.Nodes, []string{"d"}) {
		t.Errorf("with an added node: %v, %v", applied, err)
	}
	if _, err := EnsureBuckets(ctx, url, []string{"a", "b"}, 256); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("without a node that has buckets: %v", err)
	}
	if _, err := EnsureBuckets(ctx, url, []string{"a", "b", "c"}, 512); err == nil || !strings.Contains(err.Error(), "256") {
		t.Errorf("with another count: %v", err)
	}
	if after := bucketMap(t, conn); !slices.Equal(before, after) {
		t.Error("the placement changed")
	}
	for _, bad := range [][]string{nil, {"a", "a"}, {"A"}, {"a'"}} {
		if _, err := EnsureBuckets(ctx, url, bad, 256); err == nil {
			t.Errorf("nodes %q were accepted", bad)
		}
	}
	empty, _ := database(t)
	if _, err := EnsureBuckets(ctx, empty, []string{"a"}, 256); !errors.Is(err, ErrNotMigrated) {
		t.Errorf("not migrated: %v", err)
	}
}

func bucketMap(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT node FROM pgpact.buckets ORDER BY bucket")
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

func TestConcurrentEnsureBuckets(t *testing.T) {
	url, conn := migrated(t)
	var wg sync.WaitGroup
	results := make(chan bool, 4)
	for i := range 4 {
		wg.Go(func() {
			nodes := [][]string{{"a", "b"}, {"b", "a"}}[i%2]
			applied, err := EnsureBuckets(t.Context(), url, nodes, 16)
			if err != nil {
				t.Error(err)
			}
			results <- applied
		})
	}
	wg.Wait()
	close(results)
	placed := 0
	for applied := range results {
		if applied {
			placed++
		}
	}
	if placed != 1 || len(bucketMap(t, conn)) != 16 {
		t.Errorf("placed %d times, %d buckets", placed, len(bucketMap(t, conn)))
	}
}

// Going down loses nothing that matters: refused while there are records or money, possible afterwards.
func TestDownIsSafe(t *testing.T) {
	url, conn := migrated(t)
	node, nodeConn := database(t)
	if _, err := Participant(t.Context(), node, nodeA, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		url, set, fill, empty string
		conn                  *pgx.Conn
	}{
		{url, coordinatorSet, "", "", conn}, // a secret that can be made anew
		{url, coordinatorSet, "", "", conn}, // what is said again a moment later
		{url, coordinatorSet, "INSERT INTO pgpact.proven_keys VALUES ('alice', 'k', 7, 1, 'used again')", "DELETE FROM pgpact.proven_keys", conn},
		{url, coordinatorSet, "", "", conn}, // an index, and nobody's loss
		{url, coordinatorSet, "INSERT INTO pgpact.gateways (epoch, name) VALUES (7, 'g')", "DELETE FROM pgpact.gateways", conn},
		{node, participantSet, "INSERT INTO pgpact.branches VALUES (7, 1, '{a}', 'alice', 'k')", "DELETE FROM pgpact.branches", nodeConn},
		{node, participantSet, "INSERT INTO public.accounts VALUES ('alice', 1)", "DELETE FROM public.accounts", nodeConn},
		{node, participantSet, "INSERT INTO pgpact.branches VALUES (7, 1, '{a}')", "DELETE FROM pgpact.branches", nodeConn},
	} {
		m, err := open(c.url, c.set, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.close()
		if c.fill != "" {
			exec(t, c.conn, c.fill)
			if _, err := m.provider.Down(t.Context()); sqlState(err) != pgerrcode.RestrictViolation {
				t.Errorf("down with rows after %q: %v", c.fill, err)
			}
			exec(t, c.conn, c.empty)
		}
		if _, err := m.provider.Down(t.Context()); err != nil {
			t.Errorf("down without rows: %v", err)
		}
	}
	for _, again := range []func() (Report, error){
		func() (Report, error) { return Coordinator(t.Context(), url, Options{}) },
		func() (Report, error) { return Participant(t.Context(), node, nodeA, Options{}) },
	} {
		if report, err := again(); err != nil || report.From != 0 {
			t.Errorf("up again: %+v, %v", report, err)
		}
	}
}

// A role that may not make anything is told what it needs; once an administrator made the schema for it, it
// needs no right on the database.
func TestPrivileges(t *testing.T) {
	url, super := servers.NewDatabase(t, "x")
	admin := dial(t, super)
	var database string
	if err := admin.QueryRow(t.Context(), "SELECT current_database()").Scan(&database); err != nil {
		t.Fatal(err)
	}
	exec(t, admin, "ALTER DATABASE "+database+" OWNER TO postgres")
	if _, err := Coordinator(t.Context(), url, Options{}); sqlState(err) != pgerrcode.InsufficientPrivilege || !strings.Contains(err.Error(), "needs CREATE") {
		t.Errorf("without privileges: %v", err)
	}
	exec(t, admin, "CREATE SCHEMA pgpact AUTHORIZATION pgpact")
	if _, err := Coordinator(t.Context(), url, Options{}); err != nil {
		t.Errorf("with the schema made for it: %v", err)
	}
}
