package sqlparse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"pgregory.net/rapid"
)

// agree checks that the scanner of the cache keys reads text as Postgres's own
// does, token by token, or declines. It reports whether it read all of it.
func agree(t interface {
	Fatalf(string, ...any)
	Helper()
}, text string) bool {
	t.Helper()
	if checkText(text) != nil {
		return false // never reaches a look-up
	}
	var real []*pgquery.ScanToken
	result, err := pgquery.Scan(text)
	if err == nil {
		for _, token := range result.Tokens {
			if token.Token != pgquery.Token_SQL_COMMENT && token.Token != pgquery.Token_C_COMMENT {
				real = append(real, token)
			}
		}
	}
	if n := countTokens(text); err == nil && n < len(real) {
		t.Fatalf("%q: counted %d tokens, Postgres reads %d", text, n, len(real))
	}
	s := scanner{text: text}
	for i := 0; ; i++ {
		class, start, end := s.next()
		switch {
		case class == tokenDecline:
			return false
		case err != nil && class == tokenEnd:
			t.Fatalf("%q: read to the end, but Postgres says %v", text, err)
		case err != nil:
			continue
		case class == tokenEnd:
			if i != len(real) {
				t.Fatalf("%q: %d tokens, Postgres reads %d", text, i, len(real))
			}
			return true
		case i >= len(real):
			t.Fatalf("%q: token %d (%q) is too many", text, i, text[start:end])
		}
		want := real[i]
		if start != int(want.Start) || end != int(want.End) {
			t.Fatalf("%q: token %d is %q, Postgres reads %q (%v)", text, i, text[start:end], text[want.Start:want.End], want.Token)
		}
		if !classAgrees(class, want.Token, text[start:end]) {
			t.Fatalf("%q: token %d (%q) of class %d, Postgres says %v", text, i, text[start:end], class, want.Token)
		}
	}
}

func classAgrees(class tokenClass, token pgquery.Token, text string) bool {
	switch token {
	case pgquery.Token_SCONST:
		return class == tokenString
	case pgquery.Token_ICONST:
		return class == tokenInteger
	case pgquery.Token_FCONST:
		return class == tokenLong && isDigits(text) || class == tokenFraction && !isDigits(text)
	case pgquery.Token_PARAM:
		return class == tokenParam
	case pgquery.Token_IDENT:
		return class == tokenWord && text[0] != '"' || class == tokenQuoted && text[0] == '"'
	case pgquery.Token_ASCII_59:
		return class == tokenSemicolon
	case pgquery.Token_USCONST, pgquery.Token_UIDENT, pgquery.Token_BCONST, pgquery.Token_XCONST, pgquery.Token_NUL:
		return false
	}
	if strings.ContainsAny(text[:1], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") {
		return class == tokenWord
	}
	return class == tokenOperator
}

// scanTexts are texts that sit on the edges of the lexer's rules.
var scanTexts = []string{
	"select 1", "1.5 1. 1e5 1e+5 1E-5 1.5e3", "1..2", "1.e5", ".5", "t.5", "1e", "1ex", "1x", "1_000", "0x1F", "0o17", "0b1", "0xg",
	"2147483647 2147483648 0002147483647 00002147483648", "99999999999999999999", "1$1", "$1", "$1a", "$12345678901", "$$a$$", "$a$x$a$", "a$1",
	"'a''b'", "'a\\'", "'a' 'b'", "'a'\n'b'", "'a' -- x\n 'b'", "'a'--x\n'b'", "'a' /* \n */ 'b'", "'open", `"a""b"`, `""`, `"open`,
	"e'x'", "E'a\\'b'", "b'1'", "x'f'", "n'x'", "u&'x'", `U&"x"`, "u&x", "u & x", "e 'x'", "date'2020-01-01'", "ee'x'",
	"a--b\nc", "a- -b", "a/*x*/b", "a/*/**/*/b", "/*/", "/* /* */", "-- only", "a -- c\rb", "a+--x\n1", "a*/*x*/b", "@--x\n1", "@-1", "=-1", "<>-1",
	"a=-1", "a+-1", "a*-+-1", "a<=>b", "a!=b", "a=>b", "a||b", "a->>'b'", "a#>b", "a?b", "a?|b", "a&&b", "a~*b", "a!~~*b", "a|/b", "a%-1", "a^-1", "-+-", "+-",
	"a::int", "a:=b", "a:b", "a: :b", "a[1:2]", "a.b.*", "a. b", "(a,b);c", "a;b;;", "{a}", "\\d", "a\vb", "é", "'é'", `"é"`, "/*é*/a", "a\x01b",
	"select * from t where a='x'and b='y'", "1and 2", "a'b'", "'a'b", "1'a'", "'a'1", "$1'a'", "<", "@", "`", "?", "!", "~", "|", "^", "%", "#", "&",
	"E'a'\n'b\\'' 1 2 3 '", "e'a\\'' 1 2", "E'a' 'b\\'' 1 2 '", "ee'a\\' 1 2", "$a$ ' $a$ 1 2", "$é$ ' $é$ 1", "a$b$ ' 1 ' $b$", "$1$ ' 1 2", "E'a'\v\n'b\\'' 1 2 3 '", "U&'\\' 1 2",
	"=*", "*=", "/=", "-/*c*/1", "+/**/-", "--", "/", "-", ".", "..", "...", ":", "::", ":::", ":==", "<=-", ">=+", "=>-", "=>+1", "~-", "~ -1",
}

func TestScanEdges(t *testing.T) {
	read := 0
	for _, text := range append(scanTexts, factTexts(t)...) {
		if agree(t, text) {
			read++
		}
	}
	if read < 250 {
		t.Errorf("only %d texts were read, the others declined", read)
	}
}

// factTexts are the statements of testdata/facts.
func factTexts(t testing.TB) []string {
	var out []string
	files, err := filepath.Glob("testdata/facts/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(content), "facts\n")[1:] {
			text, _, _ := strings.Cut(block, "\n----\n")
			out = append(out, text)
		}
	}
	return out
}

// TestScanMixes puts fragments together that mean something to a lexer.
func TestScanMixes(t *testing.T) {
	fragments := []string{
		" ", "\n", "\t", "a", "e", "u", "U&", "N", "x", "_", "$", "$1", "0", "12", "2147483648", ".", "..", "'", "''", "'a'", `"`, `"b"`, `""`,
		"-", "--", "+", "/", "*", "/*", "*/", "=", "<", ">", "!", "@", "~", "|", "?", "%", "^", "&", "#", "`", ":", "::", ";", ",", "(", ")", "[", "]",
		"e5", "E+", "é", "\\", "select", "and", "{", "\r", "\f", "\v",
	}
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.SliceOfN(rapid.SampledFrom(fragments), 1, 12), 50, 50).Draw(t, "texts")
		for _, parts := range texts {
			agree(t, strings.Join(parts, ""))
		}
	})
}

func FuzzScan(f *testing.F) {
	for _, text := range append(scanTexts, factTexts(f)...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) <= maxCached {
			agree(t, text)
		}
	})
}
