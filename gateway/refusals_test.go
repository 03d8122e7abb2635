package gateway

import (
	"strings"
	"testing"
)

func TestRouteInsertRefusals(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	for _, test := range []struct{ sql, want string }{
		{"INSERT INTO accounts VALUES ('alice', 1), ('bob', generate_series(1, 2)), ('carol', 2)", "0A000 set-returning functions are not allowed in VALUES"},
		{"INSERT INTO accounts SELECT lower('alice'), 5", "0A000 INSERT ... SELECT into table public.accounts"},
		{"INSERT INTO accounts SELECT sku, quantity FROM orders WHERE customer = 'alice'", "0A000 INSERT ... SELECT"},
		{"INSERT INTO accounts VALUES (upper('alice'), 1)", `0A000 the shard key "id" of table public.accounts must be a constant or a parameter`},
		{"INSERT INTO accounts VALUES ('alice'::name, 1)", `0A000 the shard key "id"`},
		{"INSERT INTO accounts (balance) VALUES (1)", `23502 null value in column "id" of relation "accounts" violates not-null constraint`},
		{"INSERT INTO accounts VALUES (NULL, 1)", `23502 null value in column "id"`},
		{"INSERT INTO accounts VALUES (DEFAULT, 1)", `23502 null value in column "id"`},
		{"INSERT INTO accounts DEFAULT VALUES", `23502 null value in column "id"`},
		{"INSERT INTO serials (x) VALUES ('x')", "0A000 the shard key \"id\" of table public.serials must be given, for its default is a sequence"},
		{"INSERT INTO identities (x) VALUES ('x')", "0A000 the shard key \"id\" of table public.identities must be given, for its default is a sequence"},
		{"INSERT INTO identities VALUES (DEFAULT, 'x')", "0A000 the shard key"},
		{"INSERT INTO identities OVERRIDING USER VALUE VALUES (7, 'x')", "0A000 OVERRIDING USER VALUE"},
		{"INSERT INTO numbers OVERRIDING USER VALUE VALUES (7, 1, 'x')", "key:7 writes"},
		{"INSERT INTO identities OVERRIDING SYSTEM VALUE VALUES (7, 'x')", "key:7 writes"},
		{"INSERT INTO made (x) VALUES ('x')", "0A000 the shard key \"id\" of table public.made must be given, for its default is computed"},
		{"INSERT INTO accounts VALUES ('alice', 1) ON CONFLICT (id) DO UPDATE SET id = 'bob'", "0A000 shard key column"},
		{"INSERT INTO numbers VALUES ('x'::text)", "any writes"}, // the node's 42804
		{"INSERT INTO accounts VALUES (5, 1)", "key:5 writes"},   // stored as '5'
		{"UPDATE accounts SET id = 'zed' WHERE id = 'alice'", `0A000 shard key column "id" of table public.accounts cannot be changed`},
		{"UPDATE accounts SET id = id", "0A000 shard key column"},
		{"UPDATE accounts SET (balance, id) = (1, 'x') WHERE id = 'alice'", "0A000 shard key column"},
		{"UPDATE orders SET order_id = gen_random_uuid() WHERE customer = 'alice'", "key:alice writes"},
		{"MERGE INTO accounts a USING stock s ON a.id = s.sku WHEN MATCHED THEN DELETE", "0A000 MERGE is not supported"},
	} {
		r.check(t, test.sql, nil, test.want)
	}
}

func TestRouteRelations(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	for _, test := range []struct{ sql, want string }{
		{"SELECT 1", "any"},
		{"SELECT version(), random(), count(*) FROM generate_series(1, 10)", "any"},
		{"SELECT c.relname, format_type(1, 2) FROM pg_class c WHERE pg_table_is_visible(c.oid) ORDER BY 1", "any"},
		{"SELECT * FROM information_schema.tables", "any"},
		{"SELECT information_schema._pg_expandarray(ARRAY[1])", "any"},
		{"SELECT * FROM nothing", "any"},
		{"SELECT * FROM nothing, accounts", "any"},
		{"INSERT INTO nothing VALUES (1)", "any writes"},
		{"SELECT mystery(1)", "any writes taints"},
		{"SELECT * FROM heap WHERE id = 'x'", "0A000 table public.heap has no primary key"},
		{"INSERT INTO heap VALUES ('x')", "0A000 table public.heap has no primary key"},
		{"SELECT * FROM times", `0A000 table public.times cannot be sharded by its primary key column "at" of type timestamptz`},
		{"SELECT * FROM padded", `0A000 table public.padded cannot be sharded by its primary key column "id" of type bpchar`},
		{"SELECT * FROM folded", `0A000 table public.folded cannot be sharded by its primary key column "id" with the nondeterministic collation "ci"`},
		{"SELECT * FROM derived", "0A000 table public.derived cannot be sharded by its generated column"},
		{"SELECT * FROM parent", "0A000 table public.parent cannot be used"},
		{"SELECT * FROM parts", "0A000 partitioned table public.parts"},
		{"SELECT * FROM rich", "0A000 view public.rich"},
		{"SELECT * FROM far", "0A000 foreign table public.far"},
		{"SELECT * FROM s", "0A000 sequence public.s"},
		{"SELECT * FROM pgpact.branches", "42501 permission denied for relation pgpact.branches"},
		{"INSERT INTO pgpact.branches VALUES (1)", "42501"},
		{"SELECT * FROM pgpact.anything", "42501"},
		{"SELECT pgpact.bucket('x')", "any"},
		{"SELECT pgpact.x()", "42501"},
		{"UPDATE pg_settings SET setting = 'x' WHERE name = 'work_mem'", `42501 permission denied: system relation "pg_settings"`},
		{"SELECT pay(1)", "0A000 function pay cannot be called"},
		{"SELECT clean(1)", "any writes"},
		{"SELECT nextval('s')", "0A000 nextval is not supported"},
		{"SELECT setseed(0)", "any taints"},
		{"SELECT pg_stat_reset()", "any writes"},
		{"SELECT txid_current()", "any writes"},
		{"SELECT extract(year FROM now())", "any"},
		{"UPDATE accounts SET balance = 0 WHERE CURRENT OF c", "any writes"},
	} {
		r.check(t, test.sql, nil, test.want)
	}
}

