package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/pgpact/pgpact/sqlparse"
)

// truth is a cluster with rows on their nodes, and one database more that has
// all of them: what Postgres says there is the truth.
type truth struct {
	*cluster
	all    *pgx.Conn
	router *router
}

const truthSchema = `
CREATE TABLE t (id text PRIMARY KEY, x text, n int8);
CREATE TABLE u (id text, k text, n int8, PRIMARY KEY (id, k));
CREATE TABLE v (n int4 PRIMARY KEY, id text, m int8);
`

func startTruth(t *testing.T) *truth {
	t.Helper()
	c := startCluster(t, "a", "b", "all")
	w := &truth{cluster: &cluster{nodes: c.nodes[:2], conns: c.conns[:2]}, all: c.conns[2]}
	c.exec(t, truthSchema)
	holder, err := newCatalogHolder(t.Context(), w.nodes, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.router = newRouter(testPlacement(t, w.nodes), holder)
	store := func(key, sql string) {
		w.exec(t, sql, slices.Index(w.nodes, w.router.placement.NodeFor(key)))
		if _, err := w.all.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range truthKeys {
		store(id, fmt.Sprintf("INSERT INTO t VALUES ('%s', '%s', %d)", id, truthKeys[(i+1)%len(truthKeys)], i%3))
		for j, k := range truthKeys[:3] {
			store(id, fmt.Sprintf("INSERT INTO u VALUES ('%s', '%s', %d)", id, k, (i+j)%4))
		}
	}
	for n := range 5 {
		store(fmt.Sprint(n), fmt.Sprintf("INSERT INTO v VALUES (%d, '%s', %d)", n, truthKeys[n], n%2))
	}
	return w
}

var truthKeys = []string{"p", "q", "r", "s", "1", "2"}

// statement draws a SELECT over t, u and v whose conditions mention keys in
// every way that the router might believe, and in many that it must not.
func drawStatement(t *rapid.T) string {
	pick := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, what) }
	from := pick("from",
		"t", "u", "v", "t AS t", "t JOIN u ON t.id = u.id", "t LEFT JOIN u ON t.id = u.id", "t RIGHT JOIN u ON t.id = u.id",
		"t FULL JOIN u ON t.id = u.id", "t LEFT JOIN u ON t.id = u.id AND u.id = 'p'", "t LEFT JOIN u ON t.id = 'p' AND u.id = 'p'",
		"t, u", "t JOIN u USING (id)", "t LEFT JOIN u USING (id)", "t NATURAL JOIN u", "t JOIN v ON t.n = v.n", "t JOIN v ON t.id = v.id",
		"t JOIN u ON t.x = u.id", "t JOIN u ON t.x = u.k AND u.k = t.id", "t AS t(x, id, n)", "t JOIN u AS u(k, id, n) ON t.id = u.id",
		"(SELECT id, n FROM t WHERE id = 'p') t", "(SELECT x AS id, n FROM t WHERE id = 'p') t", "t CROSS JOIN LATERAL (SELECT * FROM u WHERE u.id = t.id) u",
		"t LEFT JOIN (u JOIN v ON u.n = v.n) ON t.id = u.id", "v JOIN u ON v.n = u.n AND u.id = 'p'")
	if rapid.IntRange(0, 1).Draw(t, "tied") == 1 {
		from = drawTied(t)
	}
	var condition func(depth int) string
	condition = func(depth int) string {
		kinds := []string{"equals", "equals", "in", "any", "column", "other"}
		if depth > 0 {
			kinds = append(kinds, "and", "and", "or", "not", "exists", "row", "query")
		}
		// t.id, u.id and v.n are shard keys; id and n may be somebody's.
		column := pick("column", "t.id", "t.id", "u.id", "u.id", "id", "t.x", "u.k", "v.id", "x")
		value := func() string {
			return pick("value", "'p'", "'p'", "'q'", "'1'", "'p'::text", "'p'::varchar", "'q'::name", "lower('P')", "NULL", "'q '::bpchar", "upper('q'::text)")
		}
		switch pick("kind", kinds...) {
		case "equals":
			if rapid.Bool().Draw(t, "number") {
				return pick("number column", "v.n", "n", "t.n", "u.n") + " = " + pick("number", "1", "2", "'1'", "1::int2", "1.0", "1::numeric", "-1", "'2'::int8")
			}
			return column + " = " + value()
		case "in":
			return column + " IN (" + value() + ", " + value() + ")"
		case "any":
			return column + pick("array", " = ANY ('{p,q}')", " = ANY (ARRAY['p', 'q'])", " = ANY ('{p}'::text[])", " <> ANY ('{p,q}')", " = ALL ('{p}')")
		case "column":
			return column + " = " + pick("other column", "t.id", "u.id", "u.k", "t.x", "id")
		case "and":
			return "(" + condition(depth-1) + " AND " + condition(depth-1) + ")"
		case "or":
			return "(" + condition(depth-1) + " OR " + condition(depth-1) + ")"
		case "not":
			return "NOT (" + condition(depth-1) + ")"
		case "row":
			return "(" + column + ", n) = (" + value() + ", 1)"
		case "query":
			return column + pick("negated", " IN ", " NOT IN ", " = ANY ") + "(" + pick("query", "SELECT id FROM t", "SELECT id FROM u", "SELECT k FROM u", "SELECT x FROM t",
				"SELECT i.id FROM u i WHERE i.k = t.id", "SELECT i.id FROM t i LEFT JOIN u j ON j.id = i.id", "SELECT j.id FROM t i LEFT JOIN u j ON j.id = i.x", "SELECT j.id FROM t i LEFT JOIN u j ON j.id = i.id AND j.k = i.x",
				"SELECT id FROM t UNION SELECT id FROM u", "SELECT id FROM u GROUP BY id HAVING count(*) > 2", "SELECT DISTINCT k FROM u", "SELECT id FROM s",
				"SELECT i.id FROM t i WHERE EXISTS (SELECT FROM u j WHERE j.id = i.id)", "SELECT i.id FROM t i WHERE EXISTS (SELECT FROM u j WHERE j.id = t.id)") + ")"
		case "exists":
			return pick("exists", "EXISTS", "NOT EXISTS") + " (SELECT 1 FROM " + pick("inner", "u i", "t i", "u", "v i", "s i", "(SELECT id, max(n) AS n FROM u GROUP BY id) i", "(SELECT k AS id, n FROM u) i") + " WHERE " + pick("inner condition",
				"i.id = t.id", "id = 'p'", "i.id = 'p'", "u.id = t.id", "i.id = t.id AND id = 'q'", "t.id = 'p'", "i.n = v.n") + ")"
		}
		return pick("other", "true", "t.id > 'p'", "t.n = 1", "u.k = 'q'", "n IS NULL", "t.id IS NULL", "u.id IS NULL", "t.id IS NOT DISTINCT FROM 'p'", "(t.id = 'p') IS NOT FALSE")
	}
	sql := "SELECT * FROM " + from + " WHERE " + condition(2)
	if rapid.IntRange(0, 4).Draw(t, "union") == 0 {
		sql += pick("set operation", " UNION ", " UNION ALL ", " EXCEPT ", " INTERSECT ") + sql
	}
	return pick("with", "", "WITH s AS (SELECT * FROM t) ", "WITH s AS (SELECT id, k AS x, n FROM u) ", "WITH s (x, id, n) AS (SELECT * FROM t) ",
		"WITH s AS (SELECT id, max(x) AS x, count(*) AS n FROM t GROUP BY id) ", "WITH s AS (SELECT a.id, b.k AS x, b.n FROM t a LEFT JOIN u b ON b.id = a.id) ",
		"WITH s AS (SELECT b.id, a.x, a.n FROM t a LEFT JOIN u b ON b.id = a.id) ", "WITH t AS (SELECT x AS id, id AS x, n FROM t), s AS (SELECT * FROM t) ") + sql
}

