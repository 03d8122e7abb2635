package sqlparse

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// collect reads the facts of one statement's tree. text is the statement's own
// text, src the one that locations count in.
func collect(n *pgquery.Node, text, src string) *collector {
	c := &collector{src: src, text: text, facts: &Facts{Target: -1}}
	c.statement(n)
	return c
}

// statement decides the kind and visits everything.
func (c *collector) statement(n *pgquery.Node) {
	f := c.facts
	switch s := n.GetNode().(type) {
	case *pgquery.Node_SelectStmt:
		f.Kind, f.Returns = Select, true
		if intoTarget(s.SelectStmt) {
			f.Kind, f.Returns, f.Object = Create, false, "TABLE AS"
		}
		f.Call, f.SettingCalls = c.onlyCall(s.SelectStmt), c.settingCalls(s.SelectStmt)
	case *pgquery.Node_InsertStmt:
		f.Kind, c.own = Insert, s.InsertStmt
	case *pgquery.Node_UpdateStmt:
		f.Kind, c.own = Update, s.UpdateStmt
	case *pgquery.Node_DeleteStmt:
		f.Kind, c.own = Delete, s.DeleteStmt
	case *pgquery.Node_MergeStmt:
		f.Kind, c.own = Merge, s.MergeStmt
	default:
		if !c.control(n) && !c.session(n) && !c.wrapping(n) {
			c.definition(n)
		}
		return
	}
	c.node(n, place{level: LevelTop})
	f.Returns = f.Returns || f.Returning
}

// intoTarget reports SELECT INTO, which in a set operation hides in the first
// arm.
func intoTarget(s *pgquery.SelectStmt) bool {
	for ; s != nil; s = s.Larg {
		if s.IntoClause != nil {
			return true
		}
	}
	return false
}

// control reads transaction control.
func (c *collector) control(n *pgquery.Node) bool {
	s := n.GetTransactionStmt()
	if s == nil {
		return false
	}
	t := &TransactionControl{Chain: s.Chain, Savepoint: s.SavepointName, GID: s.Gid}
	c.facts.Kind = map[pgquery.TransactionStmtKind]Kind{
		pgquery.TransactionStmtKind_TRANS_STMT_BEGIN:             Begin,
		pgquery.TransactionStmtKind_TRANS_STMT_START:             Begin,
		pgquery.TransactionStmtKind_TRANS_STMT_COMMIT:            Commit,
		pgquery.TransactionStmtKind_TRANS_STMT_ROLLBACK:          Rollback,
		pgquery.TransactionStmtKind_TRANS_STMT_SAVEPOINT:         Savepoint,
		pgquery.TransactionStmtKind_TRANS_STMT_RELEASE:           Release,
		pgquery.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:       RollbackTo,
		pgquery.TransactionStmtKind_TRANS_STMT_PREPARE:           PrepareTransaction,
		pgquery.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:   CommitPrepared,
		pgquery.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED: RollbackPrepared,
	}[s.Kind]
	t.Start = s.Kind == pgquery.TransactionStmtKind_TRANS_STMT_START
	t.modes(s.Options)
	c.facts.Transaction = t
	return true
}

// modes reads ISOLATION LEVEL, READ ONLY and DEFERRABLE. Given twice, the last
// one counts, as in Postgres.
func (t *TransactionControl) modes(options []*pgquery.Node) {
	for _, o := range options {
		d := o.GetDefElem()
		text, on := constantText(d.GetArg()), constantText(d.GetArg()) != "0"
		switch d.GetDefname() {
		case "transaction_isolation":
			t.Isolation = text
		case "transaction_read_only":
			t.ReadOnly = &on
		case "transaction_deferrable":
			t.Deferrable = &on
		}
	}
}

// constantText is the text of a constant node, "" for anything else.
func constantText(n *pgquery.Node) string {
	if t := n.GetTypeCast(); t != nil {
		return constantText(t.Arg)
	}
	if k := n.GetAConst(); k != nil {
		switch v := k.Val.(type) {
		case *pgquery.A_Const_Sval:
			return v.Sval.GetSval()
		case *pgquery.A_Const_Ival:
			return itoa(v.Ival.GetIval())
		case *pgquery.A_Const_Fval:
			return v.Fval.GetFval()
		case *pgquery.A_Const_Boolval:
			return map[bool]string{true: "true", false: "false"}[v.Boolval.GetBoolval()]
		}
	}
	switch v := n.GetNode().(type) {
	case *pgquery.Node_String_:
		return v.String_.Sval
	case *pgquery.Node_Integer:
		return itoa(v.Integer.Ival)
	case *pgquery.Node_Float:
		return v.Float.Fval
	case *pgquery.Node_Boolean:
		return map[bool]string{true: "true", false: "false"}[v.Boolean.Boolval]
	case *pgquery.Node_AStar:
		return "*"
	}
	return ""
}

