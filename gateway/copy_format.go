package gateway

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/pgpact/pgpact/sqlparse"
)

// The formats of COPY, as far as a row's place must be read out of its bytes:
// PostgreSQL documentation, "COPY / File Formats", and what copyfromparse.c
// makes of the cases it does not mention. The rows themselves are never
// rewritten.

type formatKind uint8

const (
	textFormat formatKind = iota
	csvFormat
	binaryFormat
)

// copyFormat is what the options of a COPY say about its data.
type copyFormat struct {
	kind                     formatKind
	delimiter, quote, escape byte
	null                     string
	standIn                  string // DEFAULT 'x': stands for the column's default
	hasStandIn               bool
	header                   bool
	dotEnds                  bool // "\." alone on a line ends CSV too (before PostgreSQL 18)

	forceNull, forceNotNull string   // lists of columns
	unknown                 []string // options that are not known here
}

// formatOf reads the options. A value that Postgres refuses may come out as
// anything: a node checks the options before the first byte is read with them.
func formatOf(options map[string]string) (copyFormat, error) {
	f := copyFormat{delimiter: '\t', null: `\N`, quote: '"', dotEnds: true}
	switch strings.ToLower(options["format"]) {
	case "csv":
		f.kind, f.delimiter, f.null = csvFormat, ',', ""
	case "binary":
		f.kind = binaryFormat
	}
	setByte := func(to *byte, name string) {
		if value := options[name]; value != "" {
			*to = value[0]
		}
	}
	setByte(&f.delimiter, "delimiter")
	setByte(&f.quote, "quote")
	f.escape = f.quote
	setByte(&f.escape, "escape")
	if value, ok := options["null"]; ok {
		f.null = value
	}
	f.standIn, f.hasStandIn = options["default"], hasOption(options, "default")
	f.forceNull, f.forceNotNull = options["force_null"], options["force_not_null"]
	f.header = isOn(options, "header") || strings.EqualFold(options["header"], "match")
	switch {
	case isOn(options, "freeze"):
		return f, refuse(refusedCopyFreeze)
	case hasOption(options, "encoding") && !isUTF8(options["encoding"]):
		return f, refuse(refusedCopyEncoding, options["encoding"])
	case hasOption(options, "on_error") && !strings.EqualFold(options["on_error"], "stop"):
		return f, refuse(refusedCopyOnError)
	}
	for name := range options {
		if !knownCopyOptions[name] {
			f.unknown = append(f.unknown, name)
		}
	}
	slices.Sort(f.unknown)
	return f, nil
}

// plainByte is a byte that says nothing about where a line ends.
func (f *copyFormat) plainByte() byte {
	for _, c := range []byte("xyz") {
		if c != f.quote && c != f.escape {
			return c
		}
	}
	return 0 // not reached: there are only two to avoid
}

var knownCopyOptions = map[string]bool{
	"format": true, "freeze": true, "delimiter": true, "null": true, "default": true, "header": true, "quote": true,
	"escape": true, "force_quote": true, "force_not_null": true, "force_null": true, "encoding": true,
	"on_error": true, "log_verbosity": true, "reject_limit": true,
}

func hasOption(options map[string]string, name string) bool {
	_, ok := options[name]
	return ok
}

// isOn reads a boolean option as defGetBoolean does.
func isOn(options map[string]string, name string) bool {
	switch strings.ToLower(options[name]) {
	case "true", "on", "1":
		return true
	}
	return false
}

// isUTF8 recognises the names of the encoding, as pg_char_to_encoding does.
func isUTF8(name string) bool {
	cleaned := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}, name)
	return cleaned == "utf8" || cleaned == "unicode"
}

// listed tells whether a list of columns, as sqlparse writes it, names the
// column.
func listed(list, column string) bool {
	return list == "*" || slices.Contains(strings.Split(list, ","), column) || list == column
}

// fieldState is what a field holds.
type fieldState uint8

const (
	fieldMissing fieldState = iota // the row has no such field, or one that is malformed
	fieldValue
	fieldNull
	fieldDefault // the column's default
)

// fieldReader reads one field out of rows: the shard key.
type fieldReader struct {
	format                  *copyFormat
	at                      int // which field
	forceNull, forceNotNull bool
	scratch                 []byte
}

func newFieldReader(format *copyFormat, at int, column string) fieldReader {
	return fieldReader{
		format: format, at: at,
		forceNull: listed(format.forceNull, column), forceNotNull: listed(format.forceNotNull, column),
	}
}

// read returns the value as the type's input function gets it, or in binary its
// receive function. It is valid until the next read.
func (r *fieldReader) read(row []byte) ([]byte, fieldState) {
	switch r.format.kind {
	case csvFormat:
		return r.readCSV(row)
	case binaryFormat:
		return r.readBinary(row)
	}
	return r.readText(row)
}

// readText follows CopyReadAttributesText.
func (r *fieldReader) readText(row []byte) ([]byte, fieldState) {
	for n := 0; ; n++ {
		end, escaped := 0, false
		for end < len(row) && row[end] != r.format.delimiter {
			if row[end] == '\\' {
				escaped = true
				end++ // whatever follows is no delimiter
			}
			end++
		}
		end = min(end, len(row))
		if n == r.at {
			raw := row[:end]
			if state := r.marker(raw); state != fieldValue {
				return nil, state
			}
			if escaped {
				raw = r.unescape(raw)
			}
			return raw, fieldValue
		}
		if end == len(row) {
			return nil, fieldMissing
		}
		row = row[end+1:]
	}
}