// drawTied draws a FROM with subqueries, or with the CTE that may be there (s), whose
// shard keys are tied, or seem to be.
func drawTied(t *rapid.T) string {
	pick := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, what) }
	one := pick("one", "t", "s", "s", "(SELECT * FROM t)", "(SELECT id, x, n FROM t WHERE n > 0)", "(SELECT x AS id, id AS x, n FROM t)", "(SELECT id, max(k) AS x, sum(n) AS n FROM u GROUP BY id)",
		"(SELECT * FROM t UNION ALL SELECT * FROM u)", "(SELECT * FROM t UNION SELECT k, id, n FROM u)", "(SELECT id, x, n FROM t INTERSECT SELECT id, k, n FROM u)",
		"(SELECT id, x, rank() OVER (PARTITION BY id ORDER BY x) AS n FROM s)", "(SELECT id, x, count(*) OVER () AS n FROM t)", "(SELECT x, id, n FROM t)",
		"(SELECT a.id, b.k AS x, a.n FROM t a JOIN u b ON a.id = b.id)", "(SELECT DISTINCT ON (id) id, k AS x, n FROM u ORDER BY id, k)", "(SELECT * FROM s EXCEPT SELECT * FROM t)")
	two := pick("two", "u", "(SELECT id, k, n FROM u)", "(SELECT k AS id, id AS k, n FROM u)", "(SELECT id, min(k) AS k, count(*) AS n FROM u GROUP BY 1)", "(SELECT DISTINCT id, k, n FROM u)",
		"(SELECT id, x AS k, n FROM s)", "(SELECT b.id, b.k, a.n FROM t a LEFT JOIN u b ON a.id = b.id)", "(SELECT id, k, n FROM u WHERE id IN (SELECT id FROM t))",
		"LATERAL (SELECT * FROM u i WHERE i.id = t.id)", "LATERAL (SELECT * FROM s i WHERE i.id = t.id)", "LATERAL (SELECT i.id, 'p' AS k, i.n FROM t i WHERE i.id = t.id ORDER BY n LIMIT 1)")
	join := pick("join", " JOIN ", " LEFT JOIN ", " RIGHT JOIN ", " FULL JOIN ")
	on := pick("on", " ON t.id = u.id", " ON t.id = u.id", " ON t.id = u.id", " USING (id)", " ON t.x = u.id", " ON t.id = u.k", " ON t.id = u.id AND t.n = u.n", " ON true")
	switch pick("shape", "one", "two", "two", "comma", "three") {
	case "one":
		return one + " t"
	case "comma":
		return one + " t, " + two + " u"
	case "three":
		return one + " t" + join + two + " u" + on + pick("third", " LEFT", " RIGHT", " ") + " JOIN u w ON w.id = " + pick("third key", "t.id", "u.id", "t.x", "u.k")
	}
	return one + " t" + join + two + " u" + on
}

