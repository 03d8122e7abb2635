package sqlparse

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// restriction is where a condition stands and what it can be trusted with.
type restriction struct {
	scope *scope
	// limited are the tables of which every row that matters fulfils the
	// condition; drivers the preserved side of an outer join, whose values
	// select rows of the limited tables but are not limited themselves.
	limited, drivers []int
}

// limits reports whether the condition limits the column's table, whichever of
// the candidates it is.
func (r restriction) limits(col column) bool { return subset(col.tables, r.limited) }

// drives reports whether the column belongs to the preserved side or to an
// enclosing query.
func (r restriction) drives(col column) bool {
	if subset(col.tables, r.drivers) {
		return true
	}
	// Names are looked up from the inside out, so a table that is not of this
	// level belongs to an enclosing query. Its rows are what this level is
	// evaluated for, one by one; nothing here can limit them: the subquery may
	// stand in a target list or under NOT EXISTS.
	here := tables(r.scope.rels)
	return !slices.ContainsFunc(col.tables, func(t int) bool { return slices.Contains(here, t) })
}

func subset(a, b []int) bool {
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

// restrict records what a WHERE or ON clause says about every row.
func (c *collector) restrict(n *pgquery.Node, r restriction) {
	if n == nil || len(r.limited) == 0 {
		return
	}
	if b := n.GetBoolExpr(); b != nil && b.Boolop == pgquery.BoolExprType_AND_EXPR {
		for _, arg := range b.Args {
			c.restrict(arg, r)
		}
		return
	}
	// Pairs are taken from conjuncts only: under an OR a join holds for some
	// rows and not for others, and is no help to anybody.
	c.pairs(n.GetAExpr(), r)
	c.facts.Conditions = append(c.facts.Conditions, c.implied(n, r)...)
}

// implied returns the conditions that hold whenever n is true: of an AND those
// of any part, of an OR those that every part has on the same column, with the
// values of all. Nothing else implies anything: under NOT, CASE or a function
// the walk does not look.
func (c *collector) implied(n *pgquery.Node, r restriction) []Condition {
	if e := n.GetAExpr(); e != nil {
		return c.comparison(e, r)
	}
	if sub := n.GetSubLink(); sub != nil {
		return c.inValues(sub, r)
	}
	b := n.GetBoolExpr()
	if b == nil {
		return nil
	}
	switch b.Boolop {
	case pgquery.BoolExprType_AND_EXPR:
		var all []Condition
		for _, arg := range b.Args {
			all = append(all, c.implied(arg, r)...)
		}
		return all
	case pgquery.BoolExprType_OR_EXPR:
		return c.alternatives(b.Args, r)
	}
	return nil
}

// alternatives intersects what the arms of an OR imply.
func (c *collector) alternatives(args []*pgquery.Node, r restriction) []Condition {
	var common []Condition
	for i, arg := range args {
		conditions := c.implied(arg, r)
		if i == 0 {
			common = conditions
			continue
		}
		// What an arm does not say is not known of the rows that come through it.
		kept := common[:0]
		for _, have := range common {
			for _, other := range conditions {
				if have.Column == other.Column && have.Table == other.Table && slices.Equal(have.Candidates, other.Candidates) {
					have.Values = append(have.Values, other.Values...)
					kept = append(kept, have)
					break
				}
			}
		}
		if common = kept; len(common) == 0 {
			return nil
		}
	}
	return common
}

// comparison returns what one comparison says about columns it compares with
// constants or parameters.
func (c *collector) comparison(e *pgquery.A_Expr, r restriction) []Condition {
	switch e.Kind {
	case pgquery.A_Expr_Kind_AEXPR_OP:
		if !isEquals(e.Name) {
			return nil
		}
		lefts, rights := e.Lexpr.GetRowExpr().GetArgs(), e.Rexpr.GetRowExpr().GetArgs()
		if len(lefts) > 0 && len(lefts) == len(rights) {
			var out []Condition
			for i := range lefts {
				out = append(out, c.equals(lefts[i], rights[i], r)...)
			}
			return out
		}
		return c.equals(e.Lexpr, e.Rexpr, r)
	case pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		// Only with a constant: NULL would match a missing row of an outer join.
		v := c.value(e.Rexpr)
		if v.Kind != ValueLiteral {
			return nil
		}
		return c.condition(e.Lexpr, []Value{v}, r)
	case pgquery.A_Expr_Kind_AEXPR_IN:
		if isEquals(e.Name) {
			return c.in(e, r)
		}
	case pgquery.A_Expr_Kind_AEXPR_OP_ANY:
		if values := c.array(e.Rexpr); isEquals(e.Name) && values != nil {
			return c.condition(e.Lexpr, values, r)
		}
	}
	return nil
}

// isEquals: = or OPERATOR(pg_catalog.=). Another schema's = may do anything.
func isEquals(name []*pgquery.Node) bool {
	parts := stringList(name)
	return len(parts) > 0 && parts[len(parts)-1] == "=" &&
		(len(parts) == 1 || len(parts) == 2 && parts[0] == "pg_catalog")
}

// equals: column = value either way round. NULL is left out: under
// transform_null_equals it would mean IS NULL.
func (c *collector) equals(left, right *pgquery.Node, r restriction) []Condition {
	if left.GetColumnRef() == nil {
		left, right = right, left
	}
	if left.GetColumnRef() == nil || right.GetColumnRef() != nil {
		return nil // two columns are for pairs, and two values say nothing
	}
	if v := c.value(right); v.Kind == ValueLiteral || v.Kind == ValueParam {
		return c.condition(left, []Value{v}, r)
	}
	return nil
}

// in: column IN (values), and (a, b) IN ((1, 2), (3, 4)) column by column.
func (c *collector) in(e *pgquery.A_Expr, r restriction) []Condition {
	items := e.Rexpr.GetList().GetItems()
	columns := e.Lexpr.GetRowExpr().GetArgs()
	if len(columns) == 0 {
		return c.condition(e.Lexpr, c.values(items), r)
	}
	var out []Condition
	for i, col := range columns {
		var picked []*pgquery.Node
		for _, item := range items {
			row := item.GetRowExpr().GetArgs()
			if len(row) != len(columns) {
				return nil
			}
			picked = append(picked, row[i])
		}
		out = append(out, c.condition(col, c.values(picked), r)...)
	}
	return out
}

// values turns list items into values; nil when one of them cannot be known.
func (c *collector) values(items []*pgquery.Node) []Value {
	out := make([]Value, 0, len(items))
	for _, item := range items {
		v := c.value(item)
		if v.Kind == ValueOther || v.Kind == ValueDefault {
			return nil
		}
		out = append(out, v)
	}
	return out
}

// condition makes a Condition if n is a column this restriction limits.
func (c *collector) condition(n *pgquery.Node, values []Value, r restriction) []Condition {
	ref := n.GetColumnRef()
	if ref == nil || len(values) == 0 {
		return nil
	}
	col, ok := r.scope.resolve(ref)
	if !ok || !r.limits(col) {
		return nil
	}
	table, candidates := col.index()
	return []Condition{{Table: table, Candidates: candidates, Column: col.name, Values: values}}
}

// index gives a certain column's table, or -1 and the candidates.
func (col column) index() (table int, candidates []int) {
	if len(col.tables) == 1 {
		return col.tables[0], nil
	}
	return -1, col.tables
}

// pairs records column = column, also inside rows.
func (c *collector) pairs(e *pgquery.A_Expr, r restriction) {
	if e == nil || e.Kind != pgquery.A_Expr_Kind_AEXPR_OP || !isEquals(e.Name) {
		return
	}
	lefts, rights := e.Lexpr.GetRowExpr().GetArgs(), e.Rexpr.GetRowExpr().GetArgs()
	if len(lefts) == 0 || len(lefts) != len(rights) {
		lefts, rights = []*pgquery.Node{e.Lexpr}, []*pgquery.Node{e.Rexpr}
	}
	for i := range lefts {
		l, r1 := lefts[i].GetColumnRef(), rights[i].GetColumnRef()
		if l == nil || r1 == nil {
			continue
		}
		left, okLeft := r.scope.resolve(l)
		right, okRight := r.scope.resolve(r1)
		switch {
		case okLeft && okRight:
			c.pair(left, right, r)
		case okLeft:
			c.listed(left, r1, r)
		case okRight:
			c.listed(right, l, r)
		}
	}
}

// pair records an equality of two columns, as far as it can be trusted.
func (c *collector) pair(left, right column, r restriction) {
	limitsLeft, limitsRight := r.limits(left), r.limits(right)
	switch {
	case limitsLeft && limitsRight:
		if len(left.tables) == 1 && slices.Equal(left.tables, right.tables) {
			return // two columns of one row
		}
		c.facts.Joins = append(c.facts.Joins, columnPair(left, right))
	case limitsRight && r.drives(left):
		c.facts.OneWay = append(c.facts.OneWay, columnPair(left, right))
	case limitsLeft && r.drives(right):
		c.facts.OneWay = append(c.facts.OneWay, columnPair(right, left))
	}
}

func columnPair(left, right column) ColumnPair {
	p := ColumnPair{LeftColumn: left.name, RightColumn: right.name}
	p.LeftTable, p.LeftCandidates = left.index()
	p.RightTable, p.RightCandidates = right.index()
	return p
}
