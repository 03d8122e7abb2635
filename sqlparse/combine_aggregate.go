package sqlparse

import (
	"fmt"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Aggregates are computed in two steps. Every node groups its own rows and
// returns one row for each group: the group's values, and a partial result for
// each aggregate. One node then runs the client's statement once more, with
// these rows instead of FROM, and for each aggregate the one that combines its
// partial results. So all arithmetic, and everything that follows it (HAVING,
// ORDER BY, LIMIT, expressions), is Postgres's own.

// Types whose partial sums add up to the sum (pg_type.oid).
const (
	oidInt8     = 20
	oidInterval = 1186
	oidNumeric  = 1700
	oidMoney    = 790
	oidFloat4   = 700
	oidFloat8   = 701
)

// rowsName is what the partial results are called in the final statement.
const rowsName = "pgpact"

// finalQuery is the second step, as far as it does not depend on types.
type finalQuery struct {
	c       *combiner
	params  int
	byGroup map[string]int // same(expression) -> partial column
	known   map[string]int // same(partial aggregate) -> partial column
	columns []*pgquery.Node
	extra   int      // columns that only split the nodes' groups further
	types   []uint32 // nil while the columns are being collected
	// finer: the nodes' groups are split further, so that a key may be in several
	// of them.
	finer bool
}

// aggregate makes a combination in two steps.
func (c *combiner) aggregate(params int) error {
	if c.distinctOn() {
		return &NotCombined{What: "DISTINCT ON"}
	}
	f := c.newFinal(params)
	for _, g := range c.groups {
		if g.GetColumnRef() == nil && g.GetAConst() != nil {
			return &NotCombined{What: "GROUP BY of a constant"}
		}
		f.group(g)
	}
	if err := f.collect(); err != nil {
		return err
	}
	q := clone(c.query)
	q.GroupClause, q.HavingClause, q.WindowClause = nil, nil, nil
	// The groups come first, so that they can be named by their positions.
	for range f.byGroup {
		q.GroupClause = append(q.GroupClause, pgquery.MakeAConstIntNode(int64(len(q.GroupClause)+1), 0))
	}
	return f.finish(q)
}

// distinct makes a combination of rows without aggregates: the columns
// themselves are the groups.
func (c *combiner) distinct(params int) error {
	if c.distinctOn() {
		return &NotCombined{What: "DISTINCT ON", Why: "Rows that are compared may be on several nodes.", Hint: "Put the shard key into DISTINCT ON."}
	}
	f := c.newFinal(params)
	for _, n := range c.query.TargetList {
		value := n.GetResTarget().GetVal()
		if isStar(value) {
			return &NotCombined{What: "DISTINCT *"}
		}
		f.group(value)
	}
	if err := f.collect(); err != nil {
		return err
	}
	q := clone(c.query)
	if len(c.groups) > 0 { // by a key, so that they are whole; numbers would count other columns now
		q.GroupClause = c.groups
	}
	return f.finish(q)
}

func (c *combiner) newFinal(params int) *finalQuery {
	return &finalQuery{c: c, params: params, byGroup: map[string]int{}, known: map[string]int{}}
}

// group adds a column of the groups and returns its index.
func (f *finalQuery) group(n *pgquery.Node) int {
	key := f.c.same(n)
	if i, ok := f.byGroup[key]; ok {
		return i
	}
	i := f.column(n, Partial{})
	f.byGroup[key] = i
	return i
}

func (f *finalQuery) column(n *pgquery.Node, p Partial) int {
	p.Text = f.c.order(n)
	f.columns = append(f.columns, n)
	f.c.out.Partials = append(f.c.out.Partials, p)
	return len(f.columns) - 1
}

// collect finds all partial results by making the final statement without
// types. Arguments of DISTINCT aggregates become groups, which must stand in
// front of everything else: they are found first.
func (f *finalQuery) collect() error {
	groups := len(f.columns)
	aggregates := func(do func(*pgquery.FuncCall)) {
		for _, e := range expressions(f.c.query) {
			visit(e, func(n *pgquery.Node) bool {
				if call := n.GetFuncCall(); call != nil && f.splits(call) {
					do(call)
				}
				return n.GetSubLink() == nil
			})
		}
	}
	aggregates(func(*pgquery.FuncCall) { f.finer = true })
	aggregates(func(call *pgquery.FuncCall) { f.group(call.Args[0]) })
	f.extra = len(f.columns) - groups
	_, err := f.query()
	return err
}

// splits: the aggregate needs all different values, and they are not together
// on one node.
func (f *finalQuery) splits(call *pgquery.FuncCall) bool {
	_, name := qualified(call.Funcname)
	return call.AggDistinct && len(call.Args) == 1 && call.AggFilter == nil && f.c.isAggregate(call) &&
		(name == "count" || name == "sum" || name == "avg") && (f.finer || !f.c.containsKey(call.Args))
}

// finish writes the nodes' statement: q with the columns that were found.
func (f *finalQuery) finish(q *pgquery.SelectStmt) error {
	q.SortClause, q.LimitCount, q.LimitOffset = nil, nil, nil
	q.LimitOption = pgquery.LimitOption_LIMIT_OPTION_DEFAULT
	if len(f.columns) == 0 { // SELECT 1 ... HAVING true: only that there is a group matters
		count := call("count")
		count.AggStar = true
		f.column(callNode(count), Partial{})
	}
	q.TargetList = nil
	for i, n := range f.columns {
		q.TargetList = append(q.TargetList, target(partialName(i), n))
	}
	out := f.c.out
	if f.byGroupOnly() {
		// All columns are groups: equal rows of one node are one.
		q.DistinctClause = []*pgquery.Node{{}}
	} else {
		q.DistinctClause = nil
	}
	var err error
	if out.Node, err = f.c.deparse(q); err != nil {
		return err
	}
	out.Aggregated, out.final = true, f
	return nil
}

// byGroupOnly: the query has no aggregates, so it is a DISTINCT.
func (f *finalQuery) byGroupOnly() bool {
	return len(f.c.query.GroupClause) == 0 && isDistinct(f.c.query) && len(f.byGroup) == len(f.columns) && f.extra == 0
}

func partialName(i int) string { return fmt.Sprintf("pgpact_%d", i+1) }

func (f *finalQuery) ref(i int) *pgquery.Node { return columnNode(rowsName, partialName(i)) }

// Final is the second step: the statement for one node, which takes the nodes'
// rows as one array for each of Partials, behind the client's parameters. types
// are the partial results' types; bytewise tells which of them are texts that
// are ordered by their bytes although the database's order is another.
func (c *Combination) Final(types []uint32, bytewise []bool) (string, error) {
	f := *c.final
	f.types = types
	q, err := f.query()
	if err != nil {
		return "", err
	}
	if q.FromClause, err = f.from(bytewise); err != nil {
		return "", err
	}
	return f.c.deparse(q)
}

// Lasting is the combination without the syntax tree, which is large: it can be
// kept, but Final is no more.
func (c *Combination) Lasting() *Combination {
	copied := *c
	copied.final = nil
	return &copied
}

// query is the client's query over the partial results.
func (f *finalQuery) query() (*pgquery.SelectStmt, error) {
	q := clone(f.c.query)
	q.WithClause, q.FromClause, q.WhereClause, q.GroupClause, q.WindowClause = nil, nil, nil, nil, nil
	grouped := len(f.c.query.GroupClause) > 0
	if grouped {
		for _, g := range f.c.groups {
			q.GroupClause = append(q.GroupClause, f.ref(f.byGroup[f.c.same(g)]))
		}
	}
	var err error
	if len(q.TargetList) != len(f.c.outline.Names) {
		return nil, &NotCombined{What: "* in this statement", Hint: "Name the columns."}
	}
	for i, n := range q.TargetList {
		t := n.GetResTarget()
		if t.Val, err = f.over(t.Val); err != nil {
			return nil, err
		}
		t.Name = f.c.outline.Names[i]
	}
	if q.HavingClause, err = f.over(q.HavingClause); err != nil {
		return nil, err
	}
	for _, n := range q.SortClause {
		item := n.GetSortBy()
		if item.Node.GetAConst().GetIval() != nil {
			continue
		}
		if column := f.c.output(item.Node); column >= 0 {
			item.Node = pgquery.MakeAConstIntNode(int64(column+1), 0)
		} else if item.Node, err = f.over(item.Node); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// over is an expression of the client's, over the partial results.
func (f *finalQuery) over(n *pgquery.Node) (*pgquery.Node, error) {
	return rewrite(n, func(n *pgquery.Node) (*pgquery.Node, error) {
		if i, ok := f.byGroup[f.c.same(n)]; ok {
			return f.ref(i), nil
		}
		switch e := n.Node.(type) {
		case *pgquery.Node_ColumnRef:
			return nil, &NotCombined{What: fmt.Sprintf("column %q outside of GROUP BY", strings.Join(reference(n), ".")),
				Why: "The rows of a group are on several nodes.", Hint: "Write it in GROUP BY as it stands elsewhere."}
		case *pgquery.Node_SubLink:
			return nil, &NotCombined{What: "a subquery beside aggregates"}
		case *pgquery.Node_GroupingFunc:
			return nil, &NotCombined{What: "GROUPING"}
		case *pgquery.Node_FuncCall:
			if e.FuncCall.Over != nil {
				return nil, notByKey("a window function over groups")
			}
			if f.c.isAggregate(e.FuncCall) {
				return f.combined(e.FuncCall)
			}
		}
		return nil, nil //nolint:nilnil // to be entered
	})
}

// combined is what combines an aggregate's partial results.
func (f *finalQuery) combined(a *pgquery.FuncCall) (*pgquery.Node, error) {
	schema, name := qualified(a.Funcname)
	refused := &NotCombined{What: name + "()", Why: "Its results on several nodes cannot be combined exactly.",
		Hint: "Group by the shard key, or hold it to one value."}
	if _, system := f.c.lookup.Aggregate(Function{Schema: schema, Name: name}); !system || a.AggWithinGroup {
		return nil, refused
	}
	if f.splits(a) {
		i := f.byGroup[f.c.same(a.Args[0])]
		if name != "count" && f.types != nil && (f.types[i] == oidFloat4 || f.types[i] == oidFloat8) {
			return nil, inexact(name)
		}
		again := call(name, f.ref(i))
		again.AggDistinct = true
		return callNode(again), nil
	}
	if a.AggDistinct && (name == "count" || name == "sum" || name == "avg") && (f.finer || !f.c.containsKey(a.Args)) {
		return nil, &NotCombined{What: name + "(DISTINCT) with FILTER"}
	}
	switch name {
	case "count":
		sum := callNode(call("sum", f.ref(f.partial(a, Partial{}))))
		zero := pgquery.MakeAConstIntNode(0, 0)
		some := &pgquery.Node{Node: &pgquery.Node_CoalesceExpr{CoalesceExpr: &pgquery.CoalesceExpr{Args: []*pgquery.Node{sum, zero}}}}
		return castNode(some, "int8"), nil
	case "sum":
		return f.sum(a)
	case "avg":
		return f.average(a)
	case "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor":
		return callNode(call(name, f.ref(f.partial(a, Partial{})))), nil
	}
	return nil, refused
}

// partial adds a partial result and returns its column.
func (f *finalQuery) partial(a *pgquery.FuncCall, p Partial) int {
	n := callNode(a)
	key := f.c.same(n)
	if i, ok := f.known[key]; ok {
		return i
	}
	i := f.column(n, p)
	f.known[key] = i
	return i
}

func inexact(name string) error {
	return &NotCombined{What: name + "() of floating-point numbers",
		Why: "The result depends on the order in which rows are added.", Hint: "Cast the argument to numeric."}
}

// sum: of the smaller integers it is a bigint, which the sum of the sums is not
// by itself.
func (f *finalQuery) sum(a *pgquery.FuncCall) (*pgquery.Node, error) {
	i := f.partial(a, Partial{Sum: true})
	sum := callNode(call("sum", f.ref(i)))
	if f.types == nil {
		return sum, nil
	}
	switch f.types[i] {
	case oidInt8:
		return castNode(sum, "int8"), nil
	case oidNumeric, oidInterval, oidMoney:
		return sum, nil
	case oidFloat4, oidFloat8:
		return nil, inexact("sum")
	}
	return nil, &NotCombined{What: "sum() of this type"}
}

// average divides the sum by the count, as Postgres does in numeric. Without
// rows the sum is NULL, and so is the quotient.
func (f *finalQuery) average(a *pgquery.FuncCall) (*pgquery.Node, error) {
	ofType := func(name string) *pgquery.FuncCall {
		part := clone(a)
		part.Funcname = call(name).Funcname
		return part
	}
	i := f.partial(ofType("sum"), Partial{Sum: true, Average: true})
	j := f.partial(ofType("count"), Partial{})
	if f.types != nil {
		switch f.types[i] {
		case oidInt8, oidNumeric:
		case oidFloat4, oidFloat8:
			return nil, inexact("avg")
		default:
			return nil, &NotCombined{What: "avg() of this type"}
		}
	}
	slash := []*pgquery.Node{pgquery.MakeStrNode("pg_catalog"), pgquery.MakeStrNode("/")}
	return pgquery.MakeAExprNode(pgquery.A_Expr_Kind_AEXPR_OP, slash,
		callNode(call("sum", f.ref(i))), callNode(call("sum", f.ref(j))), 0), nil
}

// from is what stands for the nodes' rows in the final statement.
func (f *finalQuery) from(bytewise []bool) ([]*pgquery.Node, error) {
	var arrays, names, columns []string
	collated := false
	for i := range f.columns {
		arrays = append(arrays, fmt.Sprintf("pg_catalog.unnest($%d)", f.params+1+i))
		names = append(names, partialName(i))
		column := partialName(i)
		if bytewise[i] {
			collated = true
			column += ` COLLATE pg_catalog."C" AS ` + column
		}
		columns = append(columns, column)
	}
	rows := "ROWS FROM (" + strings.Join(arrays, ", ") + ") AS " + rowsName + " (" + strings.Join(names, ", ") + ")"
	if collated {
		rows = "(SELECT " + strings.Join(columns, ", ") + " FROM " + rows + ") AS " + rowsName
	}
	tree, err := pgquery.Parse("SELECT FROM " + rows)
	if err != nil {
		return nil, err
	}
	return tree.Stmts[0].Stmt.GetSelectStmt().FromClause, nil
}
