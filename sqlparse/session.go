package sqlparse

import (
	"math"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// session reads the statements about the session: settings, prepared
// statements, cursors, locks and messages.
func (c *collector) session(n *pgquery.Node) bool {
	f := c.facts
	switch s := n.GetNode().(type) {
	case *pgquery.Node_VariableSetStmt:
		c.set(s.VariableSetStmt)
	case *pgquery.Node_VariableShowStmt:
		f.Kind, f.Returns = Show, true
		f.Setting = &Setting{Name: strings.ToLower(s.VariableShowStmt.Name)}
		f.Setting.All = f.Setting.Name == "all"
	case *pgquery.Node_ConstraintsSetStmt:
		f.Kind = SetConstraints
		f.Setting = &Setting{Deferred: s.ConstraintsSetStmt.Deferred, All: len(s.ConstraintsSetStmt.Constraints) == 0}
		for _, r := range s.ConstraintsSetStmt.Constraints {
			f.Setting.Constraints = append(f.Setting.Constraints, r.GetRangeVar().GetRelname())
		}
	case *pgquery.Node_DiscardStmt:
		f.Kind = Discard
		f.Object = strings.TrimPrefix(s.DiscardStmt.Target.String(), "DISCARD_")
	case *pgquery.Node_ExecuteStmt:
		// What it returns depends on the prepared statement: rows may come.
		f.Kind, f.Prepared, f.Returns = Execute, s.ExecuteStmt.Name, true
		for _, p := range s.ExecuteStmt.Params {
			f.ExecuteArgs = append(f.ExecuteArgs, c.value(p))
		}
		c.nodes(s.ExecuteStmt.Params, place{})
	case *pgquery.Node_DeallocateStmt:
		f.Kind, f.Prepared, f.All = Deallocate, s.DeallocateStmt.Name, s.DeallocateStmt.Isall
	case *pgquery.Node_FetchStmt:
		c.fetch(s.FetchStmt)
	case *pgquery.Node_ClosePortalStmt:
		f.Kind, f.Prepared = CloseCursor, s.ClosePortalStmt.Portalname
		f.All = f.Prepared == ""
	case *pgquery.Node_LockStmt:
		f.Kind = Lock
		c.nodes(s.LockStmt.Relations, place{})
	case *pgquery.Node_ListenStmt:
		f.Kind, f.Prepared = Listen, s.ListenStmt.Conditionname
	case *pgquery.Node_NotifyStmt:
		f.Kind, f.Prepared = Notify, s.NotifyStmt.Conditionname
	case *pgquery.Node_UnlistenStmt:
		f.Kind, f.Prepared = Unlisten, s.UnlistenStmt.Conditionname
		f.All = f.Prepared == ""
	case *pgquery.Node_DoStmt:
		f.Kind = Do
	case *pgquery.Node_CallStmt:
		// Whether a procedure has output arguments only the catalog knows.
		f.Kind, f.Returns = Call, true
		c.children(n.ProtoReflect(), place{})
	case *pgquery.Node_CheckPointStmt:
		f.Kind = Checkpoint
	case *pgquery.Node_LoadStmt:
		f.Kind = Load
	default:
		return false
	}
	return true
}

// set reads SET and RESET in all their forms.
func (c *collector) set(s *pgquery.VariableSetStmt) {
	f := c.facts
	f.Kind = Set
	// Names of settings are looked up without regard to case, quoted or not.
	st := &Setting{Name: strings.ToLower(s.Name), Local: s.IsLocal}
	f.Setting = st
	switch s.Kind {
	case pgquery.VariableSetKind_VAR_SET_VALUE:
		for _, a := range s.Args {
			st.Value = append(st.Value, c.settingArgument(a))
		}
		st.ValueText = c.settingText()
	case pgquery.VariableSetKind_VAR_SET_DEFAULT:
		st.Default = true
		st.ValueText = c.settingText()
	case pgquery.VariableSetKind_VAR_SET_CURRENT:
		st.Current = true
	// SET TRANSACTION and SET SESSION CHARACTERISTICS are several settings at
	// once; their names are fixed words in upper case.
	case pgquery.VariableSetKind_VAR_SET_MULTI:
		f.Transaction = &TransactionControl{}
		f.Transaction.modes(s.Args)
		st.Transaction = !strings.HasPrefix(s.Name, "SESSION")
		st.Characteristics = !st.Transaction
		if s.Name == "TRANSACTION SNAPSHOT" && len(s.Args) > 0 {
			f.Transaction.Snapshot = constantText(s.Args[0])
		}
	case pgquery.VariableSetKind_VAR_RESET:
		f.Kind = Reset
	case pgquery.VariableSetKind_VAR_RESET_ALL:
		f.Kind, st.All = Reset, true
	}
}

// settingArgument: numbers keep their spelling, fractions too.
func (c *collector) settingArgument(n *pgquery.Node) Value {
	if t := n.GetTypeCast(); t != nil { // SET TIME ZONE INTERVAL '...' HOUR TO MINUTE
		name, _ := typeName(t.TypeName)
		v := c.settingArgument(t.Arg)
		v.Cast = name
		return v
	}
	k := n.GetAConst()
	if k == nil {
		return Value{}
	}
	_, text := k.Val.(*pgquery.A_Const_Sval)
	return c.literal(constantText(n), k.Location, !text)
}

func typeName(t *pgquery.TypeName) (name string, dimensions int) {
	_, name = qualified(t.GetNames())
	return name, len(t.GetArrayBounds())
}

// settingText is the value as the client spelled it, to be sent on to any node:
// putting it together again from the tree would have to quote it anew.
func (c *collector) settingText() string {
	start, end := cut(c.text, settingValue)
	return c.text[start:end]
}

func (c *collector) fetch(s *pgquery.FetchStmt) {
	f := c.facts
	f.Kind, f.Prepared, f.Returns = Fetch, s.Portalname, true
	if s.Ismove {
		f.Kind, f.Returns = Move, false
	}
	f.Direction = map[pgquery.FetchDirection]string{
		pgquery.FetchDirection_FETCH_FORWARD:  "forward",
		pgquery.FetchDirection_FETCH_BACKWARD: "backward",
		pgquery.FetchDirection_FETCH_ABSOLUTE: "absolute",
		pgquery.FetchDirection_FETCH_RELATIVE: "relative",
	}[s.Direction]
	// FETCH_ALL is LONG_MAX in C, whatever a long is there.
	if f.Count = s.HowMany; s.HowMany >= math.MaxInt32 {
		f.Count = FetchAll
	}
}
