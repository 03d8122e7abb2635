package gateway

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// shadows are things with the names of those our own SQL uses, in a schema that a client puts first (CVE-2025-12819's kind).
const shadows = `
	CREATE SCHEMA shadow;
	GRANT USAGE ON SCHEMA shadow TO PUBLIC;
	CREATE FUNCTION shadow.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadow'; END $$;
	CREATE FUNCTION shadow.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadow'; END $$;
	CREATE FUNCTION shadow.current_database() RETURNS text LANGUAGE sql AS $$ SELECT 'shadow' $$;
	CREATE FUNCTION shadow.array_to_string(anyarray, text) RETURNS text LANGUAGE sql AS $$ SELECT 'shadow' $$;
	CREATE TABLE shadow.branches(epoch bigint, sequence bigint, participants text[]);
	CREATE TABLE shadow.node(cluster_id text, name text);
	CREATE TABLE shadow.pg_prepared_xacts(gid text);
	CREATE TABLE shadow.pg_prepared_statements(name text);
	CREATE TABLE shadow.pg_class(relname text);
	GRANT ALL ON ALL TABLES IN SCHEMA shadow TO PUBLIC;`

// TestHostileSearchPath: our own SQL means our own tables and functions, whatever a client's search path says, by SET or by its
// startup packet.
func TestHostileSearchPath(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	a, b := keys[0][0], keys[1][0]
	for _, conn := range s.direct {
		if _, err := conn.Exec(t.Context(), shadows); err != nil {
			t.Fatal(err)
		}
	}
	const path = "shadow, pg_catalog, public"
	bySet := s.client(t)
	wantRun(t, bySet, "SET search_path = "+path, "SET")
	byStartup := s.client(t, func(config *pgconn.Config) { config.RuntimeParams["search_path"] = path })
	for _, conn := range []*pgconn.PgConn{bySet, byStartup} {
		wantRun(t, conn, "SHOW search_path", "SHOW: "+path)
		wantRun(t, conn, "SET timezone = 'Europe/Paris'; SET statement_timeout = '10s'", "SET\nSET")
		wantRun(t, conn, "BEGIN", "BEGIN")
		wantRun(t, conn, "UPDATE accounts SET balance = balance - 10 WHERE id = '"+a+"'", "UPDATE 1")
		wantRun(t, conn, "SAVEPOINT s; SET LOCAL timezone = 'UTC'", "SAVEPOINT\nSET")
		wantRun(t, conn, "UPDATE accounts SET balance = balance + 10 WHERE id = '"+b+"'", "UPDATE 1")
		wantRun(t, conn, "COMMIT", "COMMIT")
		wantRun(t, conn, "SHOW timezone", "SHOW: Europe/Paris")
		if result := conn.ExecParams(t.Context(), "SELECT balance FROM accounts WHERE id = $1", [][]byte{[]byte(a)}, nil, nil, nil).Read(); result.Err != nil {
			t.Error(result.Err)
		}
	}
	s.wantBalances(t, map[string]int64{a: 980, b: 1020})
	for _, node := range []string{"a", "b"} {
		var records, shadowed int
		err := s.direct[node].QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pgpact.branches), (SELECT count(*) FROM shadow.branches)`).Scan(&records, &shadowed)
		if err != nil || records != 2 || shadowed != 0 {
			t.Errorf("node %s: %d branch records and %d in the shadow, %v", node, records, shadowed, err)
		}
	}
	s.idle(t)
}
