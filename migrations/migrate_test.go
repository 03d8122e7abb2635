package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
)

// One server serves all tests; each has a database of its own.
var servers *pgservertest.Set

func TestMain(m *testing.M) {
	set, stop, err := pgservertest.New(context.Background(), pgservertest.Options{FsyncOff: true}, "x")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	servers = set
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var nodeA = NodeIdentity{ClusterID: "c1", Name: "a", BucketCount: 256}

// database is an empty database of the test's own and a connection to it as its owner.
func database(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	url, _ := servers.NewDatabase(t, "x")
	return url, dial(t, url)
}

func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// wantState runs sql and wants it refused with this SQLSTATE.
func wantState(t *testing.T, conn *pgx.Conn, sql, state string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	if sqlState(err) != state {
		t.Errorf("%s: got %v, want SQLSTATE %s", sql, err, state)
	}
}

func TestFreshThenRepeated(t *testing.T) {
	coordinator, _ := database(t)
	node, _ := database(t)
	steps := []struct {
		name    string
		run     func() (Report, error)
		pending func() (int64, int64, error)
		first   Report
	}{
		{"coordinator",
			func() (Report, error) { return Coordinator(t.Context(), coordinator, Options{}) },
			func() (int64, int64, error) { return CoordinatorPending(t.Context(), coordinator) },
			Report{From: 0, To: 7, Applied: []string{"00001_decisions.sql", "00003_forced.sql", "00004_after_failover.sql", "00006_lock_waits.sql", "00007_login_secret.sql"}}},
		{"participant",
			func() (Report, error) { return Participant(t.Context(), node, nodeA, Options{}) },
			func() (int64, int64, error) { return ParticipantPending(t.Context(), node) },
			Report{From: 0, To: 3, Applied: []string{"00001_branches.sql", "00002_product.sql", "00003_branch_keys.sql"}}},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			if current, target, err := step.pending(); current != 0 || target != step.first.To || err != nil {
				t.Errorf("before: %d of %d, %v", current, target, err)
			}
			got, err := step.run()
			if diff := cmp.Diff(step.first, got); diff != "" || err != nil {
				t.Fatalf("first run: %v %s", err, diff)
			}
			got, err = step.run()
			if diff := cmp.Diff(Report{From: step.first.To, To: step.first.To}, got); diff != "" || err != nil {
				t.Errorf("second run: %v %s", err, diff)
			}
			if current, target, err := step.pending(); current != target || err != nil {
				t.Errorf("after: %d of %d, %v", current, target, err)
			}
		})
	}
}

func TestPendingChangesNothing(t *testing.T) {
	url, conn := database(t)
	if _, _, err := CoordinatorPending(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	var schemas int
	err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgpact'").Scan(&schemas)
	if err != nil || schemas != 0 {
		t.Errorf("asking made %d schemas, %v", schemas, err)
	}
}

// The two sets keep apart: a decision log may live in the same database as a node.
func TestBothSetsInOneDatabase(t *testing.T) {
	url, _ := database(t)
	if r, err := Coordinator(t.Context(), url, Options{}); err != nil || len(r.Applied) != 5 {
		t.Errorf("coordinator: %+v, %v", r, err)
	}
	if r, err := Participant(t.Context(), url, nodeA, Options{}); err != nil || len(r.Applied) != 3 {
		t.Errorf("participant: %+v, %v", r, err)
	}
}

func TestConcurrentMigrators(t *testing.T) {
	coordinator, coordinatorConn := database(t)
	node, nodeConn := database(t)
	const migrators = 4
	var wg sync.WaitGroup
	var applied [2]int
	var mu sync.Mutex
	count := func(set int, report Report, err error) {
		mu.Lock()
		defer mu.Unlock()
		applied[set] += len(report.Applied)
		if err != nil {
			t.Error(err)
		}
	}
	for range migrators {
		wg.Go(func() {
			report, err := Coordinator(t.Context(), coordinator, Options{})
			count(0, report, err)
		})
		wg.Go(func() {
			report, err := Participant(t.Context(), node, nodeA, Options{})
			count(1, report, err)
		})
	}
	wg.Wait()
	if applied != [2]int{5, 3} {
		t.Errorf("files applied by all migrators together: %v, want 5 and 3", applied)
	}
	for conn, table := range map[*pgx.Conn]string{coordinatorConn: "pgpact.cluster", nodeConn: "pgpact.node"} {
		var rows int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&rows); err != nil || rows != 1 {
			t.Errorf("%s has %d rows, %v", table, rows, err)
		}
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	url, conn := database(t)
	if _, err := Coordinator(t.Context(), url, Options{}); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "INSERT INTO pgpact.goose_coordinator (version_id, is_applied) VALUES (99, true)")
	if _, err := Coordinator(t.Context(), url, Options{}); err == nil || !strings.Contains(err.Error(), "newer pgpact") {
		t.Errorf("got %v", err)
	}
}

