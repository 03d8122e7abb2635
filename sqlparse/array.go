package sqlparse

import (
	"errors"
	"strings"
)

// errArray is the one thing wrong with an array's text; the node words it
// better if the statement gets there.
var errArray = errors.New("malformed array literal")

// errDimensions: more than one dimension, or subscripts of its own.
var errDimensions = errors.New("array literal is not one-dimensional")

// ParseArray reads the text form of a one-dimensional array, as a constant or
// a text-format parameter gives it: {a,"b c",NULL}. A NULL element is left out
// and reported by hasNull, for no key equals NULL.
// See "Array Input and Output Syntax" in the Postgres manual.
func ParseArray(text string) (elements []string, hasNull bool, err error) {
	text = strings.Trim(text, arraySpace)
	if strings.HasPrefix(text, "[") {
		return nil, false, errDimensions
	}
	if len(text) < 2 || text[0] != '{' {
		return nil, false, errArray
	}
	rest := strings.TrimLeft(text[1:], arraySpace)
	if rest == "}" {
		return nil, false, nil
	}
	for {
		element, quoted, tail, err := arrayElement(rest)
		switch {
		case err != nil:
			return nil, false, err
		case !quoted && strings.EqualFold(element, "null"):
			hasNull = true
		default:
			elements = append(elements, element)
		}
		switch {
		case tail == "}":
			return elements, hasNull, nil
		case strings.HasPrefix(tail, ","):
			rest = strings.TrimLeft(tail[1:], arraySpace)
		default:
			return nil, false, errArray
		}
	}
}

// arraySpace is what array_isspace of arrayfuncs.c skips.
const arraySpace = " \t\n\r\v\f"

// arrayElement reads one element; tail begins with what follows it.
func arrayElement(rest string) (element string, quoted bool, tail string, err error) {
	var b strings.Builder
	if strings.HasPrefix(rest, `"`) {
		for i := 1; i < len(rest); i++ {
			switch rest[i] {
			case '"':
				return b.String(), true, strings.TrimLeft(rest[i+1:], arraySpace), nil
			case '\\':
				if i++; i == len(rest) {
					return "", false, "", errArray
				}
			}
			b.WriteByte(rest[i])
		}
		return "", false, "", errArray
	}
	solid := 0 // length without trailing white space that no backslash protects
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; c {
		case ',', '}':
			if solid == 0 {
				return "", false, "", errArray
			}
			return b.String()[:solid], quoted, rest[i:], nil
		case '{':
			return "", false, "", errDimensions
		case '"':
			return "", false, "", errArray
		case '\\':
			if i++; i == len(rest) {
				return "", false, "", errArray
			}
			b.WriteByte(rest[i])
			// A backslash makes it no NULL, as quotes do.
			solid, quoted = b.Len(), true
		default:
			b.WriteByte(c)
			if !strings.ContainsRune(arraySpace, rune(c)) {
				solid = b.Len()
			}
		}
	}
	return "", false, "", errArray
}
