package gateway

import (
	"bytes"
	"slices"
	"testing"
)

// fuzzFormats are the formats the fuzzers choose from.
var fuzzFormats = []copyFormat{
	{kind: textFormat, delimiter: '\t', null: `\N`},
	{kind: textFormat, delimiter: '|', null: "", header: true},
	{kind: csvFormat, delimiter: ',', quote: '"', escape: '"', dotEnds: true},
	{kind: csvFormat, delimiter: ';', quote: '\'', escape: '\\', null: "nil", header: true},
	{kind: csvFormat, delimiter: '\t', quote: '\\', escape: '\\', dotEnds: true},
	{kind: binaryFormat},
}

const fuzzColumns, fuzzLimit = 3, 1 << 16

// splitAll cuts data fed in messages of the sizes, again and again, into pieces.
func splitAll(format *copyFormat, data []byte, sizes []byte) (pieces []piece, failed bool) {
	s := newSplitter(format, fuzzColumns, fuzzLimit)
	take := func() bool {
		for {
			p, ok, err := s.next()
			if err != nil {
				return false
			}
			if !ok {
				return true
			}
			p.data = slices.Clone(p.data)
			pieces = append(pieces, p)
		}
	}
	for i := 0; len(data) > 0; i++ {
		n := len(data)
		if len(sizes) > 0 {
			n = min(n, int(sizes[i%len(sizes)]))
			if n == 0 && i%len(sizes) == len(sizes)-1 {
				n = 1
			}
		}
		message := slices.Clone(data[:n])
		s.feed(message)
		if !take() {
			return pieces, true
		}
		for j := range message { // the client's buffer is used again
			message[j] = 0xee
		}
		data = data[n:]
	}
	s.end()
	return pieces, !take()
}

// FuzzCopySplitter: whatever the data, the pieces are the data, however it
// arrives.
func FuzzCopySplitter(f *testing.F) {
	for _, c := range copyCases {
		var all []byte
		for _, data := range c.data {
			all = append(all, data...)
		}
		for i := range fuzzFormats {
			f.Add(byte(i), all, []byte{1})
		}
	}
	f.Fuzz(func(t *testing.T, which byte, data, sizes []byte) {
		format := &fuzzFormats[int(which)%len(fuzzFormats)]
		whole, failed := splitAll(format, data, nil)
		parts, failedParts := splitAll(format, data, sizes)
		if failed != failedParts || len(whole) != len(parts) {
			t.Fatalf("%d pieces (failed: %v) at once, %d (failed: %v) in parts", len(whole), failed, len(parts), failedParts)
		}
		var joined []byte
		for i, p := range whole {
			q := parts[i]
			if !bytes.Equal(p.data, q.data) || p.content != q.content || p.wrong != q.wrong || p.header != q.header ||
				p.lines(p.eol) != q.lines(q.eol) {
				t.Fatalf("piece %d is %+v at once, %+v in parts", i, p, q)
			}
			if p.content < 0 || p.content > len(p.data) {
				t.Fatalf("content %d of %d", p.content, len(p.data))
			}
			if (p.wrong || len(p.data) == 0) && i != len(whole)-1 {
				t.Fatalf("piece %d of %d is wrong or empty: %+v", i, len(whole), p)
			}
			joined = append(joined, p.data...)
		}
		if !bytes.HasPrefix(data, joined) {
			t.Fatalf("pieces %q are not the data %q", joined, data)
		}
	})
}

