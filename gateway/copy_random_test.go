package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// randomCopy makes COPY statements with data for them, mostly right.
type randomCopy struct {
	*rand.Rand
	format                   formatKind
	delimiter, quote, escape string
	null                     string
	end                      string
	header                   bool
}

// TestCopyRandom: random data in random formats, whole or damaged, gives the
// same answers and rows over one, two and three nodes as on one Postgres.
// PGPACT_SEED repeats a run, PGPACT_COPIES makes it longer.
func TestCopyRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PGPACT_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	copies := 60
	if n, err := strconv.Atoi(os.Getenv("PGPACT_COPIES")); err == nil {
		copies = n
	}
	for nodes := 1; nodes <= 3; nodes++ {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			t.Logf("PGPACT_SEED=%d", seed)
			rig := newCopyRig(t, nodes)
			random := &randomCopy{Rand: rand.New(rand.NewPCG(seed, uint64(nodes)))}
			for range copies {
				rig.compare(t, random.next())
				if t.Failed() {
					return
				}
			}
			rig.idle(t)
		})
	}
}

func pick[T any](r *randomCopy, of ...T) T { return of[r.IntN(len(of))] }

// next makes a case.
func (r *randomCopy) next() copyCase {
	r.format = pick(r, textFormat, textFormat, csvFormat, csvFormat, binaryFormat)
	r.end = pick(r, "\n", "\n", "\r\n", "\r")
	r.header = r.format != binaryFormat && r.IntN(3) == 0
	table := pick(r, "t", "words", "numbers")
	sql := "COPY " + table + " FROM STDIN (" + r.options() + ")"
	rows := pick(r, r.IntN(5), r.IntN(40), r.IntN(400))
	var data []byte
	switch {
	case r.format == binaryFormat:
		data = append(append(data, binarySignature...), make([]byte, 8)...)
	case r.header:
		data = append(data, "any"+r.end...)
	}
	for i := range rows {
		data = r.row(data, table, i)
		if r.format != binaryFormat && (i < rows-1 || r.IntN(4) > 0) {
			data = append(data, r.end...)
		}
	}
	if r.format == binaryFormat && r.IntN(4) > 0 {
		data = append(data, binaryTrailer...)
	}
	c := copyCase{sql: sql, data: r.pieces(r.damage(data))}
	if r.IntN(20) == 0 {
		c.fail = "as the client likes"
	}
	return c
}

