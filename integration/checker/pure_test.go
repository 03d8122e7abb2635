package checker

import (
	"strings"
	"testing"
	"time"
)

// at is a moment of a hand-written history, in milliseconds.
func at(ms int) time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(ms) * time.Millisecond)
}

func add(delta int64, from, to int, told Told, value int64) Operation {
	return Operation{Key: "k", Delta: delta, Call: at(from), Return: at(to), Told: told, Value: value}
}

func TestLinear(t *testing.T) {
	for _, c := range []struct {
		name    string
		history []Operation
		fine    bool
	}{
		{"one after the other", []Operation{add(3, 0, 1, Committed, 3), add(4, 2, 3, Committed, 7), add(0, 4, 5, Committed, 7)}, true},
		{"at once, in either order", []Operation{add(3, 0, 9, Committed, 7), add(4, 0, 9, Committed, 4)}, true},
		{"an unknown one that was done", []Operation{add(3, 0, 1, Unknown, 0), add(4, 2, 3, Committed, 7)}, true},
		{"an unknown one that was done late", []Operation{add(3, 0, 1, Unknown, 0), add(4, 2, 3, Committed, 4), add(0, 4, 5, Committed, 7)}, true},
		{"an unknown one that was not done", []Operation{add(3, 0, 1, Unknown, 0), add(4, 2, 3, Committed, 4), add(0, 9, 10, Committed, 4)}, true},
		{"an aborted one", []Operation{add(3, 0, 1, Aborted, 0), add(4, 2, 3, Committed, 4)}, true},
		{"an acknowledged one is lost", []Operation{add(3, 0, 1, Committed, 3), add(4, 2, 3, Committed, 4)}, false},
		{"an old value is read", []Operation{add(3, 0, 1, Committed, 3), add(4, 2, 3, Committed, 7), add(0, 4, 5, Committed, 3)}, false},
		{"an aborted one was done", []Operation{add(3, 0, 1, Aborted, 0), add(4, 2, 3, Committed, 7)}, false},
		{"an unknown one was done twice", []Operation{add(3, 0, 1, Unknown, 0), add(4, 2, 3, Committed, 10)}, false},
		{"an unknown one comes and goes", []Operation{add(3, 0, 1, Unknown, 0), add(0, 2, 3, Committed, 3), add(0, 4, 5, Committed, 0)}, false},
		{"a value is seen before it is written", []Operation{add(0, 0, 1, Committed, 3), add(3, 2, 3, Committed, 3)}, false},
	} {
		if errs := Linear(c.history, 10*time.Second); (len(errs) == 0) != c.fine {
			t.Errorf("%s: %v", c.name, errs)
		}
	}
}

// TestBank has one fault at a time in books that are right otherwise.
func TestBank(t *testing.T) {
	const start = 100
	legs := func(delta int64) []Leg { return []Leg{{"a", "x", -delta}, {"b", "y", delta}} }
	type world struct {
		history []Transfer
		books   map[string]*Book
	}
	right := func() world {
		return world{
			history: []Transfer{
				{Name: "t1", Told: Committed, Legs: legs(1), Key: "k", Asked: Committed},
				{Name: "t2", Told: Aborted, Legs: legs(2), Key: "k"},
				{Name: "t3", Told: Unknown, Legs: legs(4)},
				{Name: "t4", Told: Unknown, Legs: legs(8), Asked: Aborted},
			},
			books: map[string]*Book{
				"a": {Balances: map[string]int64{"x": start - 5}, Journal: []Entry{{"t1", "x", -1}, {"t3", "x", -4}}},
				"b": {Balances: map[string]int64{"y": start + 5}, Journal: []Entry{{"t1", "y", 1}, {"t3", "y", 4}}},
			},
		}
	}
	if w := right(); len(Bank(w.history, w.books, start)) != 0 {
		t.Errorf("what is right is called wrong: %v", Bank(w.history, w.books, start))
	}
	do := func(w world, name string, n int64) { // once more, or with -1 undone, on the books
		for i, node := range []string{"a", "b"} {
			book, account, delta := w.books[node], []string{"x", "y"}[i], n*int64(2*i-1)
			book.Journal = append(book.Journal, Entry{name, account, delta})
			book.Balances[account] += delta
		}
	}
	for _, c := range []struct {
		name, want string
		spoil      func(w *world)
	}{
		{"a balance without a trace", "by its journal", func(w *world) { w.books["a"].Balances["x"]++ }},
		{"money is made", "the sum of all balances", func(w *world) { w.books["a"].Balances["x"]++ }},
		{"a half is missing", "t1 is torn", func(w *world) { w.books["b"].Journal = w.books["b"].Journal[1:] }},
		{"an unknown one is torn", "t3 is torn", func(w *world) { w.books["a"].Journal = w.books["a"].Journal[:1] }},
		{"an acknowledged one is lost", "t1 is lost", func(w *world) {
			w.books["a"].Journal, w.books["b"].Journal = w.books["a"].Journal[1:], w.books["b"].Journal[1:]
		}},
		{"an aborted one is there", "t2 is there", func(w *world) { do(*w, "t2", 2) }},
		{"done twice", "once", func(w *world) { do(*w, "t1", 1) }},
		{"nobody made it", "nobody made it", func(w *world) { do(*w, "t9", 1) }},
		{"a wrong answer to the question", "said to be aborted", func(w *world) { do(*w, "t4", 8) }},
		{"a key refused for nothing", "had been committed, and it has not", func(w *world) {
			w.history = append(w.history, Transfer{Name: "t5", Key: "other", Told: Aborted, KeyTaken: true, Legs: legs(16)})
		}},
		{"a key twice", "key k has committed 2 times", func(w *world) { do(*w, "t2", 2) }},
	} {
		w := right()
		c.spoil(&w)
		wantFinding(t, c.name, Bank(w.history, w.books, start), c.want)
	}
}

func wantFinding(t *testing.T, name string, errs []error, want string) {
	t.Helper()
	for _, err := range errs {
		if strings.Contains(err.Error(), want) {
			return
		}
	}
	t.Errorf("%s: nothing of the kind %q among %v", name, want, errs)
}

func TestGoroutineLeaks(t *testing.T) {
	fresh := "goroutine 1 [running]:\nmain.main()\n\ngoroutine 7 [select]:\nx()\ncreated by main.loop in goroutine 1\n\t/x.go:1\n"
	if errs := GoroutineLeaks(fresh, fresh, nil); len(errs) != 0 {
		t.Errorf("the same twice: %v", errs)
	}
	used := fresh + "\ngoroutine 8 [select]:\nx()\ncreated by main.loop in goroutine 1\n\t/x.go:1\n" + "\ngoroutine 9 [select]:\ny()\ncreated by main.session in goroutine 1\n"
	errs := GoroutineLeaks(fresh, used, map[string]int{"main.loop": 1})
	if len(errs) != 1 {
		t.Errorf("%v", errs)
	}
	wantFinding(t, "a session is left", errs, "main.session")
	wantFinding(t, "one loop too many", GoroutineLeaks(fresh, used, nil), "2 goroutines of main.loop")
	wantFinding(t, "no dump", GoroutineLeaks("", "", nil), "no goroutine dump")
}
