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

// onlyCall returns the FunctionCall that s is, nil if it is anything else.
func (c *collector) onlyCall(s *pgquery.SelectStmt) *FunctionCall {
	if s.Op != pgquery.SetOperation_SETOP_NONE || len(s.TargetList) != 1 || len(s.FromClause) > 0 || s.WhereClause != nil ||
		s.WithClause != nil || s.IntoClause != nil || len(s.GroupClause) > 0 || s.HavingClause != nil ||
		len(s.DistinctClause) > 0 || len(s.SortClause) > 0 || s.LimitCount != nil || s.LimitOffset != nil ||
		len(s.LockingClause) > 0 || len(s.WindowClause) > 0 {
		return nil
	}
	target := s.TargetList[0].GetResTarget()
	f := target.GetVal().GetFuncCall()
	if f == nil || f.Over != nil || f.AggFilter != nil || f.AggStar || f.AggDistinct || f.FuncVariadic || len(f.AggOrder) > 0 {
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
