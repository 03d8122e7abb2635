package gateway

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"strconv"
)

// The orders of Postgres's types, for values that nodes have put in order
// already: what is compared here must come out exactly as btree compares it
// there, or rows are merged wrongly. A type that is not here is refused.

// More type OIDs of pg_catalog.pg_type.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18 // "char"
	oidName        = 19
	oidOID         = 26
	oidFloat4      = 700
	oidFloat8      = 701
	oidMoney       = 790
	oidBpchar      = 1042
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestampTZ = 1184
	oidInterval    = 1186
	oidNumeric     = 1700
)

// compareFunc compares two values, NULL excepted, as ASC sorts them.
type compareFunc func(a, b []byte) int

// isCollatable tells whether values of the type are ordered by a collation.
func isCollatable(oid uint32) bool { return oid == oidText || oid == oidVarchar || oid == oidBpchar }

// isDirect tells whether values of the type can be compared in both formats, so
// that a column the client gets can be sorted by as it is.
func isDirect(oid uint32) bool { return comparison(oid, false) != nil }

// comparison is the order of a type in text or binary format; nil for one that
// is not known. Collatable types are compared by their bytes.
func comparison(oid uint32, isBinary bool) compareFunc {
	switch oid {
	case oidText, oidVarchar, oidName, oidUUID:
		// A uuid's text is its bytes in hexadecimal digits, which sort alike.
		return bytes.Compare
	case oidInt2, oidInt4, oidInt8:
		if isBinary {
			return compareSigned
		}
		return compareDecimal
	case oidOID:
		if isBinary {
			return bytes.Compare
		}
		return compareDecimal
	case oidBool: // f and t, or 0 and 1
		return bytes.Compare
	}
	if !isBinary {
		return nil // its text depends on settings, or is not worth reading
	}
	switch oid {
	case oidDate, oidTime, oidTimestamp, oidTimestampTZ, oidMoney:
		return compareSigned // infinity is the largest number, -infinity the smallest
	case oidBytea, oidChar:
		return bytes.Compare
	case oidBpchar:
		return func(a, b []byte) int { return bytes.Compare(bytes.TrimRight(a, " "), bytes.TrimRight(b, " ")) }
	case oidFloat4, oidFloat8:
		return compareFloat
	case oidNumeric:
		return compareNumeric
	}
	return nil
}

// compareSigned compares big-endian two's complement numbers of one width.
func compareSigned(a, b []byte) int {
	if len(a) == 0 || len(b) == 0 {
		return cmp.Compare(len(a), len(b))
	}
	if a[0]^b[0] >= 0x80 { // the signs differ
		return cmp.Compare(b[0], a[0])
	}
	return bytes.Compare(a, b)
}

// compareDecimal compares integers as Postgres writes them.
func compareDecimal(a, b []byte) int {
	x, errX := strconv.ParseInt(string(a), 10, 64)
	y, errY := strconv.ParseInt(string(b), 10, 64)
	if errX != nil || errY != nil {
		return bytes.Compare(a, b) // no node sends such
	}
	return cmp.Compare(x, y)
}

// compareFloat: -0 equals 0, NaN equals NaN and is larger than all else
// (float8_cmp_internal).
func compareFloat(a, b []byte) int {
	x, y := readFloat(a), readFloat(b)
	switch {
	case math.IsNaN(x) && math.IsNaN(y):
		return 0
	case math.IsNaN(x):
		return 1
	case math.IsNaN(y):
		return -1
	}
	return cmp.Compare(x, y)
}

func readFloat(data []byte) float64 {
	switch len(data) {
	case 4:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(data)))
	case 8:
		return math.Float64frombits(binary.BigEndian.Uint64(data))
	}
	return math.NaN()
}

// Signs of numeric in binary format (numeric.c).
const (
	numericPositive = 0x0000
	numericNegative = 0x4000
	numericNaN      = 0xC000
	numericInfinity = 0xD000
	numericMinusInf = 0xF000
)

// compareNumeric compares numerics in binary format: the number of digits, the
// weight of the first, the sign, the scale, then digits of base 10000.
func compareNumeric(a, b []byte) int {
	if len(a) < 8 || len(b) < 8 {
		return cmp.Compare(len(a), len(b)) // no node sends such
	}
	if c := cmp.Compare(numericRank(a), numericRank(b)); c != 0 {
		return c
	}
	switch binary.BigEndian.Uint16(a[4:]) {
	case numericPositive:
		return compareDigits(a, b)
	case numericNegative:
		return compareDigits(b, a)
	}
	return 0
}

// numericRank puts the kinds of numerics in order: -Infinity, negative, zero,
// positive, Infinity, NaN.
func numericRank(n []byte) int {
	switch binary.BigEndian.Uint16(n[4:]) {
	case numericMinusInf:
		return -2
	case numericInfinity:
		return 2
	case numericNaN:
		return 3
	}
	switch {
	case binary.BigEndian.Uint16(n) == 0:
		return 0
	case binary.BigEndian.Uint16(n[4:]) == numericNegative:
		return -1
	}
	return 1
}

// compareDigits compares absolute values. Postgres sends neither leading nor
// trailing zero digits.
func compareDigits(a, b []byte) int {
	weightA, weightB := int16(binary.BigEndian.Uint16(a[2:])), int16(binary.BigEndian.Uint16(b[2:]))
	if numericRank(a) == 0 && numericRank(b) == 0 {
		return 0
	}
	if c := cmp.Compare(weightA, weightB); c != 0 {
		return c
	}
	return bytes.Compare(a[8:], b[8:]) // the longer one is larger by a digit that is not zero
}

// arrayOf is the OID of the type's array type, 0 for a type whose values the
// nodes cannot be given back.
func arrayOf(oid uint32) uint32 {
	return arrayTypes[oid]
}

// arrayTypes are pg_type.typarray; all of them send and receive the same bytes.
var arrayTypes = map[uint32]uint32{
	oidBool: 1000, oidBytea: 1001, oidChar: 1002, oidName: 1003, oidInt8: oidInt8Array, oidInt2: oidInt2Array,
	oidInt4: oidInt4Array, oidText: oidTextArray, oidOID: 1028, oidFloat4: 1021, oidFloat8: 1022, oidMoney: 791,
	oidBpchar: 1014, oidVarchar: oidVarcharArray, oidDate: 1182, oidTime: 1183, oidTimestamp: 1115,
	oidTimestampTZ: 1185, oidInterval: 1187, 1266: 1270, oidNumeric: 1231, oidUUID: oidUUIDArray,
	869: 1041, 650: 651, 829: 1040, 774: 775, 3802: 3807, 1560: 1561, 1562: 1563,
}
