package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// tiedSource is a FROM, or a part of one: items that are joined by equalities,
// so far only collected, because those in WHERE count as well.
type tiedSource struct {
	relations []*tiedRelation
	visible   []tiedName
	vague     bool
	items     []*tiedItem
	equal     []equality
}

func (s *tiedSource) append(other *tiedSource) {
	s.relations = append(s.relations, other.relations...)
	s.visible = append(s.visible, other.visible...)
	s.vague = s.vague || other.vague
	s.items = append(s.items, other.items...)
	s.equal = append(s.equal, other.equal...)
}

func sourceOf(rel *tiedRelation, item *tiedItem) *tiedSource {
	return &tiedSource{relations: []*tiedRelation{rel}, visible: rel.columns, vague: rel.vague, items: []*tiedItem{item}}
}

// tiedFrom reads one FROM.
type tiedFrom struct {
	*tier
	outer *tiedFrame
	ctes  *tiedCTEs
	// left is what a LATERAL item sees. Its keys are of rows that are all on one
	// node in the end, or the query is refused. They are weak: an outer join may
	// have made them NULL.
	left *tiedFrame
}

func (t *tier) from(list []*pgquery.Node, outer *tiedFrame, ctes *tiedCTEs) (*tiedSource, error) {
	f := &tiedFrom{tier: t, outer: outer, ctes: ctes, left: &tiedFrame{parent: blind(outer), weak: map[*tiedColumn]bool{}}}
	all := &tiedSource{}
	for _, n := range list {
		s, err := f.item(n)
		if err != nil {
			return nil, err
		}
		all.append(s)
	}
	return all, nil
}

func (f *tiedFrom) item(n *pgquery.Node) (*tiedSource, error) {
	if n.GetJoinExpr() != nil {
		return f.join(n.GetJoinExpr())
	}
	rel, item, err := f.relation(n)
	if err != nil {
		return nil, err
	}
	f.left.relations = append(f.left.relations, rel)
	f.left.visible = append(f.left.visible, rel.columns...)
	f.left.vague = f.left.vague || rel.vague
	for col := range item.weak {
		f.left.weak[col] = true
	}
	return sourceOf(rel, item), nil
}

func (f *tiedFrom) relation(n *pgquery.Node) (*tiedRelation, *tiedItem, error) {
	switch n := n.GetNode().(type) {
	case *pgquery.Node_RangeVar:
		return f.table(n.RangeVar)
	case *pgquery.Node_RangeSubselect:
		sub := n.RangeSubselect
		around := blind(f.outer)
		if sub.Lateral {
			around = f.left
		}
		result, err := f.query(sub.Subquery.GetSelectStmt(), around, f.ctes)
		if err != nil {
			return nil, nil, err
		}
		rel, item := result.relation(sub.Alias.GetAliasname(), stringList(sub.Alias.GetColnames()))
		return rel, item, nil
	case *pgquery.Node_RangeFunction:
		rel := &tiedRelation{name: functionAlias(n.RangeFunction), vague: true}
		return rel, newTiedItem(false), f.sublinks(n.RangeFunction.Functions, f.left, f.ctes)
	}
	return nil, nil, errUntied
}

// table is a table or a reference to a CTE.
func (f *tiedFrom) table(r *pgquery.RangeVar) (*tiedRelation, *tiedItem, error) {
	name, names := r.Relname, stringList(r.Alias.GetColnames())
	if r.Alias != nil {
		name = r.Alias.Aliasname
	}
	if r.Schemaname == "" {
		if result := f.ctes.find(r.Relname); result != nil {
			rel, item := result.relation(name, names)
			return rel, item, nil
		}
	}
	table := f.lookup.Table(r.Schemaname, r.Relname)
	if table == nil {
		return nil, nil, errUntied
	}
	result := &tiedResult{split: !table.Everywhere}
	for _, c := range table.Columns {
		key := !table.Everywhere && c.Name == table.Key && c.Class != 0
		result.columns = append(result.columns, tiedOutput{
			name: c.Name, class: c.Class, key: key, weak: key, origin: &tiedOrigin{r.Schemaname, r.Relname, c.Name},
		})
	}
	rel, item := result.relation(name, names)
	return rel, item, nil
}

func (f *tiedFrom) join(j *pgquery.JoinExpr) (*tiedSource, error) {
	if j.IsNatural || j.Alias != nil || j.JoinUsingAlias != nil {
		return nil, errUntied
	}
	left, err := f.item(j.Larg)
	if err != nil {
		return nil, err
	}
	right, err := f.item(j.Rarg)
	if err != nil {
		return nil, err
	}
	both := &tiedSource{}
	both.append(left)
	both.append(right)
	both.equal = nil
	// ON sees its two sides; no keys, for they are not joined yet.
	on := &tiedFrame{parent: f.outer, relations: both.relations, visible: both.visible, vague: both.vague, split: true}
	if err := f.sublinks([]*pgquery.Node{j.Quals}, on, f.ctes); err != nil {
		return nil, err
	}
	equal := f.equalities(j.Quals, on, nil)
	if names := stringList(j.UsingClause); len(names) > 0 {
		merged, pairs, ok := using(j.Jointype, names, left, right)
		if !ok {
			return nil, errUntied
		}
		both.visible, equal = merged, pairs
	}
	if j.Jointype == pgquery.JoinType_JOIN_INNER {
		both.equal = append(append(left.equal, right.equal...), equal...)
		return both, nil
	}
	l, ok1 := tie(left.items, left.equal, nil)
	r, ok2 := tie(right.items, right.equal, nil)
	if !ok1 || !ok2 {
		return nil, errUntied
	}
	whole, ok := outerJoin(j.Jointype, l, r, equal)
	if !ok {
		return nil, errUntied
	}
	both.items = []*tiedItem{whole}
	return both, nil
}

// using is what JOIN ... USING makes visible: the merged columns first, then the
// others of both sides.
func using(kind pgquery.JoinType, names []string, left, right *tiedSource) (visible []tiedName, equal []equality, ok bool) {
	merged := map[string]bool{}
	for _, name := range names {
		l, r := named(left.visible, name), named(right.visible, name)
		if len(l) != 1 || len(r) != 1 {
			return nil, nil, false
		}
		if l[0].class != 0 && l[0].class == r[0].class {
			equal = append(equal, equality{l[0], r[0]})
		}
		col := &tiedColumn{} // of a FULL JOIN, computed of both
		switch kind {
		case pgquery.JoinType_JOIN_INNER, pgquery.JoinType_JOIN_LEFT:
			col = l[0]
		case pgquery.JoinType_JOIN_RIGHT:
			col = r[0]
		}
		merged[name] = true
		visible = append(visible, tiedName{name, col})
	}
	for _, side := range [][]tiedName{left.visible, right.visible} {
		for _, v := range side {
			if !merged[v.name] {
				visible = append(visible, v)
			}
		}
	}
	return visible, equal, true
}
