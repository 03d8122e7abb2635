package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// query visits a SELECT, VALUES or set operation. at is the enclosing place:
// its scope is what correlated references may reach.
func (c *collector) query(s *pgquery.SelectStmt, at place) {
	f := c.facts
	at.env = c.with(s.WithClause, at)
	f.OrderBy = f.OrderBy || len(s.SortClause) > 0
	f.Limit = f.Limit || s.LimitCount != nil || s.LimitOffset != nil
	f.Locking = f.Locking || len(s.LockingClause) > 0
	f.GroupBy = f.GroupBy || len(s.GroupClause) > 0
	f.Having = f.Having || s.HavingClause != nil
	f.Distinct = f.Distinct || len(s.DistinctClause) > 0
	f.Window = f.Window || len(s.WindowClause) > 0
	c.locks(s.LockingClause)
	c.chooses(at, s.LimitCount != nil || s.LimitOffset != nil || len(s.WindowClause) > 0 ||
		len(s.DistinctClause) > 0 && s.DistinctClause[0].GetNode() != nil)

	// Each arm of a set operation is a level of its own: what limits one says
	// nothing about the other.
	if s.Op != pgquery.SetOperation_SETOP_NONE && s.Larg != nil {
		f.SetOperation = true
		arm := at
		arm.level = at.inside(false)
		c.query(s.Larg, arm)
		c.query(s.Rarg, arm)
		// ORDER BY of a set operation sees output columns only.
		at.scope = &scope{parent: at.scope}
		c.tail(s, at)
		return
	}

	at.scope = &scope{parent: at.scope}
	if s.IntoClause != nil {
		c.into(s.IntoClause, at)
	}
	c.from(s.FromClause, at)
	f.Join = f.Join || len(at.scope.rels) > 1
	c.where(s.WhereClause, at)
	if s == c.source {
		c.sourceColumns = c.columnsOf(s.TargetList, at.scope)
	}
	// From here on nothing limits rows; HAVING limits groups.
	c.nodes(s.TargetList, at)
	c.nodes(s.DistinctClause, at)
	c.nodes(s.GroupClause, at)
	c.node(s.HavingClause, at)
	c.nodes(s.WindowClause, at)
	c.nodes(s.ValuesLists, at)
	c.tail(s, at)
}

// chooses files what makes a query take rows by their order.
func (c *collector) chooses(at place, does bool) {
	c.facts.Chooses = c.facts.Chooses || does
	c.facts.ChoosesInside = c.facts.ChoosesInside || does && at.level != LevelTop
}

// locks files the locking clauses.
func (c *collector) locks(clauses []*pgquery.Node) {
	for _, n := range clauses {
		clause := n.GetLockingClause()
		lock := RowLock{
			Share: clause.GetStrength() == pgquery.LockClauseStrength_LCS_FORSHARE || clause.GetStrength() == pgquery.LockClauseStrength_LCS_FORKEYSHARE,
			Waits: clause.GetWaitPolicy() == pgquery.LockWaitPolicy_LockWaitBlock,
		}
		for _, r := range clause.GetLockedRels() {
			lock.Of = append(lock.Of, r.GetRangeVar().GetRelname())
		}
		c.facts.Locks = append(c.facts.Locks, lock)
	}
}

func (c *collector) tail(s *pgquery.SelectStmt, at place) {
	c.nodes(s.SortClause, at)
	c.node(s.LimitCount, at)
	c.node(s.LimitOffset, at)
}

// where takes the conditions out of a WHERE and visits it.
func (c *collector) where(clause *pgquery.Node, at place) {
	c.restrict(clause, restriction{scope: at.scope, limited: tables(at.scope.rels)})
	c.node(clause, at)
}

// subquery visits a query in an expression or in FROM.
func (c *collector) subquery(n *pgquery.Node, at place) {
	c.facts.Subquery = true
	c.node(n, at)
}

