package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Whether each node can answer a SELECT for its own rows, when it has CTEs,
// subqueries in FROM or IN (SELECT ...), is found out here, with the catalog at
// hand: names mean what they mean to Postgres, or the query is refused.
//
// A query is split when its result, as a multiset, is what the nodes' results
// are together. A table is. A key is a column whose value, in every row, is a
// shard key that belongs to the node of the row; a weak key is that or NULL
// (behind an outer join). What is split may be joined to what is split by an
// equality of two weak keys: rows of different nodes cannot meet then. What is
// not split is the same on every node (reference tables, VALUES, functions), or
// bound: computed for one row of the query around it, and tied to a key of that
// row, so that all it needs is on the node of that row.
//
// These three kinds are closed under the operations that are let through:
//
//   - WHERE, computed columns and UNION ALL work row by row;
//   - GROUP BY, DISTINCT, windows, UNION, INTERSECT and EXCEPT compare rows, and
//     a key among what they compare keeps the rows of other nodes out;
//   - key IN (SELECT key ...) compares with rows of the same node only.
//
// LIMIT, and aggregates without a key in GROUP BY, are none of them. In the
// query's own level they are: Combine knows how.

// TiedLookup answers what only the catalog knows.
type TiedLookup struct {
	// Table is the relation of a name, nil for one that is no table with rows
	// of its own.
	Table func(schema, name string) *TiedTable
	// Aggregate is that of Lookup.
	Aggregate func(f Function) (aggregate, system bool)
}

// TiedTable is a table.
type TiedTable struct {
	Everywhere bool   // a reference table
	Key        string // the shard key of any other
	Columns    []TiedColumn
}

// TiedColumn is a column. Within a class, equal values belong to the same node;
// of class 0 nothing is known.
type TiedColumn struct {
	Name  string
	Class int
}

// Tied is a SELECT that each node can answer for its own rows; what the query's
// own level does with them is still to be combined.
type Tied struct {
	frame *tiedFrame
	ctes  map[string]bool
}

// CTE: there is one of this name, somewhere.
func (t *Tied) CTE(name string) bool { return t.ctes[name] }

// Column: the unqualified name is a column of something in FROM.
func (t *Tied) Column(name string) bool {
	for _, v := range t.frame.visible {
		if v.name == name {
			return true
		}
	}
	return false
}

// ColumnsKnown: Column knows all names, there being no function in FROM.
func (t *Tied) ColumnsKnown() bool { return !t.frame.vague }

// Key is Lookup.Key for the query's own level.
func (t *Tied) Key(reference []string) bool {
	if reference[len(reference)-1] == "*" {
		for _, col := range t.frame.starred(reference[:len(reference)-1]) {
			if t.frame.key[col.column] {
				return true
			}
		}
		return false
	}
	col, _ := t.frame.find(reference)
	return col != nil && t.frame.key[col]
}

// Origin is the table's column that a reference passes on as it is.
func (t *Tied) Origin(reference []string) (schema, table, column string, ok bool) {
	col, _ := t.frame.find(reference)
	if col == nil || col.origin == nil {
		return "", "", "", false
	}
	return col.origin.schema, col.origin.table, col.origin.column, true
}

// errUntied: rows of several nodes may meet. What the statement is, the caller
// knows better.
var errUntied = &NotCombined{}

// tier is the analysis of one statement.
type tier struct {
	lookup *TiedLookup
	ctes   map[string]bool
	// sorted: a query inside, of rows of several nodes, has an ORDER BY.
	sorted bool
}

// Tie analyses one SELECT without its own parameters' values. The error is a
// *NotCombined, whose What is empty if rows of several nodes may simply meet, or
// of the grammar.
func Tie(sql string, lookup *TiedLookup) (*Tied, error) {
	tree, err := pgquery.Parse(sql)
	if err != nil {
		return nil, parseError(err)
	}
	if len(tree.Stmts) != 1 {
		return nil, errUntied
	}
	query := tree.Stmts[0].Stmt.GetSelectStmt()
	if query == nil || query.Op != pgquery.SetOperation_SETOP_NONE || len(query.ValuesLists) > 0 {
		return nil, errUntied
	}
	t := &tier{lookup: lookup, ctes: map[string]bool{}}
	frame, _, err := t.level(query, nil, nil)
	if err != nil {
		return nil, err
	}
	if !frame.split { // every node would return all of it
		return nil, errUntied
	}
	if t.sorted && len(query.SortClause) == 0 && !t.aggregated(query) {
		return nil, &NotCombined{What: "ORDER BY in a subquery or WITH", Why: "The order would be lost when the nodes' rows are put together.",
			Hint: "Write ORDER BY at the end of the statement."}
	}
	return &Tied{frame: frame, ctes: t.ctes}, nil
}

// aggregated: the query makes groups of its rows.
func (t *tier) aggregated(s *pgquery.SelectStmt) bool {
	return len(s.GroupClause) > 0 || s.HavingClause != nil || hasAggregate(s, t.lookup.Aggregate)
}
