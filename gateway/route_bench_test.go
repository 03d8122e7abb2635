package gateway

import (
	"context"
	"testing"
)

// BenchmarkRoute is the hot path: what routing adds to every statement. Aim:
// below a microsecond, next to no garbage.
func BenchmarkRoute(b *testing.B) {
	r := testRouter(b, "a", "b", "c")
	for _, bench := range []struct {
		name, sql string
		bound     *boundValues
	}{
		{"literal", "UPDATE accounts SET balance = balance - 10 WHERE id = 'acct-00001'", nil},
		{"number", "SELECT * FROM numbers WHERE id = 4711", nil},
		{"parameter", "UPDATE accounts SET balance = balance - $2 WHERE id = $1", &boundValues{values: [][]byte{[]byte("acct-00001"), []byte("10")}}},
		{"insert", "INSERT INTO orders VALUES ('alice', gen_random_uuid(), 'x', 5)", nil},
		{"join", "SELECT * FROM accounts a JOIN orders o ON a.id = o.customer WHERE a.id = 'alice'", nil},
	} {
		st := parseOne(b, bench.sql)
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.route(context.Background(), st, bench.bound, publicSession); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
