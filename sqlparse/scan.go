package sqlparse

import "strings"

// tokenClass is what the cache key needs to know of a token.
type tokenClass uint8

const (
	tokenEnd      tokenClass = iota // of the text
	tokenDecline                    // something this scanner does not claim to know
	tokenWord                       // identifier or key word
	tokenQuoted                     // "identifier"
	tokenString                     // 'string'
	tokenInteger                    // decimal integer that fits int4: the grammar's ICONST
	tokenLong                       // decimal integer that does not: FCONST
	tokenFraction                   // 1.5, 1e3: FCONST
	tokenParam                      // $1
	tokenOperator                   // operators and punctuation
	tokenSemicolon
)

// isConstant: the classes whose text the cache key leaves out.
func (t tokenClass) isConstant() bool { return t >= tokenString && t <= tokenFraction }

// scanner is a lexer for the ordinary part of SQL. Where it does not decline,
// it must agree with Postgres's own (scan.l) on every token's class and extent,
// under standard_conforming_strings = on: a key that misread a text would hand
// out another statement's facts. scan_test.go and FuzzScan hold it to that. It
// declines on E”, U&, B”, X” and N” strings, dollar quotes, numbers in
// other bases or with underscores or running into a word, characters outside
// ASCII except in quotes and comments, control characters, and anything
// unterminated.
type scanner struct {
	text string
	pos  int
}

// next returns the next token's class and extent, white space and comments
// skipped.
func (s *scanner) next() (class tokenClass, start, end int) {
	if !s.space() {
		return tokenDecline, s.pos, s.pos
	}
	start = s.pos
	if start >= len(s.text) {
		return tokenEnd, start, start
	}
	switch b := s.text[start]; byteClass[b] {
	case byteLetter:
		class = s.word()
	case byteDigit:
		class = s.number()
	case byteOperator:
		class = s.operator()
	case bytePunctuation:
		s.pos++
		class = tokenOperator
	default:
		switch b {
		case ';':
			s.pos++
			class = tokenSemicolon
		case '\'':
			class = s.quoted('\'', tokenString)
		case '"':
			class = s.quoted('"', tokenQuoted)
		case '$':
			class = s.param()
		case ':':
			class = s.colon()
		case '.':
			class = s.dot()
		default:
			class = tokenDecline
		}
	}
	return class, start, s.pos
}

// space skips white space and comments; false if a comment does not end.
func (s *scanner) space() bool {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r', '\f':
			s.pos++
		case '-':
			if !strings.HasPrefix(s.text[s.pos:], "--") {
				return true
			}
			if n := strings.IndexAny(s.text[s.pos:], "\n\r"); n >= 0 {
				s.pos += n
			} else {
				s.pos = len(s.text)
			}
		case '/':
			if !strings.HasPrefix(s.text[s.pos:], "/*") {
				return true
			}
			if !s.blockComment() {
				return false
			}
		default:
			return true
		}
	}
	return true
}

// blockComment skips a comment; they nest.
func (s *scanner) blockComment() bool {
	depth := 0
	for i := s.pos; i+1 < len(s.text); {
		switch s.text[i : i+2] {
		case "/*":
			depth++
			i += 2
		case "*/":
			depth--
			i += 2
			if depth == 0 {
				s.pos = i
				return true
			}
		default:
			i++
		}
	}
	return false
}

// word reads an identifier, unless it is the prefix of a special string.
func (s *scanner) word() tokenClass {
	start := s.pos
	for s.pos < len(s.text) && isIdentifierByte(s.text[s.pos]) {
		if s.text[s.pos] >= 0x80 {
			return tokenDecline
		}
		s.pos++
	}
	if s.pos-start == 1 && s.pos < len(s.text) {
		switch s.text[start] | 0x20 {
		case 'e', 'b', 'x', 'n':
			if s.text[s.pos] == '\'' {
				return tokenDecline
			}
		case 'u':
			if s.text[s.pos] == '&' {
				return tokenDecline
			}
		}
	}
	return tokenWord
}

// number reads a decimal number.
func (s *scanner) number() tokenClass {
	start := s.pos
	s.digits()
	class := tokenInteger
	if s.at('.') {
		s.pos++
		s.digits()
		class = tokenFraction
	}
	if s.at('e') || s.at('E') {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		if !s.digits() {
			return tokenDecline
		}
		class = tokenFraction
	}
	// 1..2, 1.2.3, 1x, 1_000: the real scanner splits or refuses these.
	if s.pos < len(s.text) && (s.text[s.pos] == '.' || isIdentifierByte(s.text[s.pos])) {
		return tokenDecline
	}
	if class == tokenInteger && !fitsInt4(s.text[start:s.pos]) {
		return tokenLong
	}
	return class
}