// with visits a WITH clause and returns the environment of the statement that
// has it. A CTE sees those before it, with RECURSIVE all.
func (c *collector) with(w *pgquery.WithClause, at place) *environment {
	if w == nil {
		return at.env
	}
	c.facts.CTE = true
	env := &environment{parent: at.env}
	if w.Recursive {
		for _, n := range w.Ctes {
			env.names = append(env.names, n.GetCommonTableExpr().GetCtename())
		}
	}
	for _, n := range w.Ctes {
		cte := n.GetCommonTableExpr()
		if cte == nil {
			continue
		}
		c.node(cte.Ctequery, place{scope: at.scope, env: env, level: at.inside(false)})
		// SEARCH and CYCLE name columns of the CTE itself and hold constants.
		if cte.CycleClause != nil {
			c.children(cte.CycleClause.ProtoReflect(), at)
		}
		if !w.Recursive {
			// A fresh link: the body above keeps the shorter list.
			env = &environment{parent: env, names: []string{cte.Ctename}}
		}
	}
	return env
}

// from fills at.scope from a FROM list. Items see those before them only
// through LATERAL.
func (c *collector) from(items []*pgquery.Node, at place) {
	for _, n := range items {
		c.fromItem(n, at)
	}
}

// fromItem appends what one FROM item brings into scope.
func (c *collector) fromItem(n *pgquery.Node, at place) {
	s := at.scope
	switch n := n.GetNode().(type) {
	case *pgquery.Node_RangeVar:
		s.rels = append(s.rels, c.relation(n.RangeVar, at))
	case *pgquery.Node_RangeSubselect:
		sub := n.RangeSubselect
		// Without LATERAL a subquery does not see its neighbours, but it does
		// see the query around all of them.
		outer := s.parent
		if sub.Lateral {
			outer = s.soFar()
		}
		c.subquery(sub.Subquery, place{scope: outer, env: at.env, level: at.inside(sub.Lateral)})
		s.rels = append(s.rels, &relation{table: -1, name: sub.Alias.GetAliasname(), lists: c.lists(sub)})
	case *pgquery.Node_JoinExpr:
		c.join(n.JoinExpr, at)
	case *pgquery.Node_RangeTableSample:
		sample := n.RangeTableSample
		c.fromItem(sample.Relation, at)
		schema, name := qualified(sample.Method)
		c.functionName(schema, name)
		c.nodes(sample.Args, at)
		c.node(sample.Repeatable, at)
	case *pgquery.Node_RangeFunction:
		c.nodes(n.RangeFunction.Functions, place{scope: s.soFar(), env: at.env, level: at.level})
		c.nodes(n.RangeFunction.Coldeflist, at)
		s.rels = append(s.rels, &relation{table: -1, name: functionAlias(n.RangeFunction)})
	case *pgquery.Node_RangeTableFunc: // XMLTABLE
		c.children(n.RangeTableFunc.ProtoReflect(), place{scope: s.soFar(), env: at.env})
		s.rels = append(s.rels, &relation{table: -1, name: n.RangeTableFunc.Alias.GetAliasname()})
	case *pgquery.Node_JsonTable:
		c.children(n.JsonTable.ProtoReflect(), place{scope: s.soFar(), env: at.env})
		s.rels = append(s.rels, &relation{table: -1, name: n.JsonTable.Alias.GetAliasname()})
	default:
		// Nothing the grammar has today. Unnamed, it may own any column, and it
		// makes a join of the query.
		c.node(&pgquery.Node{Node: n}, at)
		s.rels = append(s.rels, &relation{table: -1})
	}
}

// soFar is the scope a LATERAL item sees: what stands left of it. It is a
// level of its own, since nothing in the item limits the rows on its left.
func (s *scope) soFar() *scope {
	return &scope{parent: s.parent, rels: s.rels[:len(s.rels):len(s.rels)]}
}

