package sqlparse

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// collector gathers the facts of one statement while walking its tree. Every
// node is visited: kinds of nodes that have no case of their own are descended
// into by reflection, so that a relation, a function or a parameter cannot hide
// in a corner of the grammar that nobody thought of.
type collector struct {
	src   string // the whole text; locations in the tree are offsets into it
	text  string // the statement's own
	facts *Facts
	own   proto.Message // the statement's own INSERT, UPDATE, DELETE or MERGE

	// source is the query of an INSERT ... SELECT, sourceColumns its columns.
	source        *pgquery.SelectStmt
	sourceColumns []SourceColumn

	literals []literal
	// constants holds the location of every constant seen as a plain constant
	// node. The cache needs all of a text's constant tokens to be among them.
	constants []int32
}

// literal is a constant that a Value refers to.
type literal struct {
	text     string
	location int32 // of its token, or of the minus sign folded into it
}

// texts returns what becomes Statement.Literals.
func (c *collector) texts() []string {
	if len(c.literals) == 0 {
		return nil
	}
	texts := make([]string, len(c.literals))
	for i, l := range c.literals {
		texts[i] = l.text
	}
	return texts
}

// environment is the chain of CTE names visible at a place.
type environment struct {
	parent *environment
	names  []string
}

func (e *environment) has(name string) bool {
	for ; e != nil; e = e.parent {
		for _, n := range e.names {
			if n == name {
				return true
			}
		}
	}
	return false
}

// place is where the walk is: which columns and which CTEs can be named.
type place struct {
	scope *scope
	env   *environment
	level Level // of the relations in FROM here
}

// inside is the level of a query within another: per row, or not.
func (at place) inside(perRow bool) Level {
	switch {
	case at.level != LevelTop:
		return at.level
	case perRow:
		return LevelPerRow
	}
	return LevelOther
}

func (c *collector) nodes(list []*pgquery.Node, at place) {
	for _, n := range list {
		c.node(n, at)
	}
}

// node visits an expression or anything else that can stand in a tree.
func (c *collector) node(node *pgquery.Node, at place) {
	if node == nil {
		return
	}
	switch n := node.Node.(type) {
	case nil:
	// The kinds that ordinary statements are made of. Columns are read where a
	// condition is taken apart; visited by themselves they say nothing.
	case *pgquery.Node_ColumnRef, *pgquery.Node_String_, *pgquery.Node_Integer, *pgquery.Node_AStar:
	case *pgquery.Node_AConst:
		c.constants = append(c.constants, n.AConst.Location)
	case *pgquery.Node_ParamRef:
		c.facts.Params = max(c.facts.Params, int(n.ParamRef.Number))
	case *pgquery.Node_AExpr:
		c.node(n.AExpr.Lexpr, at)
		c.node(n.AExpr.Rexpr, at)
	case *pgquery.Node_BoolExpr:
		c.nodes(n.BoolExpr.Args, at)
	case *pgquery.Node_List:
		c.nodes(n.List.Items, at)
	case *pgquery.Node_ResTarget:
		c.nodes(n.ResTarget.Indirection, at)
		c.node(n.ResTarget.Val, at)
	case *pgquery.Node_TypeCast:
		c.node(n.TypeCast.Arg, at)
		c.nodes(n.TypeCast.TypeName.GetTypmods(), at)
	case *pgquery.Node_FuncCall:
		c.function(n.FuncCall, at)
	case *pgquery.Node_SubLink:
		c.facts.Subquery = true
		c.node(n.SubLink.Testexpr, at)
		c.subquery(n.SubLink.Subselect, place{scope: at.scope, env: at.env, level: at.inside(true)})
	case *pgquery.Node_SelectStmt:
		c.query(n.SelectStmt, at)
	case *pgquery.Node_InsertStmt:
		c.insert(n.InsertStmt, at)
	case *pgquery.Node_UpdateStmt:
		c.update(n.UpdateStmt, at)
	case *pgquery.Node_DeleteStmt:
		c.delete(n.DeleteStmt, at)
	case *pgquery.Node_MergeStmt:
		c.merge(n.MergeStmt, at)
	case *pgquery.Node_SqlvalueFunction:
		op := strings.TrimPrefix(n.SqlvalueFunction.Op.String(), "SVFOP_")
		c.facts.SessionValue = strings.TrimSuffix(op, "_N")
	case *pgquery.Node_RangeVar:
		c.table(n.RangeVar)
	case *pgquery.Node_CurrentOfExpr:
		c.facts.CurrentOf = n.CurrentOfExpr.CursorName
	default:
		c.children(node.ProtoReflect(), at)
	}
}

