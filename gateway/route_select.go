package gateway

import (
	"github.com/pgpact/pgpact/sqlparse"
)

// combine says what must be done with the rows of a SELECT that several nodes
// run. Each of its tables' rows are where their keys are, and what belongs
// together is on one node.
func (e *evaluation) combine(together []bool) (*combining, error) {
	if e.use.needsKey != nil {
		return nil, refuse(*e.use.needsKey, e.use.needsKeyName)
	}
	st := e.st
	return &combining{
		catalog: e.catalog, session: e.session, mentions: st.Tables, tables: e.all, together: together,
		needed:   e.use.aggregate != "" || st.Window || st.GroupBy || st.Having || st.Distinct || st.OrderBy || st.Limit,
		volatile: e.use.volatile,
	}, nil
}

// placeSelect chooses the nodes of a SELECT over one table.
func (e *evaluation) placeSelect(result route) (route, error) {
	var err error
	result.combine, err = e.combine([]bool{true})
	return result, err
}

// isSelect: a query, and nothing that changes rows in it.
func isSelect(st *sqlparse.Statement) bool { return st.Kind == sqlparse.Select && !st.Writes }

// together finds out whether all rows that meet in a SELECT are on one node:
// whether every table is tied to the shard key of one table (the root) by
// equalities of shard keys, directly or over other columns. Every row of the
// result then has a row of the root in it, and comes from the node of that row.
// So the root stands in the query's own FROM, and its rows cannot be missing.
// Tables in subqueries that are computed for each row are tied to it the same
// way; in any other subquery rows of several nodes could meet. Reference tables
// are on every node and need not be tied to anything. It returns the
// root, -1 if there is none, and for each table whether its shard key too
// decides the node of every row.
func (e *evaluation) together() (root int, together []bool) {
	if e.use.volatile || !e.readsAlike() { // computed once, or once at each node
		return -1, nil
	}
	for i := range e.st.Tables {
		if e.isReference(i) {
			together = append(together, false)
			continue
		}
		if e.tables[i] == nil || e.st.Tables[i].Level == sqlparse.LevelOther {
			return -1, nil
		}
		together = append(together, e.st.Tables[i].Level == sqlparse.LevelTop && !e.st.Tables[i].Nullable)
	}
	for i := range together {
		if together[i] && e.reachesAll(i) {
			return i, together
		}
	}
	return -1, nil
}

// reachesAll follows the equalities from a table's shard key and tells whether
// they lead to every table's.
func (e *evaluation) reachesAll(root int) bool {
	reached := map[placeOf]bool{{root, e.tables[root].key().Name}: true}
	follow := func(from, to placeOf) bool {
		if from.table < 0 || to.table < 0 || !reached[from] || reached[to] || !e.sameClass(from, to) {
			return false
		}
		reached[to] = true
		return true
	}
	for changed := true; changed; {
		changed = false
		for i := range e.st.Joins {
			left, right := e.ends(&e.st.Joins[i])
			changed = follow(left, right) || follow(right, left) || changed
		}
		for i := range e.st.OneWay {
			left, right := e.ends(&e.st.OneWay[i])
			changed = follow(left, right) || changed
		}
	}
	for i, t := range e.tables {
		if t != nil && !reached[placeOf{i, t.key().Name}] {
			return false
		}
	}
	return true
}

// ends are the columns of an equality; a table of -1 is not known.
func (e *evaluation) ends(p *sqlparse.ColumnPair) (left, right placeOf) {
	return placeOf{e.owner(p.LeftTable, p.LeftCandidates, p.LeftColumn), p.LeftColumn},
		placeOf{e.owner(p.RightTable, p.RightCandidates, p.RightColumn), p.RightColumn}
}

// sameClass: equal values of the columns have equal canonical texts, and so
// equal buckets.
func (e *evaluation) sameClass(a, b placeOf) bool {
	x := &e.tables[a.table].Columns[e.tables[a.table].column(a.column)]
	y := &e.tables[b.table].Columns[e.tables[b.table].column(b.column)]
	return x.class != notAKey && x.class == y.class && x.Deterministic && y.Deterministic
}

// placeTogether chooses the nodes of such a SELECT: those of the root's rows.
func (e *evaluation) placeTogether(result route, root int, together []bool) (route, error) {
	switch set := &e.sets[root]; set.state {
	case noKey:
		result.anyNode = true
		return result, nil
	case oneKey:
		result.nodes = e.placement.single[e.placement.indexFor(set.first)]
	case manyKeys:
		result.nodes = e.nodesOf(set.all)
	case anyKey:
		result.nodes = e.placement.nodes
	}
	if len(result.nodes) == 1 {
		return result, nil
	}
	var err error
	result.combine, err = e.combine(together)
	return result, err
}
