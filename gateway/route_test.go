package gateway

import (
	"context"
	"errors"
	"fmt"
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
			"now": {}, "lower": {immutable: true}, "upper": {immutable: true}, "version": {}, "generate_series": {immutable: true},
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

func TestRouteToOneKey(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	if n := len(map[*participant.Node]bool{r.placement.NodeFor("alice"): true, r.placement.NodeFor("bob"): true, r.placement.NodeFor("carol"): true}); n != 3 {
		t.Fatalf("alice, bob and carol live on %d nodes: the tests below would prove nothing", n)
	}
	for _, test := range []struct{ sql, want string }{
		{"SELECT * FROM accounts WHERE id = 'alice'", "key:alice"},
		{"SELECT * FROM public.accounts WHERE 'alice' = id", "key:alice"},
		{"SELECT * FROM accounts a WHERE a.id = 'alice' AND balance > 5", "key:alice"},
		{"SELECT sum(balance), count(*) FROM accounts WHERE id = 'alice' GROUP BY owner ORDER BY 1 LIMIT 1", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice' FOR UPDATE", "key:alice writes"},
		{"UPDATE accounts SET balance = balance - 1 WHERE id = 'alice'", "key:alice writes"},
		{"DELETE FROM accounts WHERE id = 'bob' RETURNING *", "key:bob writes"},
		{"INSERT INTO accounts VALUES ('carol', 5)", "key:carol writes"},
		{"INSERT INTO accounts (balance, id) VALUES (5, 'carol') ON CONFLICT (id) DO UPDATE SET balance = 7", "key:carol writes"},
		{"INSERT INTO orders VALUES ('alice', gen_random_uuid(), 'x', 1), ('alice', gen_random_uuid(), 'y', 1)", "key:alice writes"},
		{"SELECT * FROM accounts WHERE id = 'alice'::text", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice'::varchar", "key:alice"},
		{"SELECT * FROM accounts WHERE id IN ('alice')", "key:alice"},
		{"SELECT * FROM accounts WHERE id IN ('alice', 'alice')", "key:alice"},
		{"SELECT * FROM accounts WHERE id = ANY ('{alice}')", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice' OR id = 'alice'", "key:alice"},
		{"SELECT * FROM accounts WHERE id IN ('alice', 'bob') AND id IN ('carol', 'bob')", "key:bob"},
		// Contradictions touch no row: any node finds none.
		{"SELECT count(*) FROM accounts WHERE id = 'alice' AND id = 'bob'", "any"},
		{"DELETE FROM accounts WHERE id IN (NULL)", "any writes"},
		// Numbers in all their spellings.
		{"SELECT * FROM numbers WHERE id = 7", "key:7"},
		{"SELECT * FROM numbers WHERE id = -7", "key:-7"},
		{"SELECT * FROM numbers WHERE id = 007", "key:7"},
		{"SELECT * FROM numbers WHERE id = '7'", "key:7"},
		{"SELECT * FROM numbers WHERE id = ' +07 '", "key:7"},
		{"SELECT * FROM numbers WHERE id = '7'::int4", "key:7"},
		{"SELECT * FROM numbers WHERE id = '-0'", "key:0"},
		{"SELECT * FROM tiny WHERE id = 70000", "key:70000"},
		{"SELECT * FROM numbers WHERE id = 'seven'", `22P02 invalid input syntax for type bigint: "seven"`},
		{"SELECT * FROM numbers WHERE id = ''", `22P02 invalid input syntax for type bigint: ""`},
		{"UPDATE numbers SET x = '' WHERE id = '5.0'", `22P02 invalid input syntax for type bigint: "5.0"`},
		// The node raises 42883; with a cast that somebody made it is the key.
		{"SELECT * FROM accounts WHERE id = 5", "key:5"},
		{"SELECT * FROM numbers WHERE id = 'x'::text", "any"},
		// uuids.
		{"SELECT * FROM things WHERE id = '{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}'", "key:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"SELECT * FROM things WHERE id = 'A0EEBC999C0B4EF8BB6D6BB9BD380A11'::uuid", "key:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"SELECT * FROM things WHERE id = 'a0eebc99'", `22P02 invalid input syntax for type uuid: "a0eebc99"`},
		// varchar(3) compares as text, and stores nothing longer.
		{"SELECT * FROM codes WHERE code = 'abc '", "key:abc_"},
		{"INSERT INTO codes VALUES ('abc')", "key:abc writes"},
		{"INSERT INTO codes VALUES ('abcd')", "key:abcd writes"}, // the node's 22001
		{"INSERT INTO codes VALUES ('ab ')", "key:ab_ writes"},
		{"INSERT INTO codes VALUES ('äöü')", "key:äöü writes"},
		{"INSERT INTO codes VALUES ('abc ')", `0A000 value for the shard key "code" of table public.codes is longer than varchar(3)`},
	} {
		r.check(t, test.sql, nil, test.want)
	}
}

func TestRouteTogether(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	for _, test := range []struct{ sql, want string }{
		{"SELECT * FROM accounts a JOIN orders o ON a.id = o.customer WHERE a.id = 'alice'", "key:alice"},
		{"SELECT * FROM accounts a, orders o WHERE a.id = o.customer AND o.customer = 'alice' ORDER BY 1", "key:alice"},
		{"SELECT * FROM accounts a JOIN orders o ON a.owner = o.customer AND a.id = a.owner WHERE a.id = 'alice'", "0A000"},
		// Over a column that is no shard key.
		{"SELECT * FROM accounts a JOIN orders o ON a.id = o.sku JOIN stock s ON s.sku = o.sku AND o.customer = a.id WHERE s.sku = 'alice'", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice' UNION SELECT * FROM accounts WHERE id = 'alice'", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice' UNION SELECT * FROM accounts WHERE id = 'bob'", "0A000 a statement with several tables must hold them all to the same shard key value"},
		{"SELECT * FROM accounts a LEFT JOIN orders o ON a.id = o.customer WHERE a.id = 'alice'", "key:alice"},
		// The preserved side is not held by the other's key.
		{"SELECT * FROM accounts a LEFT JOIN orders o ON a.id = o.customer AND o.customer = 'alice'", "0A000 a join over rows of several nodes"},
		{"SELECT * FROM accounts a WHERE id = 'alice' AND EXISTS (SELECT 1 FROM orders o WHERE o.customer = a.id)", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice' AND balance > (SELECT avg(balance) FROM accounts)", "0A000"},
		{"SELECT * FROM accounts a JOIN pg_class c ON true WHERE a.id = 'alice'", "key:alice"},
		{"SELECT * FROM accounts a JOIN pg_class c ON true", "0A000 a join over rows"},
		{"SELECT * FROM accounts, generate_series(1, 3)", "0A000 a join over rows"},
		{"SELECT * FROM accounts a JOIN orders o ON a.id = o.customer", "0A000 a join over rows of several nodes is not supported"},
		// Types: bigint and integer hash alike, text and bigint do not.
		{"SELECT * FROM numbers n JOIN tiny t ON n.id = t.id WHERE t.id = 7", "key:7"},
		{"SELECT * FROM numbers n JOIN accounts a ON n.id = a.id WHERE a.id = 'x'", "0A000"},
		{"INSERT INTO orders VALUES ('alice', gen_random_uuid(), 'x', (SELECT balance FROM accounts WHERE id = 'alice'))", "key:alice writes"},
		{"INSERT INTO orders VALUES ('alice', gen_random_uuid(), 'x', (SELECT quantity FROM stock WHERE sku = 'x'))", "0A000 a statement with several tables"},
		// A row that conflicts may have another key than the one inserted.
		{"INSERT INTO accounts VALUES ('alice', 1) ON CONFLICT (owner) DO UPDATE SET balance = (SELECT sum(quantity) FROM orders o WHERE o.customer = accounts.id)", "0A000"},
		{"UPDATE accounts SET balance = 0 FROM orders WHERE id = customer AND id = 'alice'", "key:alice writes"},
		{"DELETE FROM accounts USING orders WHERE id = customer", "0A000 a join"},
		{"WITH x AS (SELECT * FROM accounts WHERE id = 'alice') SELECT * FROM x", "key:alice"},
		{"WITH x AS (UPDATE accounts SET balance = 0 WHERE id = 'alice' RETURNING *) SELECT * FROM x", "key:alice writes"},
		{"WITH x AS (INSERT INTO accounts VALUES ('alice', 1) RETURNING *) SELECT * FROM x", "key:alice writes"},
		{"WITH x AS (UPDATE accounts SET id = 'zed' WHERE id = 'alice' RETURNING *) SELECT * FROM x", "0A000 shard key column"},
		{"WITH x AS (DELETE FROM accounts WHERE id = 'alice' RETURNING *) INSERT INTO orders SELECT id, gen_random_uuid() FROM x", "0A000 INSERT ... SELECT"},
		{"SELECT *, (SELECT 1) FROM accounts", "0A000 a subquery over rows"},
		{"SELECT * FROM accounts WHERE id IN (SELECT 'alice')", "0A000 a subquery"},
	} {
		r.check(t, test.sql, nil, test.want)
	}
}

func TestRouteToSeveralNodes(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	for _, test := range []struct{ sql, want string }{
		{"SELECT * FROM accounts", "all"},
		{"SELECT id, upper(owner), now(), random() FROM accounts WHERE balance > 10", "all"},
		{"SELECT * FROM accounts WHERE id IN ('alice', 'bob')", "key:alice,bob"},
		{"SELECT * FROM accounts WHERE id = ANY ('{alice,bob,NULL}')", "key:alice,bob"},
		{"SELECT * FROM accounts WHERE id = ANY (ARRAY['alice','bob'])", "key:alice,bob"},
		{"SELECT * FROM accounts WHERE id = 'alice' OR id = 'carol'", "key:alice,carol"},
		{"SELECT * FROM accounts WHERE id = 'alice' OR balance = 5", "all"},
		{"SELECT * FROM accounts WHERE NOT id = 'alice'", "all"},
		{"SELECT * FROM accounts WHERE id = lower('ALICE'::text)", "0A000 function lower"}, // the client's own
		{"SELECT * FROM accounts WHERE id = upper('alice')", "all"},
		{"SELECT * FROM accounts WHERE id = 'alice'::name", "all"}, // not understood
		{"SELECT * FROM accounts FOR UPDATE", "all writes"},
		{"UPDATE accounts SET balance = 0", "all writes"},
		{"UPDATE accounts SET balance = balance + CASE id WHEN 'alice' THEN -10 ELSE 10 END WHERE id IN ('alice','bob') RETURNING *", "key:alice,bob writes"},
		{"DELETE FROM accounts WHERE balance = 0", "all writes"},
		{"SELECT generate_series(1, 3) FROM accounts", "all"},
		{"SELECT clean(owner) FROM accounts", "all writes"},
		// What would have to be combined.
		{"SELECT count(*) FROM accounts", "0A000 count() over several nodes is not supported yet"},
		{"SELECT total(balance) FROM accounts", "0A000 total() over several nodes"},
		{"SELECT balance FROM accounts GROUP BY balance", "0A000 GROUP BY over"},
		{"SELECT 1 FROM accounts HAVING true", "0A000 HAVING over"},
		{"SELECT DISTINCT owner FROM accounts", "0A000 DISTINCT over"},
		{"SELECT * FROM accounts ORDER BY id", "0A000 ORDER BY over"},
		{"SELECT * FROM accounts LIMIT 1", "0A000 LIMIT over"},
		{"SELECT * FROM accounts OFFSET 1", "0A000 LIMIT over"},
		{"SELECT row_number() OVER () FROM accounts", "0A000 a window function over"},
		{"SELECT sum(balance) OVER () FROM accounts WHERE id IN ('alice', 'bob')", "0A000 a window function over"},
		{"UPDATE accounts SET balance = nextval('s')", "0A000 nextval is not supported"},
		{"UPDATE accounts SET balance = pay(id)", "0A000 function pay cannot be called"},
		{"UPDATE accounts SET balance = pay(id) WHERE id = 'alice'", "key:alice writes taints"},
		{"INSERT INTO accounts VALUES ('alice', nextval('s'))", "key:alice writes"},
	} {
		r.check(t, test.sql, nil, test.want)
	}
	// Keys that happen to live on one node need no combination.
	var together string
	for i := 0; together == ""; i++ {
		if key := fmt.Sprint("k", i); r.placement.NodeFor(key) == r.placement.NodeFor("alice") {
			together = key
		}
	}
	r.check(t, "SELECT count(*) FROM accounts WHERE id IN ('alice', '"+together+"')", nil, "key:alice")
	r.check(t, "INSERT INTO accounts VALUES ('alice', 1), ('"+together+"', 2)", nil, "key:alice writes")
}

// With one node nothing has to be combined and every key lives there.
func TestRouteWithOneNode(t *testing.T) {
	r := testRouter(t, "a")
	for _, test := range []struct{ sql, want string }{
		{"SELECT count(*) FROM accounts a JOIN orders o ON a.owner = o.sku ORDER BY 1", "a"},
		{"INSERT INTO accounts SELECT sku, quantity FROM stock", "a writes"},
		{"INSERT INTO serials (x) VALUES ('x')", "a writes"},
		{"SELECT nextval('s')", "any writes"},
		{"UPDATE accounts SET balance = pay(id)", "a writes taints"},
		{"UPDATE accounts SET id = 'x'", "0A000 shard key column"},
	} {
		r.check(t, test.sql, nil, test.want)
	}
}

func TestRouteSearchPath(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	for _, test := range []struct {
		sql, want string
		session   *routeSession
	}{
		// kunde has a table accounts of its own, sharded by a number.
		{"SELECT * FROM accounts WHERE number = 7", "key:7", testSession},
		{"SELECT * FROM accounts WHERE id = 'alice'", "all", testSession}, // 42703 on each
		{"SELECT * FROM public.accounts WHERE id = 'alice'", "key:alice", testSession},
		{"SELECT * FROM accounts WHERE id = 'alice'", "any", &routeSession{searchPath: []string{"other"}}},
		{"SELECT * FROM branches", "42501", &routeSession{searchPath: []string{"pgpact"}}},
		{"SELECT * FROM pg_class", "any", &routeSession{searchPath: []string{"public", "pg_catalog"}}},
		{"SELECT * FROM pg_class", "any", &routeSession{searchPath: []string{"shadow"}}},
		{"SELECT * FROM pg_class", "all", &routeSession{searchPath: []string{"shadow", "pg_catalog"}}},
		{"SELECT upper('x')", "any", publicSession},
		{"SELECT upper('x')", "0A000", &routeSession{searchPath: []string{"other"}}},
		{"SELECT pg_catalog.upper('x')", "any", &routeSession{searchPath: []string{"other"}}},
	} {
		got := r.outcome(t, test.sql, nil, test.session)
		if want := r.expected(test.want); got != want && !(len(want) == 5 && strings.HasPrefix(got, want)) {
			t.Errorf("%s in %v\n got %s\nwant %s", test.sql, test.session.searchPath, got, want)
		}
	}
}

func TestRouteExplainKeys(t *testing.T) {
	r := testRouter(t, "a", "b")
	session := *publicSession
	session.explain = true
	got, err := r.route(context.Background(), parseOne(t, "SELECT * FROM accounts WHERE id IN ('bob', 'alice')"), nil, &session)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.keys) != 2 || got.keys[0].key != "alice" || got.keys[1].key != "bob" ||
		got.keys[0].bucket != Bucket("alice", 256) || got.keys[0].node != r.placement.NodeFor("alice") || got.keys[0].table.Name != "accounts" {
		t.Errorf("keys %+v", got.keys)
	}
}

func TestRouteCurrentOf(t *testing.T) {
	r := testRouter(t, "a", "b")
	session := *publicSession
	b := r.placement.Nodes()[1]
	session.cursors = map[string]*participant.Node{"c": b}
	got, err := r.route(context.Background(), parseOne(t, "DELETE FROM accounts WHERE CURRENT OF c"), nil, &session)
	if err != nil || len(got.nodes) != 1 || got.nodes[0] != b || !got.writes {
		t.Errorf("got %+v, %v", got, err)
	}
}