// FuzzCopyField: a field is read without panicking and, in text and CSV, what
// is read once is found again when it is written plainly.
func FuzzCopyField(f *testing.F) {
	for i := range fuzzFormats {
		f.Add(byte(i), byte(1), []byte("a\tb\\x41\\101\\n\tc"))
		f.Add(byte(i), byte(0), []byte("'a''b\\'c';\"d\"\"e\",f"))
		f.Add(byte(i), byte(2), []byte("\x00\x03\x00\x00\x00\x01a\xff\xff\xff\xff\x00\x00\x00\x02bc"))
	}
	f.Fuzz(func(t *testing.T, which, at byte, row []byte) {
		format := &fuzzFormats[int(which)%len(fuzzFormats)]
		reader := newFieldReader(format, int(at%8), "id")
		before := slices.Clone(row)
		value, state := reader.read(row)
		if !bytes.Equal(row, before) {
			t.Fatal("the row was changed")
		}
		if state != fieldValue && value != nil {
			t.Fatalf("value %q in state %d", value, state)
		}
		if state != fieldValue || format.kind != textFormat {
			return
		}
		var plain []byte
		for _, c := range value {
			plain = append(plain, '\\', 'x', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		}
		value = slices.Clone(value)
		reader = newFieldReader(format, 0, "id")
		if again, state := reader.read(plain); len(value) > 0 && (state != fieldValue || !bytes.Equal(again, value)) {
			t.Fatalf("%q written as %q is read as %q, state %d", value, plain, again, state)
		}
	})
}

// TestFieldStates: what stands for NULL and, since PostgreSQL 16, for the
// column's default, is told apart from the same text as a value.
func TestFieldStates(t *testing.T) {
	options := map[string]string{"null": "nil", "default": "def"}
	text, err := formatOf(options)
	if err != nil {
		t.Fatal(err)
	}
	csvOptions := map[string]string{"format": "CSV", "null": "nil", "default": "def", "force_null": "id,other"}
	csv, err := formatOf(csvOptions)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		format *copyFormat
		column string
		row    string
		state  fieldState
		value  string
	}{
		{&text, "id", "x\tdef\ty", fieldDefault, ""},
		{&text, "id", "x\tnil", fieldNull, ""},
		{&text, "id", "x\t\\def", fieldValue, "def"},
		{&text, "id", "x\t\\nil", fieldValue, "\nil"},
		{&text, "id", "x", fieldMissing, ""},
		{&csv, "key", "x,def", fieldDefault, ""},
		{&csv, "key", "x,\"def\"", fieldValue, "def"},
		{&csv, "key", "x,nil", fieldNull, ""},
		{&csv, "key", "x,\"nil\"", fieldValue, "nil"},
		{&csv, "id", "x,\"nil\"", fieldNull, ""},
		{&csv, "id", "x,\"nil", fieldMissing, ""},
		{&csv, "id", "x,n\"i\"l", fieldNull, ""},
		{&csv, "key", "x,n\"i\"l", fieldValue, "nil"},
	} {
		reader := newFieldReader(test.format, 1, test.column)
		value, state := reader.read([]byte(test.row))
		if state != test.state || string(value) != test.value {
			t.Errorf("%q of %s: %q in state %d, want %q in %d", test.row, test.column, value, state, test.value, test.state)
		}
	}
}

// TestLineMap holds the map against a plain list.
func TestLineMap(t *testing.T) {
	for _, rows := range []int{0, 1, 100, 300_000} {
		var m lineMap
		var wants []uint64 // by the node's line, from 1
		client := uint64(0)
		for i := range rows {
			before := client + uint64(i%7*i%131)
			lines := uint64(1)
			if i%10 == 3 {
				lines = 3
			}
			m.add(before, lines, lines)
			for l := range lines {
				wants = append(wants, before+l+1)
			}
			client = before + lines
		}
		for i := 0; i < len(wants); i += max(1, len(wants)/1000) {
			if got, ok := m.client(uint64(i+1), client); !ok || got != wants[i] {
				t.Fatalf("%d rows: line %d is %d (%v), want %d", rows, i+1, got, ok, wants[i])
			}
		}
		if got, ok := m.client(uint64(len(wants))+1, client+5); !ok || got != client+6 {
			t.Errorf("%d rows: the line behind the last is %d (%v), want %d", rows, got, ok, client+6)
		}
	}
}

// TestLineMapForgets: its size is bounded, and lines it has forgotten are not
// made up.
func TestLineMapForgets(t *testing.T) {
	var m lineMap
	const rows = maxLineChunks*lineChunkSize + 200_000
	for i := range uint64(rows) {
		m.add(i*3, 1, 1)
	}
	if len(m.chunks) > maxLineChunks {
		t.Errorf("%d chunks", len(m.chunks))
	}
	if got, ok := m.client(1, rows*3); ok {
		t.Errorf("line 1 is %d", got)
	}
	if got, ok := m.client(rows, rows*3); !ok || got != (rows-1)*3+1 {
		t.Errorf("the last line is %d (%v)", got, ok)
	}
}

func TestCutCopyContext(t *testing.T) {
	for where, want := range map[string]struct {
		line uint64
		ok   bool
	}{
		"COPY t, line 12, column id: \"x\"":                       {12, true},
		"COPY t, line 3: \"a\nCOPY t, line 4: \"":                 {3, true},
		"PL/pgSQL function f() line 3 at RAISE\nCOPY t, line 7":   {7, true},
		"COPY t, Zeile 5, Spalte id":                              {5, true},
		"COPY other, line 3":                                      {0, false},
		"":                                                        {0, false},
		"COPY t, line 99999999999999999999999999999":              {0, false},
		"SQL statement \"COPY t, line 3\"\nPL/pgSQL function f()": {0, false},
	} {
		before, line, after, ok := cutCopyContext(where, "t")
		if ok != want.ok || ok && line != want.line {
			t.Errorf("%q: line %d, %v", where, line, ok)
		}
		if ok && before+"12"+after == where && want.line != 12 {
			t.Errorf("%q: cut into %q and %q", where, before, after)
		}
	}
}
