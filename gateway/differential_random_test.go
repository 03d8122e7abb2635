package gateway

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// randomSelect draws SELECTs over the tables of testdata/differential/setup.ddl.
type randomSelect struct{ *rand.Rand }

// TestDifferentialRandom: drawn statements on one to four nodes answer as on one
// Postgres. PGPACT_SEED draws the same again; PGPACT_STATEMENTS sets how many
// for each number of nodes (the long form is 10000). A third of them write.
func TestDifferentialRandom(t *testing.T) {
	seed := testSeed(t)
	count := 150
	if n, err := strconv.Atoi(os.Getenv("PGPACT_STATEMENTS")); err == nil {
		count = n
	}
	servers, stop, err := clustertest.NewServers(t.Context(), 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	for nodes := 1; nodes <= 4; nodes++ {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			p := startDifferential(t, servers, nodes)
			r := randomSelect{rand.New(rand.NewPCG(seed, uint64(nodes)))}
			writes := randomWrite{r}
			for range count {
				if r.IntN(3) > 0 {
					p.compare(t, r.statement(), r.IntN(2) == 0)
				} else {
					w := writes.statement()
					if p.compare(t, w.sql, w.params != nil || r.IntN(2) == 0, w.params...) {
						t.Errorf("refused: %s", w.sql)
					}
					p.sameTable(t, w.sql)
				}
				if t.Failed() {
					return
				}
			}
			p.logShare(t)
		})
	}
}

func (r randomSelect) of(list ...string) string { return list[r.IntN(len(list))] }

func (r randomSelect) some(most int, list ...string) []string {
	var picked []string
	for _, i := range r.Perm(len(list))[:1+r.IntN(min(most, len(list)))] {
		picked = append(picked, list[i])
	}
	return picked
}

// drawnTable is what may be drawn of a table.
type drawnTable struct {
	name, key string
	sorted    []string // what can be sorted by; the primary key makes the order total
	summed    []string // what can be added up
	grouped   []string
	where     []string
}

