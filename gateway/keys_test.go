package gateway

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCanonicalInteger(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "-0": "0", "+0": "0", "7": "7", "07": "7", "+7": "7", "-7": "-7", "-007": "-7", " \t7\n": "7",
		"9223372036854775807": "9223372036854775807", "-9223372036854775808": "-9223372036854775808",
		"99999999999999999999": "99999999999999999999",
		"":                     "refused", "-": "refused", "+": "refused", "7 7": "refused", "5.0": "refused", "1e3": "refused",
		"0x1F": "refused", "1_000": "refused", "--7": "refused", "- 7": "refused", "٧": "refused", "7\x00": "refused",
	} {
		got, ok := canonicalInteger(text)
		if !ok {
			got = "refused"
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestCanonicalUUID(t *testing.T) {
	const want = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	for _, text := range []string{
		want, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
		"a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
	} {
		if got, ok := canonicalUUID(text); !ok || got != want {
			t.Errorf("%q: got %q, %v", text, got, ok)
		}
	}
	for _, text := range []string{
		"", "{}", "{", "a0eebc99", want + "0", want + " ", " " + want, "{" + want, want + "}", "{{" + want + "}}",
		"a0-eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee--bc999c0b4ef8bb6d6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
		"-a0eebc999c0b4ef8bb6d6bb9bd380a11", "g0eebc999c0b4ef8bb6d6bb9bd380a11",
	} {
		if got, ok := canonicalUUID(text); ok {
			t.Errorf("%q was taken for %q", text, got)
		}
	}
}

func be(n int, value uint64) []byte {
	var out [8]byte
	binary.BigEndian.PutUint64(out[:], value)
	return out[8-n:]
}

func array(element uint32, items ...[]byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, 1)
	out = binary.BigEndian.AppendUint32(out, 1)
	out = binary.BigEndian.AppendUint32(out, element)
	out = binary.BigEndian.AppendUint32(out, uint32(len(items)))
	out = binary.BigEndian.AppendUint32(out, 1)
	for _, item := range items {
		if item == nil {
			out = binary.BigEndian.AppendUint32(out, math.MaxUint32)
			continue
		}
		out = binary.BigEndian.AppendUint32(out, uint32(len(item)))
		out = append(out, item...)
	}
	return out
}

func TestRouteParameters(t *testing.T) {
	r := testRouter(t, "a", "b", "c", "d")
	uuid := "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	raw, _ := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	const (
		byText   = "SELECT * FROM accounts WHERE id = $1"
		byNumber = "SELECT * FROM numbers WHERE id = $1"
		byUUID   = "SELECT * FROM things WHERE id = $1"
	)
	textFormat, binaryFormat := []int16(nil), []int16{1}
	for _, test := range []struct {
		sql     string
		value   []byte
		formats []int16
		oid     uint32
		want    string
	}{
		{byText, []byte("alice"), textFormat, 0, "key:alice"},
		{byText, []byte("alice"), textFormat, oidUnknown, "key:alice"},
		{byText, []byte("alice"), binaryFormat, oidVarchar, "key:alice"},
		{byText, []byte("bob  "), textFormat, oidText, "key:bob__"},
		{byText, nil, textFormat, oidText, "all"},
		{byText, []byte("5"), textFormat, oidInt4, "key:5"}, // the node's 42883
		{byText, []byte("x"), textFormat, 1042, `0A000 parameter $1 of type character cannot be compared with the shard key "id" of table public.accounts`},
		{byNumber, []byte("7"), textFormat, 0, "key:7"},
		{byNumber, []byte(" 007"), textFormat, oidInt2, "key:7"},
		{byNumber, be(2, 7), binaryFormat, oidInt2, "key:7"},
		{byNumber, be(4, 7), binaryFormat, oidInt4, "key:7"},
		{byNumber, be(8, 7), binaryFormat, oidInt8, "key:7"},
		{byNumber, be(4, uint64(math.MaxUint32)), binaryFormat, oidInt4, "key:-1"},
		{byNumber, be(8, 1<<63), binaryFormat, oidInt8, "key:-9223372036854775808"},
		{byNumber, be(4, 7), binaryFormat, oidInt8, "any"}, // the node's 22P03
		{byNumber, []byte("abc"), textFormat, oidInt8, `22P02 invalid input syntax for type bigint: "abc"`},
		{byNumber, []byte("abc"), textFormat, oidInt4, `22P02 invalid input syntax for type integer: "abc"`},
		{byNumber, []byte("abc"), textFormat, 0, `22P02 invalid input syntax for type bigint: "abc"`},
		{byNumber, []byte("5.0"), textFormat, 1700, "0A000 parameter $1 of type numeric cannot be compared"},
		{byNumber + "::int8", []byte("7"), textFormat, 0, "key:7"},
		{byNumber + "::int8", []byte("07"), textFormat, oidText, "key:7"},
		{byNumber + "::numeric", []byte("7"), textFormat, 0, "all"},
		{byUUID, []byte(strings.ToUpper(uuid)), textFormat, 0, "key:" + uuid},
		{byUUID, raw, binaryFormat, oidUUID, "key:" + uuid},
		{byUUID, []byte(uuid), textFormat, oidText, "key:" + uuid}, // the node's 42883
		{byUUID, []byte("x"), textFormat, oidUUID, `22P02 invalid input syntax for type uuid: "x"`},
		{byUUID + "::uuid", []byte("{" + uuid + "}"), textFormat, oidText, "key:" + uuid},
		// A parameter without a type takes it from its first use, which may be elsewhere.
		{"SELECT * FROM accounts WHERE id = $1 AND owner = $1", []byte("alice"), textFormat, 0, errParameterTypes.Error()},
		{"SELECT * FROM accounts WHERE id = $1 AND owner = $1", []byte("alice"), textFormat, oidText, "key:alice"},
		{"SELECT $11 FROM accounts WHERE id = $1 AND owner = '$12'", []byte("alice"), textFormat, 0, "key:alice"},
		// Arrays.
		{"SELECT * FROM accounts WHERE id = ANY ($1)", []byte("{alice,NULL,bob}"), textFormat, 0, "key:alice,bob"},
		{"SELECT * FROM accounts WHERE id = ANY ($1)", array(oidText, []byte("alice"), nil, []byte("bob")), binaryFormat, oidTextArray, "key:alice,bob"},
		{"SELECT * FROM accounts WHERE id = ANY ($1)", array(oidText, []byte("alice")), binaryFormat, 0, "key:alice"},
		{"SELECT * FROM accounts WHERE id = ANY ($1::text[])", []byte("{alice}"), textFormat, oidText, "key:alice"},
		{"SELECT * FROM accounts WHERE id = ANY ($1)", array(oidVarchar, []byte("alice")), binaryFormat, oidTextArray, "all"}, // the node's 42804
		{"SELECT * FROM accounts WHERE id = ANY ($1)", array(oidText, []byte("alice"))[:23], binaryFormat, oidTextArray, "all"},
		{"SELECT * FROM accounts WHERE id = ANY ($1)", []byte("{}"), textFormat, oidTextArray, "any"},
		{"SELECT * FROM accounts WHERE id = ANY ($1)", nil, textFormat, oidTextArray, "any"},
		{"SELECT * FROM accounts WHERE id = ANY ($1)", []byte("{alice}"), textFormat, 1002, "0A000 parameter $1 of type"},
		{"SELECT * FROM numbers WHERE id = ANY ($1)", array(oidInt4, be(4, 7), be(4, 8)), binaryFormat, oidInt4Array, "key:7,8"},
		{"SELECT * FROM numbers WHERE id = ANY ($1)", []byte("{7, 08}"), textFormat, oidInt8Array, "key:7,8"},
		{"SELECT * FROM numbers WHERE id = ANY ($1)", []byte("{x}"), textFormat, 0, "22P02"},
		{"SELECT * FROM things WHERE id = ANY ($1)", array(oidUUID, raw), binaryFormat, oidUUIDArray, "key:" + uuid},
		// INSERT.
		{"INSERT INTO accounts VALUES ($1, 5)", []byte("carol"), textFormat, 0, "key:carol writes"},
		{"INSERT INTO accounts VALUES ($1, 5)", be(8, 5), binaryFormat, oidInt8, "key:5 writes"}, // stored as '5'
		{"INSERT INTO accounts VALUES ($1, 5)", nil, textFormat, 0, `23502 null value in column "id"`},
		{"INSERT INTO codes VALUES ($1)", []byte("abc  "), textFormat, oidText, "0A000 value for the shard key"},
	} {
		bound := &boundValues{values: [][]byte{test.value}, formats: test.formats}
		if test.oid != 0 {
			bound.types = []uint32{test.oid}
		}
		want := test.want
		if test.sql == byText && test.value == nil {
			want = "any" // = NULL holds for no row
		}
		r.check(t, test.sql, bound, want)
	}
	// A statement that is only to be described has no values.
	r.check(t, "UPDATE accounts SET balance = $1 WHERE id = $2", nil, "all writes")
	_, err := r.route(context.Background(), parseOne(t, byText+" AND $1 <> ''"), &boundValues{values: [][]byte{[]byte("x")}}, publicSession)
	if !errors.Is(err, errParameterTypes) {
		t.Errorf("got %v", err)
	}
}

