package main

import (
	"fmt"
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
	if got := median(ratios(c.gateway, c.plain)); got != 0.5 {
		t.Fatalf("ratio %v, want 0.5", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Fatalf("median of four %v, want 2.5", got)
	}
}

// What is divided by one another is measured one right after the other, and the order turns.
func TestSidesOfARound(t *testing.T) {
	b := &bench{gateway: "gateway", plain: "plain"}
	order := func(round int) string {
		var urls []string
		for _, side := range b.sides(&cell{}, round) {
			urls = append(urls, side.url)
		}
		return strings.Join(urls, ", ")
	}
	for round, want := range []string{"gateway, plain", "plain, gateway", "gateway, plain"} {
		if got := order(round); got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
	b.secured = &secured{gateway: "s. gateway", plain: "s. plain"}
	for round, want := range []string{"plain, gateway, s. gateway, s. plain", "s. plain, s. gateway, gateway, plain"} {
		if got := order(round); got != want {
			t.Errorf("round %d with -secure: %s, want %s", round, got, want)
		}
	}
}

// The medians in the table are those of the rounds' ratios, not ratios of medians.
func TestSecuredTable(t *testing.T) {
	samples := func(tps ...float64) (all []sample) {
		for _, v := range tps {
			all = append(all, sample{tps: v})
		}
		return all
	}
	cells := []*cell{
		{work: workload{kind: "select", protocol: "simple"}, clients: 16, plain: samples(100, 100, 200), gateway: samples(50, 40, 120),
			securedPlain: samples(80, 80, 40), securedGateway: samples(20, 40, 30)},
		{work: workload{kind: "update", protocol: "simple"}, clients: 16, failure: "boom"},
	}
	var out strings.Builder
	(&bench{opts: options{rounds: 3, seconds: 5}}).printSecured(&out, cells)
	var lines [][]string
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "|") {
			fields := strings.Split(strings.Trim(line, "|\n"), "|")
			for i := range fields {
				fields[i] = strings.TrimSpace(fields[i])
			}
			lines = append(lines, fields)
		}
	}
	if len(lines) != 4 || len(lines[0]) != len(lines[1]) || len(lines[0]) != len(lines[2]) {
		t.Fatalf("no table of four lines with equally many fields:\n%s", out.String())
	}
	want := "select/simple 16 0.50 0.40..0.60 0.50 0.25..0.75 0.40 0.25..1.00 0.80 50 100 30 80"
	if got := strings.Join(lines[2], " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := strings.Join(lines[3], " "); got != "update/simple 16 FAILED: boom" {
		t.Errorf("a cell that failed: %s", got)
	}
}

// The secured gateway has the demo's servers and nothing of its trust.
func TestSecuredConfiguration(t *testing.T) {
	const demo = `# Written by pgpact demo
name: demo
listen: 127.0.0.1:6432
auth: trust

coordinator:
  url: postgres://pgpact@127.0.0.1:5001/pgpact?sslmode=disable

nodes:
  - name: a
    url: postgres://pgpact@127.0.0.1:5002/pgpact?sslmode=disable
`
	text, err := (&secured{verifier: "SCRAM-SHA-256$4096:x"}).configuration(demo)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"trust", "demo", "6432", "://pgpact@"} {
		if strings.Contains(text, gone) {
			t.Errorf("%q is still in\n%s", gone, text)
		}
	}
	for _, port := range []int{5001, 5002} {
		if url := fmt.Sprintf("url: postgres://%s@127.0.0.1:%d/pgpact?sslmode=disable\n", leastRole, port); !strings.Contains(text, url) {
			t.Errorf("no %s in\n%s", url, text)
		}
	}
	if _, err := (&secured{}).configuration(strings.Replace(demo, "pgpact@", "somebody@", 1)); err == nil {
		t.Error("an address with another role was taken")
	}
}

func TestFlagsThatContradict(t *testing.T) {
	for flags, fine := range map[string]bool{
		"": true, "-secure": true, "-self-test": true, "-reads": true,
		"-secure -self-test": false, "-secure -reads": false, "-reads -self-test": false,
	} {
		if _, err := parseOptions(strings.Fields(flags)); (err == nil) != fine {
			t.Errorf("%q: %v", flags, err)
		}
	}
}
