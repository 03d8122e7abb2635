package gateway

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The writes of the differential test: those of testdata/writes/statements.sql,
// whose marks are explained there, and drawn ones. After each the table that it
// has written to is the same on both sides.

// writtenTable finds the table that a statement writes to.
var writtenTable = regexp.MustCompile(`(?i)(?:UPDATE|INSERT INTO|DELETE FROM)\s+(accounts|stock|orders|archive|numbers|tokens)\b`)

// sameTable compares the rows of the table that a statement has written to.
func (p *differentialPair) sameTable(t *testing.T, sql string) {
	t.Helper()
	table := writtenTable.FindStringSubmatch(sql)
	if table == nil {
		return
	}
	query := "SELECT x.* FROM " + table[1] + " x"
	got, want := ask(t.Context(), p.gateway, query, false), ask(t.Context(), p.plain, query, false)
	slices.Sort(got.rows)
	slices.Sort(want.rows)
	if !slices.Equal(got.rows, want.rows) {
		t.Fatalf("%d nodes: %s\nleaves on the gateway %s\n on Postgres %s", p.nodes, sql, clip(got.rows), clip(want.rows))
	}
}

// playWrites plays testdata/writes/statements.sql.
func (p *differentialPair) playWrites(t *testing.T, lines []string) {
	t.Helper()
	for _, line := range lines {
		marks := len(line) - len(strings.TrimLeft(line, "!"))
		if marks == 2 && p.nodes == 1 {
			continue // refused by one node too, or not the same twice
		}
		sql, list, withParams := strings.Cut(line[marks:], " :: ")
		var params [][]byte
		if withParams {
			for _, param := range strings.Split(list, "|") {
				if params = append(params, []byte(param)); param == "" {
					params[len(params)-1] = nil
				}
			}
		}
		mustRefuse := marks > 0 && p.nodes > 1
		if refused := p.compare(t, sql, withParams, params...); refused != mustRefuse {
			t.Errorf("%d nodes: %s: refused %v", p.nodes, line, refused)
		}
		p.sameTable(t, sql)
	}
}

// drawnWrite is a statement with its parameters.
type drawnWrite struct {
	sql    string
	params [][]byte
}

// randomWrite draws statements that write: none of them may be refused. Where a
// statement can fail in more than one way, which error comes first is Postgres's
// choice; so each can fail in one way at most.
type randomWrite struct{ randomSelect }

var (
	drawnTexts = []string{"alice", "bob", "", "a", "A", "zoë", "🙂", "o''brien", "Ω≈ç√", "x y", " lead", "tail ", "%", "\\", "日本", "zz"}
	drawnInts  = []string{"0", "1", "-1", "42", "-42", "2147483648", "-2147483649", "9223372036854775807", "-9223372036854775808", "1000000007"}
)

func (r randomWrite) statement() drawnWrite {
	if r.IntN(2) == 0 {
		return r.write("accounts", "id", "balance", quoted(drawnTexts))
	}
	return r.write("numbers", "n", "v", drawnInts)
}

func quoted(list []string) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = "'" + list[i] + "'"
	}
	return out
}

