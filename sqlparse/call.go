package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// FunctionCall is a SELECT of nothing but one call of a schema-qualified function with
// plain arguments: SELECT s.f('x', $1) AS name. A proxy may answer such a
// function itself.
type FunctionCall struct {
	Function
	Column string // the name of the result's column
	Args   []Value
}

// SettingCall is one call of set_config, or of current_setting, in a SELECT of
// nothing but such calls.
type SettingCall struct {
	Function
	Column string // the name of the result's column
	Set    bool   // set_config; otherwise current_setting
	Name   Value
	Value  Value // of set_config
	// Flag is the last argument: is_local of set_config, missing_ok of
	// current_setting (ValueNull when it is left out). The keywords true and
	// false are told by On instead, Flag being ValueOther then.
	Flag Value
	On   bool
}

// bare tells whether s is a SELECT of a list and nothing else.
func bare(s *pgquery.SelectStmt) bool {
	return s.Op == pgquery.SetOperation_SETOP_NONE && len(s.FromClause) == 0 && s.WhereClause == nil &&
		s.WithClause == nil && s.IntoClause == nil && len(s.GroupClause) == 0 && s.HavingClause == nil &&
		len(s.DistinctClause) == 0 && len(s.SortClause) == 0 && s.LimitCount == nil && s.LimitOffset == nil &&
		len(s.LockingClause) == 0 && len(s.WindowClause) == 0
}

// plainCall is the call that a target is, nil if it is anything else.
func plainCall(target *pgquery.ResTarget) *pgquery.FuncCall {
	f := target.GetVal().GetFuncCall()
	if f == nil || f.Over != nil || f.AggFilter != nil || f.AggStar || f.AggDistinct || f.FuncVariadic || len(f.AggOrder) > 0 {
		return nil
	}
	return f
}

// onlyCall returns the FunctionCall that s is, nil if it is anything else.
func (c *collector) onlyCall(s *pgquery.SelectStmt) *FunctionCall {
	if len(s.TargetList) != 1 || !bare(s) {
		return nil
	}
	target := s.TargetList[0].GetResTarget()
	f := plainCall(target)
	if f == nil {
		return nil
	}
	schema, name := qualified(f.Funcname)
	if schema == "" || schema == "pg_catalog" {
		return nil
	}
	call := &FunctionCall{Function: Function{Schema: schema, Name: name}, Column: name}
	if target.Name != "" {
		call.Column = target.Name
	}
	for _, arg := range f.Args {
		call.Args = append(call.Args, c.value(arg))
	}
	return call
}

// settingCalls returns the calls that s consists of, nil if there is anything
// else in it, or an argument that is neither a constant nor a parameter.
func (c *collector) settingCalls(s *pgquery.SelectStmt) []SettingCall {
	if len(s.TargetList) == 0 || !bare(s) {
		return nil
	}
	var calls []SettingCall
	for _, n := range s.TargetList {
		target := n.GetResTarget()
		f := plainCall(target)
		if f == nil {
			return nil
		}
		schema, name := qualified(f.Funcname)
		call := SettingCall{Function: Function{Schema: schema, Name: name}, Column: name, Set: name == "set_config"}
		if schema != "" && schema != "pg_catalog" || !call.Set && name != "current_setting" || !c.settingArguments(&call, f.Args) {
			return nil
		}
		if target.Name != "" {
			call.Column = target.Name
		}
		calls = append(calls, call)
	}
	return calls
}

// settingArguments reads the arguments of a call; false if they are not plain.
func (c *collector) settingArguments(call *SettingCall, args []*pgquery.Node) bool {
	least, most := 1, 2
	if call.Set {
		least, most = 3, 3
	}
	if len(args) < least || len(args) > most {
		return false
	}
	call.Name, call.Flag = c.value(args[0]), Value{Kind: ValueNull}
	if !plainText(call.Name) {
		return false
	}
	if call.Set {
		if call.Value = c.value(args[1]); !plainText(call.Value) {
			return false
		}
	}
	if len(args) < most {
		return true
	}
	last := args[most-1]
	if keyword := last.GetTypeCast(); keyword != nil && keyword.Arg.GetAConst() != nil {
		if _, name, _ := castName(keyword.TypeName); name == "bool" {
			last = keyword.Arg // the grammar makes true of 't'::pg_catalog.bool
		}
	}
	if k, ok := last.GetAConst().GetVal().(*pgquery.A_Const_Boolval); ok {
		call.Flag, call.On = Value{}, k.Boolval.GetBoolval()
		return true
	}
	call.Flag = c.value(args[most-1])
	return call.Flag.Kind != ValueOther && call.Flag.Kind != ValueDefault && !call.Flag.Numeric && (call.Flag.Cast == "" || call.Flag.Cast == "bool")
}

// plainText tells whether v is a text constant, a parameter or NULL.
func plainText(v Value) bool {
	return v.Kind != ValueOther && v.Kind != ValueDefault && !v.Numeric && (v.Cast == "" || v.Cast == "text" || v.Cast == "varchar")
}

// castName is the type of a cast by its catalog name.
func castName(t *pgquery.TypeName) (schema, name string, dimensions int) {
	schema, name = qualified(t.GetNames())
	return schema, name, len(t.GetArrayBounds())
}
