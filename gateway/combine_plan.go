package gateway

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/sqlparse"
)

// combining is what is known of a SELECT whose answer is made of several nodes'
// rows, when it is routed.
type combining struct {
	catalog  *Catalog
	session  *routeSession
	mentions []sqlparse.Table
	tables   []*Table // of the mentions, nil for what has no rows of its own
	// together: rows of the result with equal shard keys of this table come from
	// one node.
	together []bool
	// tied is what is known instead of a SELECT with CTEs or subqueries of rows
	// of several nodes, nil for any other.
	tied *sqlparse.Tied
	// needed: the nodes' rows cannot just be put one after the other.
	needed   bool
	volatile bool // a function in it may give another value each time
}

// combinePlan is how a SELECT's answer is made: what each node is asked, and
// what is done with the rows. Sessions share plans; they are immutable.
type combinePlan struct {
	split   *sqlparse.Combination
	params  []uint32 // types of the node statement's parameters
	key     string   // in the cache
	columns []uint32 // types of the columns that a node returns
	visible int      // columns that the client gets
	keys    []mergeKey
	locking bool // rows may be returned in another order than they were sorted in

	final       string // of an aggregated combination
	finalParams []uint32
	types       []uint32 // of the partial results
}

// maxPlannedText is the longest text, in bytes, whose plan is kept.
const maxPlannedText = 8 << 10

// planPrefix stands in front of a statement's key to make its plan's.
const planPrefix = "combine "

// mergeKey is a column that rows are merged by.
type mergeKey struct {
	column           int
	oid              uint32
	desc, nullsFirst bool
}

// planCombination makes x.plan, asking a node what the columns are if it has
// not been asked before. Whatever cannot be combined is refused here, before
// anything is run.
func (s *session) planCombination(x *execution, r *route) error {
	if s.state != idle {
		if err := s.enlistAll(r); err != nil { // so that no other node is asked
			return err
		}
	}
	st := s.combinedStatement(x)
	x.combined = st
	if st.key == "" {
		s.giveKey(st)
	}
	if err := s.describeStatement(st); err != nil {
		return err
	}
	if err := s.settlePendingParse(st); err != nil {
		return err
	}
	key := planPrefix + st.key
	if plan, ok := s.gw.plans.Get(key); ok {
		x.plan = plan
		return nil
	}
	plan, err := s.makePlan(st, r.combine)
	if err != nil {
		return notCombined(err, r.combine)
	}
	plan.key, plan.split = key, plan.split.Lasting()
	if len(st.sql) <= maxPlannedText {
		s.gw.plans.Add(key, plan)
	}
	x.plan = plan
	return nil
}

// combinedStatement is the client's statement as one that can be described,
// whichever protocol it came by.
func (s *session) combinedStatement(x *execution) *statement {
	if x.st.Kind == sqlparse.Explain || x.st.Kind == sqlparse.DeclareCursor {
		inner := &statement{sql: x.st.Inner.SQL, parsed: x.st.Inner}
		if x.portal != nil {
			inner.oids = x.portal.statement.oids
		}
		return inner
	}
	if x.portal != nil {
		return x.portal.statement
	}
	return &statement{sql: x.sql, parsed: x.st}
}

// settlePendingParse answers the client's Parse, which a node has just read.
func (s *session) settlePendingParse(st *statement) error {
	if s.pending.parse == st {
		return s.settleParse()
	}
	return nil
}

