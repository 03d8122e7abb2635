package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// check refuses the shapes that are not understood.
func (c *combiner) check() error {
	q := c.query
	switch {
	case q.Op != pgquery.SetOperation_SETOP_NONE:
		return &NotCombined{What: "a set operation"}
	case q.WithClause != nil && c.lookup.Tied == nil:
		return &NotCombined{What: "WITH"}
	case q.IntoClause != nil, len(q.ValuesLists) > 0:
		return &NotCombined{What: "this statement"}
	}
	if err := checkWindows(q, c.containsKey); err != nil {
		return err
	}
	return c.checkSublinks()
}

// checkWindows: a window function sees the rows of one node only, so each
// window must be of rows with one key.
func checkWindows(q *pgquery.SelectStmt, containsKey func([]*pgquery.Node) bool) error {
	for _, w := range q.WindowClause {
		if !containsKey(w.GetWindowDef().GetPartitionClause()) {
			return notByKey("a window")
		}
	}
	var failed error
	for _, list := range [][]*pgquery.Node{q.TargetList, q.SortClause, q.DistinctClause} {
		for _, n := range list {
			visit(n, func(n *pgquery.Node) bool {
				// A named window is in the WINDOW clause.
				over := n.GetFuncCall().GetOver()
				if over != nil && over.Name == "" && over.Refname == "" && !containsKey(over.PartitionClause) {
					failed = notByKey("a window function")
				}
				return n.GetSubLink() == nil
			})
		}
	}
	return failed
}

func notByKey(what string) error {
	return &NotCombined{What: what, Why: "Each node sees only its own rows.", Hint: "Use PARTITION BY with the shard key, or hold the shard key to one value."}
}

// checkSublinks: an aggregate in a subquery may belong to the query around it,
// when its arguments do. Only those are let through that certainly do not.
func (c *combiner) checkSublinks() error {
	var failed error
	visit(&pgquery.Node{Node: &pgquery.Node_SelectStmt{SelectStmt: c.query}}, func(n *pgquery.Node) bool {
		link := n.GetSubLink()
		if link == nil {
			return true
		}
		visit(link.Subselect, func(n *pgquery.Node) bool {
			s := n.GetSelectStmt()
			if s == nil {
				return true
			}
			for _, e := range expressions(s) {
				visit(e, func(n *pgquery.Node) bool {
					if f := n.GetFuncCall(); f != nil && c.isAggregate(f) && !c.ownAggregate(f, s) {
						failed = &NotCombined{What: "an aggregate in a subquery",
							Why: "It may belong to the query around it.", Hint: "Qualify its argument with the subquery's table."}
					}
					return n.GetSubLink() == nil
				})
			}
			return true
		})
		return false
	})
	return failed
}

// expressions are where aggregates of a query stand.
func expressions(s *pgquery.SelectStmt) []*pgquery.Node {
	var all []*pgquery.Node
	all = append(all, s.TargetList...)
	all = append(all, s.SortClause...)
	all = append(all, s.DistinctClause...)
	if s.HavingClause != nil {
		all = append(all, s.HavingClause)
	}
	return all
}

// ownAggregate: one of the aggregate's arguments names a column of the query's
// own FROM, or it has none.
func (c *combiner) ownAggregate(f *pgquery.FuncCall, s *pgquery.SelectStmt) bool {
	if f.AggStar {
		return true
	}
	own := false
	for _, arg := range f.Args {
		visit(arg, func(n *pgquery.Node) bool {
			fields := stringList(n.GetColumnRef().GetFields())
			for _, item := range s.FromClause {
				r := item.GetRangeVar()
				if r == nil {
					continue
				}
				name := r.Relname
				if r.Alias != nil {
					name = r.Alias.Aliasname
				}
				switch len(fields) {
				case 1:
					own = own || r.Alias.GetColnames() == nil && c.lookup.ColumnOf(r.Schemaname, r.Relname, fields[0])
				case 2:
					own = own || fields[0] == name
				}
			}
			return true
		})
	}
	return own
}

func (c *combiner) isAggregate(f *pgquery.FuncCall) bool { return isAggregate(f, c.lookup.Aggregate) }

func isAggregate(f *pgquery.FuncCall, lookup func(Function) (aggregate, system bool)) bool {
	schema, name := qualified(f.Funcname)
	aggregate, _ := lookup(Function{Schema: schema, Name: name})
	return aggregate && f.Over == nil || f.AggWithinGroup || f.AggStar && f.Over == nil
}

// hasAggregate looks at the query's own level.
func hasAggregate(s *pgquery.SelectStmt, lookup func(Function) (aggregate, system bool)) bool {
	found := false
	for _, e := range expressions(s) {
		visit(e, func(n *pgquery.Node) bool {
			if f := n.GetFuncCall(); f != nil && isAggregate(f, lookup) || n.GetGroupingFunc() != nil {
				found = true
			}
			return n.GetSubLink() == nil
		})
	}
	return found
}
