package sqlparse

import (
	"strings"
	"testing"
)

// TestErrors compares with what a PostgreSQL 15 server answered to the same
// texts (code, message, position in characters, hint). The grammar here is
// 17's: statements whose answer changed in between are not in the list.
func TestErrors(t *testing.T) {
	tests := []struct {
		sql, code, message string
		position           int
		hint               string
	}{
		{`SELEC 1`, "42601", "syntax error at or near \"SELEC\"", 1, ""},
		{`SELECT * FORM accounts`, "42601", "syntax error at or near \"FORM\"", 10, ""},
		{`SELECT 'ünïcödé' FROM FROM`, "42601", "syntax error at or near \"FROM\"", 23, ""},
		{`SELECT "日本" x y FROM t`, "42601", "syntax error at or near \"y\"", 15, ""},
		{`UPDATE accounts SET balance = WHERE id = 'a'`, "42601", "syntax error at or near \"WHERE\"", 31, ""},
		{`UPDATE SET x = 1`, "42601", "syntax error at or near \"=\"", 14, ""},
		{`INSERT INTO accounts VALUES (1,`, "42601", "syntax error at end of input", 32, ""},
		{`INSERT INTO accounts (id balance) VALUES (1)`, "42601", "syntax error at or near \"balance\"", 26, ""},
		{`SELECT 'abc`, "42601", "unterminated quoted string at or near \"'abc\"", 8, ""},
		{`SELECT "abc`, "42601", "unterminated quoted identifier at or near \"\"abc\"", 8, ""},
		{`SELECT ""`, "42601", "zero-length delimited identifier at or near \"\"\"\"", 8, ""},
		{`SELECT /* open`, "42601", "unterminated /* comment at or near \"/* open\"", 8, ""},
		{`SELECT $a$ open`, "42601", "unterminated dollar-quoted string at or near \"$a$ open\"", 8, ""},
		{`SELECT 1; SELEKT 2`, "42601", "syntax error at or near \"SELEKT\"", 11, ""},
		{`BEGIN; UPDATE t SET; COMMIT`, "42601", "syntax error at or near \";\"", 20, ""},
		{`SELECT * FROM a JOIN b`, "42601", "syntax error at end of input", 23, ""},
		{`SELECT 1 2`, "42601", "syntax error at or near \"2\"", 10, ""},
		{`SELECT 1x`, "42601", "trailing junk after numeric literal at or near \"1x\"", 8, ""},
		{`SELECT 'é', 1x`, "42601", "trailing junk after numeric literal at or near \"1x\"", 13, ""},
		{`SELECT * FROM t LIMIT 1, 2`, "42601", "LIMIT #,# syntax is not supported", 17, "Use separate LIMIT and OFFSET clauses."},
		{`SELECT (1`, "42601", "syntax error at end of input", 10, ""},
		{`SELECT 1)`, "42601", "syntax error at or near \")\"", 9, ""},
		{`SELECT CAST(1 AS float(99))`, "22023", "precision for type float must be less than 54 bits", 24, ""},
		{`SELECT CAST(1 AS float(0))`, "22023", "precision for type float must be at least 1 bit", 24, ""},
		{`SELECT E'\uZZZZ'`, "22025", "invalid Unicode escape", 10, "Unicode escapes must be \\uXXXX or \\UXXXXXXXX."},
		{`SELECT U&'\00'`, "42601", "invalid Unicode escape", 11, "Unicode escapes must be \\XXXX or \\+XXXXXX."},
		{`SELECT * FROM t WHERE`, "42601", "syntax error at end of input", 22, ""},
		{`DELETE accounts WHERE id = 1`, "42601", "syntax error at or near \"accounts\"", 8, ""},
		{`CREATE TABLE t (id int REFERENCES x MATCH PARTIAL)`, "0A000", "MATCH PARTIAL not yet implemented", 37, ""},
		{`CREATE ROLE public`, "42939", "role name \"public\" is reserved", 13, ""},
		{`SELECT sum(x) OVER (ROWS UNBOUNDED FOLLOWING) FROM t`, "42P20", "frame start cannot be UNBOUNDED FOLLOWING", 26, ""},
		{`SELECT 1 WHERE x UNIQUE (SELECT 1)`, "42601", "syntax error at or near \"UNIQUE\"", 18, ""},
		{`CREATE TABLE a.b.c.d (x int)`, "42601", "improper qualified name (too many dotted names): a.b.c.d", 14, ""},
		{`SELECT 1 FROM t FOR UPDATE OF`, "42601", "syntax error at end of input", 30, ""},
		{`GRANT SELECT ON x`, "42601", "syntax error at end of input", 18, ""},
		{`SELECT ROW(1,2`, "42601", "syntax error at end of input", 15, ""},
		{`EXPLAIN (ANALYZE`, "42601", "syntax error at end of input", 17, ""},
		{`SET x =`, "42601", "syntax error at end of input", 8, ""},
		{`SELECT 'x' 'y'`, "42601", "syntax error at or near \"'y'\"", 12, ""},
		{`SELECT x'1G', @@@`, "42601", "syntax error at end of input", 18, ""},
		{`SELECT * FROM t ORDER BY 1 ORDER BY 2`, "42601", "syntax error at or near \"ORDER\"", 28, ""},
		{`SELECT 1 LIMIT 1 LIMIT 2`, "42601", "syntax error at or near \"LIMIT\"", 18, ""},
		{`SELECT * FROM generate_series(1,2) AS (a int, b`, "42601", "syntax error at end of input", 48, ""},
		{`PREPARE q AS BEGIN`, "42601", "syntax error at or near \"BEGIN\"", 14, ""},
		{`SELECT B'12', 'ß' ßß ßß`, "42601", "syntax error at or near \"ßß\"", 22, ""},
		{`SELECT E'\777', E'\xff'`, "22021", "invalid byte sequence for encoding \"UTF8\": 0xff", 0, ""},
	}
	p := NewParser(10)
	for _, test := range tests {
		statements, err := p.Parse(test.sql)
		e, ok := err.(*SyntaxError)
		if !ok || statements != nil {
			t.Errorf("%s: %d statements, %v", test.sql, len(statements), err)
			continue
		}
		if e.SQLSTATE() != test.code || e.Message != test.message || e.Position != test.position || e.Hint != test.hint {
			t.Errorf("%s\n got %s %q at %d, hint %q\nwant %s %q at %d, hint %q", test.sql,
				e.SQLSTATE(), e.Message, e.Position, e.Hint, test.code, test.message, test.position, test.hint)
		}
	}
}

