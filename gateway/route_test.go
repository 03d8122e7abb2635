package gateway

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/pgpact/pgpact/participant"
)

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
		{"SELECT * FROM accounts a JOIN orders o ON a.owner = o.customer AND a.id = a.owner WHERE a.id = 'alice'", "all"},
		// Over a column that is no shard key.
		{"SELECT * FROM accounts a JOIN orders o ON a.id = o.sku JOIN stock s ON s.sku = o.sku AND o.customer = a.id WHERE s.sku = 'alice'", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice' UNION SELECT * FROM accounts WHERE id = 'alice'", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice' UNION SELECT * FROM accounts WHERE id = 'bob'", "0A000 a statement with several tables must hold them all to the same shard key value"},
		{"SELECT * FROM accounts a LEFT JOIN orders o ON a.id = o.customer WHERE a.id = 'alice'", "key:alice"},
		// The preserved side is not held by the other's key.
		{"SELECT * FROM accounts a LEFT JOIN orders o ON a.id = o.customer AND o.customer = 'alice'", "all"},
		{"SELECT * FROM accounts a LEFT JOIN orders o ON o.customer = 'alice'", "0A000 a join over rows of several nodes"},
		{"SELECT * FROM accounts a WHERE id = 'alice' AND EXISTS (SELECT 1 FROM orders o WHERE o.customer = a.id)", "key:alice"},
		{"SELECT * FROM accounts WHERE id = 'alice' AND balance > (SELECT avg(balance) FROM accounts)", "0A000"},
		{"SELECT * FROM accounts a JOIN pg_class c ON true WHERE a.id = 'alice'", "key:alice"},
		{"SELECT * FROM accounts a JOIN pg_class c ON true", "0A000 a join over rows"},
		{"SELECT * FROM accounts, generate_series(1, 3)", "all"},
		{"SELECT * FROM generate_series(1, 3) LEFT JOIN accounts ON true", "0A000 a join over rows"},
		{"SELECT * FROM accounts, generate_series(1, (random() * 3)::int)", "0A000 a join over rows"},
		{"SELECT * FROM accounts a JOIN orders o ON a.id = o.customer", "all"},
		{"SELECT * FROM accounts a JOIN orders o ON a.id = o.customer WHERE a.id IN ('alice', 'bob')", "key:alice,bob"},
		{"SELECT * FROM accounts a JOIN orders o ON a.id = o.sku", "0A000 a join over rows of several nodes is not supported"},
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
		{"SELECT *, (SELECT 1) FROM accounts", "all"},
		{"SELECT *, (SELECT random()) FROM accounts", "0A000 a subquery over rows"},
		{"SELECT * FROM accounts WHERE id IN (SELECT 'alice')", "all"},
		{"SELECT * FROM accounts WHERE id IN (SELECT customer FROM orders)", "all"},
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
		// What has to be combined, or is refused when that is planned (combine_plan.go).
		{"SELECT count(*) FROM accounts", "all"},
		{"SELECT total(balance) FROM accounts", "all writes"},
		{"SELECT balance FROM accounts GROUP BY balance", "all"},
		{"SELECT 1 FROM accounts HAVING true", "all"},
		{"SELECT DISTINCT owner FROM accounts", "all"},
		{"SELECT * FROM accounts ORDER BY id", "all"},
		{"SELECT * FROM accounts LIMIT 1", "all"},
		{"SELECT * FROM accounts OFFSET 1", "all"},
		{"SELECT row_number() OVER () FROM accounts", "all"},
		{"SELECT sum(balance) OVER () FROM accounts WHERE id IN ('alice', 'bob')", "key:alice,bob"},
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
	session.cursor = func(name string) (*participant.Node, bool) {
		return map[string]*participant.Node{"c": b}[name], name == "c" || name == "several"
	}
	got, err := r.route(context.Background(), parseOne(t, "DELETE FROM accounts WHERE CURRENT OF c"), nil, &session)
	if err != nil || len(got.nodes) != 1 || got.nodes[0] != b || !got.writes {
		t.Errorf("got %+v, %v", got, err)
	}
	// One that no node holds must not be looked for on any, nor one that is not there on several.
	if got, err := r.route(context.Background(), parseOne(t, "DELETE FROM accounts WHERE CURRENT OF several"), nil, &session); err == nil {
		t.Errorf("got %+v", got)
	}
	got, err = r.route(context.Background(), parseOne(t, "DELETE FROM accounts WHERE CURRENT OF none"), nil, &session)
	if err != nil || !got.anyNode {
		t.Errorf("got %+v, %v", got, err)
	}
}