func drawnTables() []drawnTable {
	return []drawnTable{
		{"customers", "id", []string{"id", "city", "vip", "discount", "born", "note", "lower(id)", "length(city)", "city IS NULL", `note COLLATE "C"`},
			[]string{"length(id)", "length(city)::bigint", "discount", "discount * 2"},
			[]string{"city", "vip", "note", "born", "length(id)", "id", "upper(city)"},
			[]string{"id = 'alice'", "id IN ('alice', 'bob', '🙂')", "id > 'c'", "id BETWEEN '' AND 'c010'", "city IS NOT NULL", "vip", "NOT vip",
				"discount > 0", "born < '2000-01-01'", "id = ANY ('{a,A,zoë,nobody}')", "city LIKE '%e%'", "id <> city", "false", "length(id) > 3 OR id = ''"}},
		{"purchases", "customer, number", []string{"customer", "number", "amount", "quantity", "placed", "state", "amount * number", "placed::date", "-number"},
			[]string{"amount", "quantity", "number", "number::smallint", "quantity::bigint", "amount * quantity", "amount - 0.005"},
			[]string{"state", "quantity", "number", "customer", "placed::date", "number % 2", "coalesce(state, '-')"},
			[]string{"customer = 'bob'", "customer IN ('a', 'A', 'zoë')", "amount > 0", "quantity IS NULL", "state = 'paid'", "number BETWEEN 2 AND 4",
				"placed > '2024-01-01'", "customer > 'b' AND number = 1", "amount = -7.25 OR customer = 'alice'", "state IN ('new', 'paid')"}},
		{"facts", "id", []string{"id", "i2", "i4", "i8", "n", "f4", "f8", "b", "t", "c", "v", "p", "d", "ts", "tz", "tm", "u", "by", "m", "iv", "j", "id % 5", "n IS NULL"},
			[]string{"id % 1000", "i2", "i4", "round(n, 2)", "i4::numeric / 3", "id::numeric", "nullif(f8, 0)", "CASE WHEN b THEN 1 ELSE 0 END"},
			[]string{"i2", "i4", "i8", "b", "t", "c", "v", "d", "ts", "tz", "tm", "by", "u", "m", "j", "id % 3", "id", "t || c"},
			[]string{"id > 0", "id = 0", "id IN (0, 1, -1, 9223372036854775807)", "n > 0", "f8 < 'Infinity'", "b", "t > 'A'", "c >= 'Z'", "d IS NULL", "i8 = 100 OR i4 = 42",
				"id = -9223372036854775808", "id BETWEEN -500000 AND 500000", "n = 'NaN'", "u IS NOT NULL"}},
		{"customers c JOIN purchases p ON p.customer = c.id", "c.id, p.number", []string{"c.id", "p.number", "city", "amount", "p.placed", "c.born", "length(c.city)"},
			[]string{"p.amount", "p.quantity", "p.number", "c.discount"}, []string{"c.id", "p.customer", "c.city", "p.state", "c.vip", "p.number"},
			[]string{"c.id > 'b'", "p.amount > 0", "c.id IN ('alice', 'bob', 'dora')", "c.vip", "p.state = 'paid'", "p.customer = 'alice'",
				"EXISTS (SELECT 1 FROM purchases q WHERE q.customer = c.id AND q.number > 3)"}},
		{"customers c LEFT JOIN purchases p ON p.customer = c.id", "c.id, p.number", []string{"c.id", "p.number", "city", "amount", "p.state", "c.born"},
			[]string{"p.amount", "p.quantity", "p.number::bigint", "length(p.state)"}, []string{"c.id", "p.customer", "c.city", "p.state", "c.note", "p.quantity"},
			[]string{"c.id > 'b'", "p.amount IS NULL", "c.id IN ('alice', 'bob', 'zoë')", "NOT c.vip", "p.customer IS NULL",
				"(SELECT count(*) FROM purchases q WHERE q.customer = c.id) < 3"}},
		{"(SELECT id AS k, upper(city) AS city, note, discount, born FROM customers WHERE id > 'b') c", "k", []string{"k", "city", "discount", "born", "note", "length(city)"},
			[]string{"length(k)", "discount", "discount + 1"}, []string{"city", "k", "note", "born"},
			[]string{"k IN ('alice', 'bob', 'carol')", "k = 'carol'", "discount > 0", "city IS NOT NULL", "k IN (SELECT customer FROM purchases)", "born < '2000-01-01'"}},
		{"customers d LEFT JOIN (SELECT customer, count(*) AS n, sum(amount) AS s, max(state) AS state FROM purchases GROUP BY customer) c ON c.customer = d.id", "d.id",
			[]string{"d.id", "n", "s", "c.state", "city", "c.customer"}, []string{"n", "s", "c.n * 2", "d.discount"}, []string{"d.city", "n", "c.state", "c.customer", "d.id"},
			[]string{"c.n > 1", "s IS NULL", "d.id > 'b'", "c.customer NOT IN (SELECT customer FROM purchases WHERE number = 2)", "d.vip", "d.id IN ('alice', 'dora')"}},
		{"(SELECT customer, number, state, amount, rank() OVER (PARTITION BY customer ORDER BY number DESC) AS r FROM purchases) c", "customer, number",
			[]string{"customer", "r", "amount", "c.state", "number"}, []string{"r", "amount", "number::bigint"}, []string{"r", "state", "customer"},
			[]string{"r = 1", "r <= 2", "customer > 'b'", "amount > 0", "state = 'paid' OR r = 2"}},
		{"(SELECT id AS k, 1 AS n, city AS t FROM customers UNION SELECT customer, number, state FROM purchases) c FULL JOIN (SELECT DISTINCT customer FROM purchases) p ON p.customer = c.k", "k, n, t, customer",
			[]string{"k", "n", "c.t", "customer"}, []string{"n", "c.n + 1", "length(t)"}, []string{"k", "n", "t", "customer"},
			[]string{"n > 1", "customer IS NULL", "t IS NOT NULL", "k > 'b'", "k = 'alice' OR n = 1"}},
	}
}

func (r randomSelect) statement() string {
	tables := drawnTables()
	d := tables[r.IntN(len(tables))]
	where := ""
	if r.IntN(3) > 0 {
		where = " WHERE " + strings.Join(r.some(2, d.where...), r.of(" AND ", " OR "))
	}
	switch r.IntN(5) {
	case 0, 1:
		return r.rows(&d, where)
	case 2:
		return r.distinct(&d, where)
	default:
		return r.groups(&d, where)
	}
}