// condition holds a write to some keys, a range of them, a value or nothing.
func (r randomWrite) condition(key, value string, keys []string) (where string, params [][]byte) {
	some := r.some(4, keys...)
	switch r.IntN(8) {
	case 0:
		return " WHERE " + key + " IN (" + strings.Join(some, ", ") + r.of("", ", NULL") + ")", nil
	case 1:
		var elements []string
		for _, k := range some {
			k = strings.ReplaceAll(strings.Trim(k, "'"), "''", "'")
			elements = append(elements, `"`+strings.ReplaceAll(k, `\`, `\\`)+`"`)
		}
		return " WHERE " + key + " = ANY ($1)", [][]byte{[]byte("{" + strings.Join(elements, ",") + "}")}
	case 2:
		var ors []string
		for _, k := range some {
			ors = append(ors, key+" = "+k)
		}
		return " WHERE " + strings.Join(ors, " OR "), nil
	case 3:
		return " WHERE " + key + " >= " + r.of(keys...) + " AND " + key + " < " + r.of(keys...), nil
	case 4:
		return " WHERE " + key + " BETWEEN " + r.of(keys...) + " AND " + r.of(keys...) + " OR " + key + " = " + r.of(keys...), nil
	case 5:
		return " WHERE " + value + " IS " + r.of("NULL", "NOT NULL"), nil
	case 6:
		return " WHERE " + key + " <> " + r.of(keys...), nil
	default:
		return r.of("", " WHERE true", " WHERE false", " WHERE "+key+" = "+r.of(keys...)), nil
	}
}

func (r randomWrite) write(table, key, value string, keys []string) drawnWrite {
	returning := r.of("", "", " RETURNING *", " RETURNING "+key, " RETURNING "+value+" AS x, "+key)
	switch r.IntN(9) {
	case 0, 1:
		where, params := r.condition(key, value, keys)
		return drawnWrite{"UPDATE " + table + " SET " + value + " = " + r.value(table, value) + where + returning, params}
	case 2:
		some := r.some(4, keys...)
		text := "UPDATE " + table + " SET " + value + " = CASE " + key
		for _, k := range some {
			text += " WHEN " + k + " THEN " + r.value(table, value)
		}
		return drawnWrite{text + " ELSE " + value + " END WHERE " + key + " IN (" + strings.Join(some, ", ") + ")" + returning, nil}
	case 3:
		text := "UPDATE " + table + " SET " + value + " = w.v FROM (VALUES " + r.list(table, keys) + ") AS w(k, v) WHERE " + table + "." + key + " = w.k"
		return drawnWrite{text + r.of("", " RETURNING "+table+".*", " RETURNING w.v, "+table+"."+key), nil}
	case 4:
		if r.IntN(2) == 0 {
			list := "(" + strings.Join(r.some(4, keys...), "), (") + ")"
			return drawnWrite{"DELETE FROM " + table + " USING (VALUES " + list + ") AS w(k) WHERE w.k = " + key + r.of("", " RETURNING *"), nil}
		}
		where, params := r.condition(key, value, keys)
		if where == "" {
			where = " WHERE " + key + " = " + r.of(keys...)
		}
		return drawnWrite{"DELETE FROM " + table + where + returning, params}
	case 5:
		return drawnWrite{"INSERT INTO " + table + " VALUES " + r.list(table, keys) + r.of(returning, " ON CONFLICT DO NOTHING"), nil}
	case 6:
		return drawnWrite{"INSERT INTO " + table + " AS old VALUES " + r.list(table, keys) + " ON CONFLICT (" + key + ") DO " +
			r.of("NOTHING", "UPDATE SET "+value+" = excluded."+value, "UPDATE SET "+value+" = old."+value+" WHERE old."+value+" IS NOT NULL") + returning, nil}
	case 7:
		if table == "accounts" {
			return drawnWrite{"INSERT INTO accounts VALUES (" + r.of(keys...) + ", $1), ('new', $2), ($4, $1) ON CONFLICT (id) DO UPDATE SET balance = excluded.balance + $3" + returning,
				[][]byte{[]byte("5"), []byte("9000000000000"), []byte("1"), []byte("new ü")}}
		}
		return drawnWrite{"INSERT INTO numbers VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING RETURNING v, n",
			[][]byte{[]byte(r.of(keys...)), nil, []byte(r.of("7", "8", "-9")), []byte(r.of("ü", "日本", ""))}}
	default: // one way to fail: a check, a length, an overflow, a null
		if table == "accounts" {
			return drawnWrite{"UPDATE accounts SET balance = " + r.of("balance - 50", "-balance - 1", "NULL") + " WHERE id IN (" + strings.Join(r.some(4, keys...), ", ") + ")", nil}
		}
		return drawnWrite{"UPDATE numbers SET v = " + r.of("'too long'", "repeat('x', 6)") + " WHERE n > " + r.of(keys...), nil}
	}
}

// value is a new value that cannot fail.
func (r randomWrite) value(table, value string) string {
	if table == "accounts" {
		return r.of("balance", "balance / 2", "balance % 7", "0", "4611686018427387904", "greatest(balance, 3)", "length(id)")
	}
	return r.of("v", "NULL", "'ü'", "'🙂🙂'", "upper(v)", "left(n::text, 5)", "coalesce(v, '-')", "''")
}

// list are rows of different keys for VALUES.
func (r randomWrite) list(table string, keys []string) string {
	var rows []string
	for _, k := range r.some(5, keys...) {
		v := r.of("0", "1", "4611686018427387904", "17")
		if table == "numbers" {
			v = r.of("'a'", "'日本'", "''", "'é'")
		}
		rows = append(rows, "("+k+", "+v+")")
	}
	return strings.Join(rows, ", ")
}
