package sqlparse

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// query is a query inside another one: its rows must be right as they are.
func (t *tier) query(s *pgquery.SelectStmt, outer *tiedFrame, ctes *tiedCTEs) (*tiedResult, error) {
	if s == nil {
		return nil, errUntied
	}
	if s.Op != pgquery.SetOperation_SETOP_NONE {
		return t.setOperation(s, outer, ctes)
	}
	frame, result, err := t.level(s, outer, ctes)
	if err != nil || !result.split {
		return result, err
	}
	return result, t.checkSplit(s, frame, result)
}

// level reads what all queries have: WITH, FROM, WHERE and the output columns.
func (t *tier) level(s *pgquery.SelectStmt, outer *tiedFrame, ctes *tiedCTEs) (*tiedFrame, *tiedResult, error) {
	if len(s.LockingClause) > 0 || s.IntoClause != nil {
		return nil, nil, errUntied
	}
	ctes, err := t.with(s.WithClause, outer, ctes)
	if err != nil {
		return nil, nil, err
	}
	source, err := t.from(s.FromClause, outer, ctes)
	if err != nil {
		return nil, nil, err
	}
	frame := &tiedFrame{parent: outer, relations: source.relations, visible: source.visible, vague: source.vague}
	around := map[*tiedColumn]bool{}
	equal := append(source.equal, t.equalities(s.WhereClause, frame, around)...)
	whole, ok := tie(source.items, equal, around)
	if !ok {
		return nil, nil, errUntied
	}
	frame.split, frame.key, frame.weak = whole.split, whole.key, whole.weak
	for _, list := range [][]*pgquery.Node{
		{s.WhereClause, s.HavingClause, s.LimitCount, s.LimitOffset},
		s.TargetList, s.GroupClause, s.DistinctClause, s.WindowClause, s.SortClause, s.ValuesLists,
	} {
		if err := t.sublinks(list, frame, ctes); err != nil {
			return nil, nil, err
		}
	}
	result := outputs(s, frame)
	if len(result.columns) > maxColumns {
		return nil, nil, errUntied
	}
	return frame, result, nil
}

// maxColumns is Postgres's own limit (MaxTupleAttributeNumber). Stars of stars
// could make columns beyond all bounds.
const maxColumns = 1664

// with reads the CTEs of a query. They are computed once, whatever the row
// around is.
func (t *tier) with(w *pgquery.WithClause, outer *tiedFrame, ctes *tiedCTEs) (*tiedCTEs, error) {
	if w == nil {
		return ctes, nil
	}
	if w.Recursive {
		return nil, &NotCombined{What: "WITH RECURSIVE", Why: "Each step could need rows of other nodes."}
	}
	for _, n := range w.Ctes {
		cte := n.GetCommonTableExpr()
		result, err := t.query(cte.GetCtequery().GetSelectStmt(), blind(outer), ctes)
		if err != nil {
			return nil, err
		}
		names := stringList(cte.Aliascolnames)
		named := &tiedResult{split: result.split, columns: slices.Clone(result.columns)}
		for i := range named.columns[:min(len(names), len(named.columns))] {
			named.columns[i].name = names[i]
		}
		t.ctes[cte.Ctename] = true
		ctes = &tiedCTEs{parent: ctes, name: cte.Ctename, result: named}
	}
	return ctes, nil
}