func (r randomSelect) direction() string {
	return r.of("", "", " ASC", " DESC", " DESC") + r.of("", "", " NULLS FIRST", " NULLS LAST")
}

func (r randomSelect) limit() string {
	return r.of("", "", "", fmt.Sprintf(" LIMIT %d", r.IntN(20)), fmt.Sprintf(" OFFSET %d", r.IntN(40)),
		fmt.Sprintf(" LIMIT %d OFFSET %d", r.IntN(10), r.IntN(30)), fmt.Sprintf(" FETCH FIRST %d ROWS ONLY", 1+r.IntN(9)))
}

// rows draws a SELECT of rows: in a total order, or in none.
func (r randomSelect) rows(d *drawnTable, where string) string {
	star := d.name + ".*"
	if strings.Contains(star, " ") {
		star = "c.*"
	}
	columns := r.of("*", strings.Join(r.some(3, d.sorted...), ", "), star, d.key+", "+r.of(d.sorted...)+" AS x")
	sql := "SELECT " + columns + " FROM " + d.name + where
	if r.IntN(5) == 0 {
		return sql
	}
	sql += " ORDER BY "
	for range r.IntN(3) {
		sql += r.of(d.sorted...) + r.direction() + ", "
	}
	sql += d.key + r.limit()
	if strings.Contains(d.name, "LEFT") || strings.Contains(d.name, "SELECT") {
		return sql // "cannot be applied to the nullable side of an outer join", nor over several nodes to subqueries
	}
	return sql + r.of("", "", "", " FOR UPDATE", " FOR SHARE SKIP LOCKED")
}

func (r randomSelect) distinct(d *drawnTable, where string) string {
	columns := r.some(2, d.grouped...)
	sql := "SELECT DISTINCT " + strings.Join(columns, ", ") + " FROM " + d.name + where
	if r.IntN(3) == 0 {
		return sql
	}
	var order []string
	for i := range columns {
		order = append(order, strconv.Itoa(i+1)+r.direction())
	}
	return sql + " ORDER BY " + strings.Join(order, ", ") + r.limit()
}

func (r randomSelect) aggregate(d *drawnTable) string {
	filter := ""
	if r.IntN(6) == 0 {
		filter = " FILTER (WHERE " + r.of(d.where...) + ")"
	}
	switch r.IntN(6) {
	case 0:
		return "count(*)" + filter
	case 1:
		return "count(" + r.of("", "DISTINCT ") + r.of(d.grouped...) + ")" + filter
	case 2:
		return r.of("min", "max") + "(" + r.of(d.summed...) + ")" + filter
	case 3:
		return "coalesce(sum(" + r.of(d.summed...) + ")" + filter + ", 0)"
	case 4:
		return "avg(" + r.of(d.summed...) + ")" + filter
	default:
		return "sum(" + r.of("", "", "", "DISTINCT ") + r.of(d.summed...) + ")"
	}
}

func (r randomSelect) groups(d *drawnTable, where string) string {
	var aggregates []string
	for range 1 + r.IntN(3) {
		aggregates = append(aggregates, r.aggregate(d))
	}
	if r.IntN(3) == 0 {
		having := r.of("", "", " HAVING count(*) > 3")
		return "SELECT " + strings.Join(aggregates, ", ") + " FROM " + d.name + where + having
	}
	groups := r.some(2, d.grouped...)
	sql := "SELECT " + strings.Join(append(groups, aggregates...), ", ") + " FROM " + d.name + where +
		" GROUP BY " + r.of(strings.Join(groups, ", "), "1"+r.of("", "")+positions(len(groups)))
	sql += r.of("", "", " HAVING count(*) > 1", " HAVING "+r.aggregate(d)+" IS NOT NULL")
	if r.IntN(4) == 0 {
		return sql
	}
	order := ""
	if r.IntN(2) == 0 {
		order = fmt.Sprintf("%d%s, ", len(groups)+1, r.direction())
	}
	for i := range groups {
		order += fmt.Sprintf("%d%s, ", i+1, r.direction())
	}
	return sql + " ORDER BY " + strings.TrimSuffix(order, ", ") + r.limit()
}

// positions are those behind the first.
func positions(n int) string {
	if n == 2 {
		return ", 2"
	}
	return ""
}
