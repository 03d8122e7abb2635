package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Lists of values that stand where a table could: (VALUES ('a', 1), ('b', 2))
// AS v(id, amount) in FROM, and id IN (VALUES ('a'), ('b')). A column that must
// equal one of a list's is held to the list's values.

// lists are the columns of a VALUES list in FROM whose values are all known, by
// their names; nil if it is no such list.
func (c *collector) lists(sub *pgquery.RangeSubselect) map[string][]Value {
	s := sub.Subquery.GetSelectStmt()
	if s == nil || !isPlainValues(s) {
		return nil
	}
	names := stringList(sub.Alias.GetColnames())
	var lists map[string][]Value
	for i := range s.ValuesLists[0].GetList().GetItems() {
		values := c.listColumn(s, i)
		if values == nil {
			continue
		}
		if lists == nil {
			lists = map[string][]Value{}
		}
		name := "column" + itoa(int32(i+1))
		if i < len(names) {
			name = names[i]
		}
		if _, double := lists[name]; double {
			return nil
		}
		lists[name] = values
	}
	return lists
}

// listColumn is the i-th column of a VALUES list, nil if one of its values
// cannot be known.
func (c *collector) listColumn(s *pgquery.SelectStmt, i int) []Value {
	values := make([]Value, 0, len(s.ValuesLists))
	for _, row := range s.ValuesLists {
		items := row.GetList().GetItems()
		if i >= len(items) {
			return nil
		}
		v := c.value(items[i])
		if v.Kind == ValueOther || v.Kind == ValueDefault {
			return nil
		}
		v.Listed = true
		values = append(values, v)
	}
	return values
}

// listed records that a column equals a column of a list, if ref is one.
func (c *collector) listed(col column, ref *pgquery.ColumnRef, r restriction) {
	if !r.limits(col) {
		return
	}
	if values := r.scope.list(stringList(ref.Fields)); values != nil {
		table, candidates := col.index()
		c.facts.Conditions = append(c.facts.Conditions, Condition{Table: table, Candidates: candidates, Column: col.name, Values: values})
	}
}

// list finds the column of a VALUES list that a qualified name means, nil if it
// means none.
func (s *scope) list(fields []string) []Value {
	if len(fields) != 2 {
		return nil
	}
	for ; s != nil; s = s.parent {
		var found *relation
		for _, r := range s.rels {
			if r.hidden || r.name != fields[0] {
				continue
			}
			if found != nil {
				return nil
			}
			found = r
		}
		if found != nil {
			return found.lists[fields[1]]
		}
	}
	return nil
}

// inValues: column IN (VALUES (a), (b)).
func (c *collector) inValues(sub *pgquery.SubLink, r restriction) []Condition {
	s := sub.Subselect.GetSelectStmt()
	if sub.SubLinkType != pgquery.SubLinkType_ANY_SUBLINK || s == nil || !isPlainValues(s) ||
		len(sub.OperName) > 0 && !isEquals(sub.OperName) || sub.Testexpr.GetColumnRef() == nil {
		return nil
	}
	return c.condition(sub.Testexpr, c.listColumn(s, 0), r)
}

// columnsOf says where the columns of an INSERT's query come from; nil when
// they cannot be counted.
func (c *collector) columnsOf(list []*pgquery.Node, s *scope) []SourceColumn {
	var columns []SourceColumn
	for _, n := range list {
		target := n.GetResTarget().GetVal()
		ref := target.GetColumnRef()
		if ref == nil {
			columns = append(columns, SourceColumn{Value: c.value(target), Table: -1})
			continue
		}
		if endsInStar(ref) {
			rel := s.starred(stringList(ref.Fields))
			if rel == nil {
				return nil
			}
			columns = append(columns, SourceColumn{Table: rel.table, Star: true})
			continue
		}
		column := SourceColumn{Table: -1}
		if col, ok := s.resolve(ref); ok {
			column.Table, column.Candidates = col.index()
			column.Column = col.name
		}
		columns = append(columns, column)
	}
	return columns
}

func endsInStar(ref *pgquery.ColumnRef) bool {
	return len(ref.Fields) > 0 && ref.Fields[len(ref.Fields)-1].GetAStar() != nil
}

// starred is the one table that * or t.* stands for, nil if it is not a table,
// or not the only one.
func (s *scope) starred(names []string) *relation {
	var found *relation
	for _, r := range s.rels {
		if len(names) == 0 || len(names) == 1 && !r.hidden && r.name == names[0] {
			if found != nil {
				return nil
			}
			found = r
		}
	}
	if found == nil || found.table < 0 || found.opaque || found.shadowAll || len(found.shadowed) > 0 {
		return nil
	}
	return found
}

// conflict reads ON CONFLICT's target and action.
func conflict(on *pgquery.OnConflictClause) *Conflict {
	result := &Conflict{Update: on.Action == pgquery.OnConflictAction_ONCONFLICT_UPDATE}
	if on.Infer == nil {
		return result
	}
	result.Constraint = on.Infer.Conname
	for _, n := range on.Infer.IndexElems {
		if name := n.GetIndexElem().GetName(); name != "" {
			result.Columns = append(result.Columns, name)
		} else {
			result.Expressions = true
		}
	}
	return result
}
