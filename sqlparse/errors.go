package sqlparse

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pganalyze/pg_query_go/v6/parser"
)

// SyntaxError is a text that Postgres would refuse before looking anything up.
type SyntaxError struct {
	Message string // as Postgres words it
	// Position counts characters from 1 as Postgres does; 0 when Postgres
	// would send none.
	Position int
	// Code is the SQLSTATE Postgres would send: 42601 nearly always, but the
	// grammar raises a few others (0A000 for "MATCH PARTIAL not yet
	// implemented"), as do the checks before it (22021 for bytes that are no
	// UTF-8, 54001 for a statement nested too deeply). "" stands for 42601.
	Code string
	Hint string // "" for none
}

func (e *SyntaxError) Error() string { return e.Message }

// SQLSTATE returns Code, or 42601 when Code is empty.
func (e *SyntaxError) SQLSTATE() string {
	if e.Code == "" {
		return codeSyntaxError
	}
	return e.Code
}

// The SQLSTATEs that can come out of reading a text.
const (
	codeSyntaxError    = "42601"
	codeNotSupported   = "0A000"
	codeNotInEncoding  = "22021"
	codeInvalidValue   = "22023"
	codeInvalidEscape  = "22025"
	codeUnsafeEscape   = "22P06"
	codeDuplicate      = "42710"
	codeReservedName   = "42939"
	codeWindowing      = "42P20"
	codeTooLarge       = "54000"
	codeTooComplex     = "54001"
	codeInternal       = "XX000"
	messageTooComplex  = "stack depth limit exceeded"
	hintTooComplex     = "The statement is nested more deeply than this gateway reads. Split it, or use a list or an array."
	recursionExhausted = "exceeded maximum recursion depth"
)

// other lists, by the beginning of the message, the errors of gram.y and scan.l
// whose SQLSTATE is not 42601 (PostgreSQL 17). %s stands for a word.
var other = []struct{ message, code string }{
	{"%s constraints cannot be marked", codeNotSupported},
	{"CREATE ASSERTION is not yet implemented", codeNotSupported},
	{"CREATE EXTENSION ... FROM is no longer supported", codeNotSupported},
	{"CREATE OR REPLACE CONSTRAINT TRIGGER is not supported", codeNotSupported},
	{"CREATE SCHEMA IF NOT EXISTS cannot include schema elements", codeNotSupported},
	{"MATCH PARTIAL not yet implemented", codeNotSupported},
	{"RECHECK is no longer required", codeNotSupported},
	{"UNENCRYPTED PASSWORD is no longer supported", codeNotSupported},
	{"UNIQUE predicate is not yet implemented", codeNotSupported},
	{"WITH CHECK OPTION not supported on recursive views", codeNotSupported},
	{"a column list with %s is only supported for ON DELETE actions", codeNotSupported},
	{"aggregates cannot have output arguments", codeNotSupported},
	{"an ordered-set aggregate with a VARIADIC direct argument", codeNotSupported},
	{"current database cannot be changed", codeNotSupported},
	{"dropping an enum value is not implemented", codeNotSupported},
	{"only string constants are supported in JSON_TABLE", codeNotSupported},
	{"column number must be in range", codeInvalidValue},
	{"precision for type float must be", codeInvalidValue},
	{"unrecognized JSON encoding", codeInvalidValue},
	{"unrecognized partitioning strategy", codeInvalidValue},
	{"invalid Unicode escape", codeInvalidEscape},
	{"unsafe use of \\' in a string literal", codeUnsafeEscape},
	{"invalid byte sequence for encoding", codeNotInEncoding},
	{"modulus for hash partition provided", codeDuplicate},
	{"remainder for hash partition provided", codeDuplicate},
	{"role name \"", codeReservedName},
	{"%s cannot be used as a role name here", codeReservedName},
	{"frame end cannot be", codeWindowing},
	{"frame start cannot be", codeWindowing},
	{"frame starting from", codeWindowing},
}

// hints of the parser's errors, which pg_query does not hand over.
var hints = map[string]string{
	"LIMIT #,# syntax is not supported":     "Use separate LIMIT and OFFSET clauses.",
	"invalid Unicode escape":                "Unicode escapes must be \\uXXXX or \\UXXXXXXXX.",
	"unsafe use of \\' in a string literal": "Use '' to write quotes in strings. \\' is insecure in client-only encodings.",
}

// parseError turns what pg_query reports into what Postgres would send.
func parseError(err error) *SyntaxError {
	var e *parser.Error
	if !errors.As(err, &e) {
		if strings.Contains(err.Error(), recursionExhausted) {
			return tooComplex()
		}
		return &SyntaxError{Message: err.Error(), Code: codeInternal}
	}
	out := &SyntaxError{Message: e.Message, Position: e.Cursorpos, Code: codeSyntaxError, Hint: hints[e.Message]}
	if strings.HasSuffix(e.Filename, "parser_parser.c") && e.Message == "invalid Unicode escape" {
		// Of U&'' and U&"", which parser.c takes apart after the scanner.
		out.Hint = "Unicode escapes must be \\XXXX or \\+XXXXXX."
		return out
	}
	for _, o := range other {
		if matches(e.Message, o.message) {
			out.Code = o.code
			break
		}
	}
	return out
}

// matches reports whether message begins with pattern, %s being any text.
func matches(message, pattern string) bool {
	before, after, hole := strings.Cut(pattern, "%s")
	return strings.HasPrefix(message, before) && (!hole || strings.Contains(message[len(before):], after))
}

func tooComplex() *SyntaxError {
	return &SyntaxError{Message: messageTooComplex, Code: codeTooComplex, Hint: hintTooComplex}
}

// checkText refuses what Postgres would not even scan, and what would be
// unsafe to hand to C.
func checkText(sql string) *SyntaxError {
	bad := strings.IndexByte(sql, 0)
	if bad < 0 && utf8.ValidString(sql) {
		return nil
	}
	for i := 0; i < len(sql); {
		r, size := utf8.DecodeRuneInString(sql[i:])
		if r == utf8.RuneError && size <= 1 || sql[i] == 0 {
			return notUTF8(sql[i:])
		}
		i += size
	}
	return nil
}

// notUTF8 words the error as report_invalid_encoding in mbutils.c does: with as
// many bytes as the first one announces.
func notUTF8(rest string) *SyntaxError {
	n := 1
	switch b := rest[0]; {
	case b&0xe0 == 0xc0:
		n = 2
	case b&0xf0 == 0xe0:
		n = 3
	case b&0xf8 == 0xf0:
		n = 4
	}
	var shown []string
	for _, b := range []byte(rest[:min(n, len(rest))]) {
		shown = append(shown, fmt.Sprintf("0x%02x", b))
	}
	return &SyntaxError{
		Message: `invalid byte sequence for encoding "UTF8": ` + strings.Join(shown, " "), Code: codeNotInEncoding,
	}
}
