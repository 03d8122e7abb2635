package checker

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func appends(key string, value int64) ListStep { return ListStep{Append: map[string]int64{key: value}} }

func readsOf(lists ...any) ListStep {
	step := ListStep{Read: map[string][]int64{}}
	for i := 0; i < len(lists); i += 2 {
		step.Read[lists[i].(string)] = lists[i+1].([]int64)
	}
	return step
}

func committed(name string, steps ...ListStep) ListTransaction {
	return ListTransaction{Name: name, Told: Committed, Steps: steps}
}

func repeatable(name string, steps ...ListStep) ListTransaction {
	return ListTransaction{Name: name, Told: Committed, Repeatable: true, Steps: steps}
}

// TestListsCatchesBrokenHistories: a history for each anomaly, and one for each of what is allowed.
func TestListsCatchesBrokenHistories(t *testing.T) {
	l := func(values ...int64) []int64 { return values }
	both := committed("both", ListStep{Append: map[string]int64{"x": 1, "y": 2}})
	for _, c := range []struct {
		name, want string // "": nothing is wrong
		history    []ListTransaction
	}{
		{"fine", "", []ListTransaction{both, committed("r", readsOf("x", l(1), "y", l(2))), committed("early", readsOf("x", l(), "y", l()))}},
		{"own appends", "", []ListTransaction{both, committed("w", appends("x", 3), readsOf("x", l(1, 3)))}},
		{"own appends not seen", "and then read", []ListTransaction{both, committed("w", appends("x", 3), readsOf("x", l(1)))}},
		{"an unknown transaction that was read", "", []ListTransaction{{Name: "u", Told: Unknown, Steps: []ListStep{appends("x", 1)}}, committed("r", readsOf("x", l(1)))}},
		{"aborted read", "G1a", []ListTransaction{{Name: "a", Told: Aborted, Steps: []ListStep{appends("x", 1)}}, committed("r", readsOf("x", l(1)))}},
		{"intermediate read", "G1b", []ListTransaction{committed("w", appends("x", 1), appends("x", 2)), committed("r", readsOf("x", l(1)))}},
		{"invented", "nobody appended", []ListTransaction{committed("r", readsOf("x", l(9)))}},
		{"lists that contradict each other", "and another", []ListTransaction{committed("v", appends("x", 1)), committed("w", appends("x", 2)), committed("r", readsOf("x", l(1, 2))), committed("s", readsOf("x", l(2)))}},
		{"circle of writes", "G0", []ListTransaction{
			committed("v", appends("x", 1), appends("y", 2)), committed("w", appends("x", 3), appends("y", 4)),
			committed("r", readsOf("x", l(1, 3))), committed("s", readsOf("y", l(4, 2))),
		}},
		{"circle of reads", "G1c", []ListTransaction{committed("v", appends("x", 1), readsOf("y", l(2))), committed("w", appends("y", 2), readsOf("x", l(1)))}},
		{"fractured read", "fractured read", []ListTransaction{both, committed("r", readsOf("x", l(1), "y", l())), committed("s", readsOf("y", l(2)))}},
		{"two statements at READ COMMITTED", "", []ListTransaction{both, committed("r", readsOf("y", l()), readsOf("x", l(1))), committed("s", readsOf("y", l(2)))}},
		{"two statements at REPEATABLE READ", "fractured read", []ListTransaction{both, repeatable("r", readsOf("y", l()), readsOf("x", l(1))), committed("s", readsOf("y", l(2)))}},
		{"lost update", "lost update", []ListTransaction{
			repeatable("v", readsOf("x", l()), appends("x", 1)), repeatable("w", readsOf("x", l()), appends("x", 2)), committed("r", readsOf("x", l(1, 2))),
		}},
		{"not lost at READ COMMITTED", "", []ListTransaction{
			committed("v", readsOf("x", l()), appends("x", 1)), committed("w", readsOf("x", l()), appends("x", 2)), committed("r", readsOf("x", l(1, 2))),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			errs := Lists(c.history)
			if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) == 0 || !strings.Contains(fmt.Sprint(errs), c.want)) {
				t.Errorf("found %v, want %q", errs, c.want)
			}
		})
	}
}

// TestListsOfALongHistory: 100,000 transactions are judged in seconds.
func TestListsOfALongHistory(t *testing.T) {
	const transactions, keys, longest = 100_000, 400, 100
	lists := map[string][]int64{}
	history := make([]ListTransaction, 0, transactions)
	for n := range transactions {
		x, y := fmt.Sprintf("k%d", n%keys+keys*(n/(keys*longest))), fmt.Sprintf("k%d", (n*7+1)%keys+keys*(n/(keys*longest)))
		if x == y {
			continue
		}
		if n%2 == 0 {
			lists[x], lists[y] = append(lists[x], int64(n)), append(lists[y], int64(n))
			history = append(history, committed(fmt.Sprint("t", n), ListStep{Append: map[string]int64{x: int64(n), y: int64(n)}}))
			continue
		}
		history = append(history, repeatable(fmt.Sprint("t", n), readsOf(x, lists[x][:len(lists[x]):len(lists[x])], y, lists[y][:len(lists[y]):len(lists[y])])))
	}
	began := time.Now()
	if errs := Lists(history); len(errs) > 0 {
		t.Errorf("%d findings, the first: %v", len(errs), errs[0])
	}
	t.Logf("%d transactions judged in %v", len(history), time.Since(began).Round(time.Millisecond))
}