// functionAlias is the name a function in FROM goes by.
func functionAlias(f *pgquery.RangeFunction) string {
	if f.Alias != nil {
		return f.Alias.Aliasname
	}
	for _, n := range f.Functions {
		if items := n.GetList().GetItems(); len(items) > 0 {
			if call := items[0].GetFuncCall(); call != nil {
				_, name := qualified(call.Funcname)
				return name
			}
		}
	}
	return ""
}

// relation is a table or a reference to a CTE. A CTE hides a table of its name,
// but not from a name with a schema.
func (c *collector) relation(r *pgquery.RangeVar, at place) *relation {
	rel := &relation{table: -1, name: r.Relname}
	if r.Schemaname != "" || !at.env.has(r.Relname) {
		rel.table = c.table(r)
		c.facts.Tables[rel.table].Level = at.level
		rel.schema = r.Schemaname
	}
	if r.Alias != nil {
		rel.name, rel.schema = r.Alias.Aliasname, ""
		rel.opaque = len(r.Alias.Colnames) > 0
	}
	return rel
}

// join visits a JOIN. What its condition limits depends on which sides keep
// rows without a partner: an inner join limits both, LEFT only the right side,
// RIGHT only the left, FULL neither.
func (c *collector) join(j *pgquery.JoinExpr, at place) {
	c.facts.Join = true
	s := at.scope
	start := len(s.rels)
	c.fromItem(j.Larg, at)
	middle := len(s.rels)
	c.fromItem(j.Rarg, at)
	left, right := s.rels[start:middle:middle], s.rels[middle:len(s.rels):len(s.rels)]
	both := s.rels[start:len(s.rels):len(s.rels)]

	// ON sees the two sides only, and correlated references.
	on := restriction{scope: &scope{parent: s.parent, rels: both}}
	switch j.Jointype {
	case pgquery.JoinType_JOIN_INNER:
		on.limited = tables(both)
	case pgquery.JoinType_JOIN_LEFT:
		on.limited, on.drivers = tables(right), tables(left)
	case pgquery.JoinType_JOIN_RIGHT:
		on.limited, on.drivers = tables(left), tables(right)
	}
	c.restrict(j.Quals, on)
	c.node(j.Quals, place{scope: on.scope, env: at.env, level: at.level})
	switch j.Jointype {
	case pgquery.JoinType_JOIN_LEFT:
		c.nullable(right)
	case pgquery.JoinType_JOIN_RIGHT:
		c.nullable(left)
	case pgquery.JoinType_JOIN_FULL:
		c.nullable(both)
	}
	c.using(j, left, right, on)

	if j.JoinUsingAlias != nil {
		s.rels = append(s.rels, &relation{table: -1, name: j.JoinUsingAlias.Aliasname})
	}
	if j.Alias != nil {
		rename(both, j.Alias)
		s.rels = append(s.rels, &relation{table: -1, name: j.Alias.Aliasname})
	}
}

func (c *collector) nullable(rels []*relation) {
	for _, i := range tables(rels) {
		c.facts.Tables[i].Nullable = true
	}
}

// using records the pairs of JOIN ... USING and who owns the merged columns:
// the side that always has a row. A FULL JOIN's merged column has no owner.
// NATURAL merges columns only the catalog knows.
func (c *collector) using(j *pgquery.JoinExpr, left, right []*relation, on restriction) {
	names := stringList(j.UsingClause)
	for _, name := range names {
		l, okLeft := unqualifiedIn(left, name)
		r, okRight := unqualifiedIn(right, name)
		if okLeft && okRight {
			c.pair(l, r, on)
		}
	}
	var merged []*relation
	switch j.Jointype {
	case pgquery.JoinType_JOIN_INNER:
		if !j.IsNatural { // of equal columns either side may stand for both
			merged = right
		}
	case pgquery.JoinType_JOIN_LEFT:
		merged = right
	case pgquery.JoinType_JOIN_RIGHT:
		merged = left
	default:
		merged = on.scope.rels
	}
	for _, r := range merged {
		r.shadowed = append(r.shadowed, names...)
		r.shadowAll = r.shadowAll || j.IsNatural
	}
}
