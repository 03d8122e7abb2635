package gateway

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// referenceRouter knows the reference tables rates and colors, with a key of a
// type that no shard key has and with none, beside testCatalog's.
func referenceRouter(t testing.TB, names ...string) *router {
	catalog := testCatalog()
	for _, table := range []*Table{
		table("rates", "day timestamptz", "rate numeric", "made text now()"),
		without(table("colors", "name text", "id int8 nextval('s'::regclass)"), func(t *Table) { t.PrimaryKey = nil }),
		without(table("noisy", "name text"), func(t *Table) { t.Triggers = true }),
	} {
		table.Reference = true
		table.unusable = judge(table)
		catalog.judgeDefaults(table)
		catalog.relations[relationKey{table.Schema, table.Name}] = relation{table: table, kind: userRelation}
	}
	holder := &catalogHolder{logger: slog.New(slog.DiscardHandler), period: time.Hour}
	holder.current.Store(catalog)
	return newRouter(testPlacement(t, testNodes(t, names...)), holder)
}

func TestRouteReferences(t *testing.T) {
	const value, alone, source, choice = "is not supported in a statement", "must not change anything else", "cannot be changed by what is in", "on is not supported"
	r := referenceRouter(t, "c", "a", "b") // not in the order of their names
	for _, test := range []struct {
		sql, where, refused string
	}{
		// Read: wherever the rest is.
		{"SELECT * FROM rates", "any", ""},
		{"SELECT * FROM rates, colors ORDER BY rate LIMIT 1", "any", ""},
		{"SELECT * FROM accounts, colors WHERE accounts.id = 'alice'", "key:alice", ""},
		{"SELECT * FROM accounts JOIN colors ON name = owner", "all", ""},
		{"SELECT * FROM accounts JOIN colors ON name = owner WHERE accounts.id IN ('alice', 'bob')", "key:alice,bob", ""},
		{"SELECT * FROM accounts a JOIN orders o ON o.customer = a.id, rates", "all", ""},
		{"SELECT * FROM accounts a JOIN orders o ON o.sku = a.id, rates", "", "a join over rows of several nodes is not supported"},
		{"SELECT * FROM rates LEFT JOIN accounts ON true", "", "a join over rows of several nodes is not supported"},
		{"SELECT * FROM accounts LEFT JOIN rates ON true", "all", ""},
		{"SELECT * FROM accounts WHERE owner IN (SELECT name FROM colors)", "all", ""},
		{"SELECT * FROM accounts WHERE owner IN (SELECT name FROM colors LIMIT 1)", "", "a subquery over rows of several nodes is not supported"},
		{"SELECT * FROM accounts WHERE id = 'alice' AND owner IN (SELECT name FROM colors LIMIT 1)", "key:alice", ""},
		{"SELECT * FROM rates WHERE rate > (SELECT balance FROM accounts)", "", "a subquery over rows of several nodes is not supported"},
		{"SELECT name FROM colors UNION SELECT id FROM accounts", "", "a set operation over rows of several nodes is not supported"},
		{"SELECT * FROM rates, pg_class", "any", ""},
		{"SELECT pay() FROM rates", "", "function pay cannot be called"},
		{"EXPLAIN ANALYZE SELECT * FROM rates", "any", ""},
		{"UPDATE accounts SET balance = rate FROM rates WHERE accounts.id = 'alice'", "key:alice", ""},
		{"UPDATE accounts SET balance = rate FROM rates", "all", ""},
		{"UPDATE accounts SET balance = (SELECT rate FROM rates ORDER BY 1 LIMIT 1)", "", "a subquery over rows of several nodes is not supported"},
		{"WITH c AS (SELECT * FROM colors) DELETE FROM accounts USING c WHERE owner = c.name", "all", ""},
		{"DELETE FROM accounts USING rates, orders", "", "a join over rows of several nodes is not supported"},
		{"INSERT INTO accounts SELECT 'alice', rate FROM rates", "key:alice", ""},
		{"INSERT INTO accounts SELECT name FROM colors", "", "is supported only if each row stays on its node"},

		// Locked: on the node that is first by its name.
		{"SELECT * FROM rates FOR UPDATE", "a", ""},
		{"SELECT * FROM rates r, colors FOR SHARE OF r", "a", ""},
		{"SELECT * FROM accounts, rates WHERE id = 'alice' FOR UPDATE OF accounts", "key:alice", ""},
		{"SELECT * FROM accounts, rates WHERE id = 'alice' FOR UPDATE", "", "locking rows of reference table public.rates together"},
		{"SELECT * FROM accounts, rates r WHERE id = 'alice' FOR UPDATE OF r", "", "locking rows of reference table public.rates together"},

		// Changed: everywhere, in the order of the names.
		{"INSERT INTO rates VALUES ('2020-01-01', 1, 'x')", "a b c", ""},
		{"UPDATE rates SET rate = rate * 2", "a b c", ""},
		{"DELETE FROM rates USING colors WHERE made = name", "a b c", ""},
		{"INSERT INTO rates SELECT now, 1, name FROM colors", "a b c", ""},
		{"EXPLAIN UPDATE rates SET rate = 1", "a b c", ""},
		{"INSERT INTO rates VALUES ('2020-01-01', 1)", "", "must be given"},
		{"INSERT INTO rates (made, day) VALUES (DEFAULT, '2020-01-01')", "", "must be given"},
		{"INSERT INTO colors (name) VALUES ('red')", "", "must be given"},
		{"INSERT INTO colors VALUES ('red', nextval('s'))", "", value},
		{"UPDATE rates SET rate = random()", "", value},
		{"UPDATE rates SET day = now()", "", value},
		{"UPDATE rates SET day = CURRENT_TIMESTAMP", "", value},
		{"UPDATE rates SET rate = pay()", "", value},
		{"UPDATE rates SET rate = clean()", "a b c", ""},
		{"UPDATE rates SET rate = balance FROM accounts", "", source},
		{"INSERT INTO colors SELECT id, 1 FROM accounts WHERE id = 'alice'", "", source},
		{"INSERT INTO colors SELECT relname, 1 FROM pg_class", "", source},
		{"DELETE FROM rates WHERE day IN (SELECT day FROM rates LIMIT 1)", "", choice},
		{"WITH x AS (DELETE FROM rates RETURNING *) SELECT * FROM x", "", alone},
		{"WITH x AS (DELETE FROM rates RETURNING *) INSERT INTO accounts SELECT 'alice', rate FROM x", "", alone},
		{"WITH x AS (DELETE FROM accounts WHERE id = 'alice' RETURNING *) DELETE FROM rates", "", alone},
		{"INSERT INTO noisy VALUES ('x')", "", "because it has triggers or rules"},
	} {
		got, err := r.route(context.Background(), parseOne(t, test.sql), nil, publicSession)
		if test.refused != "" {
			pgErr, ok := errors.AsType[*pgconn.PgError](err)
			if !ok || !strings.Contains(pgErr.Message, test.refused) {
				t.Errorf("%s\n got %v %v\nwant it refused: %s", test.sql, r.where(got), err, test.refused)
			}
			continue
		}
		want := test.where
		if want == "all" || len(want) > 4 && want[:4] == "key:" {
			want = r.expected(want)
		}
		if where := r.where(got); err != nil || where != want {
			t.Errorf("%s\n got %s %v\nwant %s", test.sql, where, err, want)
		}
	}
	single := referenceRouter(t, "a")
	for _, sql := range []string{"INSERT INTO rates VALUES ('now')", "WITH x AS (DELETE FROM rates RETURNING *) INSERT INTO accounts SELECT id, rate FROM x, accounts",
		"SELECT * FROM accounts, rates FOR UPDATE", "UPDATE rates SET rate = random()"} {
		if _, err := single.route(context.Background(), parseOne(t, sql), nil, publicSession); err != nil {
			t.Errorf("one node: %s: %v", sql, err)
		}
	}
}
