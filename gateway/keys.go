package gateway

// A key's canonical text is what is hashed into its bucket: the plain decimal
// of an integer, a text as it is, a uuid in lower case with hyphens. Two
// spellings that Postgres holds for the same key must come out alike here
// (" +7" and "07", int4 7 in binary and '7'), or a row is looked for on a node
// where it is not.
//
// The rule that makes this safe: whatever node is chosen, it runs the statement
// verbatim and raises every error that Postgres raises (ranges, lengths, zero
// bytes, missing operators). The gateway therefore need not repeat Postgres's
// checks, but whenever the statement *succeeds* the key read here must be the
// key Postgres read. What cannot be read with that certainty is unknown or
// refused.

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Type OIDs of pg_catalog.pg_type; they never change.
const (
	oidInt8         = 20
	oidInt2         = 21
	oidInt4         = 23
	oidText         = 25
	oidUnknown      = 705
	oidInt2Array    = 1005
	oidInt4Array    = 1007
	oidTextArray    = 1009
	oidVarcharArray = 1015
	oidInt8Array    = 1016
	oidVarchar      = 1043
	oidUUID         = 2950
	oidUUIDArray    = 2951
)

// keyClass groups the types whose values compare as the same kind of key.
type keyClass uint8

const (
	notAKey keyClass = iota
	integerKey
	textKey
	uuidKey
)

// classOf is the class of a type, notAKey for a type that no key has.
func classOf(oid uint32) keyClass {
	switch oid {
	case oidInt2, oidInt4, oidInt8:
		return integerKey
	case oidText, oidVarchar:
		return textKey
	case oidUUID:
		return uuidKey
	}
	return notAKey
}

// castOID is the type that a cast to this catalog name gives, 0 for a type that
// no key has.
func castOID(name string) uint32 {
	switch name {
	case "int2":
		return oidInt2
	case "int4":
		return oidInt4
	case "int8":
		return oidInt8
	case "text":
		return oidText
	case "varchar":
		return oidVarchar
	case "uuid":
		return oidUUID
	}
	return 0
}

// elementOID is the type of an array type's elements, 0 for an array that
// holds no keys.
func elementOID(array uint32) uint32 {
	switch array {
	case oidInt2Array:
		return oidInt2
	case oidInt4Array:
		return oidInt4
	case oidInt8Array:
		return oidInt8
	case oidTextArray:
		return oidText
	case oidVarcharArray:
		return oidVarchar
	case oidUUIDArray:
		return oidUUID
	}
	return 0
}

// typeNames are the names error messages use, as Postgres writes them.
var typeNames = map[uint32]string{
	oidInt2: "smallint", oidInt4: "integer", oidInt8: "bigint",
	oidText: "text", oidVarchar: "character varying", oidUUID: "uuid",
	16: "boolean", 17: "bytea", 19: "name", 26: "oid", 700: "real", 701: "double precision",
	1042: "character", 1082: "date", 1114: "timestamp without time zone",
	1184: "timestamp with time zone", 1700: "numeric",
}

func typeName(oid uint32) string {
	if name, ok := typeNames[oid]; ok {
		return name
	}
	return "with OID " + strconv.FormatUint(uint64(oid), 10)
}

// canonical is the canonical text of what a text spells as a value of class;
// false when it spells none.
func canonical(class keyClass, text string) (string, bool) {
	switch class {
	case integerKey:
		return canonicalInteger(text)
	case textKey:
		return text, true
	case uuidKey:
		return canonicalUUID(text)
	}
	return "", false
}

// canonicalInteger reads a decimal integer of any size as Postgres's integer
// types do: white space around it, a sign, leading zeros. The hexadecimal,
// octal and underscored spellings of PostgreSQL 16 are not taken: older
// servers refuse them too. A text that is canonical is returned as it is.
func canonicalInteger(s string) (string, bool) {
	s = strings.Trim(s, " \t\n\v\f\r") // isspace() in the C locale
	digits, negative := s, false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		digits, negative = s[1:], s[0] == '-'
	}
	if digits == "" {
		return "", false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return "", false
		}
	}
	trimmed := strings.TrimLeft(digits, "0")
	switch {
	case trimmed == "":
		return "0", true
	case !negative:
		return trimmed, true
	case len(trimmed) == len(digits):
		return s, true
	default:
		return "-" + trimmed, true
	}
}