// wrapping reads the statements that carry another one.
func (c *collector) wrapping(n *pgquery.Node) bool {
	f := c.facts
	switch s := n.GetNode().(type) {
	case *pgquery.Node_ExplainStmt:
		f.Kind = Explain
		for _, o := range s.ExplainStmt.Options {
			switch d := o.GetDefElem(); d.GetDefname() {
			case "analyze":
				f.Analyze = isOn(d.Arg)
			case "format":
				f.ExplainFormat = optionText(d.Arg)
			}
		}
		c.inner(s.ExplainStmt.Query, explainBody)
		f.Returns = true
		// Without ANALYZE nothing is run.
		f.Writes, f.Locking = f.Writes && f.Analyze, f.Locking && f.Analyze
	case *pgquery.Node_PrepareStmt:
		f.Kind, f.Prepared = Prepare, s.PrepareStmt.Name
		c.nodes(s.PrepareStmt.Argtypes, place{})
		c.inner(s.PrepareStmt.Query, afterKeyword(pgquery.Token_AS))
		f.Writes, f.Locking = false, false // EXECUTE will
	case *pgquery.Node_DeclareCursorStmt:
		d := s.DeclareCursorStmt
		f.Kind, f.Prepared = DeclareCursor, d.Portalname
		is := func(option int32) bool { return d.Options&option != 0 }
		f.Cursor = Cursor{Hold: is(cursorOptHold), Binary: is(cursorOptBinary), Scroll: is(cursorOptScroll), NoScroll: is(cursorOptNoScroll),
			Insensitive: is(cursorOptInsensitive)}
		c.inner(d.Query, afterKeyword(pgquery.Token_FOR))
	case *pgquery.Node_CopyStmt:
		c.copyData(s.CopyStmt)
	case *pgquery.Node_CreateTableAsStmt:
		f.Kind, f.Object = Create, "TABLE AS"
		if s.CreateTableAsStmt.Objtype == pgquery.ObjectType_OBJECT_MATVIEW {
			f.Object = "MATERIALIZED VIEW"
		}
		c.children(s.CreateTableAsStmt.ProtoReflect(), place{})
	default:
		return false
	}
	return true
}

// The options of cursors, CURSOR_OPT_... of parsenodes.h.
const (
	cursorOptBinary      = 0x0001
	cursorOptScroll      = 0x0002
	cursorOptNoScroll    = 0x0004
	cursorOptInsensitive = 0x0008
	cursorOptHold        = 0x0020
)

// isOn reads a boolean option, which may stand without a value.
func isOn(n *pgquery.Node) bool {
	switch strings.ToLower(constantText(n)) {
	case "0", "false", "off":
		return false
	}
	return true
}

// inner visits the statement another one carries. Its facts are the carrier's
// too, and stand once more in Inner together with its own text. What is the
// carrier's alone (Kind, Returns) is for the caller to set.
func (c *collector) inner(n *pgquery.Node, body span) {
	if n == nil {
		return
	}
	switch s := n.Node.(type) {
	case *pgquery.Node_InsertStmt:
		c.own = s.InsertStmt
	case *pgquery.Node_UpdateStmt:
		c.own = s.UpdateStmt
	case *pgquery.Node_DeleteStmt:
		c.own = s.DeleteStmt
	case *pgquery.Node_MergeStmt:
		c.own = s.MergeStmt
	}
	start, end := cut(c.text, body)
	text := c.text[start:end]
	own := collect(n, text, c.src)
	c.facts.Inner = &Statement{SQL: text, Start: start, Facts: own.facts, Literals: own.texts()}
	c.node(n, place{})
	// The carrier reports the shapes of what it carries, not its rows.
	c.facts.Returning = false
}

func (c *collector) copyData(s *pgquery.CopyStmt) {
	f := c.facts
	f.Kind = CopyData
	cp := &Copy{
		From: s.IsFrom, Program: s.IsProgram, File: s.Filename, Stdio: s.Filename == "" && !s.IsProgram,
		Columns: stringList(s.Attlist), Where: s.WhereClause != nil,
	}
	for _, o := range s.Options {
		d := o.GetDefElem()
		if cp.Options == nil {
			cp.Options = map[string]string{}
		}
		cp.Options[strings.ToLower(d.GetDefname())] = optionText(d.GetArg())
	}
	f.Copy = cp
	if s.Relation != nil {
		f.Target = c.table(s.Relation)
		f.Tables[f.Target].Target = s.IsFrom
		f.Writes = s.IsFrom
	}
	// COPY (UPDATE ... RETURNING) TO writes: inner has visited it and says so.
	if s.Query != nil {
		c.inner(s.Query, parenthesized)
		cp.Query, f.Inner = f.Inner, nil
	}
	c.node(s.WhereClause, place{})
}

// optionText is an option's value, "true" when it has none, a list with commas.
func optionText(n *pgquery.Node) string {
	if n == nil {
		return "true"
	}
	if items := n.GetList().GetItems(); items != nil {
		var parts []string
		for _, item := range items {
			parts = append(parts, constantText(item))
		}
		return strings.Join(parts, ",")
	}
	return constantText(n)
}