// children visits everything inside m.
func (c *collector) children(m protoreflect.Message, at place) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Kind() != protoreflect.MessageKind {
			return true
		}
		if field.IsList() {
			list := value.List()
			for i := range list.Len() {
				c.message(list.Get(i).Message(), at)
			}
			return true
		}
		c.message(value.Message(), at)
		return true
	})
}

// message visits a message that reflection came across.
func (c *collector) message(m protoreflect.Message, at place) {
	switch m := m.Interface().(type) {
	case *pgquery.Node:
		c.node(m, at)
	case *pgquery.SelectStmt:
		c.query(m, at)
	case *pgquery.RangeVar:
		c.table(m)
	case *pgquery.FuncCall:
		c.function(m, at)
	case *pgquery.IntoClause:
		c.into(m, at)
	default:
		c.children(m.ProtoReflect(), at)
	}
}

// table records a mention of a relation and returns its index.
func (c *collector) table(r *pgquery.RangeVar) int {
	if r.Relpersistence == "t" || isTempSchema(r.Schemaname) {
		c.facts.Temp = true
	}
	if r.Relpersistence == "u" {
		c.facts.Unlogged = true
	}
	c.facts.Tables = append(c.facts.Tables, Table{
		Schema: r.Schemaname,
		Name:   r.Relname,
		Alias:  r.Alias.GetAliasname(),
	})
	return len(c.facts.Tables) - 1
}

// isTempSchema: pg_temp, pg_temp_3, pg_toast_temp_3.
func isTempSchema(schema string) bool {
	return strings.HasPrefix(schema, "pg_temp") || strings.HasPrefix(schema, "pg_toast_temp")
}

// function records a call. What the grammar itself turns into a call (EXTRACT,
// AT TIME ZONE, POSITION, ...) is a built-in that writes nothing, and left out.
func (c *collector) function(f *pgquery.FuncCall, at place) {
	if f.Funcformat != pgquery.CoercionForm_COERCE_SQL_SYNTAX {
		schema, name := qualified(f.Funcname)
		if isTempSchema(schema) {
			c.facts.Temp = true
		}
		c.functionName(schema, name)
	}
	if f.Over != nil {
		c.facts.Window = true
		c.chooses(at, true)
		c.children(f.Over.ProtoReflect(), at)
	}
	c.nodes(f.Args, at)
	c.nodes(f.AggOrder, at)
	c.node(f.AggFilter, at)
}

// functionName files each function once, however often it is called.
func (c *collector) functionName(schema, name string) {
	f := Function{Schema: schema, Name: name}
	if !slices.Contains(c.facts.Functions, f) {
		c.facts.Functions = append(c.facts.Functions, f)
	}
}

// into visits SELECT INTO and CREATE TABLE AS's target.
func (c *collector) into(i *pgquery.IntoClause, at place) {
	c.facts.Writes = true
	c.facts.Tables[c.table(i.Rel)].Target = true
	c.nodes(i.Options, at)
}

// qualified splits a possibly qualified name into schema and name. A database
// in front is dropped: it can only be the current one.
func qualified(names []*pgquery.Node) (schema, name string) {
	parts := stringList(names)
	switch len(parts) {
	case 0:
		return "", ""
	case 1:
		return "", parts[0]
	}
	return parts[len(parts)-2], parts[len(parts)-1]
}

// stringList returns the strings of a list of String nodes.
func stringList(list []*pgquery.Node) []string {
	var out []string
	for _, n := range list {
		if s := n.GetString_(); s != nil {
			out = append(out, s.Sval)
		}
	}
	return out
}
