package sqlparse

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// checkCached compares what a parser with a memory answers with what the real
// grammar says about that very text.
func checkCached(t interface {
	Fatalf(string, ...any)
	Helper()
}, p *Parser, sql string) {
	t.Helper()
	want, _, wantErr := parse(sql)
	got, gotErr := p.Parse(sql)
	if wantErr != nil || gotErr != nil {
		if diff := cmp.Diff(wantErr, gotErr); diff != "" {
			t.Fatalf("%q: error differs from a fresh parse: %s", sql, diff)
		}
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%q: %d statements, want %d", sql, len(got), len(want))
	}
	for i := range want {
		if got[i].SQL != want[i].SQL || got[i].Start != want[i].Start {
			t.Fatalf("%q: statement %d is %q at %d, want %q at %d", sql, i, got[i].SQL, got[i].Start, want[i].SQL, want[i].Start)
		}
		if diff := cmp.Diff(dump(&want[i]), dump(&got[i])); diff != "" {
			t.Fatalf("%q: facts differ from a fresh parse: %s", sql, diff)
		}
		// Also what the facts do not use: the next text's may.
		if diff := cmp.Diff(want[i].Literals, got[i].Literals); diff != "" {
			t.Fatalf("%q: literals differ from a fresh parse: %s", sql, diff)
		}
	}
}

// sqlConstant draws constants of all classes, and things near them.
func sqlConstant(t *rapid.T) string {
	return rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string {
			s := rapid.StringOfN(rapid.SampledFrom([]rune("ab'\\é;$-/*\n(\"")), 0, 6, -1).Draw(t, "s")
			return "'" + strings.ReplaceAll(s, "'", "''") + "'"
		}),
		rapid.SampledFrom([]string{
			"0", "7", "007", "2147483647", "2147483648", "9999999999999999999999", "0000000000000000000001",
			"-1", "- 5", "-2147483648", "-9999999999", "-0", "- -3", "-(4)", "+6", "1.5", "1e3", "-2.5", "0x10", "1_000",
			"E'a\\'b'", "$$d$$", "B'1'", "NULL", "true", "$1", "$2::text", "'a'::text", "5::int8", "-5::int8", "(-5)::bigint", "'a'::varchar(3)",
			"text 'x'", "interval '1' day", "date '2020-01-01'", "lower('A')", "'a' || 'b'", "'a' COLLATE \"C\"", "CAST(1 AS float(24))", "DEFAULT",
		}),
	).Draw(t, "constant")
}

// sqlCondition draws a condition with a few constants.
func sqlCondition(t *rapid.T) string {
	k := func() string { return sqlConstant(t) }
	switch rapid.IntRange(0, 9).Draw(t, "shape") {
	case 0:
		return "id IN (" + k() + ", " + k() + ")"
	case 1:
		return "id = ANY('{" + rapid.SampledFrom([]string{"a", "b,c", ""}).Draw(t, "array") + "}')"
	case 2:
		return "id = ANY(ARRAY[" + k() + ", " + k() + "])"
	case 3:
		return "(id = " + k() + " OR id = " + k() + ")"
	case 4:
		return "(id, x) = (" + k() + ", " + k() + ")"
	case 5:
		return "t.id IS NOT DISTINCT FROM " + k()
	case 6:
		return "EXISTS (SELECT 1 FROM u WHERE u.id = t.id AND u.v = " + k() + " LIMIT 1)"
	case 7:
		return "v BETWEEN " + k() + " AND " + k()
	default:
		return "id = " + k()
	}
}

func sqlStatement(t *rapid.T) string {
	k := func() string { return sqlConstant(t) }
	space := rapid.SampledFrom([]string{" ", "  ", "\n", " /* c */ ", " -- c\n"}).Draw(t, "space")
	switch rapid.IntRange(0, 7).Draw(t, "statement") {
	case 0:
		return "UPDATE t SET v =" + space + k() + " WHERE " + sqlCondition(t)
	case 1:
		return "DELETE FROM t" + space + "WHERE " + sqlCondition(t) + " AND " + sqlCondition(t)
	case 2:
		return "INSERT INTO t (id, v) VALUES (" + k() + "," + space + k() + "), (" + k() + ", DEFAULT) ON CONFLICT (id) DO UPDATE SET v = " + k()
	case 3:
		return "BEGIN"
	case 4:
		return "SET LOCAL a.b = 'c'"
	default:
		return "SELECT " + k() + space + "AS c, v FROM t WHERE " + sqlCondition(t) + " ORDER BY 1 LIMIT 5"
	}
}

// TestCacheEqualsFresh: a parser that has seen many statements of the same
// shapes says the same as one that has seen none.
func TestCacheEqualsFresh(t *testing.T) {
	p := NewParser(200)
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			parts := rapid.SliceOfN(rapid.Custom(sqlStatement), 1, 2).Draw(t, "statements")
			sql := strings.Join(parts, rapid.SampledFrom([]string{";", " ; ", ";\n-- c\n"}).Draw(t, "separator"))
			checkCached(t, p, sql)
			checkCached(t, p, sql)
		}
	})
}

