package gateway

import (
	"errors"
	"slices"

	"github.com/pgpact/pgpact/sqlparse"
)

// keyState says how much is known of the key values that a statement's rows of
// a table can have.
type keyState uint8

const (
	anyKey   keyState = iota // nothing is known
	noKey                    // no row at all
	oneKey                   // keySet.first
	manyKeys                 // keySet.all
)

// keySet is what a column is held to: the canonical texts of the values it can
// have in the rows the statement touches.
type keySet struct {
	state keyState
	first string
	all   []string // two or more, sorted, each once
}

func (s *keySet) keys() []string {
	switch s.state {
	case oneKey:
		return []string{s.first}
	case manyKeys:
		return s.all
	}
	return nil
}

// add puts a key into the set of the keys seen so far; the zero set counts as
// empty.
func (s *keySet) add(key string) {
	switch s.state {
	case anyKey, noKey:
		s.state, s.first = oneKey, key
	case oneKey:
		if key != s.first {
			s.state, s.all = manyKeys, []string{s.first, key}
		}
	case manyKeys:
		s.all = append(s.all, key)
	}
}

// settle sorts the keys and drops the double ones that add leaves in a list.
func (s *keySet) settle() {
	if s.state == manyKeys {
		slices.Sort(s.all)
		s.all = slices.Compact(s.all)
	}
}

// narrow keeps what is in both: both claims hold for every row. It reports
// whether s changed.
func (s *keySet) narrow(other keySet) bool {
	switch {
	case other.state == anyKey || s.state == noKey:
		return false
	case s.state == anyKey:
		*s = other
		return true
	}
	var both keySet
	both.state = noKey
	theirs := other.keys()
	mine := s.keys()
	for _, key := range mine {
		if _, ok := slices.BinarySearch(theirs, key); ok {
			both.add(key)
		}
	}
	if len(both.keys()) == len(mine) {
		return false
	}
	*s = both
	return true
}

// hold finds what the shard key of every sharded table is held to.
func (e *evaluation) hold() error {
	e.sets = e.setsArray[:0]
	for i, t := range e.tables {
		var set keySet
		if t != nil {
			var err error
			if change := e.insertInto(i); change != nil {
				set, err = e.insertKeys(t, change)
			} else {
				set, err = e.heldTo(i, t.key())
			}
			if err != nil {
				return err
			}
		}
		e.sets = append(e.sets, set)
	}
	if e.sharded > 1 && len(e.st.Joins)+len(e.st.OneWay) > 0 {
		if err := e.holdByJoins(); err != nil {
			return err
		}
	}
	return e.holdCopies()
}

// heldTo is what the conditions say of one column of the i-th relation.
func (e *evaluation) heldTo(i int, column *Column) (keySet, error) {
	var held keySet
	for c := range e.st.Conditions {
		condition := &e.st.Conditions[c]
		if condition.Column != column.Name {
			continue
		}
		if condition.Table != i && (condition.Table >= 0 || !slices.Contains(condition.Candidates, i)) {
			continue
		}
		set, err := e.conditionKeys(e.tables[i], column, condition.Values)
		if err != nil {
			return keySet{}, err
		}
		if held.state == anyKey {
			held = set
		} else {
			held.narrow(set)
		}
	}
	return held, nil
}

// conditionKeys is the set of the values of one condition; anyKey when one of
// them cannot be known.
func (e *evaluation) conditionKeys(t *Table, column *Column, values []sqlparse.Value) (keySet, error) {
	for i := range values {
		if !knowable(&values[i]) {
			return keySet{}, nil
		}
	}
	set := keySet{state: noKey}
	for i := range values {
		v := &values[i]
		if v.Array {
			keys, known, err := e.arrayKeys(t, column, v)
			if err != nil || !known {
				return keySet{}, err
			}
			for _, key := range keys {
				set.add(key)
			}
			continue
		}
		key, state, err := e.key(t, column, v)
		switch {
		case err != nil:
			return keySet{}, err
		case state == keyUnknown:
			return keySet{}, nil
		case state == keyIs:
			set.add(key)
		}
	}
	set.settle()
	return set, nil
}

// placeOf is a column of a relation of the statement.
type placeOf struct {
	table  int
	column string
}

// joined are the sets of the columns that joins compare.
type joined map[placeOf]*keySet

// holdByJoins follows equalities between columns, also over columns that are
// no shard keys: a.id = b.x AND b.x = c.id AND c.id = 'alice' holds a. The sets
// only get smaller, so it ends.
func (e *evaluation) holdByJoins() error {
	sets := joined{}
	for changed := true; changed; {
		changed = false
		for i := range e.st.Joins {
			left, right, err := e.pair(sets, &e.st.Joins[i])
			if err != nil {
				return err
			}
			if left != nil {
				changed = right.narrow(*left) || changed
				changed = left.narrow(*right) || changed
			}
		}
		for i := range e.st.OneWay {
			left, right, err := e.pair(sets, &e.st.OneWay[i])
			if err != nil {
				return err
			}
			if left != nil {
				changed = right.narrow(*left) || changed
			}
		}
	}
	return nil
}

// pair is the sets of the two columns of an equality; nil when it must not be
// followed. Only within one class of types have equal values equal canonical
// texts.
func (e *evaluation) pair(sets joined, p *sqlparse.ColumnPair) (left, right *keySet, err error) {
	left, leftClass, err := e.columnSet(sets, p.LeftTable, p.LeftCandidates, p.LeftColumn)
	if err != nil || left == nil {
		return nil, nil, err
	}
	right, rightClass, err := e.columnSet(sets, p.RightTable, p.RightCandidates, p.RightColumn)
	if err != nil || right == nil || leftClass != rightClass {
		return nil, nil, err
	}
	return left, right, nil
}

// columnSet is what a column is held to so far; nil for one that tells nothing.
func (e *evaluation) columnSet(sets joined, table int, candidates []int, column string) (*keySet, keyClass, error) {
	i := e.owner(table, candidates, column)
	if i < 0 || e.insertInto(i) != nil {
		return nil, notAKey, nil
	}
	t := e.tables[i]
	c := &t.Columns[t.column(column)]
	if c.class == notAKey || !c.Deterministic {
		return nil, notAKey, nil
	}
	if column == t.key().Name {
		return &e.sets[i], c.class, nil
	}
	set, ok := sets[placeOf{i, column}]
	if !ok {
		held, err := e.heldTo(i, c)
		if errors.Is(err, errParameterTypes) {
			return nil, notAKey, err
		}
		if err != nil { // it is no shard key: what it compares with is its own affair
			held = keySet{}
		}
		set = &held
		sets[placeOf{i, column}] = set
	}
	return set, c.class, nil
}

// owner is the one sharded table, of the table or the candidates, that has the
// column; -1 when there is none or the name is ambiguous.
func (e *evaluation) owner(table int, candidates []int, column string) int {
	if table >= 0 {
		if t := e.tables[table]; t != nil && t.column(column) >= 0 {
			return table
		}
		return -1
	}
	found := -1
	for _, i := range candidates {
		if t := e.tables[i]; t != nil && t.column(column) >= 0 {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}
