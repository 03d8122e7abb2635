package gateway

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// roleStack is a stack whose clients act as their own roles: alice and bob, who may
// use accounts, and carol, who may nothing. dave's role is not granted to the
// gateway's, which is that of `pgpact migrate --grant`: it owns nothing.
func startRoleStack(t *testing.T) *stack {
	t.Helper()
	s := startStack(t, stackOptions{config: func(config *Config) { config.ClientRoles = true }})
	for _, node := range []string{"a", "b", "c"} {
		s.exec(t, node, `CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE carol; CREATE ROLE dave; GRANT alice, bob, carol TO pgpact;
			ALTER ROLE pgpact NOINHERIT; GRANT USAGE ON SCHEMA pgpact TO PUBLIC; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
			GRANT SELECT, INSERT, UPDATE ON accounts TO alice, bob;
			CREATE TABLE notes(id text PRIMARY KEY, who name DEFAULT current_user, text text); GRANT ALL ON notes TO alice, bob;
			ALTER TABLE notes ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON notes USING (who = current_user);
			CREATE SCHEMA alice AUTHORIZATION alice; GRANT CREATE ON DATABASE pgpact TO alice`)
	}
	s.gateway.catalogs.Reload(t.Context())
	return s
}

func (s *stack) as(t *testing.T, user string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), strings.Replace(s.url, "carol@", user+"@", 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func stateOf(err error) string {
	pgErr, ok := err.(*pgconn.PgError)
	if !ok {
		return fmt.Sprint(err)
	}
	return pgErr.Code
}

func TestClientRoles(t *testing.T) {
	s := startRoleStack(t)
	alice, bob, carol := s.as(t, "alice"), s.as(t, "bob"), s.as(t, "carol")
	ctx := t.Context()
	must := func(conn *pgx.Conn, sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	value := func(conn *pgx.Conn, sql string) (v string) {
		t.Helper()
		if err := conn.QueryRow(ctx, sql).Scan(&v); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
		return v
	}
	onA, onB := s.key("a", 0), s.key("b", 0)

	t.Run("privileges", func(t *testing.T) {
		must(alice, "INSERT INTO accounts VALUES ($1, 100), ($2, 100)", onA, onB)
		for _, sql := range []string{"SELECT * FROM accounts", "SELECT * FROM accounts WHERE id = '" + onA + "'",
			"INSERT INTO accounts VALUES ('" + onA + "x', 1)", "UPDATE accounts SET balance = 0", "DELETE FROM accounts WHERE id = '" + onA + "'",
			"COPY accounts TO STDOUT", "SELECT sum(balance) FROM accounts", "TRUNCATE accounts", "DROP TABLE accounts", "CREATE TABLE t(id text PRIMARY KEY)"} {
			if _, err := carol.Exec(ctx, sql); stateOf(err) != "42501" {
				t.Errorf("carol, %s: %v", sql, err)
			}
		}
		if _, err := bob.Exec(ctx, "DELETE FROM accounts WHERE id = '"+onA+"'"); stateOf(err) != "42501" {
			t.Errorf("bob may not delete: %v", err)
		}
		for _, who := range []*pgx.Conn{alice, bob} {
			if user := value(who, "SELECT current_user"); user != who.Config().User {
				t.Errorf("%s is %s", who.Config().User, user)
			}
		}
	})
	t.Run("transactions over two nodes", func(t *testing.T) {
		for range 20 { // more than once on one connection, and by one after the other
			for _, who := range []*pgx.Conn{alice, bob} {
				must(who, "BEGIN")
				must(who, "UPDATE accounts SET balance = balance - 1 WHERE id = $1", onA)
				must(who, "UPDATE accounts SET balance = balance + 1 WHERE id = $1", onB)
				must(who, "COMMIT")
			}
		}
		if sum := value(bob, "SELECT sum(balance)::text FROM accounts"); sum != "200" {
			t.Errorf("the sum is %s", sum)
		}
		for _, node := range []string{"a", "b"} {
			var rows int
			if err := s.direct[node].QueryRow(ctx, "SELECT count(*) FROM pgpact.branches").Scan(&rows); err != nil || rows < 40 {
				t.Errorf("node %s has %d branch records, %v", node, rows, err)
			}
		}
	})
	t.Run("row-level security", func(t *testing.T) {
		must(alice, "INSERT INTO notes(id, text) VALUES ('"+onA+"', 'of alice'), ('"+onB+"', 'of alice')")
		must(bob, "INSERT INTO notes(id, text) VALUES ('"+onA+"b', 'of bob')")
		for who, want := range map[*pgx.Conn]string{alice: "2", bob: "1"} {
			if n := value(who, "SELECT count(*)::text FROM notes"); n != want {
				t.Errorf("%s sees %s notes, want %s", who.Config().User, n, want)
			}
		}
		if tag, err := bob.Exec(ctx, "UPDATE notes SET text = 'mine'"); err != nil || tag.RowsAffected() != 1 {
			t.Errorf("bob changed %s: %v", tag, err)
		}
		if _, err := bob.Exec(ctx, "INSERT INTO notes VALUES ('"+onB+"b', 'alice', 'forged')"); stateOf(err) != "42501" {
			t.Errorf("a row of alice's made by bob: %v", err)
		}
	})
	t.Run("what is made is the client's", func(t *testing.T) {
		must(alice, "CREATE TABLE alice.own(id text PRIMARY KEY, n int)")
		must(alice, `SET search_path = "$user", public`)
		must(alice, "INSERT INTO own VALUES ('x', 1)") // "$user" is alice
		if _, err := bob.Exec(ctx, "SELECT * FROM alice.own"); stateOf(err) != "42501" {
			t.Errorf("bob in alice's schema: %v", err)
		}
		must(alice, "GRANT USAGE ON SCHEMA alice TO bob")
		must(alice, "GRANT SELECT ON alice.own TO bob")
		must(bob, "SELECT * FROM alice.own")
		must(alice, "DROP TABLE alice.own")
	})
	t.Run("who cannot come in", func(t *testing.T) {
		for user, message := range map[string]string{
			"nobody": `role "nobody" does not exist`, "none": `role "none" does not exist`, "pgpact": `role "pgpact" is the gateway's own`,
			"dave": `role "dave" is not permitted to log in through the gateway`,
		} {
			_, err := pgconn.Connect(ctx, strings.Replace(s.url, "carol@", user+"@", 1))
			wantRefusal(t, user, err, "28000", message)
		}
	})
}

// TestNoWayOutOfTheRole (what sets the role to none is taken for what resets it,
// and changes nothing) tries everything by which a client could become the
// gateway's role, or reach what is that role's alone, in both protocols.
func TestNoWayOutOfTheRole(t *testing.T) {
	s := startRoleStack(t)
	alice := s.as(t, "alice")
	ctx := t.Context()
	for sql, code := range map[string]string{
		"SET ROLE bob": "0A000", "SET LOCAL ROLE pgpact": "0A000", `SET "role" = 'pgpact'`: "0A000", "SET role TO DEFAULT": "", "RESET ROLE": "",
		"SET SESSION AUTHORIZATION pgpact": "0A000", "SET SESSION SESSION AUTHORIZATION DEFAULT": "", "RESET SESSION AUTHORIZATION": "", "RESET ALL": "",
		"DISCARD ALL": "", "SET ROLE none": "",
		"SELECT set_config('role', 'pgpact', false)": "0A000", "SELECT set_config('ROLE', 'none', false)": "",
		`SELECT pg_catalog."set_config"('role', 'none', true)`:                                              "",
		`SELECT U&"set\005fconfig"('role', 'none', true)`:                                                   "",
		"SELECT set_config('session_authorization', 'pgpact', false)":                                       "0A000",
		"SELECT set_config(n, 'none', false) FROM (VALUES ('role')) v(n)":                                   "0A000",
		"SELECT id, set_config('role', 'none', false) FROM accounts WHERE id = 'x'":                         "0A000",
		"INSERT INTO notes VALUES ('x', 'alice', set_config('role', 'none', false))":                        "0A000",
		"UPDATE accounts SET balance = 0 WHERE id = set_config('role', 'none', false)":                      "0A000",
		"COPY (SELECT set_config('role', 'none', false)) TO STDOUT":                                         "0A000",
		"PREPARE p AS SELECT set_config('role', 'none', false); EXECUTE p":                                  "",
		"BEGIN; DECLARE c CURSOR FOR SELECT set_config('role', 'none', false); FETCH c":                     "0A000",
		"EXPLAIN ANALYZE SELECT set_config('role', 'none', false)":                                          "0A000",
		"UPDATE pg_settings SET setting = 'none' WHERE name = 'role'":                                       "42501",
		"UPDATE pg_catalog.pg_settings SET setting = 'none'":                                                "42501",
		"DO $$ BEGIN PERFORM set_config('role', 'none', true); END $$":                                      "0A000",
		"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT current_user $$":                        "0A000",
		"CREATE PROCEDURE f() LANGUAGE sql AS $$ SELECT 1 $$":                                               "0A000",
		"CREATE TABLE alice.t(id text PRIMARY KEY DEFAULT set_config('role', 'none', false))":               "0A000",
		"CREATE TABLE alice.t(id text PRIMARY KEY CHECK (set_config('role', 'none', false) <> ''))":         "0A000",
		`CREATE TABLE alice.t(id text PRIMARY KEY CHECK (U&"set\005fconfig"('role', 'none', false) <> ''))`: "42501",
		"CREATE DOMAIN alice.d AS text CHECK (pg_catalog.set_config('role', 'none', false) <> '')":          "0A000",
		"CREATE VIEW alice.v AS SELECT set_config('role', 'none', false)":                                   "0A000",
		"CREATE VIEW alice.v AS SELECT query_to_xml('SELECT 1', true, true, '')":                            "0A000",
		"SELECT query_to_xml('SELECT set_config(''role'', ''none'', false)', true, true, '')":               "0A000",
		"ALTER TABLE notes ALTER COLUMN text SET DEFAULT set_config('role', 'none', false)":                 "0A000",
		"CREATE POLICY p ON notes USING (set_config('role', 'none', false) = '')":                           "0A000",
		"GRANT pgpact TO alice": "0A000", "ALTER ROLE alice SUPERUSER": "0A000", "CREATE ROLE eve SUPERUSER": "0A000",
		"ALTER ROLE alice SET role = 'pgpact'": "0A000", "ALTER SYSTEM SET role = 'pgpact'": "0A000",
		// What is the gateway's alone.
		"INSERT INTO pgpact.branches VALUES (1, 1, '{a}')": "42501", "DELETE FROM pgpact.branches": "42501", "UPDATE pgpact.node SET name = 'x'": "42501",
		`INSERT INTO "pgpact".branches VALUES (1, 1, '{a}')`: "42501", "TRUNCATE pgpact.branches": "42501", "DROP SCHEMA pgpact CASCADE": "42501",
		"COPY pgpact.branches FROM STDIN": "42501", "SELECT * FROM pgpact.branches": "42501", "GRANT ALL ON pgpact.branches TO alice": "42501",
		"ALTER TABLE pgpact.branches OWNER TO alice": "42501", "WITH x AS (DELETE FROM pgpact.branches RETURNING 1) SELECT * FROM x": "42501",
		"SET search_path = pgpact; DELETE FROM branches": "42501", "CREATE TABLE pgpact.t(id text PRIMARY KEY)": "42501",
		"PREPARE TRANSACTION 'x'": "0A000", "COMMIT PREPARED 'pgpact/x/1/1/a'": "0A000", "ROLLBACK PREPARED 'pgpact/x/1/1/a'": "0A000",
		"SELECT pg_terminate_backend(1)": "0A000",
	} {
		_, err := alice.PgConn().Exec(ctx, sql).ReadAll()
		got := ""
		if err != nil {
			got = stateOf(err)
		}
		if got != code {
			t.Errorf("%s: %v, want %q", sql, err, code)
		}
		if _, err := alice.PgConn().Exec(ctx, "ROLLBACK; RESET search_path").ReadAll(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(sql, ";") {
			_ = alice.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read()
		}
		// Every connection there is, not just the one that it ran on.
		for _, key := range []string{s.key("a", 0), s.key("b", 0), s.key("c", 0)} {
			results, err := alice.PgConn().Exec(ctx, "SELECT current_user FROM accounts WHERE id = '"+key+"' UNION ALL SELECT current_user").ReadAll()
			if err != nil || len(results) != 1 || len(results[0].Rows) != 1 || string(results[0].Rows[0][0]) != "alice" {
				t.Fatalf("after %s alice is %v, %v", sql, results, err)
			}
		}
	}
	for _, options := range []string{"-c role=pgpact", "-c session_authorization=pgpact", "--role=none"} {
		config, err := pgx.ParseConfig(strings.Replace(s.url, "carol@", "alice@", 1))
		if err != nil {
			t.Fatal(err)
		}
		config.RuntimeParams["options"] = options
		if conn, err := pgx.ConnectConfig(ctx, config); err == nil {
			_ = conn.Close(ctx)
			t.Errorf("%s was accepted", options)
		} else if !strings.Contains(err.Error(), "0A000") {
			t.Errorf("%s: %v", options, err)
		}
	}
}

// TestHostileNames: what clients give for names, keys and labels is data, whatever
// it looks like.
func TestHostileNames(t *testing.T) {
	s := startRoleStack(t)
	ctx := t.Context()
	const evil = `x'; DROP TABLE accounts; --\'"$1`
	for _, user := range []string{evil, `alice"; SET ROLE none; --`, "alice', false), set_config('role', 'none"} {
		config, err := pgx.ParseConfig(s.url)
		if err != nil {
			t.Fatal(err)
		}
		config.User = user
		if conn, err := pgx.ConnectConfig(ctx, config); err == nil {
			_ = conn.Close(ctx)
			t.Errorf("%q came in", user)
		} else {
			wantRefusal(t, user, err, "28000", `role "`+user+`" does not exist`)
		}
	}
	config, err := pgx.ParseConfig(strings.Replace(s.url, "carol@", "alice@", 1))
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = evil
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	onA, onB := s.key("a", 0), s.key("b", 0)
	quoted := "'" + strings.ReplaceAll(evil, "'", "''") + "'"
	for _, sql := range []string{"BEGIN", "SET LOCAL pgpact.idempotency_key = " + quoted, "INSERT INTO accounts VALUES ('" + onA + "', 1), ('" + onB + "', 1)", "COMMIT"} {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if _, err := conn.PgConn().Exec(ctx, "BEGIN; SET LOCAL pgpact.idempotency_key = "+quoted).ReadAll(); stateOf(err) != "23505" {
		t.Errorf("the key a second time: %v", err)
	}
	if _, err := conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
		t.Error(err)
	}
	var name string
	var rows int
	if err := conn.QueryRow(ctx, "SELECT current_setting('application_name')").Scan(&name); err != nil || name != evil {
		t.Errorf("application_name %q, %v", name, err)
	}
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM accounts").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d accounts, %v", rows, err)
	}
	for _, id := range []string{"1/1' OR 'a'='a", evil, "9223372036854775808/1", "-1/1", "1/1/1"} {
		if _, err := conn.Exec(ctx, "SELECT pgpact.outcome($1)", id); err == nil {
			t.Errorf("outcome of %q", id)
		}
	}
}
