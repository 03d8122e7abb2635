package checker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Lists judges a history of transactions that append to lists and read them, as Elle's list-append does (Kingsbury and Alvaro, "Elle:
// Inferring Isolation Anomalies from Experimental Observations", 2020). Every value is appended once, so a list that was read tells the
// order in which its values were committed, and what the reader had seen.
//
// It finds what docs/guarantees.md forbids, by Adya's names:
//
//	G1a             a value of an aborted transaction was read
//	G1b             a value was read that its transaction had not appended last there
//	G0, G1c         transactions depend on each other in a circle of writes, or of writes and reads
//	fractured read  one statement, or one REPEATABLE READ transaction, saw a transaction on one key and not on another
//	lost update     two REPEATABLE READ transactions read the same list, and both appended to it
//
// Not judged is what is not promised: an order of transactions that share no key, and so circles with anti-dependencies.
func Lists(history []ListTransaction) []error {
	j := &listJudge{owner: map[listValue]int{}, order: map[string][]int64{}, place: map[listValue]int{}, implications: map[string]map[string][]implication{}}
	j.index(history)
	j.versions(history)
	j.imply(history)
	for i := range history {
		if history[i].Told == Committed {
			j.aborted(history, i)
			j.fractured(history, i)
		}
	}
	j.lost(history)
	j.circles(history)
	return j.errs
}

// ListTransaction is what a client did, and what it was told.
type ListTransaction struct {
	Name       string
	Told       Told
	Repeatable bool // at REPEATABLE READ: all its reads are of one instant
	Steps      []ListStep
}

// ListStep is one statement: appends, or reads of some keys at the same time.
type ListStep struct {
	Append map[string]int64   // to each key one value
	Read   map[string][]int64 // what each key held
}

type listValue struct {
	key   string
	value int64
}

type listJudge struct {
	owner map[listValue]int  // which transaction has appended it
	order map[string][]int64 // the longest list read of each key: the order of its commits
	place map[listValue]int  // its index in order
	// implications, by key and other key, in the order of values.
	implications map[string]map[string][]implication
	errs         []error
}

func (j *listJudge) report(format string, args ...any) {
	j.errs = append(j.errs, fmt.Errorf("lists: "+format, args...))
}

func (j *listJudge) index(history []ListTransaction) {
	for i := range history {
		for _, step := range history[i].Steps {
			for key, value := range step.Append {
				if other, taken := j.owner[listValue{key, value}]; taken {
					j.report("%s and %s append %d to %s: the history is of no use", history[other].Name, history[i].Name, value, key)
				}
				j.owner[listValue{key, value}] = i
			}
		}
	}
}

// own is what a transaction had appended to a key itself before one of its steps.
func (t *ListTransaction) own(key string, before int) (own []int64) {
	for _, step := range t.Steps[:before] {
		if value, ok := step.Append[key]; ok {
			own = append(own, value)
		}
	}
	return own
}

// others is what a step has read of a key without what the transaction had appended itself.
func (j *listJudge) others(t *ListTransaction, at int, key string) []int64 {
	read := t.Steps[at].Read[key]
	own := t.own(key, at)
	if len(own) > len(read) || !slices.Equal(read[len(read)-len(own):], own) {
		j.report("%s has appended %v to %s and then read %v", t.Name, own, key, read)
		return read
	}
	return read[:len(read)-len(own)]
}

// versions finds the order of each key's values, and lists that contradict it. What was read must have been appended by somebody.
func (j *listJudge) versions(history []ListTransaction) {
	reads := func(each func(t *ListTransaction, key string, read []int64)) {
		for i := range history {
			t := &history[i]
			for at := range t.Steps {
				for key := range t.Steps[at].Read {
					if t.Told == Committed {
						each(t, key, j.others(t, at, key))
					}
				}
			}
		}
	}
	reads(func(_ *ListTransaction, key string, read []int64) {
		if len(read) > len(j.order[key]) {
			j.order[key] = read
		}
	})
	for key, order := range j.order {
		for i, value := range order {
			if _, twice := j.place[listValue{key, value}]; twice {
				j.report("%s holds %d twice", key, value)
			}
			j.place[listValue{key, value}] = i
		}
	}
	reads(func(t *ListTransaction, key string, read []int64) {
		if !slices.Equal(read, j.order[key][:len(read)]) {
			j.report("%s has read %s of %s, and another %s", t.Name, shortList(read), key, shortList(j.order[key]))
		}
		for _, value := range read {
			if _, made := j.owner[listValue{key, value}]; !made {
				j.report("%s has read %d of %s, which nobody appended", t.Name, value, key)
			}
		}
	})
}

