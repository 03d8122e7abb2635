package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// tiedItem is a part of a FROM: a relation, or what an outer join makes of two.
type tiedItem struct {
	split bool
	// key and weak are its columns that are keys; a key is among both.
	key, weak map[*tiedColumn]bool
}

func newTiedItem(split bool) *tiedItem {
	return &tiedItem{split: split, key: map[*tiedColumn]bool{}, weak: map[*tiedColumn]bool{}}
}

func (item *tiedItem) add(key, weak map[*tiedColumn]bool) {
	for col := range key {
		item.key[col], item.weak[col] = true, true
	}
	for col := range weak {
		item.weak[col] = true
	}
}

// equality are two columns that are equal in every row that matters, both of
// one class.
type equality [2]*tiedColumn

// equalities reads the conjuncts of a condition that say that two columns are
// equal. outer collects the columns of the levels around that are weak keys of
// the row for which all this is computed; nil leaves those levels out.
func (t *tier) equalities(n *pgquery.Node, f *tiedFrame, outer map[*tiedColumn]bool) []equality {
	if b := n.GetBoolExpr(); b != nil && b.Boolop == pgquery.BoolExprType_AND_EXPR {
		var all []equality
		for _, arg := range b.Args {
			all = append(all, t.equalities(arg, f, outer)...)
		}
		return all
	}
	e := n.GetAExpr()
	if e == nil || e.Kind != pgquery.A_Expr_Kind_AEXPR_OP || !isEquals(e.Name) {
		return nil
	}
	lefts, rights := e.Lexpr.GetRowExpr().GetArgs(), e.Rexpr.GetRowExpr().GetArgs()
	if len(lefts) == 0 || len(lefts) != len(rights) {
		lefts, rights = []*pgquery.Node{e.Lexpr}, []*pgquery.Node{e.Rexpr}
	}
	var all []equality
	for i := range lefts {
		l, r := t.operand(lefts[i], f, outer), t.operand(rights[i], f, outer)
		if l != nil && r != nil && l.class != 0 && l.class == r.class {
			all = append(all, equality{l, r})
		}
	}
	return all
}

func (t *tier) operand(n *pgquery.Node, f *tiedFrame, outer map[*tiedColumn]bool) *tiedColumn {
	fields := reference(n)
	if fields == nil || isStar(n) {
		return nil
	}
	col, frame := f.find(fields)
	if col == nil || frame == f {
		return col
	}
	if outer == nil {
		return nil
	}
	if _, weak := f.parent.strength(col, frame); weak {
		outer[col] = true
	}
	return col
}

// classes are the columns that equalities make one.
type classes map[*tiedColumn]*tiedColumn

func (c classes) root(col *tiedColumn) *tiedColumn {
	for c[col] != nil && c[col] != col {
		col = c[col]
	}
	return col
}

func makeClasses(equal []equality) classes {
	c := classes{}
	for _, e := range equal {
		l, r := c.root(e[0]), c.root(e[1])
		c[l], c[r] = r, r
	}
	return c
}

// tie joins items by equalities that hold in every row of the whole. ok is false
// unless all rows that meet are of one node. A result that is not split is the
// same on every node, or, if an item was split, bound to the row around.
func tie(items []*tiedItem, equal []equality, outer map[*tiedColumn]bool) (whole *tiedItem, ok bool) {
	c := makeClasses(equal)
	// Items that share a class have keys that are equal. The row around is the
	// last of them.
	around := len(items)
	group := make([]int, len(items)+1)
	for i := range group {
		group[i] = i
	}
	owner := map[*tiedColumn]int{}
	claim := func(i int, col *tiedColumn) {
		first, taken := owner[c.root(col)]
		if !taken {
			owner[c.root(col)] = i
			return
		}
		from, to := group[i], group[first]
		for j := range group {
			if group[j] == from {
				group[j] = to
			}
		}
	}
	for i, item := range items {
		for col := range item.weak {
			claim(i, col)
		}
	}
	for col := range outer {
		claim(around, col)
	}
	home := -1 // the group of what is split
	for i, item := range items {
		switch {
		case !item.split:
		case home < 0:
			home = group[i]
		case home != group[i]:
			return nil, false
		}
	}
	whole = newTiedItem(home >= 0 && home != group[around])
	for _, item := range items {
		whole.add(item.key, item.weak)
	}
	if home < 0 {
		home = group[around]
	}
	// What equals a key is one, and not NULL.
	for col := range c {
		if i, ok := owner[c.root(col)]; ok && group[i] == home {
			whole.add(map[*tiedColumn]bool{col: true}, nil)
		}
	}
	return whole, true
}

// outerJoin is what an outer join makes of its sides. The equalities hold for
// the rows that find a partner; a row that finds none on its own node finds none
// at all.
func outerJoin(kind pgquery.JoinType, left, right *tiedItem, equal []equality) (whole *tiedItem, ok bool) {
	whole = newTiedItem(left.split || right.split)
	keepsLeft := kind == pgquery.JoinType_JOIN_LEFT || kind == pgquery.JoinType_JOIN_FULL
	keepsRight := kind == pgquery.JoinType_JOIN_RIGHT || kind == pgquery.JoinType_JOIN_FULL
	if !keepsLeft && !keepsRight {
		return nil, false
	}
	switch {
	case left.split && right.split:
		if _, ok := tie([]*tiedItem{left, right}, equal, nil); !ok {
			return nil, false
		}
	case left.split && keepsRight, right.split && keepsLeft:
		return nil, false // whether a row of what is everywhere has no partner, no node knows
	}
	if !keepsRight {
		whole.add(left.key, nil)
	}
	if !keepsLeft {
		whole.add(right.key, nil)
	}
	whole.add(nil, left.weak)
	whole.add(nil, right.weak)
	return whole, true
}
