package sqlparse

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Unreadable is what Redact makes of a text whose values it cannot tell from the
// rest.
const Unreadable = "(a text that cannot be read)"

// Redact is a statement's text fit to be kept: every constant is a ?, comments,
// in which programs put values too, are left out, and white space is one blank.
// Names stay. It goes by the lexer and not by the grammar, so that it does the
// same for every kind of statement, passwords in ALTER ROLE included, and for one
// with a syntax error in it.
func Redact(sql string) string {
	scanned, err := pgquery.Scan(sql)
	if err != nil {
		return Unreadable
	}
	var out strings.Builder
	last := int32(0)
	for _, token := range scanned.GetTokens() {
		if token.Start < last || token.End < token.Start || int(token.End) > len(sql) {
			return Unreadable
		}
		switch token.Token {
		case pgquery.Token_SQL_COMMENT, pgquery.Token_C_COMMENT:
			continue // last stays: what stands on both sides of it is kept apart
		}
		if out.Len() > 0 && token.Start > last {
			out.WriteByte(' ')
		}
		last = token.End
		switch token.Token {
		case pgquery.Token_SCONST, pgquery.Token_USCONST, pgquery.Token_BCONST, pgquery.Token_XCONST, pgquery.Token_ICONST, pgquery.Token_FCONST:
			out.WriteByte('?')
		default:
			out.WriteString(sql[token.Start:token.End])
		}
	}
	return out.String()
}