// aborted finds G1a and G1b: values that must not have been seen.
func (j *listJudge) aborted(history []ListTransaction, i int) {
	t := &history[i]
	for at := range t.Steps {
		for key, read := range t.Steps[at].Read {
			for n, value := range read {
				from, made := j.owner[listValue{key, value}]
				if !made || from == i {
					continue
				}
				w := &history[from]
				if w.Told == Aborted {
					j.report("G1a: %s has read %d of %s, which %s had appended and rolled back", t.Name, value, key, w.Name)
				}
				if all := w.own(key, len(w.Steps)); n == len(read)-1 && value != all[len(all)-1] {
					j.report("G1b: %s has read %s up to %d, in the middle of %s", t.Name, key, value, w.Name)
				}
			}
		}
	}
}

// fractured finds reads that were to be of one instant, and saw a transaction on one key and not on another.
func (j *listJudge) fractured(history []ListTransaction, i int) {
	t := &history[i]
	seen := map[string]int{} // key -> how many values of others were seen
	for at := range t.Steps {
		if !t.Repeatable {
			clear(seen)
		}
		for key := range t.Steps[at].Read {
			seen[key] = len(j.others(t, at, key))
		}
		for key, n := range seen {
			for other, m := range seen {
				if from, place := j.implied(key, n, other); place >= m {
					j.report("fractured read: %s has seen %s on %s and not on %s", t.Name, history[from].Name, key, other)
				}
			}
		}
	}
}

// implication: who has seen so many values of a key has seen a transaction that is at this place of another key.
type implication struct{ values, place, from int }

// imply finds out, for each pair of keys, what having seen some of the one says of the other.
func (j *listJudge) imply(history []ListTransaction) {
	for key, order := range j.order {
		implied := map[string][]implication{}
		j.implications[key] = implied
		for n, value := range order {
			from, made := j.owner[listValue{key, value}]
			if !made {
				continue
			}
			for _, step := range history[from].Steps {
				for other, there := range step.Append {
					place, known := j.place[listValue{other, there}]
					if last := len(implied[other]) - 1; known && (last < 0 || implied[other][last].place < place) {
						implied[other] = append(implied[other], implication{values: n + 1, place: place, from: from})
					}
				}
			}
		}
	}
}

// implied is the last place of the other key that n values of a key imply, -1 for none.
func (j *listJudge) implied(key string, n int, other string) (from, place int) {
	all := j.implications[key][other]
	at, _ := slices.BinarySearchFunc(all, n+1, func(i implication, n int) int { return cmp.Compare(i.values, n) })
	if at == 0 {
		return 0, -1
	}
	return all[at-1].from, all[at-1].place
}

// lost finds two transactions at REPEATABLE READ that read the same list, and both appended to it: the later must not have committed.
func (j *listJudge) lost(history []ListTransaction) {
	type version struct {
		key    string
		length int
	}
	first := map[version]int{}
	for i := range history {
		t := &history[i]
		if t.Told != Committed || !t.Repeatable {
			continue
		}
		read := map[string]int{}
		done := map[string]bool{}
		for at := range t.Steps {
			for key := range t.Steps[at].Read {
				if _, before := read[key]; !before {
					read[key] = len(j.others(t, at, key))
				}
			}
			for key := range t.Steps[at].Append {
				n, has := read[key]
				if !has || done[key] {
					continue
				}
				done[key] = true
				if other, taken := first[version{key, n}]; taken {
					j.report("lost update: %s and %s have both read %s with %d values, and appended to it", history[other].Name, t.Name, key, n)
				}
				first[version{key, n}] = i
			}
		}
	}
}

