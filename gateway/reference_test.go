package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// alike are the rows of a reference table, which all nodes must have.
func (r *writeRig) alike(t *testing.T, table string) []string {
	t.Helper()
	var first []string
	for i, node := range r.nodes[:r.n] {
		rows := r.rowsOf(t, r.direct[node.Name()].PgConn(), "SELECT x::text FROM "+table+" x ORDER BY 1")
		if i == 0 {
			first = rows
		} else if !slices.Equal(first, rows) {
			t.Errorf("%s: node %s has %q, the first node %q", table, node.Name(), rows, first)
		}
	}
	return first
}

const makeCurrencies = "CREATE TABLE currencies (code text PRIMARY KEY, digits int NOT NULL DEFAULT 2, since timestamptz) WITH (pgpact.reference)"

// TestReferenceTable makes reference tables through the gateway and does what
// the differential test cannot compare with plain Postgres.
func TestReferenceTable(t *testing.T) {
	rig := newSchemaRig(t)
	conn := rig.client(t)
	wantRun(t, conn, makeCurrencies, "CREATE TABLE")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *writeRig, *pgconn.PgConn)
	}{
		{"extended protocol", testReferenceExtended},
		{"values that differ", testReferenceVaries},
		{"copy", testReferenceCopy},
		{"schema", testReferenceSchema},
		{"locks", testReferenceLocks},
		{"explain", testReferenceExplain},
		{"nodes that differ", testReferenceDiffers},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, conn, "DELETE FROM currencies")
			wantRun(t, conn, "INSERT INTO currencies VALUES ('EUR', 2), ('JPY', 0)", "INSERT 0 2")
			test.run(t, rig, conn)
			rig.alike(t, "currencies")
			rig.idle(t)
		})
	}
}

// runExtended runs one statement by the extended protocol, its parameters as text.
func runExtended(t *testing.T, conn *pgconn.PgConn, formats []int16, sql string, params ...string) string {
	t.Helper()
	var values [][]byte
	for _, p := range params {
		values = append(values, []byte(p))
	}
	result := conn.ExecParams(t.Context(), sql, values, nil, nil, formats).Read()
	text := result.CommandTag.String()
	for _, f := range result.FieldDescriptions {
		text += " " + f.Name
	}
	for _, row := range result.Rows {
		text += fmt.Sprintf(" %q", row)
	}
	if result.Err != nil {
		text += errorText(result.Err)
	}
	return text
}

func testReferenceExtended(t *testing.T, rig *writeRig, conn *pgconn.PgConn) {
	for _, test := range []struct {
		formats []int16
		sql     string
		params  []string
		want    string
	}{
		{nil, "INSERT INTO currencies VALUES ($1, $2)", []string{"USD", "2"}, "INSERT 0 1"},
		{nil, "INSERT INTO currencies (code) VALUES ($1) RETURNING digits, code -- its hash comes behind", []string{"GBP"}, `INSERT 0 1 digits code ["2" "GBP"]`},
		{[]int16{1}, "UPDATE currencies SET digits = digits + $1 WHERE code = 'JPY' RETURNING digits;", []string{"1"}, `UPDATE 1 digits ["\x00\x00\x00\x01"]`},
		{[]int16{0, 1}, "DELETE FROM currencies AS c WHERE c.code = $1 RETURNING c.code, digits", []string{"GBP"}, `DELETE 1 code digits ["GBP" "\x00\x00\x00\x02"]`},
		{nil, "UPDATE currencies SET digits = 3 WHERE code = 'none' RETURNING *", nil, "UPDATE 0"},
		{nil, "INSERT INTO currencies VALUES ('USD') ON CONFLICT (code) DO UPDATE SET digits = 9 RETURNING digits", nil, `INSERT 0 1 digits ["9"]`},
		{nil, "INSERT INTO currencies VALUES ('USD') ON CONFLICT DO NOTHING RETURNING 1", nil, "INSERT 0 0"},
		{nil, "INSERT INTO currencies VALUES ($1)", []string{"USD"}, `ERROR 23505 duplicate key value violates unique constraint "currencies_pkey"`},
		{nil, "UPDATE currencies SET digits = $1", []string{"x"}, `ERROR 22P02 invalid input syntax for type integer: "x"`},
	} {
		if got := runExtended(t, conn, test.formats, test.sql, test.params...); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.sql, got, test.want)
		}
	}
	// A row limit: the rows are kept.
	result := conn.ExecParams(t.Context(), "SELECT code FROM currencies ORDER BY code", nil, nil, nil, nil).Read()
	if len(result.Rows) != 3 || result.Err != nil {
		t.Errorf("%q %v", result.Rows, result.Err)
	}
	wantRun(t, conn, "PREPARE p (text) AS DELETE FROM currencies WHERE code = $1 RETURNING code; EXECUTE p('USD'); EXECUTE p('USD'); DEALLOCATE p",
		"PREPARE\nDELETE 1: USD\nDELETE 0\nDEALLOCATE")
	wantRun(t, conn, "BEGIN; UPDATE currencies SET digits = 5; SAVEPOINT s; DELETE FROM currencies; ROLLBACK TO s; SELECT sum(digits) FROM currencies; COMMIT",
		"BEGIN\nUPDATE 2\nSAVEPOINT\nDELETE 2\nROLLBACK\nSELECT 1: 10\nCOMMIT")
	wantRun(t, conn, "SELECT 1; UPDATE currencies SET nosuch = 1", "SELECT 1: 1\n"+`ERROR 42703 column "nosuch" of relation "currencies" does not exist`)
}

