package gateway

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// writeTables stand on every node and on the plain server that judges.
const writeTables = `
DROP TABLE IF EXISTS accounts;
CREATE TABLE accounts(id text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
CREATE TABLE stock(sku text PRIMARY KEY, qty int NOT NULL CHECK (qty >= 0));
CREATE TABLE orders(customer text, id int, sku text, qty int DEFAULT 1, note text, PRIMARY KEY (customer, id));
CREATE TABLE archive(customer text, id int, sku text, qty int DEFAULT 1, note text, PRIMARY KEY (customer, id));
CREATE TABLE numbers(n bigint PRIMARY KEY, v varchar(5));
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE tokens(token uuid PRIMARY KEY, n int DEFAULT 7, twice int GENERATED ALWAYS AS (n * 2) STORED, mood mood);`

var writeTableNames = []string{"accounts", "stock", "orders", "archive", "numbers", "tokens"}

// writeRig is a gateway over some nodes and a plain server with the same
// tables.
type writeRig struct {
	*stack
	plain *pgconn.PgConn
	n     int
}

func newWriteRig(t *testing.T, n int, tables string, names []string) *writeRig {
	t.Helper()
	s := startStack(t, stackOptions{config: func(config *Config) {
		owners := make([]string, DefaultBuckets)
		for i := range owners {
			owners[i] = config.Nodes[i%n].Name()
		}
		var err error
		config.Nodes = config.Nodes[:n]
		if config.Placement, err = NewPlacement(config.Nodes, owners); err != nil {
			t.Fatal(err)
		}
	}})
	rig := &writeRig{stack: s, n: n}
	url, _ := s.set.NewDatabase(t, "coordinator")
	var err error
	if rig.plain, err = pgconn.Connect(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rig.plain.Close(context.Background()) })
	owner := rigOwner(t, s)
	for _, node := range s.nodes[:n] {
		s.exec(t, node.Name(), "DROP TABLE IF EXISTS stock, orders CASCADE") // of the template
	}
	rig.onAll(t, tables)
	for _, node := range s.nodes[:n] {
		for _, name := range names {
			s.exec(t, node.Name(), fmt.Sprintf("ALTER TABLE %s OWNER TO %s", name, owner))
		}
	}
	return rig
}

// onAll runs sql on the nodes themselves and on the judge.
func (r *writeRig) onAll(t *testing.T, sql string) {
	t.Helper()
	for _, node := range r.nodes[:r.n] {
		// OIDs differ from node to node, as those of real nodes do.
		for range int(node.Name()[0] - 'a') {
			r.exec(t, node.Name(), "CREATE TYPE pg_temp.x AS ENUM ('x')")
			r.exec(t, node.Name(), "DROP TYPE pg_temp.x")
		}
		r.exec(t, node.Name(), sql)
	}
	if _, err := r.plain.Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// answer is what became of a statement: tags, rows in their order, SQLSTATE and
// position of the error.
func answer(ctx context.Context, conn *pgconn.PgConn, sql string, params [][]byte, extended bool) (tag string, rows []string, failure string) {
	var results []*pgconn.Result
	var err error
	if extended {
		result := conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
		results, err = []*pgconn.Result{result}, result.Err
	} else {
		results, err = conn.Exec(ctx, sql).ReadAll()
	}
	for _, result := range results {
		tag += result.CommandTag.String() + ";"
		for _, row := range result.Rows {
			rows = append(rows, fmt.Sprintf("%q", row))
		}
	}
	if pgErr, ok := err.(*pgconn.PgError); ok {
		return tag, nil, fmt.Sprintf("%s at %d", pgErr.Code, pgErr.Position)
	} else if err != nil {
		return tag, nil, err.Error()
	}
	return tag, rows, ""
}

// contents are all rows of the tables, on the judge and on the nodes together.
func (r *writeRig) contents(t *testing.T, names []string) (plain, nodes []string) {
	t.Helper()
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("SELECT '%[1]s ' || x::text FROM %[1]s x", name))
	}
	sql := strings.Join(parts, " UNION ALL ")
	if sql == "" {
		return nil, nil
	}
	plain = r.rowsOf(t, r.plain, sql)
	for _, node := range r.nodes[:r.n] {
		nodes = append(nodes, r.rowsOf(t, r.direct[node.Name()].PgConn(), sql)...)
	}
	slices.Sort(plain)
	slices.Sort(nodes)
	return plain, nodes
}

