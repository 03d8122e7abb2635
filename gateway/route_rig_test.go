package gateway

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// testNodes are nodes that are never connected to.
func testNodes(t testing.TB, names ...string) []*participant.Node {
	t.Helper()
	var nodes []*participant.Node
	for _, name := range names {
		node, err := participant.Open(participant.Config{Name: name, URL: "postgres://u@127.0.0.1:1/d"})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// testPlacement gives each node a stretch of the buckets.
func testPlacement(t testing.TB, nodes []*participant.Node) *Placement {
	t.Helper()
	owner := make([]string, DefaultBuckets)
	for i := range owner {
		owner[i] = nodes[i*len(nodes)/len(owner)].Name()
	}
	p, err := NewPlacement(nodes, owner)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// table makes a table of "name type [option]" columns; the first is its key.
func table(name string, columns ...string) *Table {
	types := map[string]uint32{
		"text": oidText, "varchar": oidVarchar, "varchar(3)": oidVarchar, "int2": oidInt2, "int4": oidInt4,
		"int8": oidInt8, "uuid": oidUUID, "numeric": 1700, "bpchar": 1042, "timestamptz": 1184,
	}
	t := &Table{Schema: "public", Name: name, Kind: 'r', PrimaryKey: []int{0}}
	if schema, rest, ok := strings.Cut(name, "."); ok {
		t.Schema, t.Name = schema, rest
	}
	for _, spec := range columns {
		fields := strings.SplitN(spec, " ", 3)
		c := Column{Name: fields[0], Type: types[fields[1]], TypeName: fields[1], Deterministic: true}
		c.class = classOf(c.Type)
		if fields[1] == "varchar(3)" {
			c.Length = 3
		}
		if len(fields) == 3 {
			switch option := fields[2]; option {
			case "identity":
				c.Identity = true
			case "nondeterministic":
				c.Deterministic, c.Collation = false, "ci"
			default:
				c.Default = option
			}
		}
		t.Columns = append(t.Columns, c)
	}
	return t
}

func without(t *Table, change func(*Table)) *Table {
	change(t)
	return t
}

// testCatalog is hand-made: the pure tests need no server.
func testCatalog() *Catalog {
	c := &Catalog{
		relations: map[relationKey]relation{
			{systemSchema, "pg_class"}:    {kind: systemRelation},
			{systemSchema, "pg_settings"}: {kind: systemRelation},
			{ownSchema, "branches"}:       {kind: ownRelation},
		},
		functions: map[relationKey]functionFacts{
			{"public", "pay"}:   {volatile: true},
			{"public", "clean"}: {immutable: true},
			{"public", "total"}: {aggregate: true, immutable: true},
			{"public", "lower"}: {volatile: true}, // hides pg_catalog.lower
			{"other", "upper"}:  {volatile: true},
			{ownSchema, "x"}:    {volatile: true},
		},
		systemFunctions: map[string]functionFacts{
			"random": {volatile: true}, "gen_random_uuid": {volatile: true}, "avg": {immutable: true, aggregate: true}, "nextval": {volatile: true}, "currval": {volatile: true},
			"now": {}, "lower": {immutable: true}, "upper": {immutable: true}, "version": {}, "generate_series": {immutable: true, set: true},
			"count": {immutable: true, aggregate: true}, "sum": {immutable: true, aggregate: true},
			"row_number": {immutable: true}, "txid_current": {}, "setseed": {volatile: true},
			"set_config": {volatile: true}, "pg_advisory_lock": {volatile: true}, "pg_try_advisory_xact_lock": {volatile: true},
			"pg_terminate_backend": {volatile: true}, "pg_notify": {volatile: true}, "lo_create": {volatile: true},
			"pg_export_snapshot": {volatile: true}, "query_to_xml": {volatile: true}, "pg_reload_conf": {volatile: true},
			"current_setting": {}, "pg_table_is_visible": {}, "format_type": {}, "pg_stat_reset": {volatile: true},
		},
	}
	for _, t := range []*Table{
		table("accounts", "id text", "balance int8", "owner text"),
		table("stock", "sku text", "quantity int8"),
		table("orders", "customer text", "order_id uuid", "sku text", "quantity int8"),
		table("numbers", "id int8", "small int4", "x text"),
		table("tiny", "id int2"),
		table("things", "id uuid", "name text"),
		table("codes", "code varchar(3)", "name text"),
		table("serials", "id int8 nextval('s'::regclass)", "x text"),
		table("identities", "id int8 identity", "x text"),
		table("made", "id uuid gen_random_uuid()", "x text"),
		table("kunde.accounts", "number int8", "x text"),
		table("shadow.pg_class", "id text"),
		without(table("heap", "id text"), func(t *Table) { t.PrimaryKey = nil }),
		table("times", "at timestamptz", "x text"),
		table("padded", "id bpchar"),
		table("folded", "id text nondeterministic"),
		without(table("parent", "id text"), func(t *Table) { t.Parent = true }),
		without(table("parts", "id text"), func(t *Table) { t.Kind = 'p' }),
		without(table("rich", "id text"), func(t *Table) { t.Kind = 'v' }),
		without(table("far", "id text"), func(t *Table) { t.Kind = 'f' }),
		without(table("s", "id text"), func(t *Table) { t.Kind = 'S' }),
		without(table("derived", "id text"), func(t *Table) { t.Columns[0].Generated = true }),
	} {
		if why := judge(t); why != nil {
			t.unusable = why
		}
		c.relations[relationKey{t.Schema, t.Name}] = relation{table: t, kind: userRelation}
	}
	return c
}

// testRouter routes by testCatalog; its holder has no node to ask, so that a
// reload finds nothing new.
func testRouter(t testing.TB, names ...string) *router {
	holder := &catalogHolder{logger: slog.New(slog.DiscardHandler), period: time.Hour}
	holder.current.Store(testCatalog())
	return newRouter(testPlacement(t, testNodes(t, names...)), holder)
}

var testSession = &routeSession{user: "kunde", searchPath: []string{"$user", "public"}}

// publicSession is a user without a schema.
var publicSession = &routeSession{user: "bob", searchPath: []string{"$user", "public"}}

func parseOne(t testing.TB, sql string) *sqlparse.Statement {
	t.Helper()
	statements, err := sqlparse.NewParser(100).Parse(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if len(statements) != 1 {
		t.Fatalf("%s: %d statements", sql, len(statements))
	}
	return &statements[0]
}

// where tells a route in words: "any", "all", or the node of a key written as
// key:alice, or of several as key:alice,bob; _ stands for a space.
func (r *router) where(got route) string {
	switch {
	case got.anyNode && got.nodes == nil:
		return "any"
	case got.anyNode:
		return "any and nodes"
	}
	var names []string
	for _, node := range got.nodes {
		names = append(names, node.Name())
	}
	return strings.Join(names, " ")
}

// expected turns the words of a test into where's.
func (r *router) expected(want string) string {
	var nodes []*participant.Node
	keys, ok := strings.CutPrefix(want, "key:")
	switch {
	case want == "all":
		nodes = r.placement.Nodes()
	case ok:
		owners := map[*participant.Node]bool{}
		for key := range strings.SplitSeq(keys, ",") {
			owners[r.placement.NodeFor(strings.ReplaceAll(key, "_", " "))] = true
		}
		for _, node := range r.placement.Nodes() {
			if owners[node] {
				nodes = append(nodes, node)
			}
		}
	default:
		return want
	}
	var names []string
	for _, node := range nodes {
		names = append(names, node.Name())
	}
	return strings.Join(names, " ")
}

// outcome is where a statement goes, with " writes" and " taints", or the
// SQLSTATE and message of its refusal.
func (r *router) outcome(t testing.TB, sql string, bound *boundValues, session *routeSession) string {
	t.Helper()
	got, err := r.route(context.Background(), parseOne(t, sql), bound, session)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code + " " + pgErr.Message
	}
	if err != nil {
		return err.Error()
	}
	text := r.where(got)
	if got.writes {
		text += " writes"
	}
	if got.taints {
		text += " taints"
	}
	return text
}

// check compares, where want is "<where> [writes] [taints]" or the beginning
// of "<SQLSTATE> <message>".
func (r *router) check(t *testing.T, sql string, bound *boundValues, want string) {
	t.Helper()
	place, rest, _ := strings.Cut(want, " ")
	full := strings.TrimSpace(r.expected(place) + " " + rest)
	got := r.outcome(t, sql, bound, publicSession)
	if got != full && !(len(place) == 5 && place != "any" && strings.HasPrefix(got, want)) {
		t.Errorf("%s\n got %s\nwant %s", sql, got, full)
	}
}
