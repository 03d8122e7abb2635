package sqlparse

import (
	"strings"
	"unicode/utf8"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// RowList knows where the rows of an INSERT's VALUES list are in its text, so
// that the statement can be sent with some of its rows only. The tree does not
// say where a row ends; the tokens do.
type RowList struct {
	sql     string
	rows    []extent
	outside []int // parameters mentioned outside of the rows
}

// extent is a row with its parentheses, and the parameters in it.
type extent struct {
	start, end int
	params     []int
}

// token is a token as far as rows go: a parenthesis, a comma, a semicolon, a
// parameter, a word without quotes, or something else.
type token struct {
	start, end int
	kind       byte // ( ) , ; $ w or 0
}

// FindRows finds the rows of sql, which is an INSERT of that many VALUES rows,
// and perhaps a semicolon. ok is false when they cannot be told from the rest
// for certain.
func FindRows(sql string, rows int) (list *RowList, ok bool) {
	tokens, ok := readTokens(sql)
	if !ok {
		return nil, false
	}
	depth := 0
	for i, t := range tokens {
		switch t.kind {
		case '(':
			depth++
		case ')':
			depth--
		case 'w':
			// VALUES may also be the table's name or alias: then no such list of
			// rows follows.
			if depth == 0 && strings.EqualFold(sql[t.start:t.end], "values") {
				if list := rowsAfter(sql, tokens, i+1, rows); list != nil {
					return list, true
				}
			}
		}
	}
	return nil, false
}

// rowsAfter reads the rows that begin at the token with index from, nil if
// that is not what stands there.
func rowsAfter(sql string, tokens []token, from, rows int) *RowList {
	list := &RowList{sql: sql, rows: make([]extent, 0, rows)}
	at := from
	for {
		closing := closingToken(tokens, at)
		if closing < 0 {
			return nil
		}
		list.rows = append(list.rows, extent{tokens[at].start, tokens[closing].end, paramsIn(sql, tokens[at:closing])})
		at = closing + 1
		if at >= len(tokens) || tokens[at].kind != ',' {
			break
		}
		at++
	}
	if len(list.rows) != rows {
		return nil
	}
	if at < len(tokens) && tokens[at].kind != ';' {
		if word := sql[tokens[at].start:tokens[at].end]; !strings.EqualFold(word, "on") && !strings.EqualFold(word, "returning") {
			return nil
		}
	}
	list.outside = append(paramsIn(sql, tokens[:from]), paramsIn(sql, tokens[at:])...)
	return list
}

// closingToken is the index of the parenthesis that closes the one at index
// open, -1 if none is opened there.
func closingToken(tokens []token, open int) int {
	if open >= len(tokens) || tokens[open].kind != '(' {
		return -1
	}
	depth := 0
	for i := open; i < len(tokens); i++ {
		switch tokens[i].kind {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func paramsIn(sql string, tokens []token) []int {
	var params []int
	for _, t := range tokens {
		if t.kind != '$' {
			continue
		}
		n := 0
		for _, digit := range []byte(sql[t.start+1 : t.end]) {
			n = n*10 + int(digit-'0')
		}
		params = append(params, n)
	}
	return params
}

// Keep is the text with the rows of those indexes, in their order, and without
// the others. What is left out is replaced by blanks, one for each character:
// every position in the text is what it was, and so errors of a node point to
// where the client sees them.
func (l *RowList) Keep(rows []int) string {
	var b strings.Builder
	b.Grow(len(l.sql))
	at, kept := l.rows[0].start, 0
	b.WriteString(l.sql[:at])
	for _, i := range rows {
		row := l.rows[i]
		if kept > 0 { // the comma behind the last row stays, to part it from this one
			next := l.rows[rows[kept-1]+1].start
			b.WriteString(l.sql[at:next])
			at = next
		}
		blank(&b, l.sql[at:row.start])
		b.WriteString(l.sql[row.start:row.end])
		at = row.end
		kept++
	}
	last := l.rows[len(l.rows)-1].end
	blank(&b, l.sql[at:last])
	b.WriteString(l.sql[last:])
	return b.String()
}

const blanks = "                                                                "

func blank(b *strings.Builder, text string) {
	n := utf8.RuneCountInString(text)
	for ; n > len(blanks); n -= len(blanks) {
		b.WriteString(blanks)
	}
	b.WriteString(blanks[:n])
}

// Params are the numbers of the parameters that Keep's text mentions, in no
// order, some of them perhaps more than once.
func (l *RowList) Params(rows []int) []int {
	params := append([]int(nil), l.outside...)
	for _, i := range rows {
		params = append(params, l.rows[i].params...)
	}
	return params
}

// readTokens reads a text's tokens with the small scanner or, where that
// declines, with the real one.
func readTokens(sql string) ([]token, bool) {
	tokens := make([]token, 0, len(sql)/4)
	s := scanner{text: sql}
	for {
		class, start, end := s.next()
		switch class {
		case tokenEnd:
			return tokens, true
		case tokenDecline:
			return realTokens(sql)
		}
		t := token{start: start, end: end}
		switch {
		case class == tokenWord:
			t.kind = 'w'
		case class == tokenParam:
			t.kind = '$'
		case class == tokenSemicolon:
			t.kind = ';'
		case class == tokenOperator && end == start+1 && strings.IndexByte("(),", sql[start]) >= 0:
			t.kind = sql[start]
		}
		tokens = append(tokens, t)
	}
}

func realTokens(sql string) ([]token, bool) {
	result, err := pgquery.Scan(sql)
	if err != nil {
		return nil, false
	}
	tokens := make([]token, 0, len(result.Tokens))
	for _, t := range result.Tokens {
		read := token{start: int(t.Start), end: int(t.End)}
		switch t.Token {
		case pgquery.Token_SQL_COMMENT, pgquery.Token_C_COMMENT:
			continue
		case pgquery.Token_ASCII_40, pgquery.Token_ASCII_41, pgquery.Token_ASCII_44, pgquery.Token_ASCII_59:
			read.kind = sql[t.Start]
		case pgquery.Token_PARAM:
			read.kind = '$'
		default:
			if isLetter(sql[t.Start]) {
				read.kind = 'w'
			}
		}
		tokens = append(tokens, read)
	}
	return tokens, true
}

func isLetter(b byte) bool { return byteClass[b] == byteLetter }
