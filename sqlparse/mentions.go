package sqlparse

import (
	"strings"
)

// Mentions tells whether an identifier in sql is name, which is in lower case:
// as a word, in quotes, or perhaps with Unicode escapes, which are not read here
// and so count as a mention. Text in strings is no mention.
func Mentions(sql, name string) bool {
	tokens, ok := readTokens(sql)
	if !ok {
		return true
	}
	for _, t := range tokens {
		text := sql[t.start:t.end]
		switch {
		case strings.EqualFold(text, name), text == `"`+name+`"`:
			return true
		case len(text) > 2 && (text[0] == 'U' || text[0] == 'u') && text[1:3] == `&"`:
			return true
		}
	}
	return false
}