// outputs are the columns of a query, without those of a star that is not
// understood: then there is one without a name, which stands for them.
func outputs(s *pgquery.SelectStmt, frame *tiedFrame) *tiedResult {
	result := &tiedResult{split: frame.split}
	add := func(name string, col *tiedColumn, own bool) {
		out := tiedOutput{name: name, class: col.class, origin: col.origin}
		if own && frame.split {
			out.key, out.weak = frame.key[col], frame.weak[col]
		}
		result.columns = append(result.columns, out)
	}
	if len(s.ValuesLists) > 0 {
		for i := range s.ValuesLists[0].GetList().GetItems() {
			add("column"+itoa(int32(i+1)), &tiedColumn{}, false)
		}
		return result
	}
	for _, n := range s.TargetList {
		target := n.GetResTarget()
		fields := reference(target.GetVal())
		if isStar(target.GetVal()) {
			columns := frame.starred(fields[:len(fields)-1])
			if columns == nil {
				return unknownOutputs(result)
			}
			for _, v := range columns {
				add(v.name, v.column, true)
			}
			if len(result.columns) > maxColumns {
				break
			}
			continue
		}
		name := target.GetName()
		if name == "" && len(fields) > 0 {
			name = fields[len(fields)-1]
		}
		if col, at := frame.find(fields); fields != nil && col != nil {
			add(name, col, at == frame)
		} else {
			add(name, &tiedColumn{}, false)
		}
	}
	return result
}

// unknownOutputs: behind a star that is not understood no position is known, so
// neither is any column.
func unknownOutputs(r *tiedResult) *tiedResult {
	return &tiedResult{split: r.split, columns: []tiedOutput{{}}}
}

// setOperation joins the results of two queries.
func (t *tier) setOperation(s *pgquery.SelectStmt, outer *tiedFrame, ctes *tiedCTEs) (*tiedResult, error) {
	if len(s.LockingClause) > 0 {
		return nil, errUntied
	}
	ctes, err := t.with(s.WithClause, outer, ctes)
	if err != nil {
		return nil, err
	}
	left, err := t.query(s.Larg, outer, ctes)
	if err != nil {
		return nil, err
	}
	right, err := t.query(s.Rarg, outer, ctes)
	if err != nil {
		return nil, err
	}
	if err := t.sublinks([]*pgquery.Node{s.LimitCount, s.LimitOffset}, blind(outer), ctes); err != nil {
		return nil, err
	}
	if left.split != right.split || len(left.columns) != len(right.columns) {
		return nil, errUntied
	}
	both := &tiedResult{split: left.split}
	keyed := false
	for i, l := range left.columns {
		r := right.columns[i]
		out := tiedOutput{name: l.name}
		if l.class == r.class {
			out.class, out.key, out.weak = l.class, l.key && r.key, l.weak && r.weak
		}
		keyed = keyed || out.key
		both.columns = append(both.columns, out)
	}
	if !both.split {
		return both, nil
	}
	if !keyed && !(s.Op == pgquery.SetOperation_SETOP_UNION && s.All) {
		return nil, errUntied
	}
	return both, t.checkOrder(s)
}

// checkSplit refuses what a query inside another one may not do with rows of
// several nodes.
func (t *tier) checkSplit(s *pgquery.SelectStmt, frame *tiedFrame, result *tiedResult) error {
	if err := checkWindows(s, frame.anyKey); err != nil {
		return err
	}
	if t.aggregated(s) {
		keyed := false
		for _, n := range s.GroupClause {
			if n.GetGroupingSet() != nil {
				return &NotCombined{What: "GROUPING SETS, ROLLUP or CUBE in a subquery or WITH"}
			}
			keyed = keyed || frame.isKey(groupedBy(n, s, frame))
		}
		if !keyed {
			return &NotCombined{What: "an aggregate or GROUP BY without the shard key in a subquery or WITH", Why: "Each node sees only its own rows.",
				Hint: "Put the shard key into its GROUP BY, or hold the shard key to one value."}
		}
	}
	if isDistinct(s) {
		distinct := slices.ContainsFunc(result.columns, func(out tiedOutput) bool { return out.key })
		if s.DistinctClause[0].GetNode() != nil {
			distinct = slices.ContainsFunc(s.DistinctClause, func(n *pgquery.Node) bool { return frame.isKey(distinctBy(n, s)) })
		}
		if !distinct {
			return &NotCombined{What: "DISTINCT without the shard key in a subquery or WITH", Why: "Rows that are compared may be on several nodes.",
				Hint: "Put the shard key into DISTINCT, or hold the shard key to one value."}
		}
	}
	return t.checkOrder(s)
}