// TestHostile feeds what a C parser could die of. Each must come back as an
// error or as facts; a crash would end the test process.
func TestHostile(t *testing.T) {
	const many = 100_000
	repeat := strings.Repeat
	tests := []struct{ name, sql, code string }{
		{"NUL", "SELECT 1\x00; DROP TABLE t", "22021"},
		{"NUL in a string", "SELECT 'a\x00b'", "22021"},
		{"invalid UTF-8", "SELECT '\xff'", "22021"},
		{"half a character at the end", "SELECT 'a' AS \xe6\x97", "22021"},
		{"surrogate", "SELECT '\xed\xa0\x80'", "22021"},
		{"invalid UTF-8 by escape", `SELECT E'\xff'`, "22021"},
		{"too long", repeat(" ", MaxText+1), "54000"},
		{"too many tokens", "INSERT INTO t VALUES (1)" + repeat(",(1)", MaxTokens/4), "54000"},
		{"too many tokens behind an escape", "SELECT E'\\'', 1" + repeat(",1", MaxTokens/2), "54000"},
		{"open parentheses", repeat("(", many), "54001"},
		{"parentheses", "SELECT " + repeat("(", many) + "1" + repeat(")", many), "54001"},
		{"sums", "SELECT 1" + repeat("+1", many), "54001"},
		{"sums between resets", "SELECT 1" + repeat("+CASE WHEN x.end THEN a AND b ELSE c END", many/2), "54001"},
		{"sums with labels", "SELECT 1" + repeat("+y.when", many), "54001"},
		{"sums with calls", "SELECT 1" + repeat("+f(x.case, a)", many), "54001"},
		{"negations", "SELECT " + repeat("- ", many) + "1", "54001"},
		{"NOTs", "SELECT " + repeat("NOT ", many) + "a", "54001"},
		{"postfix", "SELECT a" + repeat(" ISNULL", many), "54001"},
		{"between", "SELECT a" + repeat(" BETWEEN 1 AND 2 IS TRUE", many), "54001"},
		{"between to the right", "SELECT a" + repeat(" BETWEEN 1 AND NOT a", many), "54001"},
		{"casts", "SELECT a" + repeat("::int", many), "54001"},
		{"subqueries", repeat("SELECT (", many) + "1" + repeat(")", many), "54001"},
		{"unions", "SELECT 1, 2" + repeat(" UNION SELECT 1, 2", many), "54001"},
		{"unions with labels", "SELECT 1" + repeat(" UNION SELECT 1 case"+repeat(" UNION SELECT 1", 99)+" UNION SELECT 1 end", many/100), "54001"},
		{"joins", "SELECT 1 FROM a" + repeat(" JOIN a ON b AND c", many), "54001"},
		{"cases", "SELECT " + repeat("CASE WHEN ", many) + "1" + repeat(" THEN 1 END", many), "54001"},
		{"ctes", repeat("WITH a AS (", many) + "SELECT 1" + repeat(") SELECT 1", many), "54001"},
		{"routines", repeat("CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; ", many/4) + repeat("END; ", many/4), "54001"},
		{"arrays", "SELECT " + repeat("ARRAY[", many) + repeat("]", many), "54001"},
		{"deep but broken", "SELECT 1" + repeat("+1", many) + " 'open", "42601"},
	}
	p := NewParser(10)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := p.Parse(test.sql)
			e, ok := err.(*SyntaxError)
			if !ok || e.SQLSTATE() != test.code {
				t.Errorf("got %v, want SQLSTATE %s", err, test.code)
			}
		})
	}
}

