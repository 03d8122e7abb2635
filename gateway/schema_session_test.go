package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// newSchemaRig is a stack with three nodes on which clients may make tables.
func newSchemaRig(t *testing.T) *writeRig {
	t.Helper()
	rig := newWriteRig(t, 3, "DROP TABLE IF EXISTS accounts", nil)
	for _, node := range rig.nodes {
		rig.exec(t, node.Name(), "GRANT ALL ON SCHEMA public TO public", "GRANT CREATE ON DATABASE "+rig.databaseOf(t, node.Name())+" TO public")
	}
	return rig
}

// second is another gateway over the same nodes, with a catalog of its own.
func (r *writeRig) second(t *testing.T) (gw *Gateway, connect func() *pgconn.PgConn) {
	t.Helper()
	config := r.gateway.cfg
	gw, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- gw.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := gw.Shutdown(ctx); err != nil {
			t.Errorf("sessions did not end: %v", err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		gw.Close()
	})
	return gw, func() *pgconn.PgConn {
		conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://carol@%s/pgpact?sslmode=disable", ln.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
}

// indexesOn are the names of the indexes of table w at a node.
func (r *writeRig) indexesOn(t *testing.T, node string) string {
	t.Helper()
	return strings.Join(r.rowsOf(t, r.direct[node].PgConn(), "SELECT indexname FROM pg_indexes WHERE tablename = 'w' ORDER BY 1"), " ")
}

// CREATE INDEX CONCURRENTLY runs node by node; where it fails, the error says
// on which node, and on which others it is done.
func TestSchemaConcurrently(t *testing.T) {
	rig := newSchemaRig(t)
	conn := rig.client(t)
	wantRun(t, conn, "CREATE TABLE w (id text PRIMARY KEY, n int)", "CREATE TABLE")
	wantRun(t, conn, "CREATE INDEX CONCURRENTLY w_n ON w (n)", "CREATE INDEX")
	wantRun(t, conn, "DROP INDEX CONCURRENTLY w_n", "DROP INDEX")
	rig.exec(t, "b", "CREATE INDEX w_n ON w (id)")
	_, err := conn.Exec(t.Context(), "CREATE INDEX CONCURRENTLY w_n ON w (n)").ReadAll()
	pgErr, ok := err.(*pgconn.PgError)
	if !ok || pgErr.Code != "42P07" || pgErr.Detail != `It failed on node "b". Done on: "a". Not tried on: "c".` || pgErr.Hint == "" {
		t.Errorf("got %#v", err)
	}
	rig.exec(t, "b", "ALTER INDEX w_n OWNER TO "+rig.rowsOf(t, rig.direct["a"].PgConn(), "SELECT tableowner FROM pg_tables WHERE tablename = 'w'")[0])
	wantRun(t, conn, "DROP INDEX CONCURRENTLY IF EXISTS w_n", "DROP INDEX")
	for _, node := range []string{"a", "b", "c"} {
		if got := rig.indexesOn(t, node); got != "w_pkey" {
			t.Errorf("node %s has %s", node, got)
		}
	}
	wantRun(t, conn, "BEGIN; CREATE INDEX CONCURRENTLY w_n ON w (n)", "BEGIN\nERROR 25001 CREATE INDEX CONCURRENTLY cannot run inside a transaction block")
	wantRun(t, conn, "ROLLBACK; CREATE UNIQUE INDEX CONCURRENTLY w_n ON w (id, n)", "ROLLBACK\nERROR 0A000 CREATE UNIQUE INDEX CONCURRENTLY is not supported through the gateway")
	rig.idle(t)
}

// A schema change reaches another gateway within a second; until it must have
// noticed, a name is not used again with another shard key.
func TestSchemaIsFollowed(t *testing.T) {
	rig := newSchemaRig(t)
	other, connect := rig.second(t)
	here, there := rig.client(t), connect()
	wantRun(t, here, "CREATE TABLE w (id text PRIMARY KEY, n int)", "CREATE TABLE")
	wantRun(t, there, "INSERT INTO w VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)", "INSERT 0 4")
	wantRun(t, here, "UPDATE w SET n = n + 1 WHERE id IN ('a', 'b')", "UPDATE 2")
	began := time.Now()
	wantRun(t, here, "DROP TABLE w", "DROP TABLE")
	eventually(t, "the other gateway notices", func() bool {
		return other.Catalog().relations[relationKey{"public", "w"}].table == nil
	})
	t.Logf("noticed after %v", time.Since(began))
	wantRun(t, there, "CREATE TABLE w (n int PRIMARY KEY, id text)", "ERROR 55006 table name public.w was in use a moment ago, with another shard key")
	wantRun(t, here, "CREATE TABLE w (n int PRIMARY KEY, id text)", "ERROR 55006 table name public.w was in use a moment ago, with another shard key")
	wantRun(t, there, "CREATE TABLE w (id text PRIMARY KEY)", "CREATE TABLE")
	wantRun(t, there, "BEGIN; DROP TABLE w; CREATE TABLE w (n int PRIMARY KEY, id text)",
		"BEGIN\nDROP TABLE\n"+`ERROR 0A000 this would change how table public.w is sharded`)
	wantRun(t, there, "ROLLBACK; DROP TABLE w", "ROLLBACK\nDROP TABLE")
	eventuallyWithin(t, catalogLease+patience, "the name is free again", func() bool {
		got := run(t, here, "CREATE TABLE w (n int PRIMARY KEY, id text)")
		if got != "CREATE TABLE" && !strings.HasPrefix(got, "ERROR 55006") {
			t.Fatalf("after %v: %s", time.Since(began), got)
		}
		return got == "CREATE TABLE"
	})
	rig.idle(t)
}

// Tables that differ between the nodes, and our own, are left alone.
func TestSchemaRefused(t *testing.T) {
	rig := newSchemaRig(t)
	conn := rig.client(t)
	rig.exec(t, "a", "CREATE TABLE only_a (id int PRIMARY KEY)")
	wantRun(t, conn, "ALTER TABLE only_a ADD x int", "ERROR 0A000 table public.only_a is not the same on all nodes")
	for _, sql := range []string{"DROP SCHEMA pgpact CASCADE", `DROP TABLE "pgpact".branches`, "DROP FUNCTION pgpact.bucket(text)",
		"ALTER TABLE PGPACT.node ADD x int", "CREATE TABLE pgpact.t (id int PRIMARY KEY)", "CREATE VIEW v AS SELECT * FROM pgpact.branches",
		`DROP SCHEMA U&"pgp\0061ct" CASCADE`, "SET search_path = pgpact; DROP TABLE branches"} {
		got := run(t, conn, sql)
		if !strings.Contains(got, "42501") && !strings.Contains(got, "0A000 DROP FUNCTION") {
			t.Errorf("%s: %s", sql, got)
		}
	}
	wantRun(t, conn, "SHOW search_path", "SHOW: public")
	wantRun(t, conn, "BEGIN ISOLATION LEVEL SERIALIZABLE; CREATE TABLE x (id int PRIMARY KEY)", "BEGIN\nERROR 0A000 a SERIALIZABLE transaction cannot span several nodes")
	wantRun(t, conn, "ROLLBACK", "ROLLBACK")
	rig.idle(t)
}

// Random schema changes and transfers side by side, by two gateways: no money is
// lost, no row is where nobody looks for it, and nobody hears an error but those
// that say: again.
func TestSchemaBesideTransfers(t *testing.T) {
	rig := newSchemaRig(t)
	_, connect := rig.second(t)
	setup := rig.client(t)
	wantRun(t, setup, "CREATE TABLE w (id text PRIMARY KEY, n int NOT NULL)", "CREATE TABLE")
	keys := make([]string, 30)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d", i)
		wantRun(t, setup, fmt.Sprintf("INSERT INTO w VALUES ('%s', 100)", keys[i]), "INSERT 0 1")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	seconds := fromEnvironment(t, "PGPACT_TEST_SCHEMA_SECONDS", 4)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second)
	defer cancel()
	// Deadlocks and lock timeouts; two that make or drop the same thing at once, as
	// on one Postgres; a table that is not the same on all nodes for a moment.
	again := []string{"40P01", "55P03", "40001", "42701", "42P01", "42P07", "23505", "0A000"}
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	worker := func(n uint64, conn *pgconn.PgConn, statement func(*rand.Rand) string) {
		draw := rand.New(rand.NewPCG(seed, n))
		if n < 20 { // two transfers can wait for each other on two nodes
			wantRun(t, conn, "SET lock_timeout = '300ms'", "SET")
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				sql := statement(draw)
				_, err := conn.Exec(t.Context(), sql).ReadAll()
				code := "done"
				if err != nil {
					pgErr, ok := err.(*pgconn.PgError)
					if !ok || !slices.Contains(again, pgErr.Code) {
						t.Errorf("%s: %v", sql, err)
						return
					}
					code = pgErr.Code
				}
				mu.Lock()
				counts[strings.Fields(sql)[0]+" "+code]++
				mu.Unlock()
			}
		})
	}
	transfer := func(draw *rand.Rand) string {
		from, to := keys[draw.IntN(len(keys))], keys[draw.IntN(len(keys))]
		if from == to {
			return "SELECT n FROM w WHERE id = '" + from + "'"
		}
		return fmt.Sprintf("UPDATE w SET n = n + CASE id WHEN '%s' THEN -1 ELSE 1 END WHERE id IN ('%s', '%s')", from, from, to)
	}
	change := func(draw *rand.Rand) string {
		c := draw.IntN(3)
		return []string{
			fmt.Sprintf("ALTER TABLE w ADD COLUMN IF NOT EXISTS c%d int", c), fmt.Sprintf("ALTER TABLE w DROP COLUMN IF EXISTS c%d", c),
			fmt.Sprintf("CREATE TABLE IF NOT EXISTS x%d (id int PRIMARY KEY)", c), fmt.Sprintf("DROP TABLE IF EXISTS x%d", c),
			fmt.Sprintf("CREATE INDEX IF NOT EXISTS i%d ON w (n)", c), fmt.Sprintf("DROP INDEX IF EXISTS i%d", c),
		}[draw.IntN(6)]
	}
	for i := range uint64(3) {
		worker(i, rig.client(t), transfer)
		worker(10+i, connect(), transfer)
	}
	worker(20, rig.client(t), change)
	worker(21, connect(), change)
	wg.Wait()
	t.Logf("%v", counts)
	if counts["UPDATE done"] == 0 || counts["ALTER done"] == 0 {
		t.Error("nothing has been done")
	}
	sum, rows := 0, 0
	for _, node := range rig.nodes {
		for _, line := range rig.rowsOf(t, rig.direct[node.Name()].PgConn(), "SELECT id || ' ' || n FROM w") {
			var id string
			var n int
			if _, err := fmt.Sscan(line, &id, &n); err != nil {
				t.Fatal(err)
			}
			sum, rows = sum+n, rows+1
			if owner := rig.place.NodeFor(id); owner.Name() != node.Name() {
				t.Errorf("%s is on %s", id, node.Name())
			}
		}
	}
	if sum != 3000 || rows != 30 {
		t.Errorf("%d rows with %d together", rows, sum)
	}
	want := rig.rowsOf(t, rig.direct["a"].PgConn(), schemaText)
	for _, node := range rig.nodes[1:] {
		if got := rig.rowsOf(t, rig.direct[node.Name()].PgConn(), schemaText); !slices.Equal(got, want) {
			t.Errorf("node %s has\n%s\nnode a\n%s", node.Name(), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	rig.idle(t)
}
