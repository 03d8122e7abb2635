package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// target records the relation a statement writes to and returns how column
// names reach it.
func (c *collector) target(r *pgquery.RangeVar) *relation {
	c.facts.Writes = true
	rel := c.relation(r, place{}) // a CTE's name does not hide the target
	c.facts.Tables[rel.table].Target = true
	return rel
}

// change files a Change, and copies the statement's own into its facts.
func (c *collector) change(stmt proto.Message, ch Change, returning bool) {
	f := c.facts
	f.Changes = append(f.Changes, ch)
	if stmt != c.own {
		return
	}
	f.Target = ch.Table
	f.Assigned = ch.Assigned
	f.InsertColumns, f.InsertRows = ch.InsertColumns, ch.InsertRows
	f.InsertSelect, f.DefaultValues, f.OnConflict = ch.InsertSelect, ch.DefaultValues, ch.OnConflict
	f.Returning = returning
}

func (c *collector) insert(s *pgquery.InsertStmt, at place) {
	at.env = c.with(s.WithClause, at)
	rel := c.target(s.Relation)
	ch := Change{Kind: Insert, Table: rel.table}
	// The source cannot name columns of the target.
	at.scope = &scope{parent: at.scope}
	ch.InsertColumns = targetNames(s.Cols)
	c.nodes(s.Cols, at)

	source := s.SelectStmt.GetSelectStmt()
	switch {
	case source == nil:
		ch.DefaultValues = true
	case isPlainValues(source):
		for _, row := range source.ValuesLists {
			items := row.GetList().GetItems()
			values := make([]Value, len(items))
			for i, item := range items {
				values[i] = c.value(item)
			}
			ch.InsertRows = append(ch.InsertRows, values)
		}
		c.nodes(source.ValuesLists, at)
	default:
		ch.InsertSelect = true
		c.source, c.sourceColumns = source, nil
		c.query(source, at)
		ch.Source, c.source, c.sourceColumns = c.sourceColumns, nil, nil
	}

	// From here on the target is in scope: ON CONFLICT sees the row that is
	// there and, as "excluded", the one that could not be inserted. No condition
	// is taken: an INSERT's rows are known by its VALUES.
	at.scope.rels = []*relation{rel}
	if on := s.OnConflictClause; on != nil {
		ch.OnConflict, ch.Conflict = true, conflict(on)
		if on.Infer != nil {
			c.children(on.Infer.ProtoReflect(), at)
		}
		updating := place{env: at.env, scope: &scope{
			parent: at.scope.parent,
			rels:   []*relation{rel, {table: -1, name: "excluded"}},
		}}
		ch.Assigned = targetNames(on.TargetList)
		c.nodes(on.TargetList, updating)
		// Its WHERE does not limit the rows: those that fail it are locked too.
		c.node(on.WhereClause, updating)
	}
	c.nodes(s.ReturningList, at)
	c.change(s, ch, len(s.ReturningList) > 0)
}

// isPlainValues: VALUES rows and nothing that picks among them. With a LIMIT it
// could not be told which of the keys are inserted.
func isPlainValues(s *pgquery.SelectStmt) bool {
	return len(s.ValuesLists) > 0 && s.WithClause == nil && len(s.SortClause) == 0 &&
		s.LimitCount == nil && s.LimitOffset == nil && len(s.LockingClause) == 0
}

func (c *collector) update(s *pgquery.UpdateStmt, at place) {
	at.env = c.with(s.WithClause, at)
	rel := c.target(s.Relation)
	// The target stands in one scope with FROM, joined to it by WHERE as in an
	// inner join: conditions limit all of them alike.
	at.scope = &scope{parent: at.scope, rels: []*relation{rel}}
	c.from(s.FromClause, at)
	c.facts.Join = c.facts.Join || len(s.FromClause) > 0
	c.where(s.WhereClause, at)
	c.nodes(s.TargetList, at)
	c.nodes(s.ReturningList, at)
	c.change(s, Change{Kind: Update, Table: rel.table, Assigned: targetNames(s.TargetList)}, len(s.ReturningList) > 0)
}

func (c *collector) delete(s *pgquery.DeleteStmt, at place) {
	at.env = c.with(s.WithClause, at)
	rel := c.target(s.Relation)
	at.scope = &scope{parent: at.scope, rels: []*relation{rel}}
	c.from(s.UsingClause, at)
	c.facts.Join = c.facts.Join || len(s.UsingClause) > 0
	c.where(s.WhereClause, at)
	c.nodes(s.ReturningList, at)
	c.change(s, Change{Kind: Delete, Table: rel.table}, len(s.ReturningList) > 0)
}

// merge takes no conditions: what MERGE's ON limits depends on its actions. WHEN
// NOT MATCHED inserts for source rows that ON holds to nothing, and WHEN NOT
// MATCHED BY SOURCE reads every row of the target.
func (c *collector) merge(s *pgquery.MergeStmt, at place) {
	at.env = c.with(s.WithClause, at)
	rel := c.target(s.Relation)
	at.scope = &scope{parent: at.scope, rels: []*relation{rel}}
	c.from([]*pgquery.Node{s.SourceRelation}, at)
	c.facts.Join = true
	c.node(s.JoinCondition, at)
	ch := Change{Kind: Merge, Table: rel.table}
	for _, n := range s.MergeWhenClauses {
		w := n.GetMergeWhenClause()
		if w.GetCommandType() == pgquery.CmdType_CMD_UPDATE {
			ch.Assigned = append(ch.Assigned, targetNames(w.TargetList)...)
		}
		c.node(n, at)
	}
	c.nodes(s.ReturningList, at)
	c.change(s, ch, len(s.ReturningList) > 0)
}

// targetNames are the columns a target list assigns, wholly or (SET a.b = 1,
// SET a[1] = 1) in part; nil for none.
func targetNames(list []*pgquery.Node) []string {
	var names []string
	for _, n := range list {
		if t := n.GetResTarget(); t != nil {
			names = append(names, t.Name)
		}
	}
	return names
}
