package sqlparse

import (
	"strconv"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// The tree says where a statement starts but not where the statement inside a
// PREPARE or the value of a SET does: those are found among the real scanner's
// tokens.

// span picks a stretch of a statement's text by its tokens, -1 if there is
// none.
type span func(tokens []*pgquery.ScanToken) (start, end int)

// cut returns the stretch s picks in text; an empty one at the end if none.
func cut(text string, s span) (start, end int) {
	tokens := scanTokens(text)
	if len(tokens) == 0 {
		return len(text), len(text)
	}
	start, end = s(tokens)
	if start < 0 || end < start || end > len(text) {
		return len(text), len(text)
	}
	return start, end
}

// scanTokens are the text's tokens without comments, nil if it cannot be read.
func scanTokens(text string) []*pgquery.ScanToken {
	result, err := pgquery.Scan(text)
	if err != nil {
		return nil
	}
	tokens := result.Tokens[:0]
	for _, t := range result.Tokens {
		if t.Token != pgquery.Token_SQL_COMMENT && t.Token != pgquery.Token_C_COMMENT {
			tokens = append(tokens, t)
		}
	}
	return tokens
}

func endOf(tokens []*pgquery.ScanToken) int { return int(tokens[len(tokens)-1].End) }

// afterKeyword picks everything after the first such keyword outside of
// parentheses.
func afterKeyword(keyword pgquery.Token) span {
	return func(tokens []*pgquery.ScanToken) (int, int) {
		depth := 0
		for i, t := range tokens[:len(tokens)-1] {
			switch {
			case t.Token == pgquery.Token_ASCII_40:
				depth++
			case t.Token == pgquery.Token_ASCII_41:
				depth--
			case t.Token == keyword && depth == 0:
				return int(tokens[i+1].Start), endOf(tokens)
			}
		}
		return -1, -1
	}
}

// explainBody picks what follows EXPLAIN and its options.
func explainBody(tokens []*pgquery.ScanToken) (int, int) {
	i := 1
	if i < len(tokens) && tokens[i].Token == pgquery.Token_ASCII_40 && startsOption(tokens[i+1:]) {
		if i = matching(tokens, i); i < 0 {
			return -1, -1
		}
		i++
	}
	for i < len(tokens) && (tokens[i].Token == pgquery.Token_ANALYZE || tokens[i].Token == pgquery.Token_VERBOSE) {
		i++
	}
	if i >= len(tokens) {
		return -1, -1
	}
	return int(tokens[i].Start), endOf(tokens)
}

// startsOption tells EXPLAIN (ANALYZE) from EXPLAIN (SELECT 1): a query in
// parentheses starts with one of these or another parenthesis.
func startsOption(tokens []*pgquery.ScanToken) bool {
	if len(tokens) == 0 {
		return false
	}
	switch tokens[0].Token {
	case pgquery.Token_SELECT, pgquery.Token_VALUES, pgquery.Token_TABLE, pgquery.Token_WITH, pgquery.Token_ASCII_40:
		return false
	}
	return true
}

// parenthesized picks what the first parentheses hold: COPY (query) TO.
func parenthesized(tokens []*pgquery.ScanToken) (int, int) {
	for i, t := range tokens {
		if t.Token == pgquery.Token_ASCII_40 {
			if j := matching(tokens, i); j > i+1 {
				return int(tokens[i+1].Start), int(tokens[j-1].End)
			}
			break
		}
	}
	return -1, -1
}

// matching finds the parenthesis that closes the one at index open.
func matching(tokens []*pgquery.ScanToken, open int) int {
	depth := 0
	for i := open; i < len(tokens); i++ {
		switch tokens[i].Token {
		case pgquery.Token_ASCII_40:
			depth++
		case pgquery.Token_ASCII_41:
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// settingValue picks what SET gives the setting: after = or TO, or after the
// last word of the forms that have neither (SET TIME ZONE x, SET ROLE x).
func settingValue(tokens []*pgquery.ScanToken) (int, int) {
	after := func(i int) (int, int) {
		if i+1 >= len(tokens) {
			return -1, -1
		}
		return int(tokens[i+1].Start), endOf(tokens)
	}
	i := 1
	if i < len(tokens) && (tokens[i].Token == pgquery.Token_LOCAL || tokens[i].Token == pgquery.Token_SESSION) && !isAssignment(tokens, i+1) {
		i++
	}
	if i+1 < len(tokens) && tokens[i].Token == pgquery.Token_TIME && tokens[i+1].Token == pgquery.Token_ZONE {
		return after(i + 1)
	}
	for j := i; j < len(tokens); j++ {
		if isAssignment(tokens, j) {
			return after(j)
		}
	}
	switch tokens[min(i, len(tokens)-1)].Token {
	case pgquery.Token_AUTHORIZATION, pgquery.Token_ROLE, pgquery.Token_SCHEMA, pgquery.Token_NAMES:
		return after(i)
	case pgquery.Token_SESSION, pgquery.Token_XML_P:
		return after(i + 1)
	}
	return -1, -1
}

func isAssignment(tokens []*pgquery.ScanToken, i int) bool {
	return i < len(tokens) && (tokens[i].Token == pgquery.Token_ASCII_61 || tokens[i].Token == pgquery.Token_TO)
}

func itoa(i int32) string { return strconv.Itoa(int(i)) }
