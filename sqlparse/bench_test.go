package sqlparse

import (
	"fmt"
	"testing"
)

func BenchmarkParseCachedText(b *testing.B) {
	p := NewParser(1000)
	const sql = "SELECT id, balance FROM accounts WHERE id = $1"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Parse(sql); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseLiterals(b *testing.B) {
	for name, format := range map[string]string{
		"select":      "SELECT id, balance FROM accounts WHERE id = 'acct-%05d'",
		"update":      "UPDATE accounts SET balance = balance - 10 WHERE id = 'acct-%05d'",
		"transaction": "BEGIN; UPDATE accounts SET balance = balance - 10 WHERE id = 'a%d'; UPDATE accounts SET balance = balance + 10 WHERE id = 'b'; COMMIT",
		"insert":      "INSERT INTO orders (customer, order_id, sku, quantity, amount) VALUES ('alice', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'sku-%d', 3, 250)",
	} {
		b.Run(name, func(b *testing.B) {
			p := NewParser(1000)
			texts := make([]string, 10_000)
			for i := range texts {
				texts[i] = fmt.Sprintf(format, i)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if _, err := p.Parse(texts[i%len(texts)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseUncached(b *testing.B) {
	for name, sql := range map[string]string{
		"select": "SELECT id, balance FROM accounts WHERE id = 'acct-00001'",
		"update": "UPDATE accounts SET balance = balance - 10 WHERE id = 'acct-00001'",
		"join":   "SELECT a.id, o.sku, sum(o.amount) FROM accounts a JOIN orders o ON o.customer = a.id WHERE a.id = 'x' GROUP BY 1, 2 ORDER BY 3 LIMIT 10",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := parse(sql); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
