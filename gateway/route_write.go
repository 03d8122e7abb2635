package gateway

import (
	"slices"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// Writes over several nodes: which node gets which part of them.

// changesOnly: an UPDATE, DELETE or INSERT of VALUES that names no sharded table
// but its target. What it joins with or asks (VALUES, unnest, reference tables) is
// the same on every node, so each node does with its rows just what one Postgres
// would do with them.
func (e *evaluation) changesOnly() bool {
	st := e.st
	if len(st.Tables) != 1+e.references || e.sharded != 1 || st.Target != e.main || len(st.Changes) != 1 || !e.readsAlike() {
		return false
	}
	return st.Kind == sqlparse.Update || st.Kind == sqlparse.Delete || st.Kind == sqlparse.Insert && st.InsertRows != nil
}

// uneven: rows of VALUES that are not of one length. Any node says so.
func (e *evaluation) uneven() bool {
	for _, row := range e.st.InsertRows {
		if len(row) != len(e.st.InsertRows[0]) {
			return true
		}
	}
	return false
}

// checkConflict refuses a conflict target that does not hold the shard key: the
// unique index that it names is of one node's rows only.
func (e *evaluation) checkConflict(t *Table, on *sqlparse.Conflict) error {
	if e.onlyNode() || slices.Contains(on.Columns, t.key().Name) {
		return nil
	}
	if on.Constraint == "" && len(on.Columns) == 0 && !on.Expressions || on.Constraint != "" && on.Constraint == t.KeyName {
		return nil
	}
	for _, column := range on.Columns {
		if t.column(column) < 0 {
			return nil // as the node will say
		}
	}
	return refuse(refusedConflictTarget, t.String(), t.key().Name)
}

// splitRows says which of the route's nodes gets which row of VALUES.
func (e *evaluation) splitRows(result route) (route, error) {
	if e.use.set != "" {
		// Postgres refuses it too, but a node that gets one row only would not.
		return route{}, refuse(refusedSetInValues)
	}
	t, change := e.tables[e.main], &e.st.Changes[0]
	at := keyInRow(t, change)
	result.rows = make([]int, len(change.InsertRows))
	for i, row := range change.InsertRows {
		text, ok, err := e.insertKey(t, &row[at])
		if err != nil {
			return route{}, err
		}
		if ok { // else the first node may refuse it
			result.rows[i] = slices.Index(result.nodes, e.placement.NodeFor(text))
		}
	}
	return result, nil
}

// sourceColumn is where the column at a position of an INSERT ... SELECT comes
// from.
func (e *evaluation) sourceColumn(change *sqlparse.Change, at int) (sqlparse.SourceColumn, bool) {
	for _, column := range change.Source {
		width := 1
		if column.Star {
			t := e.tables[column.Table]
			if t == nil {
				break // what * stands for is not known
			}
			if width = len(t.Columns); at < width {
				return sqlparse.SourceColumn{Table: column.Table, Column: t.Columns[at].Name}, true
			}
		}
		if at < width {
			return column, true
		}
		at -= width
	}
	return sqlparse.SourceColumn{}, false
}

// copiedKeys are the shard keys of the rows of an INSERT ... SELECT, where they
// are one value for all. Those that are copied from a column are for holdCopies.
func (e *evaluation) copiedKeys(t *Table, change *sqlparse.Change, at int) (keySet, error) {
	column, ok := e.sourceColumn(change, at)
	switch {
	case !ok:
		return keySet{}, refuse(refusedInsertSelect, t.String(), t.key().Name)
	case column.Column != "":
		return keySet{}, nil
	}
	value := column.Value
	value.Listed = true // its type is settled before it meets the key
	key, verdict, err := e.key(t, t.key(), &value)
	switch {
	case err != nil:
		return keySet{}, err
	case verdict == keyNever:
		return keySet{state: noKey}, nil
	case verdict != keyIs || truncatedWhenStored(key, t.key().Length):
		return keySet{}, refuse(refusedInsertSelect, t.String(), t.key().Name)
	}
	return keySet{state: oneKey, first: key}, nil
}

// holdCopies finds what shard keys are held to that are copied from a column:
// to what that column is held to. If it is a shard key itself, the copies
// belong where the rows are.
func (e *evaluation) holdCopies() error {
	for c := range e.st.Changes {
		change := &e.st.Changes[c]
		t := e.tables[change.Table]
		if t == nil || !change.InsertSelect || e.onlyNode() {
			continue
		}
		column, _ := e.sourceColumn(change, keyInRow(t, change))
		if column.Column == "" {
			continue
		}
		refused := refuse(refusedInsertSelect, t.String(), t.key().Name)
		from := e.owner(column.Table, column.Candidates, column.Column)
		if from < 0 {
			return refused
		}
		source := &e.tables[from].Columns[e.tables[from].column(column.Column)]
		// Another class may be stored as another text, a longer text cut.
		if source.class != t.key().class || !source.Deterministic || t.key().Length > 0 && source.Length != t.key().Length {
			return refused
		}
		if source.Name == e.tables[from].key().Name {
			e.sets[change.Table], e.copied = e.sets[from], from
			continue
		}
		set, err := e.heldTo(from, source)
		if err != nil {
			return err
		}
		if set.state == anyKey || set.state == manyKeys {
			return refused
		}
		e.sets[change.Table] = set
	}
	return nil
}

// copiesKeys: an INSERT that reads one table and copies its shard key.
func (e *evaluation) copiesKeys() bool {
	st := e.st
	return st.Kind == sqlparse.Insert && e.copied >= 0 && e.copied != st.Target && len(st.Tables) == 2 &&
		!st.Join && !st.Subquery && !st.CTE && !st.SetOperation
}

// placeCopy has every node copy its own rows.
func (e *evaluation) placeCopy(result route) (route, error) {
	if e.sets[e.copied].state == noKey {
		result.anyNode = true
		return result, nil
	}
	result.nodes = e.ownersOf(&e.sets[e.copied])
	if len(result.nodes) > 1 {
		if err := e.checkMerge(); err != nil {
			return route{}, err
		}
	}
	return result, nil
}

// ownersOf are the nodes that can have rows with the keys.
func (e *evaluation) ownersOf(set *keySet) []*participant.Node {
	switch set.state {
	case oneKey:
		return e.placement.single[e.placement.indexFor(set.first)]
	case manyKeys:
		return e.nodesOf(set.all)
	}
	return e.placement.nodes
}