// canonicalUUID reads a uuid in every spelling that Postgres takes: upper case,
// braces around it, hyphens after any group of four digits or none at all. A
// text that is canonical is returned as it is.
func canonicalUUID(s string) (string, bool) {
	if isCanonicalUUID(s) {
		return s, true
	}
	if strings.HasPrefix(s, "{") {
		if !strings.HasSuffix(s, "}") {
			return "", false
		}
		s = s[1 : len(s)-1]
	}
	var raw [16]byte
	for i := range raw {
		if len(s) < 2 {
			return "", false
		}
		if _, err := hex.Decode(raw[i:i+1], []byte(s[:2])); err != nil {
			return "", false
		}
		s = s[2:]
		if i%2 == 1 && i < len(raw)-1 {
			s = strings.TrimPrefix(s, "-")
		}
	}
	if s != "" {
		return "", false
	}
	return formatUUID(raw[:]), true
}

func isCanonicalUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return true
}

func formatUUID(raw []byte) string {
	var out [36]byte
	hex.Encode(out[0:], raw[0:4])
	hex.Encode(out[9:], raw[4:6])
	hex.Encode(out[14:], raw[6:8])
	hex.Encode(out[19:], raw[8:10])
	hex.Encode(out[24:], raw[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// binaryText is the text of a value in its type's binary format; false when
// the bytes are none, which the node will say of the same bytes in Bind.
func binaryText(oid uint32, data []byte) (string, bool) {
	switch oid {
	case oidInt2:
		if len(data) == 2 {
			return strconv.Itoa(int(int16(binary.BigEndian.Uint16(data)))), true
		}
	case oidInt4:
		if len(data) == 4 {
			return strconv.Itoa(int(int32(binary.BigEndian.Uint32(data)))), true
		}
	case oidInt8:
		if len(data) == 8 {
			return strconv.FormatInt(int64(binary.BigEndian.Uint64(data)), 10), true
		}
	case oidText, oidVarchar:
		return string(data), true
	case oidUUID:
		if len(data) == 16 {
			return formatUUID(data), true
		}
	}
	return "", false
}

// maxArrayDimensions is Postgres's MAXDIM.
const maxArrayDimensions = 6

// binaryArray reads the elements of an array in binary format, NULLs left out
// for no key equals them. ANY looks at all elements, whatever the dimensions.
func binaryArray(data []byte, element uint32) (elements []string, ok bool) {
	next := func() (n int, ok bool) {
		if len(data) < 4 {
			return 0, false
		}
		n = int(int32(binary.BigEndian.Uint32(data)))
		data = data[4:]
		return n, true
	}
	dimensions, ok1 := next()
	_, ok2 := next() // whether there are NULLs
	oid, ok3 := next()
	if !ok1 || !ok2 || !ok3 || dimensions < 0 || dimensions > maxArrayDimensions || uint32(oid) != element {
		return nil, false
	}
	for range dimensions {
		_, ok1 := next() // length: the elements are counted by their bytes
		_, ok2 := next() // lower bound
		if !ok1 || !ok2 {
			return nil, false
		}
	}
	for len(data) > 0 {
		length, ok := next()
		switch {
		case !ok || length < -1 || length > len(data):
			return nil, false
		case length == -1:
			continue
		}
		text, ok := binaryText(element, data[:length])
		if !ok {
			return nil, false
		}
		elements = append(elements, text)
		data = data[length:]
	}
	return elements, true
}

// truncatedWhenStored tells whether Postgres would store another text than
// this in a varchar(limit): it drops surplus characters silently when they are
// all spaces. (Others it refuses, 22001.) limit 0: none.
func truncatedWhenStored(text string, limit int) bool {
	if limit == 0 || len(text) <= limit || text[len(text)-1] != ' ' {
		return false
	}
	return utf8.RuneCountInString(text) > limit
}
