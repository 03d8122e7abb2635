package sqlparse

import (
	"fmt"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// merge makes a combination whose rows come out of the nodes as the client gets
// them: each node sorts its own, and what the nodes' order cannot be seen from
// is added behind the client's columns.
func (c *combiner) merge(params int) error {
	q := clone(c.query)
	for i, n := range q.SortClause {
		item := n.GetSortBy()
		if len(item.UseOp) > 0 {
			return &NotCombined{What: "ORDER BY ... USING", Hint: "Use ASC or DESC."}
		}
		key := SortKey{Desc: item.SortbyDir == pgquery.SortByDir_SORTBY_DESC}
		key.NullsFirst = key.Desc
		switch item.SortbyNulls {
		case pgquery.SortByNulls_SORTBY_NULLS_FIRST:
			key.NullsFirst = true
		case pgquery.SortByNulls_SORTBY_NULLS_LAST:
			key.NullsFirst = false
		}
		column, value, err := c.sorted(item.Node)
		if err != nil {
			return err
		}
		key.Text = c.order(value)
		if column >= 0 && c.outline.Direct[column] {
			key.Column = column
		} else {
			// The node sorts by what it sends, under a name of ours.
			name := fmt.Sprintf("pgpact_sort_%d", i+1)
			q.TargetList = append(q.TargetList, target(name, value))
			if column >= 0 {
				c.out.Duplicated = true
			} else {
				item.Node = columnNode(name)
			}
			key.Column = len(c.outline.Names) + c.out.Hidden
			c.out.Hidden++
		}
		c.out.Sort = append(c.out.Sort, key)
	}
	if c.out.Limit != nil {
		c.out.LimitParam = params + 1
		q.LimitCount = pgquery.MakeParamRefNode(int32(c.out.LimitParam), 0)
		if !c.out.Ties {
			q.LimitOption = pgquery.LimitOption_LIMIT_OPTION_COUNT
		}
	} else {
		q.LimitCount, q.LimitOption = nil, pgquery.LimitOption_LIMIT_OPTION_DEFAULT
	}
	q.LimitOffset = nil
	var err error
	c.out.Node, err = c.deparse(q)
	return err
}

// sorted finds what an item of ORDER BY sorts by: an output column, by its
// position or its name, or an expression (column -1). Postgres has accepted the
// statement: a name that several columns have stands for equal ones.
func (c *combiner) sorted(n *pgquery.Node) (column int, value *pgquery.Node, err error) {
	if position := n.GetAConst().GetIval(); position != nil {
		column = int(position.Ival) - 1
	} else {
		column = c.output(n)
	}
	if column < 0 {
		return -1, n, nil
	}
	if column >= len(c.outline.Names) {
		return 0, nil, &NotCombined{What: "this ORDER BY"}
	}
	value, err = c.target(column + 1)
	if err != nil {
		// It comes out of a star, so it is the column of that name.
		name := c.outline.Names[column]
		for i, other := range c.outline.Names {
			if i != column && other == name {
				return 0, nil, err
			}
		}
		if target := c.named(name); target != nil {
			return column, target, nil
		}
		value = columnNode(name)
	}
	return column, value, nil
}

// output is the output column that a bare name in ORDER BY stands for, -1 if
// none.
func (c *combiner) output(n *pgquery.Node) int {
	fields := reference(n)
	if len(fields) != 1 || fields[0] == "*" {
		return -1
	}
	for i, name := range c.outline.Names {
		if name == fields[0] {
			return i
		}
	}
	return -1
}
