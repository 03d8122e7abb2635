package sqlparse

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// visit calls f for n and every node inside; what f returns false for is not
// entered.
func visit(n *pgquery.Node, f func(*pgquery.Node) bool) {
	if n == nil || n.Node == nil || !f(n) {
		return
	}
	visitMessages(n.ProtoReflect(), f)
}

func visitMessages(m protoreflect.Message, f func(*pgquery.Node) bool) {
	each(m, func(child protoreflect.Message) {
		if n, ok := child.Interface().(*pgquery.Node); ok {
			visit(n, f)
			return
		}
		visitMessages(child, f)
	})
}

// each calls f for every message that is a field of m, or in a list of one.
func each(m protoreflect.Message, f func(protoreflect.Message)) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Kind() != protoreflect.MessageKind:
		case field.IsList():
			for list, i := value.List(), 0; i < list.Len(); i++ {
				f(list.Get(i).Message())
			}
		default:
			f(value.Message())
		}
		return true
	})
}

// rewrite returns a copy of n in which f has replaced what it wants: f returns
// nil for a node that is to be entered. It stops at the first error.
func rewrite(n *pgquery.Node, f func(*pgquery.Node) (*pgquery.Node, error)) (*pgquery.Node, error) {
	if n == nil || n.Node == nil {
		return n, nil
	}
	replaced, err := f(n)
	if err != nil || replaced != nil {
		return replaced, err
	}
	copied := clone(n)
	return copied, rewriteInside(copied.ProtoReflect(), f)
}

func rewriteInside(m protoreflect.Message, f func(*pgquery.Node) (*pgquery.Node, error)) error {
	var failed error
	each(m, func(child protoreflect.Message) {
		if failed != nil {
			return
		}
		n, ok := child.Interface().(*pgquery.Node)
		if !ok {
			failed = rewriteInside(child, f)
			return
		}
		replaced, err := rewrite(n, f)
		if err != nil {
			failed = err
			return
		}
		n.Node = replaced.Node
	})
	return failed
}

func clone[M proto.Message](m M) M { return proto.Clone(m).(M) } //nolint:forcetypeassert // it is the same type

// withoutLocations is a copy of the tree in which nothing tells where in the
// text it stood.
func withoutLocations(n *pgquery.Node) *pgquery.Node {
	copied := clone(n)
	dropLocations(copied.ProtoReflect())
	return copied
}

func dropLocations(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if field.Kind() == protoreflect.Int32Kind && strings.HasSuffix(string(field.Name()), "location") {
			m.Clear(field)
		}
		return true
	})
	each(m, dropLocations)
}

// same is a text that two expressions share exactly if they are written alike.
// With one relation in FROM its name before a column says nothing.
func (c *combiner) same(n *pgquery.Node) string {
	copied := withoutLocations(n)
	if len(c.query.FromClause) == 1 && c.query.FromClause[0].GetRangeVar() != nil {
		visit(copied, func(n *pgquery.Node) bool {
			if ref := n.GetColumnRef(); ref != nil && len(ref.Fields) > 1 && !isStar(n) {
				ref.Fields = ref.Fields[len(ref.Fields)-1:]
			}
			return true
		})
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(copied)
	if err != nil {
		return ""
	}
	return string(text)
}

// textOrder reads what an expression says about its collation.
func textOrder(n *pgquery.Node) TextOrder {
	if clause := n.GetCollateClause(); clause != nil {
		schema, name := qualified(clause.Collname)
		if schema == "" || schema == "pg_catalog" {
			return TextOrder{Collation: name}
		}
		return TextOrder{Mixed: true}
	}
	order := TextOrder{Reference: reference(n)}
	visit(n, func(n *pgquery.Node) bool {
		order.Mixed = order.Mixed || n.GetCollateClause() != nil
		return true
	})
	return order
}

func target(name string, value *pgquery.Node) *pgquery.Node {
	return pgquery.MakeResTargetNodeWithNameAndVal(name, value, 0)
}

func columnNode(parts ...string) *pgquery.Node {
	fields := make([]*pgquery.Node, len(parts))
	for i, part := range parts {
		fields[i] = pgquery.MakeStrNode(part)
	}
	return pgquery.MakeColumnRefNode(fields, 0)
}

// call is a call of one of Postgres's own functions.
func call(name string, args ...*pgquery.Node) *pgquery.FuncCall {
	return &pgquery.FuncCall{
		Funcname: []*pgquery.Node{pgquery.MakeStrNode("pg_catalog"), pgquery.MakeStrNode(name)},
		Args:     args, Funcformat: pgquery.CoercionForm_COERCE_EXPLICIT_CALL,
	}
}

func callNode(f *pgquery.FuncCall) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_FuncCall{FuncCall: f}}
}

func castNode(n *pgquery.Node, typeName string) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_TypeCast{TypeCast: &pgquery.TypeCast{
		Arg: n,
		TypeName: &pgquery.TypeName{
			Names: []*pgquery.Node{pgquery.MakeStrNode("pg_catalog"), pgquery.MakeStrNode(typeName)}, Typemod: -1,
		},
	}}}
}
