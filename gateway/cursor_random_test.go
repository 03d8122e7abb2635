package gateway

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCursorsRandom: cursors, portals, savepoints and failures in any order are
// answered as by one Postgres, message by message. PGPACT_SEED repeats a run,
// PGPACT_CURSORS makes it longer.
func TestCursorsRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PGPACT_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 60
	if n, err := strconv.Atoi(os.Getenv("PGPACT_CURSORS")); err == nil {
		rounds = n
	}
	t.Logf("PGPACT_SEED=%d", seed)
	s := startStack(t, stackOptions{})
	plain, _ := s.set.NewDatabase(t, "coordinator")
	keys := s.fill(t)
	s.fillPlain(t, plain, keys)
	random := &randomCursors{Rand: rand.New(rand.NewPCG(seed, 0)), keys: []string{keys[0][0], keys[1][0]}}
	// A name that another node's cursor has is refused before a node has read the statement, which may be wrong in itself.
	taken := &acceptedDifference{
		postgres: regexp.MustCompile(`Error ERROR (0A000|42P01|42703) `), gateway: regexp.MustCompile(`Error ERROR 42P03 cursor "[a-z]+" already exists`),
	}
	for range rounds {
		script := random.conversation()
		want := converse(t, plain, script)
		compareAnswers(t, want, converse(t, s.url, script), []*acceptedDifference{taken})
		if t.Failed() {
			t.Fatalf("in\n%s", renderAnswers(want))
		}
	}
	s.idle(t)
}

// randomCursors makes conversations about few names, so that they meet.
type randomCursors struct {
	*rand.Rand
	keys []string
}

func (r *randomCursors) of(choices ...string) string { return choices[r.IntN(len(choices))] }

func (r *randomCursors) conversation() string {
	var lines []string
	if r.IntN(4) > 0 {
		lines = append(lines, "Q|begin", "Q|savepoint s")
	}
	for range 10 + r.IntN(40) {
		if r.IntN(3) > 0 {
			lines = append(lines, "Q|"+r.sql())
			continue
		}
		for range 1 + r.IntN(4) {
			lines = append(lines, r.messages()...)
		}
		lines = append(lines, "S")
	}
	return strings.Join(append(lines, "Q|rollback", "Q|select 1"), "\n")
}

func (r *randomCursors) name() string { return r.of("c", "d", "e") }

// query returns rows, of one node.
func (r *randomCursors) query() string {
	return r.of(
		"select g, g::text as word from generate_series(1, 6) g",
		"select 12 / (g - 3) as quotient from generate_series(1, 5) g",
		"select id, balance from accounts where id = '"+r.of(r.keys...)+"'",
		"select * from accounts where id = '"+r.of(r.keys...)+"' for update",
		"select nothing")
}

// fetch is what FETCH and MOVE do alike.
func (r *randomCursors) fetch() string {
	return r.of("fetch", "fetch", "move") + " " + r.of(
		"", "next from", "prior from", "first from", "last from", "2 from", "-1 from", "all from", "0 from", "backward all in",
		"absolute 2 from", "absolute -1 in", "relative 2 in", "relative -1 in", "forward 3 in") + " " + r.name()
}

// statement is one that may be run in either protocol.
func (r *randomCursors) statement() string {
	switch r.IntN(12) {
	case 0, 1:
		return "declare " + r.name() + " " + r.of("", "scroll", "no scroll", "binary") + " cursor for " + r.query()
	case 2, 3, 4, 5:
		return r.fetch()
	case 6:
		return "close " + r.of(r.name(), r.name(), r.name(), "all")
	case 7:
		return "update accounts set balance = balance + 1 where current of " + r.name() + r.of("", " returning id")
	case 8:
		return "update accounts set balance = balance + 1 where id = '" + r.of(r.keys...) + "'" + r.of("", " returning balance")
	}
	return r.query()
}

func (r *randomCursors) sql() string {
	switch r.IntN(20) {
	case 0, 1:
		return "savepoint " + r.of("s", "s", "t")
	case 2, 3, 4, 5, 6:
		return "rollback to " + r.of("s", "s", "s", "s", "t")
	case 7:
		return r.of("release s", "release t", "commit", "rollback", "begin; savepoint s", "commit and chain")
	case 8:
		return "begin; savepoint s"
	case 9:
		return r.statement() + "; " + r.statement()
	}
	return r.statement()
}

// messages are a few of the extended protocol. Of the unnamed portal only what
// follows its Bind: a query string that fails leaves another there.
func (r *randomCursors) messages() []string {
	name := r.name()
	switch r.IntN(8) {
	case 0:
		return []string{"D|P|" + name}
	case 1, 2:
		return []string{fmt.Sprintf("E|%s|%d", name, r.IntN(4))}
	case 3:
		return []string{"C|P|" + name}
	}
	// A FETCH in a portal with a name is in testdata/postgres/cursors.txt: of the
	// portals that no node holds SQL can say less than Postgres says.
	portal, statement := "", r.statement()
	if r.IntN(3) > 0 {
		portal, statement = name, r.query()
	}
	messages := []string{"P||" + statement, "B|" + portal + "|"}
	if r.IntN(2) == 0 {
		messages = append(messages, "D|P|"+portal)
	}
	if portal == "" || r.IntN(2) == 0 {
		messages = append(messages, fmt.Sprintf("E|%s|%d", portal, r.IntN(4)))
	}
	return messages
}
