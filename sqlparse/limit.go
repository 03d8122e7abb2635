package sqlparse

import (
	"fmt"
	"strings"
)

const (
	// MaxText is the longest text, in bytes, that is read at all.
	MaxText = 16 << 20
	// MaxTokens bounds the tokens of a text: each costs some 250 bytes while it
	// is parsed (measured: 3.8 GB for 16 MiB of "(1),(1),..."), most of it in
	// C, where running out of memory ends the process.
	MaxTokens = 1 << 20
)

// checkSize refuses a text that would take too much memory.
func checkSize(sql string) *SyntaxError {
	if len(sql) > MaxText {
		return tooLong(fmt.Sprintf("statement text of %d bytes is too long", len(sql)))
	}
	if len(sql) > MaxTokens && countTokens(sql) > MaxTokens {
		return tooLong("statement text has too many tokens")
	}
	return nil
}

func tooLong(message string) *SyntaxError {
	return &SyntaxError{
		Message: message, Code: codeTooLarge,
		Hint: fmt.Sprintf("At most %d bytes and %d tokens are read in one message. Load with COPY, or in smaller pieces.", MaxText, MaxTokens),
	}
}

// countTokens bounds the number of tokens from above. Unlike the scanner it
// declines nothing: what matters is that it never takes for the inside of a
// string or comment what Postgres reads as tokens. Words and numbers count one,
// any other byte that is no white space one.
func countTokens(sql string) int {
	c := counter{scanner: scanner{text: sql}}
	for c.pos < len(sql) {
		c.step()
	}
	return c.tokens
}

type counter struct {
	scanner
	tokens int
}

func (c *counter) step() {
	if !c.space() { // a comment without an end: Postgres stops here
		c.pos = len(c.text)
	}
	if c.pos >= len(c.text) {
		return
	}
	start := c.pos
	c.tokens++
	switch b := c.text[start]; {
	case b == '\'' || b == '"':
		c.skip(start+1, string(b)) // a doubled quote counts as two strings
	case b == '$' && c.dollarTag() != "":
		tag := c.dollarTag()
		c.skip(start+len(tag), tag)
	case isDigit(b): // 1$a$...$a$ is a number and a string
		c.digits()
	case b != '$' && isIdentifierByte(b):
		for c.pos < len(c.text) && isIdentifierByte(c.text[c.pos]) {
			c.pos++
		}
		if c.pos-start == 1 && b|0x20 == 'e' && c.at('\'') {
			c.escapeString()
		}
	default:
		c.pos++
	}
}

// skip moves behind the next occurrence of end, or to the end of the text: an
// unterminated string is an error and hides nothing.
func (c *counter) skip(from int, end string) {
	if n := strings.Index(c.text[from:], end); n >= 0 {
		c.pos = from + n + len(end)
	} else {
		c.pos = len(c.text)
	}
}

// escapeString skips '...' with backslash escapes, and the strings that
// continue it behind a line break. A doubled quote is such a string here.
func (c *counter) escapeString() {
	for c.at('\'') {
		for c.pos++; c.pos < len(c.text) && c.text[c.pos] != '\''; c.pos++ {
			if c.text[c.pos] == '\\' {
				c.pos++
			}
		}
		c.pos = min(c.pos+1, len(c.text))
		c.continuation()
	}
}

// continuation moves to a quote behind white space with a line break in it
// (quotecontinue of scan.l: line comments may stand there, block comments may
// not), or stays.
func (c *counter) continuation() {
	broken := false
	for i := c.pos; i < len(c.text); i++ {
		switch b := c.text[i]; {
		case b == '\n' || b == '\r':
			broken = true
		case strings.HasPrefix(c.text[i:], "--"):
			n := strings.IndexAny(c.text[i:], "\n\r")
			if n < 0 {
				return
			}
			i += n - 1
		case b == '\'' && broken:
			c.pos = i
			return
		case !strings.Contains(space, string(b)):
			return
		}
	}
}

// dollarTag is the $tag$ at the current position, "" if there is none. A digit
// cannot start a tag, and a tag holds no dollar sign.
func (c *counter) dollarTag() string {
	for i := c.pos + 1; i < len(c.text); i++ {
		b := c.text[i]
		switch {
		case b == '$':
			return c.text[c.pos : i+1]
		case !isIdentifierByte(b) || isDigit(b) && i == c.pos+1:
			return ""
		}
	}
	return ""
}