func (s *session) makePlan(st *statement, c *combining) (*combinePlan, error) {
	d := st.description
	plan := &combinePlan{visible: len(d.fields), params: slices.Clone(d.params), locking: st.parsed.Locking}
	outline := &sqlparse.Outline{}
	for i := range d.fields {
		outline.Names = append(outline.Names, string(d.fields[i].Name))
		outline.Direct = append(outline.Direct, isDirect(d.fields[i].DataTypeOID))
	}
	var err error
	if plan.split, err = sqlparse.Combine(st.sql, len(d.params), outline, c.lookup()); err != nil {
		return nil, err
	}
	if plan.split.LimitParam > 0 {
		plan.params = append(plan.params, oidInt8)
	}
	if plan.split.Duplicated && c.volatile {
		return nil, &sqlparse.NotCombined{What: "ORDER BY with a volatile function", Why: "Its value would be computed twice."}
	}
	nodes := d
	if plan.split.Hidden > 0 || plan.split.Aggregated {
		if nodes, err = s.describeSplit(st, plan); err != nil {
			return nil, err
		}
	}
	for i := range nodes.fields {
		plan.columns = append(plan.columns, nodes.fields[i].DataTypeOID)
	}
	if plan.split.Aggregated {
		return plan, s.finishPlan(st, plan, nodes, c)
	}
	for _, key := range plan.split.Sort {
		field := &nodes.fields[key.Column]
		oid := field.DataTypeOID
		if comparison(oid, true) == nil {
			return nil, &sqlparse.NotCombined{What: "ORDER BY of type " + typeName(oid), Why: "The gateway does not know the type's order."}
		}
		if isCollatable(oid) && !c.bytewise(key.Text) {
			return nil, &sqlparse.NotCombined{What: "ORDER BY of text", Why: "The gateway knows the order of bytes only, not that of other collations.",
				Hint: `Write ORDER BY ... COLLATE "C".`}
		}
		plan.keys = append(plan.keys, mergeKey{column: key.Column, oid: oid, desc: key.Desc, nullsFirst: key.NullsFirst})
	}
	return plan, nil
}

// describeSplit has a node read the statement that all nodes will run.
func (s *session) describeSplit(st *statement, plan *combinePlan) (*description, error) {
	d, err := s.ask1(&statement{sql: plan.split.Node, parsed: st.parsed, oids: plan.params})
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(refused.Code, "42") {
		// The client's own statement is right: a name is not what it seems to be.
		return nil, &sqlparse.NotCombined{What: "this statement", Why: "Rewritten for each node it is not accepted: " + refused.Message + ".",
			Hint: "Qualify the columns in ORDER BY and GROUP BY."}
	}
	if err != nil {
		return nil, err
	}
	want := plan.visible + plan.split.Hidden
	if plan.split.Aggregated {
		want = len(plan.split.Partials)
	}
	if len(d.fields) != want {
		return nil, &sqlparse.NotCombined{What: "this statement", Why: "A node returns other columns than expected."}
	}
	return d, nil
}

// ask1 describes a statement of ours, without any cache.
func (s *session) ask1(st *statement) (*description, error) {
	b, done, err := s.branchToAsk(st)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.askDescription(b, st)
}

// finishPlan makes the statement that combines partial results, and has a node
// say that its columns are the client's.
func (s *session) finishPlan(st *statement, plan *combinePlan, nodes *description, c *combining) error {
	plan.finalParams = slices.Clone(st.description.params)
	bytewise := make([]bool, len(nodes.fields))
	for i := range nodes.fields {
		oid := nodes.fields[i].DataTypeOID
		array := arrayOf(oid)
		if array == 0 {
			return &sqlparse.NotCombined{What: "combining values of type " + typeName(oid)}
		}
		plan.types = append(plan.types, oid)
		plan.finalParams = append(plan.finalParams, array)
		if isCollatable(oid) {
			var err error
			if bytewise[i], err = c.finalCollation(plan.split.Partials[i].Text); err != nil {
				return err
			}
		}
	}
	var err error
	if plan.final, err = plan.split.Final(plan.types, bytewise); err != nil {
		return err
	}
	final, err := s.ask1(&statement{sql: plan.final, parsed: st.parsed, oids: plan.finalParams})
	if err != nil {
		return err
	}
	told := st.description.fields
	if len(final.fields) != len(told) {
		return &sqlparse.NotCombined{What: "this statement", Why: "Its combined result has other columns."}
	}
	for i := range told {
		if final.fields[i].DataTypeOID != told[i].DataTypeOID {
			return &sqlparse.NotCombined{What: "this statement", Why: "Its combined result has other types."}
		}
	}
	return nil
}

// notCombined words a refusal for the client.
func notCombined(err error, c *combining) error {
	why, ok := errors.AsType[*sqlparse.NotCombined](err)
	if !ok {
		return withoutPosition(err)
	}
	hint := why.Hint
	if hint == "" {
		hint = "Hold the shard key to one value, or combine the rows in the client."
	}
	detail := why.Why
	if detail == "" {
		detail = "The statement is not held to one value of a shard key."
	}
	for i, t := range c.tables {
		if t != nil && c.together[i] && why.Why == "" {
			detail = fill("The statement is not held to one value of the shard key \"%[2]s\" of table %[1]s.", []any{t, t.key().Name})
			break
		}
	}
	return refuse(refusedCombination, why.What, detail, hint)
}