func (r *randomCopy) options() string {
	switch r.format {
	case binaryFormat:
		return "FORMAT binary"
	case csvFormat:
		r.delimiter, r.quote, r.null = pick(r, ",", ";", "\t", "|"), pick(r, `"`, `"`, "'"), pick(r, "", "nil")
		r.escape = pick(r, r.quote, r.quote, `\`, "!")
		return fmt.Sprintf("FORMAT csv, HEADER %v, DELIMITER E'%s', QUOTE %s, ESCAPE %s, NULL '%s'",
			r.header, r.delimiter, literal(r.quote), literal(r.escape), r.null)
	}
	r.delimiter, r.null = pick(r, "\t", "|", ","), pick(r, `\N`, "", "nil")
	return fmt.Sprintf("HEADER %v, DELIMITER E'%s', NULL '%s'", r.header, r.delimiter, r.null)
}

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// row appends a row without its end. Keys are mostly new.
func (r *randomCopy) row(data []byte, table string, i int) []byte {
	key := strconv.Itoa(i)
	if r.IntN(300) == 0 {
		key = strconv.Itoa(r.IntN(i + 1))
	}
	var fields []any // string, nil, or in binary bytes
	switch table {
	case "words":
		fields = []any{key + r.word()}
	case "t":
		fields = []any{r.word(), r.number(key, 4), pick(r, any(nil), any(r.word()))}
	default:
		word := []rune(r.word())
		fields = []any{r.number(key, 8), string(word[:min(len(word), 5)])}
	}
	if r.format == binaryFormat {
		return binaryRow(data, fields)
	}
	for n, field := range fields {
		if n > 0 {
			data = append(data, r.delimiter...)
		}
		text, ok := field.(string)
		switch {
		case !ok:
			data = append(data, r.null...)
		case r.format == csvFormat:
			data = r.csvField(data, text)
		default:
			data = r.textField(data, text)
		}
	}
	return data
}

func binaryRow(data []byte, fields []any) []byte {
	data = binary.BigEndian.AppendUint16(data, uint16(len(fields)))
	for _, field := range fields {
		text, ok := field.(string)
		if !ok {
			data = append(data, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		data = append(binary.BigEndian.AppendUint32(data, uint32(len(text))), text...)
	}
	return data
}

func (r *randomCopy) number(text string, size int) string {
	if r.format != binaryFormat {
		return pick(r, text, text, " "+text, "+"+text, "000"+text)
	}
	n, _ := strconv.ParseUint(text, 10, 32)
	return string(binary.BigEndian.AppendUint64(nil, n)[8-size:])
}

// word is made of what the formats treat specially.
func (r *randomCopy) word() string {
	var word strings.Builder
	for range r.IntN(6) {
		word.WriteString(pick(r, "a", "é", "日", `\`, ".", `\.`, "N", `"`, "'", ",", ";", "|", "\t", "\n", "\r", "\r\n", "!", "nil", " ", "x41", "12"))
	}
	return word.String()
}

func (r *randomCopy) textField(data []byte, text string) []byte {
	if text == r.null {
		text += "x"
	}
	for i := range len(text) {
		c := text[i]
		switch {
		case c == '\n':
			data = append(data, pick(r, `\n`, `\012`, `\x0a`)...)
		case c == '\r':
			data = append(data, pick(r, `\r`, `\15`, `\xd`)...)
			if i+1 < len(text) && strings.IndexByte("0123456789abcdef", text[i+1]) >= 0 {
				data = append(data, '\\') // or the digit would belong to the number
				if text[i+1] >= '0' && text[i+1] <= '7' || strings.IndexByte("bf", text[i+1]) >= 0 {
					data = append(data[:len(data)-1], '_')
				}
			}
		case c == r.delimiter[0] || c == '\\':
			data = append(data, '\\', c)
		default:
			data = append(data, c)
		}
	}
	return data
}

func (r *randomCopy) csvField(data []byte, text string) []byte {
	if text != r.null && r.IntN(3) > 0 && !strings.ContainsAny(text, r.delimiter+r.quote+r.escape+"\r\n\\") {
		return append(data, text...)
	}
	data = append(data, r.quote...)
	for i := range len(text) {
		if text[i] == r.quote[0] || text[i] == r.escape[0] {
			data = append(data, r.escape...)
		}
		data = append(data, text[i])
	}
	return append(data, r.quote...)
}

// damage changes a byte or two of every other data.
func (r *randomCopy) damage(data []byte) []byte {
	if len(data) == 0 || r.IntN(2) == 0 {
		return data
	}
	data = bytes.Clone(data)
	for range 1 + r.IntN(2) {
		at := r.IntN(len(data))
		if data[at] >= 0x80 && r.format != binaryFormat {
			continue // what Postgres shows of broken UTF-8 depends on what it has read behind it
		}
		with := pick(r, "\n", "\r", "\\", `\.`, "\t", ",", `"`, "", "x", "\\.\n", "'", "7")
		data = slices.Replace(data, at, at+r.IntN(2), []byte(with)...)
		if len(data) == 0 {
			break
		}
	}
	return data
}

// pieces cuts data into messages of any size.
func (r *randomCopy) pieces(data []byte) []string {
	largest := pick(r, 3, 50, len(data)+1)
	var pieces []string
	for len(data) > 0 {
		n := min(len(data), 1+r.IntN(largest))
		pieces = append(pieces, string(data[:n]))
		data = data[n:]
	}
	return pieces
}