// checkOrder is about the clauses that a set operation has too.
func (t *tier) checkOrder(s *pgquery.SelectStmt) error {
	if s.LimitCount != nil || s.LimitOffset != nil {
		return &NotCombined{What: "LIMIT or OFFSET in a subquery or WITH", Why: "The rows that it takes may be on any node.",
			Hint: "Write LIMIT at the end of the statement, or hold the shard key to one value."}
	}
	t.sorted = t.sorted || len(s.SortClause) > 0
	return nil
}

// groupedBy is the expression of an item of GROUP BY: a bare name is a column of
// FROM before it is an output column, a number is a position. nil when that
// cannot be told.
func groupedBy(n *pgquery.Node, s *pgquery.SelectStmt, frame *tiedFrame) *pgquery.Node {
	if n.GetAConst() != nil {
		return positioned(n, s)
	}
	if fields := reference(n); len(fields) == 1 && !frame.vague && len(named(frame.visible, fields[0])) == 0 {
		return aliased(fields[0], s)
	}
	return n
}

// distinctBy is the expression of an item of DISTINCT ON, where an output
// column's name comes first. nil when that cannot be told.
func distinctBy(n *pgquery.Node, s *pgquery.SelectStmt) *pgquery.Node {
	if n.GetAConst() != nil {
		return positioned(n, s)
	}
	fields := reference(n)
	if len(fields) != 1 {
		return n
	}
	for _, target := range s.TargetList {
		value := target.GetResTarget().GetVal()
		names := reference(value)
		switch {
		case target.GetResTarget().GetName() == fields[0]:
			return value
		case target.GetResTarget().GetName() != "", isStar(value):
		case names == nil: // Postgres gives it a name
			return nil
		case names[len(names)-1] == fields[0]:
			return value
		}
	}
	return n
}

// positioned is an output column by its position, nil behind a star.
func positioned(n *pgquery.Node, s *pgquery.SelectStmt) *pgquery.Node {
	position := n.GetAConst().GetIval()
	if position == nil {
		return nil
	}
	for i, target := range s.TargetList {
		if isStar(target.GetResTarget().GetVal()) {
			return nil
		}
		if i+1 == int(position.Ival) {
			return target.GetResTarget().GetVal()
		}
	}
	return nil
}

// aliased is the output column with a name by AS, nil for none.
func aliased(name string, s *pgquery.SelectStmt) *pgquery.Node {
	for _, target := range s.TargetList {
		if target.GetResTarget().GetName() == name {
			return target.GetResTarget().GetVal()
		}
	}
	return nil
}

// sublinks looks at the subqueries in expressions of a level.
func (t *tier) sublinks(list []*pgquery.Node, frame *tiedFrame, ctes *tiedCTEs) error {
	var failed error
	for _, n := range list {
		visit(n, func(n *pgquery.Node) bool {
			link := n.GetSubLink()
			if link == nil || failed != nil {
				return failed == nil
			}
			if err := t.sublinks([]*pgquery.Node{link.Testexpr}, frame, ctes); err != nil {
				failed = err
				return false
			}
			result, err := t.query(link.Subselect.GetSelectStmt(), frame, ctes)
			if err != nil || result.split && !frame.inKeys(link, result) {
				failed = errUntied
			}
			return false
		})
	}
	return failed
}

// inKeys: key IN (SELECT key ...). Rows of other nodes have no such key, and
// none of them is NULL, which would make a difference to NOT IN.
func (f *tiedFrame) inKeys(link *pgquery.SubLink, result *tiedResult) bool {
	fields := reference(link.Testexpr)
	if link.SubLinkType != pgquery.SubLinkType_ANY_SUBLINK || len(link.OperName) > 0 && !isEquals(link.OperName) || fields == nil {
		return false
	}
	col, frame := f.find(fields)
	if col == nil || len(result.columns) != 1 {
		return false
	}
	key, _ := f.strength(col, frame)
	return key && result.columns[0].key && col.class == result.columns[0].class
}
