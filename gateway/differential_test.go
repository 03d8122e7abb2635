package gateway

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/sqlparse"
)

// The differential test: the same statements on a gateway over one to four nodes
// and on one plain Postgres with the same rows. The answers are the same (rows,
// as a multiset where no order is asked; columns; tags; SQLSTATEs), or the
// gateway refuses with one of the messages of testdata/differential/refusals.txt.
//
// testdata/differential/*.sql hold the statements, one for each line; a line
// that goes on is indented; # begins a comment. Each file is played on one
// connection with fresh tables (setup.sql), one statement after the other, so
// that what a file's INSERTs and UPDATEs leave behind is compared by its
// SELECTs. A SELECT with ORDER BY must return the rows in the same order; "~ " in front
// of it says that its order leaves ties. With differentialCompare=all (files
// that begin with "# tables") all tables are compared after every statement.

// differentialPair is a gateway and a plain server with the same tables.
type differentialPair struct {
	gateway, plain *pgconn.PgConn
	cluster        *clustertest.Cluster
	url, plainURL  string
	nodes          int
	refusals       []string
	asked, refused int
	changed        int // statements that have written rows
}

// startDifferential starts both over servers that the caller has started.
func startDifferential(t *testing.T, servers *clustertest.Servers, nodes int) *differentialPair {
	t.Helper()
	cluster := clustertest.Start(t, nodes, clustertest.Options{Servers: servers})
	owners := make([]string, DefaultBuckets)
	for i := range owners {
		owners[i] = cluster.Names()[i%nodes]
	}
	placement, err := NewPlacement(cluster.Nodes, owners)
	if err != nil {
		t.Fatal(err)
	}
	c, err := coordinator.New(coordinator.Config{DecisionURL: cluster.DecisionURL, ClusterID: cluster.ClusterID, Nodes: cluster.Nodes,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range cluster.Names() {
		cluster.Exec(name, differentialSetup(t)+differentialWritten)
	}
	gw, err := New(t.Context(), Config{Coordinator: c, Nodes: cluster.Nodes, Placement: placement, Parser: sqlparse.NewParser(1000),
		Logger: slog.New(slog.DiscardHandler), Database: "pgpact"})
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
		c.Stop(ctx)
	})
	p := &differentialPair{cluster: cluster, nodes: nodes, url: fmt.Sprintf("postgres://carol@%s/pgpact?sslmode=disable", ln.Addr())}
	p.plainURL, _ = servers.NewDatabase(t, clustertest.CoordinatorServer)
	p.gateway, p.plain = p.connect(t, p.url), p.connect(t, p.plainURL)
	if _, err := p.plain.Exec(t.Context(), differentialSetup(t)+differentialWritten).ReadAll(); err != nil {
		t.Fatal(err)
	}
	p.refusals = differentialLines(t, "testdata/differential/refusals.txt")
	p.fill(t)
	return p
}

func (p *differentialPair) connect(t *testing.T, url string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "SET timezone = 'Asia/Kathmandu'; SET search_path = public").ReadAll(); err != nil {
		t.Fatal(err)
	}
	return conn
}

// differentialWritten are the tables of testdata/writes.
const differentialWritten = ";DROP TABLE IF EXISTS stock, orders CASCADE;" + writeTables

func differentialSetup(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/differential/setup.ddl")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// differentialLines reads a file's statements.
func differentialLines(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			lines[len(lines)-1] += "\n" + line
		default:
			lines = append(lines, line)
		}
	}
	return lines
}

