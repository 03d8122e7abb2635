package sqlparse

import (
	"fmt"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Outline is what a node has said of a SELECT's columns.
type Outline struct {
	Names []string
	// Direct: the values can be put in order as the client gets them. Other
	// columns that are sorted by are asked for once more, behind the client's.
	Direct []bool
}

// Lookup answers what only the catalog knows.
type Lookup struct {
	// Column: the unqualified name is a column of a table in FROM.
	Column func(name string) bool
	// Key: the reference (its parts, the last one "*" for a star) is, or
	// contains, a column whose equal values are all on one node.
	Key func(reference []string) bool
	// ColumnOf: the relation has the column.
	ColumnOf func(schema, relation, column string) bool
	// Aggregate: the function is an aggregate, and whether it is Postgres's own.
	Aggregate func(f Function) (aggregate, system bool)
	// Tied is set when the query was found to be answerable by Tie, whose Column
	// and Key the ones above are then.
	Tied *Tied
}

// Combination says how a SELECT over several nodes is answered: every node runs
// Node, and what they return is either merged row by row (Sort, Limit, Offset)
// or, when Aggregated, given to one node once more by the statement that Final
// makes. It is immutable.
type Combination struct {
	// Node is the statement for each node. Behind the client's parameters it may
	// have one more, LimitParam, for the rows that are wanted of each node (int8;
	// NULL for all).
	Node       string
	LimitParam int // 0: there is none

	// Of a merge.
	Sort          []SortKey
	Hidden        int    // columns behind the client's, to sort by only
	Limit, Offset *Value // nil: none
	Ties          bool   // FETCH FIRST ... WITH TIES
	// Duplicated: a hidden column computes an output column's value once more,
	// which is the same only if no function in it is volatile.
	Duplicated bool

	// Aggregated: Node returns Columns partial results in each row, for Final.
	Aggregated bool
	Partials   []Partial

	literals []string
	final    *finalQuery
}

// SortKey is one item of ORDER BY.
type SortKey struct {
	Column           int // index among the columns that a node returns
	Desc, NullsFirst bool
	Text             TextOrder
}

// Partial is a column of an aggregated combination's rows.
type Partial struct {
	Text TextOrder
	// Sum: values are added up, which is exact for some types only.
	Sum bool
	// Average: it is the sum of an average.
	Average bool
}

// TextOrder is what a statement says about the collation of an expression.
type TextOrder struct {
	// Collation is the collation of a COLLATE clause around the whole
	// expression, without a schema other than pg_catalog.
	Collation string
	// Reference is the column that the expression is, if it is nothing else.
	Reference []string
	// Mixed: a COLLATE clause stands inside, or one that is not understood.
	Mixed bool
}

// NotCombined says why a SELECT cannot be split among nodes.
type NotCombined struct{ What, Why, Hint string }

func (e *NotCombined) Error() string { return e.What + ": " + e.Why }

// Text is the text of a ValueLiteral among Limit and Offset.
func (c *Combination) Text(v Value) string {
	if v.Kind != ValueLiteral {
		return ""
	}
	return c.literals[v.Literal]
}

// combiner makes a Combination.
type combiner struct {
	sql     string
	outline *Outline
	lookup  *Lookup
	query   *pgquery.SelectStmt
	values  *collector // reads LIMIT
	out     *Combination
	groups  []*pgquery.Node
	version int32 // of the tree's format
}

// Combine splits one SELECT that every node is to run for its own rows: each
// row of its FROM and WHERE comes from one node. params is the number of its
// parameters. The error is a *NotCombined, or of the grammar.
func Combine(sql string, params int, outline *Outline, lookup *Lookup) (*Combination, error) {
	tree, err := pgquery.Parse(sql)
	if err != nil {
		return nil, parseError(err)
	}
	if len(tree.Stmts) != 1 || tree.Stmts[0].Stmt.GetSelectStmt() == nil {
		return nil, &NotCombined{What: "this statement"}
	}
	query := tree.Stmts[0].Stmt.GetSelectStmt()
	c := &combiner{
		sql: sql, outline: outline, lookup: lookup, query: query, out: &Combination{}, version: tree.Version,
		values: &collector{src: sql, text: sql, facts: &Facts{}},
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.limit(); err != nil {
		return nil, err
	}
	if err := c.resolveGroups(); err != nil {
		return nil, err
	}
	grouped := len(query.GroupClause) > 0 || query.HavingClause != nil || hasAggregate(query, lookup.Aggregate)
	together := grouped && len(query.GroupClause) > 0 && c.containsKey(c.groups)
	switch {
	case grouped && !together:
		err = c.aggregate(params)
	case isDistinct(query) && !c.distinctTogether():
		err = c.distinct(params)
	default:
		err = c.merge(params)
	}
	if err != nil {
		return nil, err
	}
	c.out.literals = c.values.texts()
	return c.out, nil
}

// limit reads LIMIT and OFFSET.
func (c *combiner) limit() error {
	read := func(n *pgquery.Node, what string) (*Value, error) {
		if n == nil {
			return nil, nil //nolint:nilnil // there is none
		}
		v := c.values.value(n)
		if v.Kind == ValueNull {
			return nil, nil //nolint:nilnil // LIMIT ALL, OFFSET NULL
		}
		if v.Kind != ValueLiteral && v.Kind != ValueParam || v.Cast != "" && v.Cast != "int8" && v.Cast != "int4" && v.Cast != "int2" {
			return nil, &NotCombined{What: what + " with an expression", Why: "The gateway must know the number of rows.", Hint: "Give a number or a parameter."}
		}
		return &v, nil
	}
	var err error
	if c.out.Limit, err = read(c.query.LimitCount, "LIMIT"); err != nil {
		return err
	}
	if c.out.Offset, err = read(c.query.LimitOffset, "OFFSET"); err != nil {
		return err
	}
	c.out.Ties = c.query.LimitOption == pgquery.LimitOption_LIMIT_OPTION_WITH_TIES
	return nil
}

// resolveGroups finds the expressions of GROUP BY. Postgres takes a bare name
// for a column of FROM before an output column, and a number for a position.
func (c *combiner) resolveGroups() error {
	for _, n := range c.query.GroupClause {
		switch {
		case n.GetGroupingSet() != nil:
			return &NotCombined{What: "GROUPING SETS, ROLLUP or CUBE"}
		case n.GetAConst().GetIval() != nil:
			target, err := c.target(int(n.GetAConst().GetIval().Ival))
			if err != nil {
				return err
			}
			n = target
		case n.GetColumnRef() != nil:
			if fields := stringList(n.GetColumnRef().Fields); len(fields) == 1 && !c.lookup.Column(fields[0]) {
				if target := c.named(fields[0]); target != nil {
					if c.columnsUnknown() {
						return &NotCombined{What: "GROUP BY of an output column's name beside a subquery or function in FROM", Hint: "Use its position."}
					}
					n = target
				}
			}
		}
		c.groups = append(c.groups, n)
	}
	return nil
}

// columnsUnknown: something in FROM has columns that no catalog knows.
func (c *combiner) columnsUnknown() bool {
	if c.lookup.Tied != nil {
		return !c.lookup.Tied.ColumnsKnown()
	}
	unknown := false
	for _, item := range c.query.FromClause {
		visit(item, func(n *pgquery.Node) bool {
			switch n.Node.(type) {
			case *pgquery.Node_RangeVar:
			case *pgquery.Node_JoinExpr:
				return true
			case *pgquery.Node_RangeSubselect, *pgquery.Node_RangeFunction, *pgquery.Node_RangeTableFunc, *pgquery.Node_JsonTable:
				unknown = true
			}
			return false
		})
	}
	return unknown
}

// order is textOrder for an expression of this query, whose FROM may have
// columns with collations of their own.
func (c *combiner) order(n *pgquery.Node) TextOrder {
	order := textOrder(n)
	for _, item := range slices.Concat(c.query.WithClause.GetCtes(), c.query.FromClause) {
		visit(item, func(n *pgquery.Node) bool {
			order.Mixed = order.Mixed || order.Collation == "" && n.GetCollateClause() != nil
			return true
		})
	}
	return order
}

// target is the expression of an output column by its position, from 1.
func (c *combiner) target(position int) (*pgquery.Node, error) {
	for i, n := range c.query.TargetList {
		if isStar(n.GetResTarget().GetVal()) {
			break
		}
		if i == position-1 {
			return n.GetResTarget().GetVal(), nil
		}
	}
	return nil, &NotCombined{What: "the position of a column behind *", Hint: "Name the column."}
}

// named is the expression of the output column that has the name by AS.
func (c *combiner) named(name string) *pgquery.Node {
	for _, n := range c.query.TargetList {
		if n.GetResTarget().GetName() == name {
			return n.GetResTarget().GetVal()
		}
	}
	return nil
}

func isStar(n *pgquery.Node) bool {
	fields := n.GetColumnRef().GetFields()
	return len(fields) > 0 && fields[len(fields)-1].GetAStar() != nil
}

// reference are the parts of a column reference, nil for anything else.
func reference(n *pgquery.Node) []string {
	ref := n.GetColumnRef()
	if ref == nil {
		return nil
	}
	fields := stringList(ref.Fields)
	if isStar(n) {
		fields = append(fields, "*")
	}
	return fields
}

// containsKey: one of the expressions is a key.
func (c *combiner) containsKey(list []*pgquery.Node) bool {
	for _, n := range list {
		if ref := reference(n); ref != nil && c.lookup.Key(ref) {
			return true
		}
	}
	return false
}

func isDistinct(s *pgquery.SelectStmt) bool { return len(s.DistinctClause) > 0 }

// distinctTogether: rows that DISTINCT compares are on one node.
func (c *combiner) distinctTogether() bool {
	if c.distinctOn() {
		// As in ORDER BY, an output column's name comes before FROM's.
		return slices.ContainsFunc(c.query.DistinctClause, func(n *pgquery.Node) bool {
			if column := c.output(n); column >= 0 {
				if target, err := c.target(column + 1); err == nil {
					n = target
				}
			}
			return c.containsKey([]*pgquery.Node{n})
		})
	}
	for _, n := range c.query.TargetList {
		if c.containsKey([]*pgquery.Node{n.GetResTarget().GetVal()}) {
			return true
		}
	}
	return false
}

// distinctOn tells DISTINCT ON from DISTINCT, whose list has one empty node.
func (c *combiner) distinctOn() bool {
	return len(c.query.DistinctClause) > 0 && c.query.DistinctClause[0].GetNode() != nil
}

// deparse writes a query as text, and reads it again to make sure that it says
// what was meant.
func (c *combiner) deparse(query *pgquery.SelectStmt) (string, error) {
	tree := &pgquery.ParseResult{Version: c.version, Stmts: []*pgquery.RawStmt{{
		Stmt: &pgquery.Node{Node: &pgquery.Node_SelectStmt{SelectStmt: query}},
	}}}
	text, err := pgquery.Deparse(tree)
	if err != nil {
		return "", &NotCombined{What: "this statement", Why: fmt.Sprintf("It cannot be rewritten: %v.", err)}
	}
	again, err := pgquery.Parse(text)
	if err != nil || len(again.Stmts) != 1 ||
		!proto.Equal(withoutLocations(again.Stmts[0].Stmt), withoutLocations(tree.Stmts[0].Stmt)) {
		return "", &NotCombined{What: "this statement", Why: "It cannot be rewritten without changing its meaning."}
	}
	return strings.TrimSpace(text), nil
}
