package gateway

import (
	"errors"

	"github.com/pgpact/pgpact/sqlparse"
)

// placeQuery chooses the nodes of a SELECT that is not held to one key: the i-th
// table's is not known.
func (e *evaluation) placeQuery(result route, i int) (route, error) {
	if !e.st.CTE { // those, Combine must be told of
		if root, together := e.together(); root >= 0 {
			return e.placeTogether(result, root, together)
		}
	}
	tied, err := e.tie()
	why, refused := errors.AsType[*sqlparse.NotCombined](err)
	switch {
	case err == nil && tied != nil:
		return e.placeTied(result, tied)
	case err != nil && !refused:
		return route{}, err
	case refused && why.What != "":
		return route{}, notCombined(why, &combining{})
	}
	t := e.tables[i]
	return route{}, refuse(refusedNoSingleKey, e.shape(), t, t.key().Name)
}

// tie asks sqlparse whether each node can answer the query for its own rows, nil
// if it certainly cannot.
func (e *evaluation) tie() (*sqlparse.Tied, error) {
	if e.use.volatile || e.st.Locking || !e.readsAlike() {
		return nil, nil //nolint:nilnil // it cannot
	}
	return sqlparse.Tie(e.st.SQL, &sqlparse.TiedLookup{
		Table: func(schema, name string) *sqlparse.TiedTable {
			return tiedTable(e.catalog.lookup(schema, name, e.session))
		},
		Aggregate: aggregates(e.catalog, e.session),
	})
}

// tiedTable is a relation of the catalog as Tie wants it, nil for what has no
// rows that belong to a node or to all.
func tiedTable(found relation) *sqlparse.TiedTable {
	t := found.table
	if found.kind != userRelation || t == nil || t.unusable != nil {
		return nil
	}
	tied := &sqlparse.TiedTable{Everywhere: t.Reference}
	if !t.Reference {
		tied.Key = t.key().Name
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		column := sqlparse.TiedColumn{Name: c.Name}
		if c.Deterministic {
			column.Class = int(c.class)
		}
		tied.Columns = append(tied.Columns, column)
	}
	return tied
}

// placeTied chooses the nodes of such a SELECT: those that own a key of any of
// its tables. On the others its tables are empty, as far as they matter, and of
// empty tables a query of this kind has no rows.
func (e *evaluation) placeTied(result route, tied *sqlparse.Tied) (route, error) {
	var keys []string
	held := true
	for i, t := range e.tables {
		if t != nil {
			held = held && e.sets[i].state != anyKey
			keys = append(keys, e.sets[i].keys()...)
		}
	}
	switch {
	case !held:
		result.nodes = e.placement.nodes
	case len(keys) == 0:
		result.anyNode = true
		return result, nil
	default:
		result.nodes = e.nodesOf(keys)
	}
	if len(result.nodes) == 1 {
		return result, nil
	}
	var err error
	if result.combine, err = e.combine(make([]bool, len(e.tables))); err == nil {
		result.combine.tied = tied
	}
	return result, err
}

// tiedLookup is lookup for a tied SELECT.
func (c *combining) tiedLookup() *sqlparse.Lookup {
	return &sqlparse.Lookup{
		Column: c.tied.Column,
		Key:    c.tied.Key,
		ColumnOf: func(schema, relation, column string) bool {
			if schema == "" && c.tied.CTE(relation) {
				return false // a CTE: it may have other columns than the table that it hides
			}
			found := c.catalog.lookup(schema, relation, c.session)
			return found.table != nil && found.table.column(column) >= 0
		},
		Aggregate: aggregates(c.catalog, c.session),
		Tied:      c.tied,
	}
}

// tiedColumn is column for a tied SELECT.
func (c *combining) tiedColumn(reference []string) *Column {
	schema, table, name, ok := c.tied.Origin(reference)
	if !ok {
		return nil
	}
	found := c.catalog.lookup(schema, table, c.session)
	if found.table == nil {
		return nil
	}
	if i := found.table.column(name); i >= 0 {
		return &found.table.Columns[i]
	}
	return nil
}