// Whatever bytes come as a binary array, they are read or refused.
func TestBinaryArrayIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		if rapid.Bool().Draw(t, "headed") {
			data = append(array(oidInt4, be(4, 7)), data...)
		}
		elements, ok := binaryArray(data, oidInt4)
		if !ok && elements != nil {
			t.Fatal("elements of a refused array")
		}
		if len(elements)*4 > len(data) {
			t.Fatal("more elements than bytes")
		}
	})
}

// A key's canonical text is a fixed point, and the spellings of one key meet.
func TestCanonicalSpellingsMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")
		want := formatUUID(raw)
		spelled := strings.ToUpper(hex.EncodeToString(raw))
		for i := 28; i > 0; i -= 4 {
			if rapid.Bool().Draw(t, "hyphen") {
				spelled = spelled[:i] + "-" + spelled[i:]
			}
		}
		if rapid.Bool().Draw(t, "braces") {
			spelled = "{" + spelled + "}"
		}
		if got, ok := canonicalUUID(spelled); !ok || got != want {
			t.Fatalf("%s: got %q, want %q", spelled, got, want)
		}
		n := rapid.Int64().Draw(t, "integer")
		binaryForm, _ := binaryText(oidInt8, be(8, uint64(n)))
		textForm, ok := canonicalInteger(" " + strings.Replace(binaryForm, "-", "-00", 1) + " ")
		if !ok || binaryForm != textForm {
			t.Fatalf("%d: %q and %q", n, binaryForm, textForm)
		}
	})
}