// circles finds G0 and G1c: transactions that follow each other in the order of the lists, or by reading, in a circle.
func (j *listJudge) circles(history []ListTransaction) {
	next := make([]map[int]string, len(history))
	edge := func(from, to int, why string) {
		if from == to {
			return
		}
		if next[from] == nil {
			next[from] = map[int]string{}
		}
		if _, known := next[from][to]; !known {
			next[from][to] = why
		}
	}
	for key, order := range j.order {
		for n := 1; n < len(order); n++ {
			from, a := j.owner[listValue{key, order[n-1]}]
			to, b := j.owner[listValue{key, order[n]}]
			if a && b {
				edge(from, to, "wrote "+key+" before")
			}
		}
	}
	for i := range history {
		t := &history[i]
		if t.Told != Committed {
			continue
		}
		for at := range t.Steps {
			for key := range t.Steps[at].Read {
				read := j.others(t, at, key)
				if len(read) == 0 {
					continue
				}
				if from, made := j.owner[listValue{key, read[len(read)-1]}]; made {
					edge(from, i, "was read on "+key+" by")
				}
			}
		}
	}
	for _, circle := range findCircles(next) {
		var text strings.Builder
		kind := "G0"
		for n, at := range circle {
			why := next[at][circle[(n+1)%len(circle)]]
			if strings.HasPrefix(why, "was read") {
				kind = "G1c"
			}
			fmt.Fprintf(&text, "%s %s ", history[at].Name, why)
		}
		j.report("%s: %s%s", kind, text.String(), history[circle[0]].Name)
	}
}

// findCircles returns one circle of each strongly connected component of a graph (Tarjan), without recursion: histories are long.
func findCircles(next []map[int]string) (circles [][]int) {
	for _, component := range components(next) {
		if len(component) < 2 {
			continue
		}
		inside := map[int]bool{}
		for _, at := range component {
			inside[at] = true
		}
		// Walk within the component until a transaction comes again.
		when, path := map[int]int{}, []int{}
		for at := component[0]; ; {
			if from, again := when[at]; again {
				circles = append(circles, path[from:])
				break
			}
			when[at] = len(path)
			path = append(path, at)
			var onward []int
			for to := range next[at] {
				if inside[to] {
					onward = append(onward, to)
				}
			}
			at = slices.Min(onward)
		}
	}
	return circles
}

// components are the strongly connected components of a graph.
func components(next []map[int]string) (found [][]int) {
	index, low := make([]int, len(next)), make([]int, len(next)) // index 0: not visited
	on := make([]bool, len(next))
	var stack []int
	type frame struct {
		at      int
		onward  []int
		visited int
	}
	count := 0
	enter := func(at int) frame {
		count++
		index[at], low[at], on[at] = count, count, true
		stack = append(stack, at)
		var onward []int
		for to := range next[at] {
			onward = append(onward, to)
		}
		return frame{at: at, onward: onward}
	}
	for root := range next {
		if index[root] != 0 {
			continue
		}
		frames := []frame{enter(root)}
		for len(frames) > 0 {
			f := &frames[len(frames)-1]
			if f.visited < len(f.onward) {
				to := f.onward[f.visited]
				f.visited++
				if index[to] == 0 {
					frames = append(frames, enter(to))
				} else if on[to] {
					low[f.at] = min(low[f.at], index[to])
				}
				continue
			}
			at := f.at
			frames = frames[:len(frames)-1]
			if len(frames) > 0 {
				above := frames[len(frames)-1].at
				low[above] = min(low[above], low[at])
			}
			if low[at] != index[at] {
				continue
			}
			from := slices.Index(stack, at)
			component := slices.Clone(stack[from:])
			stack = stack[:from]
			for _, member := range component {
				on[member] = false
			}
			slices.SortFunc(component, func(a, b int) int { return cmp.Compare(a, b) })
			found = append(found, component)
		}
	}
	return found
}

// shortList is the end of a list, for people.
func shortList(list []int64) string {
	if len(list) <= 6 {
		return fmt.Sprint(list)
	}
	return fmt.Sprintf("[... %d values ... %d %d %d]", len(list)-3, list[len(list)-3], list[len(list)-2], list[len(list)-1])
}