func TestRouteRefusedFunctions(t *testing.T) {
	r := testRouter(t, "a", "b")
	for sql, want := range map[string]string{
		"SELECT set_config('a', 'b', false)":                         "0A000 set_config is not supported",
		"SELECT pg_catalog.set_config('a', 'b', false)":              "0A000 set_config is not supported",
		"SELECT pg_advisory_lock(1)":                                 "0A000 advisory locks (pg_advisory_lock)",
		"SELECT pg_try_advisory_xact_lock(1)":                        "0A000 advisory locks",
		"SELECT pg_terminate_backend(1)":                             "0A000 pg_terminate_backend",
		"SELECT pg_notify('a', 'b') FROM accounts WHERE id = 'x'":    "0A000 pg_notify",
		"SELECT lo_create(0)":                                        "0A000 large objects",
		"SELECT pg_export_snapshot()":                                "0A000 pg_export_snapshot",
		"SELECT query_to_xml('select 1', true, true, '')":            "0A000 query_to_xml",
		"SELECT pg_reload_conf()":                                    "0A000 pg_reload_conf",
		"UPDATE accounts SET owner = set_config('a','b',true)":       "0A000 set_config",
		"SELECT * FROM accounts WHERE id = current_setting('x', $1)": "all",
	} {
		r.check(t, sql, nil, want)
	}
}

func TestRouteKinds(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	for _, test := range []struct{ sql, want string }{
		{"EXPLAIN UPDATE accounts SET balance = 0 WHERE id = 'alice'", "key:alice"},
		{"EXPLAIN ANALYZE UPDATE accounts SET balance = 0 WHERE id = 'alice'", "key:alice writes"},
		{"EXPLAIN SELECT * FROM accounts", "all"},
		{"EXPLAIN SELECT 1", "any"},
		{"EXPLAIN CREATE TABLE x AS SELECT 1", "0A000 EXPLAIN of CREATE"},
		{"DECLARE c CURSOR FOR SELECT * FROM accounts WHERE id = 'alice'", "key:alice"},
		{"DECLARE c CURSOR FOR SELECT * FROM accounts", "all"},
		{"DECLARE c CURSOR WITH HOLD FOR SELECT 1", "0A000 WITH HOLD"},
		{"CREATE TABLE x (id text primary key)", "a b c d writes"},
		{"CREATE TEMP TABLE x (id text primary key)", "0A000 temporary tables"},
		{"CREATE TABLE x AS SELECT * FROM accounts", "0A000 CREATE TABLE AS is not supported"},
		{"SELECT * INTO x FROM accounts", "0A000 CREATE TABLE AS is not supported"},
		{"SELECT * INTO TEMP x FROM accounts", "0A000 temporary tables"},
		{"ALTER TABLE accounts ADD COLUMN x int", "a b c d writes"},
		{"DROP TABLE accounts", "a b c d writes"},
		{"TRUNCATE accounts", "a b c d writes"},
		{"GRANT SELECT ON accounts TO bob", "a b c d writes"},
		{"COMMENT ON TABLE accounts IS 'x'", "a b c d writes"},
		{"VACUUM accounts", "0A000 VACUUM is not supported"},
		{"ANALYZE", "0A000 ANALYZE is not supported"},
		{"REINDEX TABLE accounts", "0A000 REINDEX"},
		{"CHECKPOINT", "0A000 CHECKPOINT"},
		{"LOCK TABLE accounts", "0A000 LOCK TABLE"},
		{"LISTEN x", "0A000 LISTEN"},
		{"NOTIFY x", "0A000 NOTIFY"},
		{"DO $$ BEGIN END $$", "0A000 DO is not supported"},
		{"CALL pay(1)", "0A000 CALL is not supported"},
		{"PREPARE TRANSACTION 'x'", "0A000 PREPARE TRANSACTION"},
		{"COMMIT PREPARED 'x'", "0A000 COMMIT PREPARED"},
		{"ROLLBACK PREPARED 'x'", "0A000 ROLLBACK PREPARED"},
	} {
		r.check(t, test.sql, nil, test.want)
	}
}

// Every kind that the router refuses says why, in Postgres's terms.
func TestRefusalsAreComplete(t *testing.T) {
	for kind, why := range refusedKinds {
		if why.code != notSupported || why.message == "" {
			t.Errorf("%s: %+v", kind, why)
		}
		filled := refuse(why, "X")
		if text := filled.Message + filled.Detail + filled.Hint; strings.Contains(text, "%!") || strings.Contains(text, "%[") {
			t.Errorf("%s: %s", kind, text)
		}
	}
	for kind, why := range refusedRelationKinds {
		if filled := refuse(why, "public.x"); !strings.Contains(filled.Message, "public.x") {
			t.Errorf("%c: the relation is not named: %s", kind, filled.Message)
		}
	}
}