// What the nodes would not compute alike is refused, or found out.
func testReferenceVaries(t *testing.T, rig *writeRig, conn *pgconn.PgConn) {
	before := rig.alike(t, "currencies")
	const notSame = "ERROR 55000 the rows of reference table public.currencies would not be the same on all nodes"
	for sql, want := range map[string]string{
		"INSERT INTO currencies VALUES ('X', 1, 'now')":                                                   notSame,
		"INSERT INTO currencies VALUES ('X', pg_backend_pid())":                                           notSame,
		"UPDATE currencies SET since = 'now' RETURNING code":                                              "UPDATE 2",
		"INSERT INTO currencies VALUES ('X', 1, now())":                                                   "ERROR 0A000 now() is not supported in a statement that changes reference table public.currencies",
		"UPDATE currencies SET digits = 1 WHERE ctid IN (SELECT ctid FROM currencies LIMIT 1)":            "ERROR 0A000 LIMIT, DISTINCT ON or a window function is not supported in a statement that changes reference table public.currencies",
		"WITH u AS (UPDATE currencies SET digits = 1 RETURNING *) INSERT INTO currencies TABLE u":         "ERROR 0A000 a statement that changes reference table public.currencies must not change anything else",
		"INSERT INTO currencies SELECT relname FROM pg_class":                                             "ERROR 0A000 reference table public.currencies cannot be changed by what is in table pg_class",
		"BEGIN; DECLARE c CURSOR FOR SELECT * FROM currencies; DELETE FROM currencies WHERE CURRENT OF c": "",
	} {
		got := run(t, conn, sql)
		switch {
		case strings.HasPrefix(sql, "UPDATE currencies SET since"):
			// RETURNING has begun when the other nodes disagree.
			if !strings.HasSuffix(got, notSame) {
				t.Errorf("%s\n got %s", sql, got)
			}
		case want == "":
			if !strings.Contains(got, "ERROR 0A000 WHERE CURRENT OF is not supported") {
				t.Errorf("%s\n got %s", sql, got)
			}
			run(t, conn, "ROLLBACK")
		case got != want:
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
	if after := rig.alike(t, "currencies"); !slices.Equal(before, after) {
		t.Errorf("before %q, after %q", before, after)
	}
	wantRun(t, conn, "CREATE TABLE made (id bigint GENERATED BY DEFAULT AS IDENTITY, at timestamptz DEFAULT now(), x int DEFAULT 7) WITH (pgpact.reference)", "CREATE TABLE")
	wantRun(t, conn, "INSERT INTO made (x) VALUES (1)", `ERROR 0A000 column "id" of reference table public.made must be given, for its default is computed by the node`)
	wantRun(t, conn, "INSERT INTO made VALUES (1, DEFAULT)", `ERROR 0A000 column "at" of reference table public.made must be given, for its default is computed by the node`)
	wantRun(t, conn, "INSERT INTO made DEFAULT VALUES", `ERROR 0A000 column "id" of reference table public.made must be given, for its default is computed by the node`)
	wantRun(t, conn, "INSERT INTO made VALUES (1, NULL), (1, NULL) RETURNING x", "INSERT 0 2: 7 7")
	wantRun(t, conn, "COPY made (id) FROM STDIN", `ERROR 0A000 column "at" of reference table public.made must be given, for its default is computed by the node`)
	rig.alike(t, "made")
	wantRun(t, conn, "DROP TABLE made", "DROP TABLE")
}

func copyRows(t *testing.T, conn *pgconn.PgConn, sql, data string) string {
	t.Helper()
	tag, err := conn.CopyFrom(t.Context(), strings.NewReader(data), sql)
	if err != nil {
		return errorText(err)
	}
	return tag.String()
}

func testReferenceCopy(t *testing.T, rig *writeRig, conn *pgconn.PgConn) {
	for _, test := range []struct{ sql, data, want string }{
		{"COPY currencies FROM STDIN", "USD\t2\t\\N\nGBP\t2\t2020-01-01\n", "COPY 2"},
		{"COPY currencies (digits, code) FROM STDIN (FORMAT csv, HEADER)", "a,b\n3,KWD\n", "COPY 1"},
		{"COPY currencies FROM STDIN", "CHF\t2\t\\N\nCHF\t2\t\\N\n", `ERROR 23505 duplicate key value violates unique constraint "currencies_pkey"`},
		{"COPY currencies FROM STDIN", "CHF\tx\t\\N\n", `ERROR 22P02 invalid input syntax for type integer: "x"`},
		{"COPY currencies FROM STDIN", "CHF\t2\tnow\n", "ERROR 55000 the rows of reference table public.currencies would not be the same on all nodes"},
	} {
		if got := copyRows(t, conn, test.sql, test.data); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.sql, got, test.want)
		}
	}
	var out strings.Builder
	if tag, err := conn.CopyTo(t.Context(), &out, "COPY currencies (code) TO STDOUT"); err != nil || tag.String() != "COPY 5" || strings.Count(out.String(), "\n") != 5 {
		t.Errorf("%s %q %v", tag, out.String(), err)
	}
	if rows := rig.alike(t, "currencies"); len(rows) != 5 {
		t.Errorf("%q", rows)
	}
}

