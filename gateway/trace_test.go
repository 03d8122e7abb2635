package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// startTraced is a stack whose spans are kept.
func startTraced(t *testing.T) (*stack, *tracetest.InMemoryExporter) {
	t.Helper()
	kept := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return startStack(t, stackOptions{config: func(c *Config) { c.Tracer = provider.Tracer("test") }}), kept
}

func attributeOf(span tracetest.SpanStub, key string) string {
	for _, a := range span.Attributes {
		if a.Key == attribute.Key(key) {
			return a.Value.String()
		}
	}
	return ""
}

// tree draws what was kept since the last call: each span below its parent, those
// of one parent by their names' first mention, with the attributes asked for.
func tree(t *testing.T, kept *tracetest.InMemoryExporter, keys ...string) string {
	t.Helper()
	all := kept.GetSpans()
	kept.Reset()
	slices.SortStableFunc(all, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	known := map[string]tracetest.SpanStub{}
	for _, span := range all {
		known[span.SpanContext.SpanID().String()] = span
	}
	var out strings.Builder
	var draw func(span tracetest.SpanStub, indent string)
	draw = func(span tracetest.SpanStub, indent string) {
		fmt.Fprint(&out, indent, span.Name)
		for _, key := range keys {
			if value := attributeOf(span, key); value != "" {
				fmt.Fprintf(&out, " %s=%s", key[strings.LastIndex(key, ".")+1:], value)
			}
		}
		if span.Status.Code == codes.Error {
			fmt.Fprint(&out, " ERROR")
		}
		fmt.Fprintln(&out)
		if span.EndTime.Before(span.StartTime) {
			t.Errorf("%s ends before it begins", span.Name)
		}
		for _, below := range all {
			if below.Parent.SpanID() != span.SpanContext.SpanID() {
				continue
			}
			if below.EndTime.After(span.EndTime) || below.StartTime.Before(span.StartTime) {
				t.Errorf("%s (%s to %s) is not within %s (%s to %s)", below.Name, below.StartTime, below.EndTime, span.Name, span.StartTime, span.EndTime)
			}
			draw(below, indent+"  ")
		}
	}
	for _, span := range all {
		if _, inner := known[span.Parent.SpanID().String()]; !inner {
			draw(span, "")
		}
	}
	return out.String()
}

func traceConn(t *testing.T, s *stack) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func wantTree(t *testing.T, what, got, want string) {
	t.Helper()
	if got != strings.TrimLeft(want, "\n") {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

const keepBalance = "UPDATE accounts SET balance = balance WHERE id = '%s'"

// A transfer between two nodes, step by step.
func TestSpansOfACrossNodeTransaction(t *testing.T) {
	s, kept := startTraced(t)
	conn := traceConn(t, s)
	run := func(sqls ...string) {
		t.Helper()
		for _, sql := range sqls {
			if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	kept.Reset()
	onA, onB := fmt.Sprintf(keepBalance, s.key("a", 1)), fmt.Sprintf(keepBalance, s.key("b", 1))
	run("BEGIN", onA, onB, "COMMIT")
	spans := kept.GetSpans()
	id := ""
	for _, span := range spans {
		if span.SpanContext.TraceID() != spans[0].SpanContext.TraceID() {
			t.Errorf("%s has a trace of its own", span.Name)
		}
		if span.Name == "transaction" {
			id = attributeOf(span, "pgpact.transaction.id")
		}
		if span.Name == "UPDATE accounts" {
			for key, want := range map[string]string{"db.system.name": "postgresql", "db.namespace": "pgpact", "db.operation.name": "UPDATE",
				"db.collection.name": "accounts", "pgpact.user": "carol"} {
				if got := attributeOf(span, key); got != want {
					t.Errorf("%s of an UPDATE is %q, want %q", key, got, want)
				}
			}
			if text := attributeOf(span, "db.query.text"); text != "" {
				t.Errorf("a text is in the span that nobody asked for: %s", text)
			}
		}
	}
	if asked := ""; conn.QueryRow(t.Context(), "SELECT pgpact.outcome('"+id+"')").Scan(&asked) != nil || asked != "committed" {
		t.Errorf("pgpact.transaction.id %q is %q", id, asked)
	}
	kept.Reset()
	run("BEGIN", onA, onB, "COMMIT")
	wantTree(t, "a transfer", tree(t, kept, "pgpact.nodes", "pgpact.node", "pgpact.transaction.outcome"), `
transaction outcome=committed
  BEGIN
  UPDATE accounts nodes=["a"]
    node a node=a
  UPDATE accounts nodes=["b"]
    node b node=b
  COMMIT
    prepare node=a
    prepare node=b
    decide
    commit prepared node=a
    commit prepared node=b
`)
	// One node commits in one phase; a failed statement says with which SQLSTATE.
	run("BEGIN", onA, "COMMIT AND CHAIN")
	if _, err := conn.Exec(t.Context(), "SELECT 1/0", pgx.QueryExecModeSimpleProtocol); err == nil {
		t.Fatal("1/0 is something")
	}
	run("ROLLBACK")
	wantTree(t, "one phase, and a chained block that fails", tree(t, kept, "db.response.status_code", "pgpact.transaction.outcome"), `
transaction outcome=committed
  BEGIN
  UPDATE accounts
    node a
  COMMIT
    commit
transaction outcome=aborted
  SELECT status_code=22012 ERROR
    node a
  ROLLBACK
`)
}

func TestSpansOfStatementsAlone(t *testing.T) {
	s, kept := startTraced(t)
	conn := traceConn(t, s)
	kept.Reset()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(keepBalance, s.key("b", 1)), mode); err != nil {
			t.Fatal(err)
		}
		wantTree(t, "one node: "+mode.String(), tree(t, kept), `
UPDATE accounts
  node b
`)
		// Its commit is within its own span.
		keys := "('" + s.key("a", 1) + "', '" + s.key("c", 1) + "')"
		if _, err := conn.Exec(t.Context(), "UPDATE accounts SET balance = balance WHERE id IN "+keys, mode); err != nil {
			t.Fatal(err)
		}
		wantTree(t, "two nodes: "+mode.String(), tree(t, kept, "pgpact.transaction.outcome"), `
UPDATE accounts outcome=committed
  node a
  node c
  prepare
  prepare
  decide
  commit prepared
  commit prepared
`)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1; "+fmt.Sprintf(keepBalance, s.key("a", 1)), pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	wantTree(t, "two statements", tree(t, kept, "pgpact.transaction.outcome"), `
transaction outcome=committed
  SELECT
    node a
  UPDATE accounts
    node a
  commit
`)
	// A BEGIN that is refused, and a block whose client leaves, leave no span open.
	_, _ = conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL SERIALIZABLE; SAVEPOINT x", pgx.QueryExecModeSimpleProtocol)
	_ = conn.Close(t.Context())
	eventually(t, "the block's span", func() bool {
		return slices.ContainsFunc(kept.GetSpans(), func(span tracetest.SpanStub) bool { return span.Name == "transaction" })
	})
}

// What a client says of its own span decides whose child a statement is.
func TestSpansOfTheClient(t *testing.T) {
	s, kept := startTraced(t)
	conn := traceConn(t, s)
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	const (
		one = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		two = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	)
	parentOf := func(name string) (string, int) {
		t.Helper()
		for _, span := range kept.GetSpans() {
			if span.Name == name {
				return span.Parent.TraceID().String() + "-" + span.Parent.SpanID().String(), len(span.Links)
			}
		}
		t.Fatalf("no span %q", name)
		return "", 0
	}
	want := func(what, name, traceparent string, links int) {
		t.Helper()
		parent, linked := parentOf(name)
		if "00-"+parent+"-01" != traceparent || linked != links {
			t.Errorf("%s: the parent of %s is %s with %d links, want %s with %d", what, name, parent, linked, traceparent, links)
		}
		kept.Reset()
	}
	kept.Reset()
	run("SELECT 1 /*action='pay',traceparent='" + one + "'*/")
	want("a comment", "SELECT", one, 0)
	run("/*traceparent='" + strings.ReplaceAll(one, "-", "%2D") + "'*/ SELECT 1")
	want("an encoded comment in front", "SELECT", one, 0)
	run("SET application_name = 'shop " + two + "'")
	kept.Reset()
	run("SELECT 1")
	want("application_name", "SELECT", two, 0)
	run("SELECT 1 /*traceparent='" + one + "'*/")
	want("a comment goes before the application_name", "SELECT", one, 0)
	run("BEGIN")
	run("SELECT 1 /*traceparent='" + one + "'*/")
	want("a comment in a block", "SELECT", one, 1)
	run("COMMIT")
	want("a block", "transaction", two, 0)
	// A constant is no comment, and what is no traceparent is none.
	run("RESET application_name")
	for _, sql := range []string{"SELECT '/*traceparent=''" + one + "''*/'", "SELECT 1 /*traceparent='00-zz-" + one + "'*/",
		"SELECT 1 /*traceparent='00-00000000000000000000000000000000-b7ad6b7169203331-01'*/"} {
		kept.Reset()
		run(sql)
		want(sql, "SELECT", "00-00000000000000000000000000000000-0000000000000000-01", 0)
	}
}

// What a statement costs with and without a tracer.
func BenchmarkTracing(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("on=%v", on), func(b *testing.B) {
			s := startStack(b, stackOptions{config: func(c *Config) {
				if on {
					c.Tracer = sdktrace.NewTracerProvider().Tracer("test")
				}
			}})
			conn, err := pgx.Connect(b.Context(), s.url)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close(context.Background())
			sql := "SELECT balance FROM accounts WHERE id = '" + s.key("a", 1) + "'"
			for b.Loop() {
				if _, err := conn.Exec(b.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