// digits skips digits; false if there were none.
func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.text) && isDigit(s.text[s.pos]) {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) at(b byte) bool { return s.pos < len(s.text) && s.text[s.pos] == b }

// fitsInt4 tells the scanner's ICONST from FCONST.
func fitsInt4(digits string) bool {
	const largest = "2147483647"
	if len(digits) < len(largest) {
		return true
	}
	digits = strings.TrimLeft(digits, "0")
	return len(digits) < len(largest) || len(digits) == len(largest) && digits <= largest
}

// quoted reads '...' or "...", in which a doubled quote stands for itself.
func (s *scanner) quoted(quote byte, class tokenClass) tokenClass {
	start := s.pos
	s.pos++
	for {
		n := strings.IndexByte(s.text[s.pos:], quote)
		if n < 0 {
			return tokenDecline
		}
		s.pos += n + 1
		if !s.at(quote) {
			break
		}
		s.pos++
	}
	if class == tokenQuoted {
		if s.pos-start == 2 { // "" is an error
			return tokenDecline
		}
		return class
	}
	// Strings with a line break between them are one string; decline whatever
	// stands between them.
	end := s.pos
	if !s.space() || s.at('\'') || s.at('\v') { // \v: white space since 16, not known here
		return tokenDecline
	}
	s.pos = end
	return class
}

// param reads $n. Nine digits always fit; dollar quotes are declined.
func (s *scanner) param() tokenClass {
	start := s.pos
	s.pos++
	if !s.digits() || s.pos-start > 10 || s.pos < len(s.text) && isIdentifierByte(s.text[s.pos]) {
		return tokenDecline
	}
	return tokenParam
}

// colon reads :, :: or :=.
func (s *scanner) colon() tokenClass {
	s.pos++
	if s.at(':') || s.at('=') {
		s.pos++
	}
	return tokenOperator
}

// dot declines .5 and .. (as in 1..2).
func (s *scanner) dot() tokenClass {
	s.pos++
	if s.pos < len(s.text) && (s.text[s.pos] == '.' || isDigit(s.text[s.pos])) {
		return tokenDecline
	}
	return tokenOperator
}

// maxOperator: operators of NAMEDATALEN characters and more are refused.
const maxOperator = 64

// operator reads the longest run of operator characters, cut by Postgres's
// rules: a comment may begin inside, and a run may end in + or - only if it
// contains one of the characters that make it no SQL operator.
// See "Operators" in the manual's Lexical Structure.
func (s *scanner) operator() tokenClass {
	start := s.pos
	for s.pos < len(s.text) && byteClass[s.text[s.pos]] == byteOperator {
		if s.pos > start && s.pos+1 < len(s.text) {
			if pair := s.text[s.pos : s.pos+2]; pair == "--" || pair == "/*" {
				break
			}
		}
		s.pos++
	}
	if run := s.text[start:s.pos]; len(run) > 1 && (run[len(run)-1] == '+' || run[len(run)-1] == '-') {
		if !strings.ContainsAny(run[:len(run)-1], "~!@#^&|`?%") {
			run = strings.TrimRight(run, "+-")
			s.pos = start + max(len(run), 1)
		}
	}
	if s.pos-start >= maxOperator {
		return tokenDecline
	}
	return tokenOperator
}

// The classes of bytes outside of quotes and comments.
const (
	byteOther       = iota // decided one by one, or declined
	byteLetter             // starts an identifier
	byteDigit              // starts a number
	byteOperator           // op_chars of scan.l
	bytePunctuation        // a token by itself
)

var byteClass = func() (class [256]uint8) {
	for b := 'a'; b <= 'z'; b++ {
		class[b], class[b-'a'+'A'] = byteLetter, byteLetter
	}
	class['_'] = byteLetter
	for b := '0'; b <= '9'; b++ {
		class[b] = byteDigit
	}
	for _, b := range "~!@#^&|`?+-*/%<>=" {
		class[b] = byteOperator
	}
	for _, b := range ",()[]" {
		class[b] = bytePunctuation
	}
	return class
}()

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// isIdentifierByte: ident_cont of scan.l.
func isIdentifierByte(b byte) bool {
	return b|0x20 >= 'a' && b|0x20 <= 'z' || isDigit(b) || b == '_' || b == '$' || b >= 0x80
}
