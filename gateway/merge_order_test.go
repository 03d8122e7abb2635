package gateway

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
)

// testSeed is PGPACT_SEED or a new one; it is printed.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PGPACT_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("PGPACT_SEED=%d", seed)
	return seed
}

// orderCase is a type with a maker of random values, as text.
type orderCase struct {
	name, sql string
	oid       uint32
	random    func(r *rand.Rand) string
}

func orderCases() []orderCase {
	integer := func(bits int) func(*rand.Rand) string {
		return func(r *rand.Rand) string {
			n := int64(r.Uint64()) >> (64 - bits)
			return strconv.FormatInt(n>>r.IntN(bits), 10)
		}
	}
	float := func(bits int) func(*rand.Rand) string {
		return func(r *rand.Rand) string {
			if r.IntN(4) == 0 {
				return []string{"0", "-0", "NaN", "Infinity", "-Infinity", "1", "-1"}[r.IntN(7)]
			}
			if bits == 32 {
				return strconv.FormatFloat(float64(math.Float32frombits(r.Uint32())), 'g', -1, 32)
			}
			return strconv.FormatFloat(math.Float64frombits(r.Uint64()), 'g', -1, 64)
		}
	}
	texts := func(alphabet []string, pad string) func(*rand.Rand) string {
		return func(r *rand.Rand) string {
			var b strings.Builder
			for range r.IntN(6) {
				b.WriteString(alphabet[r.IntN(len(alphabet))])
			}
			return b.String() + strings.Repeat(pad, r.IntN(3))
		}
	}
	letters := []string{"a", "A", "b", "ä", "z", "Z", " ", "_", "東", "🙂", "\x7f", "\u0080", "\uffff", "0", "é"}
	moment := func(layout string, infinite bool) func(*rand.Rand) string {
		return func(r *rand.Rand) string {
			if infinite && r.IntN(10) == 0 {
				return []string{"infinity", "-infinity", "4713-01-02 BC", "0001-01-01 BC"}[r.IntN(4)]
			}
			return time.Unix(0, 0).UTC().Add(time.Duration(r.Uint64())).Format(layout)
		}
	}
	return []orderCase{
		{"smallint", "smallint", oidInt2, integer(16)}, {"integer", "integer", oidInt4, integer(32)}, {"bigint", "bigint", oidInt8, integer(64)},
		{"oid", "oid", oidOID, func(r *rand.Rand) string { return strconv.FormatUint(uint64(r.Uint32())>>r.IntN(32), 10) }},
		{"numeric", "numeric", oidNumeric, randomNumeric},
		{"real", "real", oidFloat4, float(32)}, {"double", "double precision", oidFloat8, float(64)},
		{"boolean", "boolean", oidBool, func(r *rand.Rand) string { return []string{"t", "f"}[r.IntN(2)] }},
		{"text", `text COLLATE "C"`, oidText, texts(letters, "")}, {"varchar", `varchar COLLATE "C"`, oidVarchar, texts(letters, " ")},
		{"default text", `text`, oidText, texts(letters, "")}, // the test servers' C.UTF-8
		{"bpchar", `char(8) COLLATE "C"`, oidBpchar, texts([]string{"a", "b", " ", "ä", "!"}, " ")},
		{"name", "name", oidName, texts(letters, "")},
		{"uuid", "uuid", oidUUID, func(r *rand.Rand) string { return fmt.Sprintf("%016x%016x", r.Uint64()>>r.IntN(64), r.Uint64()) }},
		{"bytea", "bytea", oidBytea, func(r *rand.Rand) string {
			data := make([]byte, r.IntN(4))
			for i := range data {
				data[i] = byte(r.UintN(256))
			}
			return `\x` + hex.EncodeToString(data)
		}},
		{"date", "date", oidDate, moment("2006-01-02", true)}, {"timestamp", "timestamp", oidTimestamp, moment("2006-01-02 15:04:05.999999", true)},
		{"timestamptz", "timestamptz", oidTimestampTZ, moment("2006-01-02 15:04:05.999999+00", true)}, {"time", "time", oidTime, moment("15:04:05.999999", false)},
		{"money", "money", oidMoney, func(r *rand.Rand) string { return strconv.FormatInt(int64(r.Uint64())>>(10+r.IntN(50)), 10) }},
	}
}

func randomNumeric(r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return []string{"0", "-0.00", "NaN", "Infinity", "-Infinity", "1.0", "1", "1e100", "-1e-100", "10000", "9999.99990"}[r.IntN(11)]
	}
	digits := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte("0000123456789"[r.IntN(13)])
		}
		return b.String()
	}
	text := "1" + digits(r.IntN(12))
	if r.IntN(3) == 0 {
		text = "0"
	}
	text += "." + digits(1+r.IntN(10))
	if r.IntN(2) == 0 {
		text = "-" + text
	}
	return text
}

// TestOrdersAreThoseOfPostgres: random values of every type that rows are merged
// by, sorted by Postgres, compare here as they do there, in both formats.
func TestOrdersAreThoseOfPostgres(t *testing.T) {
	set := pgservertest.Start(t, pgservertest.Options{FsyncOff: true}, "plain")
	conn, err := pgconn.Connect(t.Context(), set.URL("plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	r := rand.New(rand.NewPCG(testSeed(t), 1))
	for _, c := range orderCases() {
		t.Run(c.name, func(t *testing.T) {
			var values []string
			for range 500 {
				values = append(values, `"`+strings.ReplaceAll(c.random(r), `\`, `\\`)+`"`)
			}
			for format := range int16(2) {
				compare := comparison(c.oid, format == 1)
				if compare == nil {
					continue
				}
				result := conn.ExecParams(t.Context(), fmt.Sprintf(
					`SELECT v, (v = lag(v) OVER (ORDER BY v))::text FROM (SELECT x::%s AS v FROM unnest($1::text[]) x) q ORDER BY v`, c.sql),
					[][]byte{[]byte("{" + strings.Join(values, ",") + "}")}, nil, nil, []int16{format, 0}).Read()
				if result.Err != nil {
					t.Fatal(result.Err)
				}
				for i := 1; i < len(result.Rows); i++ {
					a, b := result.Rows[i-1][0], result.Rows[i][0]
					want := -1
					if string(result.Rows[i][1]) == "true" {
						want = 0
					}
					if forth, back := compare(a, b), compare(b, a); forth != want || back != -want {
						t.Errorf("format %d: %x and %x compare as %d and %d, want %d", format, a, b, forth, back, want)
					}
				}
			}
		})
	}
}
