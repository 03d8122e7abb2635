package main

import (
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// evaluate reads the expression as pgbench does, with the index put in.
func evaluate(t *testing.T, expression string, index int) int64 {
	t.Helper()
	words := strings.Fields(expression)
	var walk func() int64
	walk = func() int64 {
		word := words[0]
		words = words[1:]
		if word != "CASE" {
			n, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				t.Fatalf("%q in %s", word, expression)
			}
			return n
		}
		if words[0] != "WHEN" || words[1] != ":i" || words[2] != "<" || words[4] != "THEN" {
			t.Fatalf("not a comparison: %v", words[:5])
		}
		limit, _ := strconv.Atoi(words[3])
		words = words[5:]
		less := walk()
		words = words[1:] // ELSE
		other := walk()
		words = words[1:] // END
		if index < limit {
			return less
		}
		return other
	}
	return walk()
}

func TestChoicePicksEveryID(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 64, 100} {
		ids := make([]int64, n)
		for i := range ids {
			ids[i] = rand.Int64N(1_000_000)
		}
		expression := choice("i", ids)
		for i, want := range ids {
			if got := evaluate(t, expression, i); got != want {
				t.Fatalf("%d ids: index %d gives %d, want %d in %s", n, i, got, want, expression)
			}
		}
	}
}

func TestParse(t *testing.T) {
	const good = `transaction type: /tmp/x.sql
scaling factor: 1
query mode: prepared
number of clients: 16
number of transactions actually processed: 31234
number of failed transactions: 0 (0.000%)
latency average = 1.024 ms
initial connection time = 12.3 ms
tps = 15617.123456 (without initial connection time)
`
	s, err := parse(good)
	if err != nil || s.tps != 15617.123456 || s.latency != 1.024 {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, bad := range map[string]string{
		"failed transactions": strings.Replace(good, "transactions: 0", "transactions: 3", 1),
		"a client thrown out": "pgbench: error: client 3 script 0 aborted in command 1 query 0: ERROR:  boom\n" + good,
		"no result":           "pgbench: error: connection to server failed",
		"nothing done":        regexp.MustCompile(`tps = \S+`).ReplaceAllString(good, "tps = 0"),
		"empty":               "",
	} {
		if s, err := parse(bad); err == nil {
			t.Errorf("%s: taken for a result: %+v", name, s)
		}
	}
}

func TestRatioIsTheMedianOfRounds(t *testing.T) {
	c := cell{
		gateway: []sample{{tps: 50}, {tps: 10}, {tps: 90}},
		plain:   []sample{{tps: 100}, {tps: 100}, {tps: 100}},
	}
	if got := median(c.ratios()); got != 0.5 {
		t.Fatalf("ratio %v, want 0.5", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Fatalf("median of four %v, want 2.5", got)
	}
}