// fill gives both the same rows: those of testdata/differential/rows.txt, by
// COPY.
func (p *differentialPair) fill(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("testdata/differential/*.copy")
	if err != nil || len(files) == 0 {
		t.Fatalf("no rows: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		table := strings.TrimSuffix(filepath.Base(file), ".copy")
		for _, conn := range []*pgconn.PgConn{p.gateway, p.plain} {
			if _, err := conn.Exec(t.Context(), "DELETE FROM "+table).ReadAll(); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.CopyFrom(t.Context(), bytes.NewReader(data), "COPY "+table+" FROM STDIN"); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
}

// differentialAnswer is what came back of one statement.
type differentialAnswer struct {
	columns, tag, code, message string
	rows                        []string
}

// ask runs a statement on one connection: as a simple query or, in binary
// format, by the extended protocol.
func ask(ctx context.Context, conn *pgconn.PgConn, sql string, extended bool, params ...[]byte) differentialAnswer {
	var a differentialAnswer
	var result *pgconn.Result
	if extended {
		result = conn.ExecParams(ctx, sql, params, nil, nil, []int16{1}).Read()
	} else {
		results, err := conn.Exec(ctx, sql).ReadAll()
		result = &pgconn.Result{Err: err}
		if len(results) > 0 {
			result = results[len(results)-1]
			result.Err = err
		}
	}
	if refused, ok := errors.AsType[*pgconn.PgError](result.Err); ok {
		a.code, a.message = refused.Code, refused.Message
		return a
	} else if result.Err != nil {
		a.code, a.message = "lost", result.Err.Error()
		return a
	}
	a.tag = result.CommandTag.String()
	for _, f := range result.FieldDescriptions {
		if f.DataTypeOID >= firstUserOID { // of a type that each server has given a number of its own
			f.DataTypeOID = firstUserOID
		}
		a.columns += fmt.Sprintf("%s %d %d %d,", f.Name, f.DataTypeOID, f.TypeModifier, f.Format)
	}
	for _, row := range result.Rows {
		var text strings.Builder
		for _, v := range row {
			switch {
			case v == nil:
				text.WriteString("NULL|")
			case extended:
				text.WriteString(hex.EncodeToString(v) + "|")
			default:
				text.WriteString(string(v) + "|")
			}
		}
		a.rows = append(a.rows, text.String())
	}
	return a
}

// compare runs one statement on both. It reports whether the gateway refused.
func (p *differentialPair) compare(t *testing.T, sql string, extended bool, params ...[]byte) (refused bool) {
	t.Helper()
	ties := strings.HasPrefix(sql, "~ ")
	sql = strings.TrimPrefix(sql, "~ ")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := ask(ctx, p.gateway, sql, extended, params...)
	p.asked++
	if got.code == "0A000" && p.isListed(got.message) {
		p.refused++
		if p.gateway.TxStatus() != 'I' {
			t.Errorf("refused in a block, which then is not as plain Postgres's: %s", sql)
		}
		return true
	}
	// What the gateway makes of it, plain Postgres would not know.
	want := ask(ctx, p.plain, strings.Replace(sql, " WITH (pgpact.reference)", "", 1), extended, params...)
	if got.code != want.code || got.tag != want.tag || got.columns != want.columns {
		t.Errorf("%d nodes: %s\n gateway %s %s %s [%s]\nPostgres %s %s %s [%s]", p.nodes, sql,
			got.code, got.message, got.tag, got.columns, want.code, want.message, want.tag, want.columns)
		return false
	}
	if verb, rows, _ := strings.Cut(got.tag, " "); verb != "SELECT" && rows != "0" && rows != "0 0" && rows != "" {
		p.changed++
	}
	if ties || !isOrdered(sql) {
		slices.Sort(got.rows)
		slices.Sort(want.rows)
	}
	if !slices.Equal(got.rows, want.rows) {
		t.Errorf("%d nodes: %s\n gateway %s\nPostgres %s", p.nodes, sql, clip(got.rows), clip(want.rows))
	}
	return false
}

func (p *differentialPair) isListed(message string) bool {
	return slices.ContainsFunc(p.refusals, func(part string) bool { return strings.Contains(message, part) })
}

func clip(rows []string) string {
	text := fmt.Sprintf("%d rows: %q", len(rows), rows)
	if len(text) > 1500 {
		text = text[:1500] + "..."
	}
	return text
}

// TestDifferentialFiles plays the files, and testdata/writes/statements.sql, on one
// to four nodes.
func TestDifferentialFiles(t *testing.T) {
	servers, stop, err := clustertest.NewServers(t.Context(), 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	files, err := filepath.Glob("testdata/differential/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no statements: %v", err)
	}
	writes := writeStatements(t, "testdata/writes/statements.sql")
	statements := len(writes)
	for _, file := range files {
		statements += len(differentialLines(t, file))
	}
	if t.Logf("%d statements, %d of them write", statements, len(writes)); statements < 400 {
		t.Errorf("%d statements, want 400 at least", statements)
	}
	for nodes := 1; nodes <= 4; nodes++ {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			p := startDifferential(t, servers, nodes)
			p.playWrites(t, writes)
			for _, file := range files {
				p.fill(t)
				for _, sql := range differentialLines(t, file) {
					if !p.compare(t, sql, false) && isQuery(sql) {
						p.compare(t, sql, true)
					}
				}
			}
			p.logShare(t)
		})
	}
}

// isQuery tells a SELECT, which may be asked twice, from what writes.
func isQuery(sql string) bool {
	sql = strings.TrimPrefix(sql, "~ ")
	return strings.HasPrefix(sql, "SELECT") ||
		strings.HasPrefix(sql, "WITH") && !slices.ContainsFunc([]string{"INSERT", "UPDATE", "DELETE"}, func(verb string) bool { return strings.Contains(sql, verb) })
}

// isOrdered tells whether the statement itself has an ORDER BY, not something in
// parentheses.
func isOrdered(sql string) bool {
	depth := 0
	var own strings.Builder
	for _, c := range strings.ToUpper(sql) {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case depth == 0:
			own.WriteRune(c)
		}
	}
	return strings.Contains(own.String(), "ORDER BY")
}

// logShare prints how much of what was asked has been refused.
func (p *differentialPair) logShare(t *testing.T) {
	t.Logf("%d nodes: %d of %d answers are refusals, %.1f %%; %d statements wrote rows",
		p.nodes, p.refused, p.asked, 100*float64(p.refused)/float64(p.asked), p.changed)
}