// rows are what the connections say together, in no order.
func rows(ctx context.Context, sql string, conns ...*pgx.Conn) ([]string, error) {
	var all []string
	for _, conn := range conns {
		results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			return nil, err
		}
		for _, row := range results[0].Rows {
			all = append(all, fmt.Sprintf("%q", row))
		}
	}
	slices.Sort(all)
	return all, nil
}

// Whatever statement is routed and not refused, the nodes it is routed to say
// together what one Postgres with all the rows says. This holds the facts of
// sqlparse and the rules of the router to the truth.
func TestRoutedStatementsAreTrue(t *testing.T) {
	w := startTruth(t)
	parser := sqlparse.NewParser(1000)
	var routed, refused, failed, narrowed int
	rapid.Check(t, func(rt *rapid.T) {
		for range 10 {
			sql := drawStatement(rt)
			want, wantErr := rows(t.Context(), sql, w.all)
			statements, err := parser.Parse(sql)
			if err != nil || len(statements) != 1 {
				rt.Fatalf("%s: %v", sql, err)
			}
			got, err := w.router.route(t.Context(), &statements[0], nil, publicSession)
			if err != nil {
				pgErr, ok := errors.AsType[*pgconn.PgError](err)
				if !ok || pgErr.Code != notSupported && wantErr == nil {
					rt.Fatalf("%s\nrefused with %v, Postgres says %v, %v", sql, err, want, wantErr)
				}
				refused++
				continue
			}
			conns := w.conns[:1]
			if !got.anyNode {
				conns = nil
				for _, node := range got.nodes {
					conns = append(conns, w.conns[slices.Index(w.nodes, node)])
				}
			}
			have, err := rows(t.Context(), sql, conns...)
			if (err == nil) != (wantErr == nil) || !slices.Equal(have, want) {
				rt.Fatalf("%s\nrouted to %s\n got %s, %v\nwant %s, %v", sql, w.router.where(got),
					strings.Join(have, " "), err, strings.Join(want, " "), wantErr)
			}
			switch {
			case wantErr != nil:
				failed++
			case len(conns) < len(w.nodes):
				narrowed++
				routed++
			default:
				routed++
			}
		}
	})
	t.Logf("%d statements routed rightly, %d of them to one node; %d refused, %d wrong by themselves", routed, narrowed, refused, failed)
	if narrowed == 0 || refused == 0 {
		t.Error("the statements drawn prove nothing")
	}
}
