package gateway

import (
	"cmp"
	"slices"

	"github.com/pgpact/pgpact/sqlparse"
)

// Reference tables hold the same rows on every node (docs/adr/0012). To a
// statement that reads one it is like VALUES: there, wherever the rest of the
// statement is. A statement that changes one runs on all nodes, and must do the
// same on each of them.
//
// What cannot do the same everywhere is refused here, in words. That it has done
// the same is seen afterwards (reference.go).

// referenceUse is what a route has to do with reference tables.
type referenceUse struct {
	// tables whose writers are kept out: of one that is changed, or those whose
	// rows are locked.
	tables []*Table
	writes bool
}

// isReference: the i-th relation is a reference table.
func (e *evaluation) isReference(i int) bool { return e.all[i] != nil && e.tables[i] == nil }

// routeReferences routes what changes or locks rows of reference tables; done is
// false for a statement that only reads them.
func (e *evaluation) routeReferences(result route) (got route, done bool, err error) {
	if e.session.explain {
		for i, t := range e.all {
			if e.isReference(i) && !slices.Contains(result.references, t) {
				result.references = append(result.references, t)
			}
		}
	}
	if e.onlyNode() {
		return result, false, nil
	}
	for i := range e.st.Changes {
		if at := e.st.Changes[i].Table; e.isReference(at) {
			got, err = e.changeReference(result, at)
			return got, true, err
		}
	}
	locked, err := e.lockedReferences()
	if err != nil || locked == nil {
		return result, false, err
	}
	result.nodes, result.reference = e.placement.fixed[:1], locked
	return result, true, e.unplaced()
}

// unplaced refuses functions that a statement without a shard key must not call.
func (e *evaluation) unplaced() error {
	if e.use.needsKey != nil && !e.use.unknown && !e.onlyNode() {
		return refuse(*e.use.needsKey, e.use.needsKeyName)
	}
	return nil
}

// lockedReferences are the reference tables whose rows the statement locks, nil
// for none. One node's locks will do, if everybody takes those of the same node;
// the rest of the statement must then be there as well.
func (e *evaluation) lockedReferences() (*referenceUse, error) {
	use := &referenceUse{}
	found := false
	for i, t := range e.all {
		if !e.isReference(i) {
			continue
		}
		for l := range e.st.Locks {
			lock := &e.st.Locks[l]
			if lock.Of != nil && !slices.Contains(lock.Of, cmp.Or(e.st.Tables[i].Alias, e.st.Tables[i].Name)) {
				continue
			}
			if e.sharded > 0 {
				return nil, refuse(refusedReferenceLock, t.String())
			}
			if found = true; !lock.Share && lock.Waits && !slices.Contains(use.tables, t) {
				use.tables = append(use.tables, t)
			}
		}
	}
	if !found {
		return nil, nil //nolint:nilnil // there are none
	}
	return use, nil
}

// changeReference routes an INSERT, UPDATE or DELETE of a reference table.
func (e *evaluation) changeReference(result route, at int) (route, error) {
	st, t := e.st, e.all[at]
	name := t.String()
	if len(st.Changes) != 1 || st.Target != at {
		return route{}, refuse(refusedReferenceAlone, name)
	}
	for i := range st.Tables {
		if !e.isReference(i) {
			return route{}, refuse(refusedReferenceSource, name, st.Tables[i].Name)
		}
	}
	varies := e.varies()
	switch {
	case st.CurrentOf != "":
		return route{}, refuse(refusedReferenceChoice, name, "WHERE CURRENT OF")
	case t.Triggers:
		return route{}, refuse(refusedReferenceTriggers, name)
	case varies != "":
		return route{}, refuse(refusedReferenceValue, name, varies)
	case st.Chooses:
		return route{}, refuse(refusedReferenceChoice, name, "LIMIT, DISTINCT ON or a window function")
	}
	if err := e.checkDefaults(t, &st.Changes[0]); err != nil {
		return route{}, err
	}
	result.nodes, result.writes = e.placement.fixed, true
	result.reference = &referenceUse{tables: []*Table{t}, writes: true}
	return result, e.unplaced()
}

// byTheClock are functions that are not volatile, and yet give each node its own
// transaction's time.
var byTheClock = map[string]bool{"now": true, "transaction_timestamp": true, "statement_timestamp": true, "age": true}

// varies names something in the statement that can have another value on
// another node, "" for nothing.
func (e *evaluation) varies() string { return variesIn(e.st.Facts, e.catalog, e.session) }

func variesIn(facts *sqlparse.Facts, catalog *Catalog, session *routeSession) string {
	if facts.SessionValue != "" {
		return facts.SessionValue
	}
	for _, f := range facts.Functions {
		known, kind := catalog.function(f, session)
		switch {
		case kind == unknownFunction:
			// The first node will say so.
		case known.volatile, kind == userFunction && !known.immutable, kind == systemFunction && byTheClock[f.Name]:
			return functionName(f) + "()"
		}
	}
	return ""
}

// checkDefaults refuses an INSERT that leaves a value to the nodes that they
// would not make alike.
func (e *evaluation) checkDefaults(t *Table, change *sqlparse.Change) error {
	if change.Kind != sqlparse.Insert {
		return nil
	}
	for i := range t.Columns {
		if c := &t.Columns[i]; c.varies != "" && e.leavesOut(t, change, i) {
			return refuse(refusedReferenceDefault, t.String(), c.Name, c.varies)
		}
	}
	return nil
}

// leavesOut tells whether an INSERT leaves the i-th column to its default.
func (e *evaluation) leavesOut(t *Table, change *sqlparse.Change, i int) bool {
	at := i
	if change.InsertColumns != nil {
		at = slices.Index(change.InsertColumns, t.Columns[i].Name)
	}
	if change.DefaultValues || at < 0 {
		return true
	}
	return slices.ContainsFunc(change.InsertRows, func(row []sqlparse.Value) bool {
		return at >= len(row) || row[at].Kind == sqlparse.ValueDefault
	})
}

// judgeDefaults finds the columns of reference tables whose defaults the nodes
// would not make alike.
func (c *Catalog) judgeDefaults(t *Table) {
	for i := range t.Columns {
		column := &t.Columns[i]
		switch {
		case column.Identity:
			column.varies = "its sequence"
		case column.Default != "":
			facts, err := sqlparse.Expression(column.Default)
			if err != nil {
				column.varies = column.Default
				continue
			}
			column.varies = variesIn(facts, c, &routeSession{})
			for _, f := range facts.Functions {
				if _, kind := c.function(f, &routeSession{}); kind == unknownFunction && column.varies == "" {
					column.varies = functionName(f) + "()"
				}
			}
		}
	}
}

// orderFree are the aggregates to which the order of rows does not matter.
var orderFree = map[string]bool{
	"count": true, "sum": true, "min": true, "max": true, "avg": true, "bool_and": true, "bool_or": true, "every": true,
	"bit_and": true, "bit_or": true, "bit_xor": true,
}

// readsAlike: what the statement reads of reference tables is the same on every
// node. In which order their rows come is not.
func (e *evaluation) readsAlike() bool {
	inside := false
	for i := range e.st.Tables {
		inside = inside || e.isReference(i) && e.st.Tables[i].Level != sqlparse.LevelTop
	}
	if e.references == 0 || !inside && !e.st.ChoosesInside {
		return true
	}
	return !e.st.ChoosesInside && !slices.ContainsFunc(e.st.Functions, func(f sqlparse.Function) bool {
		facts, _ := e.catalog.function(f, e.session)
		return facts.aggregate && !orderFree[f.Name]
	})
}
