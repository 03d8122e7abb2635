package gateway

import "testing"

// Where SELECTs with CTEs and subqueries go. What they may do is held in
// sqlparse/testdata/tied, that their answers are right by the differential test.
func TestRouteTied(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	for _, test := range []struct{ sql, want string }{
		{"WITH x AS (SELECT * FROM accounts) SELECT * FROM x", "all"},
		{"SELECT * FROM (SELECT * FROM accounts WHERE id IN ('alice', 'bob')) x", "key:alice,bob"},
		{"WITH x AS (SELECT * FROM accounts WHERE id IN ('alice', 'bob')), y AS (SELECT * FROM orders WHERE customer IN ('bob', 'carol')) " +
			"SELECT * FROM x FULL JOIN y ON y.customer = x.id", "key:alice,bob,carol"},
		{"WITH x AS (SELECT * FROM accounts WHERE id IN ('alice', 'bob')) SELECT * FROM x FULL JOIN orders o ON o.customer = x.id", "all"},
		{"WITH x AS (SELECT * FROM accounts WHERE id = 'alice') SELECT * FROM x", "key:alice"},
		{"SELECT * FROM accounts WHERE id IN (SELECT customer FROM orders)", "all"},
		{"SELECT * FROM accounts WHERE owner IN (SELECT customer FROM orders)", "0A000 a subquery over rows of several nodes"},
		{"WITH x AS (SELECT * FROM accounts) SELECT * FROM x JOIN orders o ON o.sku = x.id", "0A000 a join over rows of several nodes"},
		{"WITH x AS (SELECT * FROM accounts), y AS (SELECT * FROM numbers) SELECT * FROM x JOIN y ON y.x = x.id", "0A000 a join over rows of several nodes"},
		{"WITH x AS (SELECT id FROM tiny) SELECT * FROM x JOIN numbers n ON n.id = x.id", "all"},
		{"WITH x AS (SELECT id FROM things) SELECT * FROM x JOIN orders o ON o.order_id = x.id", "0A000 a join over rows of several nodes"},
		{"WITH x AS (SELECT * FROM accounts LIMIT 1) SELECT * FROM x", "0A000 LIMIT or OFFSET in a subquery or WITH over several nodes"},
		{"WITH x AS (SELECT * FROM accounts) SELECT random() FROM x", "0A000 WITH over rows of several nodes"},
		{"WITH x AS (SELECT * FROM accounts) SELECT clean(x.id) FROM x", "all writes"},
		{"WITH x AS (SELECT * FROM accounts) SELECT pay(x.id) FROM x", "0A000 WITH over rows of several nodes"},
		{"WITH x AS (SELECT nextval('s') FROM accounts) SELECT * FROM x", "0A000 WITH over rows of several nodes"},
		{"WITH x AS (SELECT * FROM accounts) SELECT currval('s') FROM x", "0A000 WITH over rows of several nodes"},
		{"WITH x AS (SELECT * FROM accounts) SELECT * FROM x FOR UPDATE", "0A000 WITH over rows of several nodes"},
		{"WITH x AS (SELECT * FROM accounts) SELECT * FROM x, pg_class", "0A000 a join over rows of several nodes"},
		{"WITH x AS (SELECT * FROM accounts) SELECT 1", "0A000 WITH over rows of several nodes"},
		{"WITH x AS (SELECT 1) SELECT * FROM x", "any"},
		{"WITH x AS (SELECT * FROM accounts) SELECT * FROM x UNION ALL SELECT * FROM x", "0A000 a set operation over rows of several nodes"},
		{"INSERT INTO accounts WITH x AS (SELECT * FROM accounts) SELECT * FROM x", "0A000 INSERT ... SELECT"},
		{"WITH x AS (SELECT * FROM accounts) UPDATE orders SET quantity = 1 FROM x WHERE x.id = orders.customer", "0A000 a join over rows of several nodes"},
	} {
		r.check(t, test.sql, nil, test.want)
	}
}