// TestCacheClasses: texts that must not share facts although they differ in a
// constant only.
func TestCacheClasses(t *testing.T) {
	p := NewParser(100)
	for _, id := range []string{
		"5", "'5'", "5.0", "-5", "'it''s'", "99999999999", "-99999999999", "5e0", "'x'::text", "$1", "- -5", "-(5)", "0x5", "-0", "0", "7", "-7",
		"E'x'", "U&'x'", "'x' \n'y'", "'x'/**/", "- /**/ 5", "-\n5",
	} {
		for _, format := range []string{"SELECT * FROM t WHERE id = %s", "UPDATE t SET v = %s", "INSERT INTO t VALUES (%s)", "SELECT %s; DELETE FROM t WHERE id = %[1]s"} {
			sql := fmt.Sprintf(format, id)
			checkCached(t, p, sql)
			checkCached(t, p, sql)
		}
	}
	// The second is an error, the first is not.
	checkCached(t, p, "SELECT CAST(id AS float(24)) FROM t WHERE id = 1")
	checkCached(t, p, "SELECT CAST(id AS float(99)) FROM t WHERE id = 1")
	checkCached(t, p, "SELECT 1 WHERE 'a' = 'b'")
	checkCached(t, p, "SELECT 1 WHERE 'a' = '\xff'")
	checkCached(t, p, "SELECT 1 WHERE 'a' = '\x00'")
}

// TestCacheHits makes sure that the cache is used at all.
func TestCacheHits(t *testing.T) {
	p := NewParser(100)
	for _, sql := range []string{
		"SELECT balance FROM accounts WHERE id = '%d'",
		"UPDATE accounts SET balance = balance - %d WHERE id = 'x'",
		"INSERT INTO accounts (id, balance) VALUES ('%d', -5) ON CONFLICT DO NOTHING",
		"BEGIN; UPDATE accounts SET balance = balance + %d WHERE id = 'x'; COMMIT",
		"DELETE FROM t /* %d */ WHERE d < date '2020-01-01' AND id = 1",
	} {
		first, err := p.Parse(fmt.Sprintf(sql, 10))
		if err != nil {
			t.Fatal(err)
		}
		second, err := p.Parse(fmt.Sprintf(sql, 222))
		if err != nil {
			t.Fatal(err)
		}
		for i := range first {
			if first[i].Facts != second[i].Facts {
				t.Errorf("%s: statement %d was parsed twice", sql, i)
			}
		}
	}
	const params = "SELECT balance FROM accounts WHERE id = $1"
	first, _ := p.Parse(params)
	second, _ := p.Parse(params)
	if &first[0] != &second[0] {
		t.Error("a text with parameters was parsed twice")
	}
}

func TestCacheBounds(t *testing.T) {
	c := newCache[int](4)
	for i := range 100 {
		c.add(fmt.Sprint(i), i)
	}
	if n := c.lru.Len(); n != 4 {
		t.Errorf("%d entries, want 4", n)
	}
	for i := range 100 {
		c.add(fmt.Sprint(i)+strings.Repeat("x", 2000), i)
	}
	if c.bytes > c.budget || c.lru.Len() != 2 {
		t.Errorf("%d bytes of %d in %d entries", c.bytes, c.budget, c.lru.Len())
	}
	c.add("again", 1)
	c.add("again", 2)
	total := 0
	for _, k := range c.lru.Keys() {
		total += len(k)
	}
	if total != c.bytes {
		t.Errorf("counted %d bytes, there are %d", c.bytes, total)
	}
}

func TestConcurrent(t *testing.T) {
	p := NewParser(20)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				sql := fmt.Sprintf("UPDATE t%d SET v = '%d' WHERE id = %d", i%30, g, i)
				statements, err := p.Parse(sql)
				if err != nil || len(statements) != 1 {
					t.Errorf("%s: %v", sql, err)
					return
				}
				s := &statements[0]
				if id := s.Text(s.Conditions[0].Values[0]); id != fmt.Sprint(i) {
					t.Errorf("%s: id %s", sql, id)
				}
			}
		})
	}
	wg.Wait()
}

var fuzzed = NewParser(500)

func FuzzParse(f *testing.F) {
	for _, text := range append(scanTexts, factTexts(f)...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		checkCached(t, fuzzed, sql)
		checkCached(t, fuzzed, sql)
		checkSound(t, sql)
	})
}

// checkSound checks what callers rely on without looking.
func checkSound(t *testing.T, sql string) {
	statements, _ := fuzzed.Parse(sql)
	for i := range statements {
		s := &statements[i]
		if s.Kind == Other && s.Object == "" && len(s.Tables) > 0 && s.Writes {
			t.Errorf("%q: writes, but of no kind", sql)
		}
		if s.SQL == "" || sql[s.Start:s.Start+len(s.SQL)] != s.SQL {
			t.Errorf("%q: statement %d is not where it says", sql, i)
		}
		for _, c := range s.Conditions {
			if c.Table < 0 && len(c.Candidates) < 2 || c.Table >= len(s.Tables) || len(c.Values) == 0 {
				t.Errorf("%q: condition %+v", sql, c)
			}
			for _, v := range c.Values {
				if v.Kind == ValueOther || v.Kind == ValueDefault || v.Kind == ValueParam && v.Param > s.Params {
					t.Errorf("%q: value %+v", sql, v)
				}
				_ = s.Text(v)
			}
		}
	}
}
