package checker

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Operation is a single-row operation on a counter: an addition that returns the new value, or with Delta 0 a reading.
type Operation struct {
	Client int       `json:"client"`
	Key    string    `json:"key"`
	Delta  int64     `json:"delta"`
	Call   time.Time `json:"call"`
	Return time.Time `json:"return"`
	// Told of a reading is Committed or it is left out; an Unknown addition may or may not be done, then or any time later.
	Told  Told   `json:"told"`
	Value int64  `json:"value"`
	Error string `json:"error,omitempty"`
}

type addition struct {
	delta   int64
	value   int64
	unknown bool
}

// counter is a key as it should behave. An unknown addition returns at the end of time: placed after everything else, it was never done,
// as far as anybody can tell.
var counter = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, _, output any) (bool, any) {
		a := output.(addition)
		next := state.(int64) + a.delta
		return a.unknown || a.value == next, next
	},
	DescribeOperation: func(_, output any) string {
		a := output.(addition)
		if a.unknown {
			return fmt.Sprintf("add %d: unknown", a.delta)
		}
		return fmt.Sprintf("add %d: %d", a.delta, a.value)
	},
}

// Linear checks each key's operations, those that the client was told were aborted left out: were they done, another's value would show
// it. Counters begin at 0. A key that cannot be judged within the bound is a finding, too.
func Linear(history []Operation, bound time.Duration) []error {
	keys := map[string][]porcupine.Operation{}
	lines := map[string][]Operation{}
	for _, o := range history {
		if o.Told == Aborted || o.Delta == 0 && o.Told != Committed {
			continue
		}
		end := o.Return.UnixNano()
		if o.Told == Unknown {
			end = math.MaxInt64
		}
		keys[o.Key] = append(keys[o.Key], porcupine.Operation{
			ClientId: o.Client, Call: o.Call.UnixNano(), Return: end,
			Output: addition{delta: o.Delta, value: o.Value, unknown: o.Told == Unknown},
		})
		lines[o.Key] = append(lines[o.Key], o)
	}
	var errs []error
	for key, operations := range keys {
		switch porcupine.CheckOperationsTimeout(counter, operations, bound) {
		case porcupine.Ok:
		case porcupine.Unknown:
			errs = append(errs, fmt.Errorf("linear: key %s with %d operations could not be judged within %v", key, len(operations), bound))
		default:
			errs = append(errs, fmt.Errorf("linear: key %s: no order of its operations explains what clients saw:\n%s", key, tell(lines[key])))
		}
	}
	return errs
}

// tell writes a key's history, the end of it if it is long.
func tell(operations []Operation) string {
	slices.SortFunc(operations, func(a, b Operation) int { return a.Call.Compare(b.Call) })
	var text strings.Builder
	if more := len(operations) - 200; more > 0 {
		fmt.Fprintf(&text, "(%d before)\n", more)
		operations = operations[more:]
	}
	for _, o := range operations {
		fmt.Fprintf(&text, "  %s to %s client %d add %d: %s %d %s\n", o.Call.Format("15:04:05.000000"), o.Return.Format("15:04:05.000000"),
			o.Client, o.Delta, o.Told, o.Value, o.Error)
	}
	return text.String()
}