// TestLong: what is long but flat is ordinary, and must be read.
func TestLong(t *testing.T) {
	const many = 10_000
	repeat := strings.Repeat
	for name, sql := range map[string]string{
		"rows":       "INSERT INTO t VALUES (0, 'x', NULL)" + repeat(", (1, 'it''s', -5)", many),
		"list":       "SELECT * FROM t WHERE id IN (0" + repeat(", 1", many) + ")",
		"ors":        "SELECT * FROM t WHERE id = 0" + repeat(" OR id = 1", many),
		"ands":       "SELECT * FROM t WHERE id = 0" + repeat(" AND (b = 1 OR c > 2)", many),
		"whens":      "UPDATE t SET v = CASE id WHEN 0 THEN 'a'" + repeat(" WHEN 1 THEN 'b'", many) + " END WHERE id = 1",
		"columns":    "SELECT a" + repeat(", b + 1 AS c", many) + " FROM t",
		"statements": "SELECT 1" + repeat("; SELECT 1", many),
		"string":     "SELECT '" + repeat("(((((((((", many) + "'",
		"comment":    "SELECT 1 /*" + repeat("(((((((((", many) + "*/",
		"unions":     "SELECT 1" + repeat(" UNION ALL SELECT 1", 1000),
		"megabytes":  "INSERT INTO t VALUES (E'" + repeat("\\\\x", MaxText/4) + "', '" + repeat("a,", MaxText/8-100) + "')",
		"semicolons": repeat(";", many),
	} {
		if _, err := NewParser(1).Parse(sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothing(t *testing.T) {
	for _, sql := range []string{"", " ", ";", ";;\n; ", "-- x", "/* x */", "/* a */ ; -- b", "\t\v\f"} {
		statements, err := NewParser(1).Parse(sql)
		if len(statements) != 0 || err != nil {
			t.Errorf("%q: %d statements, %v", sql, len(statements), err)
		}
	}
}
