// Package imports holds the table of who may import whom (DESIGN section 2),
// with the reasons, and a test that compares it with the code. The rooms of
// the house stay separate because this fails when they do not.
package imports

// Module is the path that all our packages begin with.
const Module = "github.com/pgpact/pgpact"

// Rule says what one of our packages may import beside the standard library.
type Rule struct {
	// Package, without the module's path; "internal/..." means it and all below.
	Package string
	// Ours are our packages it may import; "..." at the end as above.
	Ours []string
	// Others are modules, or parts of them, it may import.
	Others []string
	// Files, when not nil, narrows an import to the files named: the rest of the
	// package must do without it.
	Files map[string][]string
	// Why is what a refusal says.
	Why string
}

// The modules, by the names that the table uses.
const (
	pgx       = "github.com/jackc/pgx/v5"
	pgconn    = pgx + "/pgconn"
	pgproto3  = pgx + "/pgproto3"
	pgerrcode = "github.com/jackc/pgerrcode"
	psqlWire  = "github.com/jeroenrinzema/psql-wire"
	pgQuery   = "github.com/pganalyze/pg_query_go/v6"
	goose     = "github.com/pressly/goose/v3"
	cobra     = "github.com/spf13/cobra"
	yaml      = "github.com/goccy/go-yaml"
	lru       = "github.com/hashicorp/golang-lru/v2"
	sync      = "golang.org/x/sync"
	prom      = "github.com/prometheus/client_golang"
	promModel = "github.com/prometheus/client_model"
	term      = "golang.org/x/term"
	scram     = "github.com/xdg-go/scram"
	md2man    = "github.com/cpuguy83/go-md2man/v2"
	otel      = "go.opentelemetry.io/otel"
	otelTrace = otel + "/trace"
)

// Table is DESIGN section 2. A package that is not in it is refused: a new
// room is a decision, and this is where it is written down.
func Table() []Rule {
	return []Rule{
		{Package: "cmd/pgpact", Ours: []string{"..."}, Others: []string{pgx, cobra, yaml, sync, term, otelTrace, md2man},
			Why: "cmd wires everything and holds no logic of its own, so it needs no parser, no wire library and no goose"},
		{Package: "gateway", Ours: []string{"coordinator", "participant", "sqlparse", "internal/pgwire", "internal/quickconn"},
			Others: []string{psqlWire, pgproto3, pgconn, pgerrcode, lru, sync, scram, otelTrace, otel + "/attribute", otel + "/codes", otel + "/propagation"},
			Files:  map[string][]string{psqlWire: {"frontend.go"}, scram: {"login.go", "verifier.go"}, otelTrace: {"trace.go", "trace_parent.go", "gateway.go"}},
			Why:    "the schema is start-up's business, so not migrations; psql-wire's facts are known to one file (DESIGN section 8); statements are not parsed here"},
		{Package: "coordinator", Ours: []string{"participant"}, Others: []string{pgconn, pgerrcode, sync},
			Why: "it moves transactions, not statements, so not gateway or sqlparse; of pgx it knows errors, and who connects is told by Connectors"},
		{Package: "participant", Ours: []string{"internal/pgwire", "internal/quickconn"}, Others: []string{pgconn, pgproto3, pgerrcode, sync},
			Why: "a node does not know why it is asked, so not coordinator"},
		{Package: "sqlparse", Ours: nil, Others: []string{pgQuery, lru, "google.golang.org/protobuf"},
			Why: "pure and fuzzable: no I/O, no nodes"},
		{Package: "migrations", Ours: nil, Others: []string{goose, pgx, pgerrcode},
			Why: "the schema knows nothing of those who use it"},
		{Package: "internal/pgwire", Ours: nil, Others: nil,
			Why: "frames of bytes: everybody may use them, so they use nobody"},
		{Package: "internal/quickconn", Ours: nil, Others: nil,
			Why: "sockets and nothing else"},
		{Package: "internal/pgserver/...", Ours: []string{"internal/pgserver/..."}, Others: []string{pgx, pgerrcode, sync},
			Why: "Postgres servers as child processes: no part of the gateway"},
		{Package: "internal/clustertest", Ours: []string{"internal/pgserver/...", "coordinator", "participant", "migrations"}, Others: []string{pgx, sync},
			Why: "clusters for tests of the packages above the nodes: not gateway, whose own tests use it"},
		{Package: "internal/metrics", Ours: []string{"coordinator", "gateway", "participant", "sqlparse"}, Others: []string{prom, promModel},
			Why: "it implements the observers that coordinator and gateway offer, and they do not know it: only here is Prometheus known, and in internal/admin, which serves it"},
		{Package: "internal/admin", Ours: []string{"coordinator", "gateway", "participant", "internal/metrics"}, Others: []string{prom},
			Why: "it shows what others know and changes nothing: no pgx, no statements, no configuration"},
		{Package: "internal/tracing", Ours: nil, Others: []string{otel},
			Why: "it sends spans and does not know whose: OpenTelemetry's SDK and exporters are known here only, its interface also in gateway"},
		{Package: "internal/imports", Ours: nil, Others: nil,
			Why: "it looks at the others from outside"},
		{Package: "examples/go", Ours: nil, Others: []string{pgx},
			Why: "a client of pgpact knows nothing but Postgres's protocol"},
		{Package: "bench", Ours: []string{"internal/pgserver/..."}, Others: []string{pgx, sync},
			Why: "it measures the program as its users meet it, from outside"},
	}
}

// Connectors are the files that may make connections to Postgres themselves,
// in packages where more than one may use pgconn's types: a connection that is
// made elsewhere lacks what these set and verify.
func Connectors() map[string][]string {
	return map[string][]string{
		"coordinator": {"decisionlog.go"},
		"participant": {"node.go"},
		"gateway":     {},
	}
}