// existing leaves out the tables that the statement has dropped.
func (r *writeRig) existing(t *testing.T, names []string) []string {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return r.rowsOf(t, r.plain, fmt.Sprintf("SELECT to_regclass('%s') IS NULL", name))[0] == "t"
	})
}

func (r *writeRig) rowsOf(t *testing.T, conn *pgconn.PgConn, sql string) (rows []string) {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range results[0].Rows {
		rows = append(rows, string(row[0]))
	}
	return rows
}

// same runs a statement on both and compares what they say and what they hold
// afterwards.
func (r *writeRig) same(t *testing.T, conn *pgconn.PgConn, line string, extended bool, names []string) (refused bool) {
	t.Helper()
	line, mayRefuse := strings.CutPrefix(line, "!")
	if line, always := strings.CutPrefix(line, "!"); always && r.n == 1 {
		return line == ""
	}
	line = strings.TrimPrefix(line, "!")
	sql, list, withParams := strings.Cut(line, " :: ")
	var params [][]byte
	if withParams {
		extended = true
		for _, param := range strings.Split(list, "|") {
			if param == "" {
				params = append(params, nil)
			} else {
				params = append(params, []byte(param))
			}
		}
	}
	tag, rows, failure := answer(t.Context(), conn, sql, params, extended)
	if mayRefuse && r.n > 1 {
		if !strings.HasPrefix(failure, "0A000") {
			t.Errorf("%s\nshould be refused, says %s%s %v", line, tag, failure, rows)
		}
		return true
	}
	wantTag, wantRows, wantFailure := answer(t.Context(), r.plain, sql, params, extended)
	if !strings.HasPrefix(sql, "INSERT") || strings.Contains(sql, "SELECT") {
		slices.Sort(rows)
		slices.Sort(wantRows)
	}
	if code, told := strings.CutSuffix(failure, " at 0"); told { // the gateway's own words have no position
		wantFailure, _, _ = strings.Cut(wantFailure, " at ")
		failure = code
	}
	if tag != wantTag || failure != wantFailure || !slices.Equal(rows, wantRows) {
		t.Errorf("%s (extended %v)\n got %s %s %v\nwant %s %s %v", line, extended, tag, failure, rows, wantTag, wantFailure, wantRows)
	}
	if len(names) == 0 {
		return false
	}
	plain, nodes := r.contents(t, r.existing(t, names))
	if !slices.Equal(plain, nodes) {
		t.Fatalf("%s (extended %v)\nnow the nodes hold\n%s\nPostgres\n%s", line, extended, strings.Join(nodes, "\n"), strings.Join(plain, "\n"))
	}
	return false
}

// writeStatements are the lines of a file that are not comments.
func writeStatements(t *testing.T, file string) (lines []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		if line := strings.TrimSpace(scanner.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestWritesAsPostgres runs every statement of testdata/writes on the gateway
// over one, two and three nodes and on plain Postgres, by both protocols: tags,
// rows, errors with their positions, and the tables afterwards are the same.
func TestWritesAsPostgres(t *testing.T) {
	statements := writeStatements(t, "testdata/writes/statements.sql")
	for n := 1; n <= 3; n++ {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			rig := newWriteRig(t, n, writeTables, writeTableNames)
			conn := rig.client(t)
			refused := 0
			for _, extended := range []bool{false, true} {
				rig.onAll(t, "TRUNCATE "+strings.Join(writeTableNames, ", "))
				for _, line := range statements {
					if rig.same(t, conn, line, extended, writeTableNames) {
						refused++
					}
				}
			}
			t.Logf("%d statements by two protocols, %d of them refused", len(statements), refused)
			rig.misplaced(t)
			rig.idle(t)
		})
	}
}

// misplaced checks that every row is on its key's node.
func (r *writeRig) misplaced(t *testing.T) {
	t.Helper()
	for table, key := range map[string]string{"accounts": "id", "stock": "sku", "orders": "customer", "archive": "customer", "numbers": "n", "tokens": "token"} {
		for _, node := range r.nodes[:r.n] {
			for _, text := range r.rowsOf(t, r.direct[node.Name()].PgConn(), fmt.Sprintf("SELECT %s::text FROM %s", key, table)) {
				if owner := r.gateway.router.placement.NodeFor(text).Name(); owner != node.Name() {
					t.Errorf("%s: key %q is on %s, it belongs to %s", table, text, node.Name(), owner)
				}
			}
		}
	}
}