// marker tells whether the field, as it stands in the row, means NULL or the
// default.
func (r *fieldReader) marker(raw []byte) fieldState {
	switch {
	case string(raw) == r.format.null:
		return fieldNull
	case r.format.hasStandIn && string(raw) == r.format.standIn:
		return fieldDefault
	}
	return fieldValue
}

// escapes of the text format; all else stands for itself.
var escapes = [256]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v'}

func (r *fieldReader) unescape(raw []byte) []byte {
	out := r.scratch[:0]
	for i := 0; i < len(raw); {
		c := raw[i]
		i++
		if c != '\\' {
			out = append(out, c)
			continue
		}
		if i == len(raw) {
			break // a backslash at the end is dropped
		}
		c = raw[i]
		i++
		switch {
		case c >= '0' && c <= '7':
			value := int(c - '0')
			for n := 1; n < 3 && i < len(raw) && raw[i] >= '0' && raw[i] <= '7'; n++ {
				value = value<<3 + int(raw[i]-'0')
				i++
			}
			c = byte(value)
		case c == 'x' && i < len(raw) && hexDigit(raw[i]) >= 0:
			value := hexDigit(raw[i])
			i++
			if i < len(raw) && hexDigit(raw[i]) >= 0 {
				value = value<<4 + hexDigit(raw[i])
				i++
			}
			c = byte(value)
		case escapes[c] != 0:
			c = escapes[c]
		}
		out = append(out, c)
	}
	r.scratch = out
	return out
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// readCSV follows CopyReadAttributesCSV.
func (r *fieldReader) readCSV(row []byte) ([]byte, fieldState) {
	f := r.format
	for n := 0; ; n++ {
		out := r.scratch[:0]
		i, quoted := 0, false
		for i < len(row) && row[i] != f.delimiter {
			if row[i] != f.quote {
				out = append(out, row[i])
				i++
				continue
			}
			quoted = true
			var ok bool
			if out, i, ok = f.unquote(row, i+1, out); !ok {
				return nil, fieldMissing
			}
		}
		r.scratch = out
		if n == r.at {
			return r.forced(out, row[:i], quoted)
		}
		if i == len(row) {
			return nil, fieldMissing
		}
		row = row[i+1:]
	}
}

// unquote reads from behind an opening quote to behind the closing one.
func (f *copyFormat) unquote(row []byte, i int, out []byte) (text []byte, after int, ok bool) {
	for i < len(row) {
		c := row[i]
		i++
		if c == f.escape && i < len(row) && (row[i] == f.escape || row[i] == f.quote) {
			out = append(out, row[i])
			i++
			continue
		}
		if c == f.quote {
			return out, i, true
		}
		out = append(out, c)
	}
	return out, i, false
}

// forced applies FORCE_NULL and FORCE_NOT_NULL as NextCopyFrom does.
func (r *fieldReader) forced(value, raw []byte, quoted bool) ([]byte, fieldState) {
	state := r.marker(raw)
	if state == fieldNull && quoted {
		state = fieldValue
	}
	switch {
	case state == fieldNull && r.forceNotNull:
		return append(r.scratch[:0], r.format.null...), fieldValue
	case state == fieldValue && r.forceNull && string(value) == r.format.null:
		return nil, fieldNull
	case state != fieldValue:
		return nil, state
	}
	return value, fieldValue
}

// readBinary walks the fields; the splitter has checked the lengths.
func (r *fieldReader) readBinary(row []byte) ([]byte, fieldState) {
	row = row[min(2, len(row)):]
	for n := 0; len(row) >= 4; n++ {
		length := int(int32(binary.BigEndian.Uint32(row)))
		row = row[4:]
		switch {
		case length > len(row) || length < -1:
			return nil, fieldMissing
		case n == r.at && length == -1:
			return nil, fieldNull
		case n == r.at:
			return row[:length], fieldValue
		case length > 0:
			row = row[length:]
		}
	}
	return nil, fieldMissing
}

// keyPosition is which field of a row holds the column: -1 for none. Without a
// list of columns Postgres takes all that are not generated.
func keyPosition(t *Table, c *sqlparse.Copy) int {
	key := t.key()
	if c.Columns != nil {
		return slices.Index(c.Columns, key.Name)
	}
	at := 0
	for i := range t.Columns {
		switch {
		case &t.Columns[i] == key:
			return at
		case !t.Columns[i].Generated:
			at++
		}
	}
	return -1
}

// binarySignature begins all data in binary format; flags and the length of an
// extension follow, four bytes each.
var binarySignature = []byte("PGCOPY\n\xff\r\n\x00")

const binaryHeader = 11 + 4 + 4

// binaryTrailer ends it: a number of fields that no row has.
var binaryTrailer = []byte{0xff, 0xff}

func isBinaryHeader(b []byte) bool {
	return len(b) >= binaryHeader && bytes.HasPrefix(b, binarySignature)
}
