package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// tablesNow are all tables of the clients' on the judge.
func (r *writeRig) tablesNow(t *testing.T) []string {
	t.Helper()
	return r.rowsOf(t, r.plain, `SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'pgpact') ORDER BY 1`)
}

// schemaText is what a server's tables are, in one list.
const schemaText = `SELECT n.nspname || '.' || c.relname || ' ' || c.relkind::text || ' ' || coalesce(string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' ||
	a.attnotnull || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), ''), ', ' ORDER BY a.attnum), '') || ' ' || coalesce(obj_description(c.oid), '')
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
	WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgpact', 'pg_toast') GROUP BY n.nspname, c.oid, c.relname, c.relkind ORDER BY 1`

// TestSchemaAsPostgres runs every line of testdata/writes/schema.sql on the
// gateway over one and three nodes and on plain Postgres: what they say, what
// the tables are afterwards on every node, and what they hold, is the same.
func TestSchemaAsPostgres(t *testing.T) {
	lines := writeStatements(t, "testdata/writes/schema.sql")
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			rig := newWriteRig(t, n, "DROP TABLE IF EXISTS accounts", nil)
			for _, node := range rig.nodes[:n] {
				rig.exec(t, node.Name(), "GRANT ALL ON SCHEMA public TO public", "GRANT CREATE ON DATABASE "+rig.databaseOf(t, node.Name())+" TO public")
			}
			conn := rig.client(t)
			for _, extended := range []bool{false, true} {
				for _, line := range lines {
					if !extended || !strings.Contains(line, "; ") {
						rig.sameSchema(t, conn, line, extended)
					}
				}
			}
			rig.idle(t)
		})
	}
}

// sameSchema runs a line on both, and compares what the tables are afterwards.
func (r *writeRig) sameSchema(t *testing.T, conn *pgconn.PgConn, line string, extended bool) {
	t.Helper()
	r.same(t, conn, line, extended, r.tablesNow(t))
	want := r.rowsOf(t, r.plain, schemaText)
	for _, node := range r.nodes[:r.n] {
		if got := r.rowsOf(t, r.direct[node.Name()].PgConn(), schemaText); !slices.Equal(got, want) {
			t.Fatalf("%s\nnode %s has\n%s\nPostgres\n%s", line, node.Name(), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if conn.TxStatus() == 'E' {
		run(t, conn, "ROLLBACK")
	}
	if r.plain.TxStatus() == 'E' {
		run(t, r.plain, "ROLLBACK")
	}
}

func (r *writeRig) databaseOf(t *testing.T, node string) string {
	t.Helper()
	return r.rowsOf(t, r.direct[node].PgConn(), "SELECT quote_ident(current_database())")[0]
}