// A migration that needs a lock an in-doubt branch holds fails soon, says which branch it is, changes
// nothing, and succeeds once the branch is finished (FACTS section 7).
func TestInDoubtBranchHoldsUpMigration(t *testing.T) {
	url, conn := database(t)
	if _, err := Participant(t.Context(), url, nodeA, Options{}); err != nil {
		t.Fatal(err)
	}
	const gid = "pgpact/c1/7/1/a"
	exec(t, conn, "BEGIN; INSERT INTO pgpact.branches VALUES (7, 1, '{a,b}'); PREPARE TRANSACTION '"+gid+"'")

	later := fstest.MapFS{"00004_later.sql": {Data: []byte("-- +goose Up\nALTER TABLE pgpact.branches ADD COLUMN later int;\n")}}
	for _, name := range []string{"00001_branches.sql", "00002_product.sql", "00003_branch_keys.sql"} {
		content, err := fs.ReadFile(files, "participant/"+name)
		if err != nil {
			t.Fatal(err)
		}
		later[name] = &fstest.MapFile{Data: content}
	}
	m, err := openFS(url, participantSet, later, Options{LockTimeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()

	began := time.Now()
	report, err := m.up(t.Context())
	var locked *LockedError
	if !errors.As(err, &locked) || !slices.Equal(locked.Prepared, []string{gid}) || !strings.Contains(err.Error(), gid) {
		t.Fatalf("got %v, want a LockedError naming %s", err, gid)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if report.From != 3 || report.To != 3 || len(report.Applied) != 0 {
		t.Errorf("report of the failure: %+v", report)
	}

	exec(t, conn, "COMMIT PREPARED '"+gid+"'")
	if report, err = m.up(t.Context()); err != nil || report.To != 4 {
		t.Errorf("afterwards: %+v, %v", report, err)
	}
}

func TestIdentity(t *testing.T) {
	url, conn := database(t)
	if _, err := Participant(t.Context(), url, nodeA, Options{}); err != nil {
		t.Fatal(err)
	}
	others := []NodeIdentity{
		{ClusterID: "c2", Name: "a", BucketCount: 256},
		{ClusterID: "c1", Name: "b", BucketCount: 256},
		{ClusterID: "c1", Name: "a", BucketCount: 512},
	}
	for _, other := range others {
		_, err := Participant(t.Context(), url, other, Options{})
		var mismatch *IdentityError
		if !errors.As(err, &mismatch) || mismatch.Have != nodeA || mismatch.Want != other {
			t.Errorf("as %v: got %v", other, err)
		}
	}
	wantState(t, conn, "UPDATE pgpact.node SET name = 'z'", pgerrcode.RestrictViolation)
	wantState(t, conn, "DELETE FROM pgpact.node", pgerrcode.RestrictViolation)
	wantState(t, conn, "INSERT INTO pgpact.node VALUES ('c1', 'z', 256)", pgerrcode.UniqueViolation)
	for _, bad := range []NodeIdentity{{"C", "a", 256}, {"c", "a'b", 256}, {"c", "a", 100}, {"c", "a", -1}, {"c", "", 256}} {
		if _, err := Participant(t.Context(), url, bad, Options{}); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

// Anybody can compute a key's bucket in SQL, and it is what the definition says (DESIGN section 6).
func TestBucketFunction(t *testing.T) {
	keys := []string{"", "alice", "bob", "acct-00001", "42", "-9223372036854775808", `back\slash\000`, "naïve", "日本", "😀",
		"6ba7b810-9dad-11d1-80b4-00c04fd430c8", strings.Repeat("long", 1000)}
	for _, count := range []int{1, 256, 1024, 65536} {
		url, conn := database(t)
		if _, err := Participant(t.Context(), url, NodeIdentity{"c1", "a", count}, Options{}); err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			digest := sha256.Sum256([]byte(key))
			want := int(binary.BigEndian.Uint16(digest[:])) % count
			var got int
			if err := conn.QueryRow(t.Context(), "SELECT pgpact.bucket($1)", key).Scan(&got); err != nil || got != want {
				t.Errorf("%d buckets, key %.20q: SQL says %d, want %d, %v", count, key, got, want, err)
			}
		}
	}
	url, conn := database(t)
	if _, err := Participant(t.Context(), url, nodeA, Options{}); err != nil {
		t.Fatal(err)
	}
	var of sql.NullInt64
	if err := conn.QueryRow(t.Context(), "SELECT pgpact.bucket(NULL)").Scan(&of); err != nil || of.Valid {
		t.Errorf("bucket of NULL is %v, %v", of, err)
	}
	var kinds string
	err := conn.QueryRow(t.Context(), `SELECT string_agg(DISTINCT provolatile::text || proisstrict::text || proparallel::text, ',')
		FROM pg_proc WHERE pronamespace = 'pgpact'::regnamespace AND proname = 'bucket'`).Scan(&kinds)
	if err != nil || kinds != "itrues" {
		t.Errorf("volatility, strictness and parallel safety: %q, %v", kinds, err)
	}
}