func testReferenceSchema(t *testing.T, rig *writeRig, conn *pgconn.PgConn) {
	for _, test := range []struct{ sql, want string }{
		{"CREATE TABLE wallets (id text PRIMARY KEY, currency text REFERENCES currencies, n int)", "CREATE TABLE"},
		{"INSERT INTO wallets VALUES ('a', 'EUR', 1), ('b', 'JPY', 2), ('c', 'EUR', 3), ('d', 'EUR', 4)", "INSERT 0 4"},
		{"INSERT INTO wallets VALUES ('e', 'XXX', 1)", `ERROR 23503 insert or update on table "wallets" violates foreign key constraint "wallets_currency_fkey"`},
		{"DELETE FROM currencies WHERE code = 'EUR'", `ERROR 23503 update or delete on table "currencies" violates foreign key constraint "wallets_currency_fkey" on table "wallets"`},
		{"SELECT currency, sum(w.n) FROM wallets w JOIN currencies ON code = currency GROUP BY currency ORDER BY currency COLLATE \"C\"", "SELECT 2: EUR,8 JPY,2"},
		{"ALTER TABLE currencies ADD wallet text REFERENCES wallets", "ERROR 0A000 foreign key currencies_wallet_fkey of table public.currencies does not pair the shard keys of both tables"},
		{"CREATE TABLE bad (code text PRIMARY KEY REFERENCES currencies ON UPDATE CASCADE)", "ERROR 0A000 foreign key bad_code_fkey of table public.bad does not pair the shard keys of both tables"},
		{"ALTER TABLE currencies ADD made uuid DEFAULT gen_random_uuid()", "ERROR 55000 the rows of reference table public.currencies would not be the same on all nodes"},
		{"ALTER TABLE currencies ADD name text DEFAULT 'x', ADD UNIQUE (name, code)", "ALTER TABLE"},
		{"ALTER TABLE currencies DROP CONSTRAINT pgpact_reference", "ERROR 0A000 table public.currencies cannot be made a reference table, nor an ordinary one of it"},
		{"ALTER TABLE currencies RESET (pgpact.reference)", "ERROR 0A000 table public.currencies cannot be made a reference table, nor an ordinary one of it"},
		{"ALTER TABLE wallets SET (pgpact.reference)", "ERROR 0A000 table public.wallets cannot be made a reference table, nor an ordinary one of it"},
		{"ALTER TABLE wallets SET (pgpact.reference, fillfactor = 50)", "ERROR 22023 pgpact.reference cannot be used so: it must stand alone in ALTER TABLE"},
		{"CREATE UNIQUE INDEX ON currencies (lower(code))", "CREATE INDEX"},
		{"CREATE TABLE x (id text PRIMARY KEY) WITH (pgpact.nosuch)", "ERROR 42501 permission denied for relation pgpact.*"},
		{"CREATE TABLE copied (LIKE currencies INCLUDING CONSTRAINTS)", "CREATE TABLE"},
		{"INSERT INTO copied SELECT * FROM currencies", "INSERT 0 2"},
		{"ALTER TABLE copied RENAME TO renamed", "ALTER TABLE"},
		{"UPDATE renamed SET digits = digits + 1", "UPDATE 2"},
		{"TRUNCATE renamed", "TRUNCATE TABLE"},
		{"SELECT count(*) FROM renamed", "SELECT 1: 0"},
		{"DROP TABLE renamed, wallets", "DROP TABLE"},
		{"ALTER TABLE currencies DROP name", "ALTER TABLE"},
		{"BEGIN; CREATE TABLE inside (n numeric) WITH (pgpact.reference); INSERT INTO inside VALUES (1); SELECT * FROM inside; ROLLBACK",
			"BEGIN\nCREATE TABLE\nINSERT 0 1\nSELECT 1: 1\nROLLBACK"},
		{"CREATE TABLE inside (n numeric)", "ERROR 0A000 table public.inside has no primary key"},
	} {
		wantRun(t, conn, test.sql, test.want)
	}
	if got := runExtended(t, conn, nil, "CREATE TABLE IF NOT EXISTS numbers (n numeric) WITH (pgpact.reference, fillfactor = 70)"); got != "CREATE TABLE" {
		t.Error(got)
	}
	for _, node := range rig.nodes {
		got := rig.rowsOf(t, rig.direct[node.Name()].PgConn(), "SELECT pg_get_constraintdef(oid) || (SELECT reloptions::text FROM pg_class c WHERE c.oid = conrelid) "+
			"FROM pg_constraint WHERE conname = 'pgpact_reference' AND conrelid = 'numbers'::regclass")
		if !slices.Equal(got, []string{"CHECK (true){fillfactor=70}"}) {
			t.Errorf("node %s: %q", node.Name(), got)
		}
	}
	rig.exec(t, "b", "CREATE FUNCTION noise() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "CREATE TRIGGER noise BEFORE INSERT ON numbers EXECUTE FUNCTION noise()")
	eventually(t, "the gateway notices that the nodes differ", func() bool {
		return run(t, conn, "INSERT INTO numbers VALUES (1)") == "ERROR 0A000 table public.numbers is not the same on all nodes"
	})
	for _, node := range []string{"a", "c"} {
		rig.exec(t, node, "CREATE FUNCTION noise() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "CREATE TRIGGER noise BEFORE INSERT ON numbers EXECUTE FUNCTION noise()")
	}
	eventually(t, "the gateway notices the triggers", func() bool {
		return run(t, conn, "INSERT INTO numbers VALUES (1)") == "ERROR 0A000 reference table public.numbers cannot be changed because it has triggers or rules"
	})
	rig.alike(t, "numbers")
	wantRun(t, conn, "DROP TABLE numbers", "DROP TABLE")
}

// Locks of rows are taken on the first node, whoever asks.
func testReferenceLocks(t *testing.T, rig *writeRig, conn *pgconn.PgConn) {
	other := rig.client(t)
	wantRun(t, conn, "BEGIN; SELECT digits FROM currencies WHERE code = 'EUR' FOR UPDATE", "BEGIN\nSELECT 1: 2")
	wantRun(t, other, "SELECT code FROM currencies FOR UPDATE SKIP LOCKED", "SELECT 1: JPY")
	wantRun(t, other, "SELECT code FROM currencies FOR SHARE NOWAIT", `ERROR 55P03 could not obtain lock on row in relation "currencies"`)
	wantRun(t, other, "SET lock_timeout = '50ms'; UPDATE currencies SET digits = 3 WHERE code = 'EUR'", "SET\nERROR 55P03 canceling statement due to lock timeout")
	wantRun(t, other, "RESET lock_timeout", "RESET")
	// One who waits for the row does not stand in the way of its owner.
	waiting := make(chan string, 1)
	go func() {
		_, err := other.Exec(t.Context(), "UPDATE currencies SET digits = digits * 2 WHERE code = 'EUR'").ReadAll()
		waiting <- fmt.Sprint(err)
	}()
	rig.await(t, "a", "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
	wantRun(t, conn, "UPDATE currencies SET digits = digits + 1 WHERE code = 'EUR'; COMMIT", "UPDATE 1\nCOMMIT")
	if got := <-waiting; got != "<nil>" {
		t.Error(got)
	}
	wantRun(t, conn, "SELECT digits FROM currencies WHERE code = 'EUR'", "SELECT 1: 6")
}

func testReferenceExplain(t *testing.T, rig *writeRig, conn *pgconn.PgConn) {
	for sql, want := range map[string][]string{
		"EXPLAIN SELECT * FROM currencies": {"Nodes: any, for instance a", "Reference: public.currencies (the same rows on every node)"},
		"EXPLAIN UPDATE currencies SET digits = 1": {"Nodes: a, b, c", "Commit: two phases", "Reference: public.currencies",
			"Merge: none, the first node answers and the others must have done the same"},
		"EXPLAIN (ANALYZE, COSTS off) UPDATE currencies SET digits = 1":         {"Execution Time", "Node c"},
		"EXPLAIN (FORMAT JSON) SELECT * FROM currencies FOR UPDATE":             {`"public.currencies"`},
		"EXPLAIN (ANALYZE) INSERT INTO currencies VALUES ('NOW', 1, 'now')":     {"ERROR 55000 the rows of reference table public.currencies would not be the same"},
		"EXPLAIN ANALYZE DELETE FROM currencies WHERE code = 'NOW' RETURNING *": {"Execution Time"},
	} {
		got := run(t, conn, sql)
		for _, line := range want {
			if !strings.Contains(got, line) {
				t.Errorf("%s\n got %s\nwant %s", sql, got, line)
			}
		}
	}
	wantRun(t, conn, "SELECT sum(digits), count(*) FROM currencies", "SELECT 1: 2,2")
}

// A node on which somebody has changed rows by hand is found out.
func testReferenceDiffers(t *testing.T, rig *writeRig, conn *pgconn.PgConn) {
	rig.exec(t, "b", "DELETE FROM currencies WHERE code = 'JPY'")
	result := conn.ExecParams(t.Context(), "UPDATE currencies SET digits = 4", nil, nil, nil, nil).Read()
	pgErr, ok := result.Err.(*pgconn.PgError)
	if !ok || pgErr.Code != "55000" || pgErr.Detail != `Node "a" answered UPDATE 2, node "b" UPDATE 1. Nothing has been done.` {
		t.Errorf("%#v", result.Err)
	}
	wantRun(t, conn, "SELECT digits FROM currencies WHERE code = 'EUR'", "SELECT 1: 2")
	rig.exec(t, "b", "INSERT INTO currencies VALUES ('JPY', 1)")
	result = conn.ExecParams(t.Context(), "UPDATE currencies SET digits = digits + 1", nil, nil, nil, nil).Read()
	if pgErr, ok := result.Err.(*pgconn.PgError); !ok || pgErr.Detail != `Nodes "a" and "b" would have written other rows. Nothing has been done.` {
		t.Errorf("%#v", result.Err)
	}
	rig.exec(t, "b", "UPDATE currencies SET digits = 0 WHERE code = 'JPY'")
}

// TestReferenceWriters has sessions of two gateways change a reference table at
// once, in every way that could meet in different orders on different nodes:
// nobody hangs, nothing is lost, the nodes stay alike. What has locked a row for
// a foreign key before it changes the table may deadlock with a FOR UPDATE, which
// the first node notices.
func TestReferenceWriters(t *testing.T) {
	rig := newSchemaRig(t)
	_, connect := rig.second(t)
	conn := rig.client(t)
	wantRun(t, conn, makeCurrencies, "CREATE TABLE")
	wantRun(t, conn, "CREATE TABLE prices (id text PRIMARY KEY, currency text REFERENCES currencies)", "CREATE TABLE")
	wantRun(t, conn, "INSERT INTO currencies VALUES ('EUR', 0), ('JPY', 0)", "INSERT 0 2")
	const rounds = 20
	var mayDeadlock atomic.Bool
	var deadlocks atomic.Int64
	work := func(conn *pgconn.PgConn, statements func(i int) string) func() error {
		return func() error {
			for i := 0; i < rounds; i++ {
				_, err := conn.Exec(context.Background(), statements(i)).ReadAll()
				if pgErr, ok := err.(*pgconn.PgError); ok && pgErr.Code == "40P01" && mayDeadlock.Load() {
					_, err = conn.Exec(context.Background(), "ROLLBACK").ReadAll()
					deadlocks.Add(1)
					i--
				}
				if err != nil {
					return fmt.Errorf("%s: %w", statements(i), err)
				}
			}
			return nil
		}
	}
	workers := [...]func(int) string{
		func(int) string { return "UPDATE currencies SET digits = digits + 1" },
		func(int) string {
			return "BEGIN; SELECT digits FROM currencies WHERE code = 'EUR' FOR UPDATE; UPDATE currencies SET digits = digits + 1 WHERE code = 'EUR'; COMMIT"
		},
		func(int) string {
			return "BEGIN; UPDATE currencies SET digits = digits + 1 WHERE code = 'JPY'; UPDATE currencies SET digits = digits + 1 WHERE code = 'EUR'; COMMIT"
		},
		func(i int) string { return fmt.Sprintf("INSERT INTO currencies VALUES ('%d', 0)", i) },
		func(i int) string {
			return fmt.Sprintf("BEGIN; INSERT INTO prices VALUES ('a%[1]d', 'EUR'); INSERT INTO prices VALUES ('b%[1]d', 'JPY'); UPDATE currencies SET digits = digits + 1 WHERE code = 'EUR'; COMMIT", i)
		},
	}
	conns := []*pgconn.PgConn{rig.client(t), connect(), rig.client(t), connect(), connect()}
	for _, together := range [][]int{{0, 1, 2}, {0, 1, 2, 3, 4}} {
		mayDeadlock.Store(len(together) == len(workers))
		var group errgroup.Group
		for _, i := range together {
			group.Go(work(conns[i], workers[i]))
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d deadlocks", deadlocks.Load())
	if rows := rig.alike(t, "currencies"); len(rows) != 2+rounds {
		t.Errorf("%d rows", len(rows))
	}
	wantRun(t, conn, "SELECT code, digits FROM currencies WHERE code > 'A' ORDER BY code COLLATE \"C\"", fmt.Sprintf("SELECT 2: EUR,%d JPY,%d", 7*rounds, 4*rounds))
	wantRun(t, conn, "SELECT count(*) FROM prices JOIN currencies ON code = currency", fmt.Sprintf("SELECT 1: %d", 2*rounds))
	rig.idle(t)
}
