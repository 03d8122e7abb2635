package sqlparse

import (
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// value says what an expression is worth without evaluating anything.
func (c *collector) value(n *pgquery.Node) Value {
	switch n := n.GetNode().(type) {
	case *pgquery.Node_AConst:
		return c.constant(n.AConst)
	case *pgquery.Node_ParamRef:
		if n.ParamRef.Number > 0 {
			return Value{Kind: ValueParam, Param: int(n.ParamRef.Number)}
		}
	case *pgquery.Node_SetToDefault:
		return Value{Kind: ValueDefault}
	case *pgquery.Node_TypeCast:
		name, dimensions, ok := castType(n.TypeCast.TypeName)
		if _, nested := n.TypeCast.Arg.GetNode().(*pgquery.Node_TypeCast); !ok || nested || dimensions > 0 {
			break
		}
		// A cast of NULL or of a parameter stays what it is: the type tells
		// which spelling the parameter has.
		v := c.value(n.TypeCast.Arg)
		if v.Kind == ValueOther || v.Kind == ValueDefault {
			break
		}
		v.Cast = name
		return v
	}
	return Value{}
}

// constant makes a ValueLiteral of a string or a plain decimal integer. Every
// other constant (1.5, 1e3, 0x10, 1_000, true, B'1') is ValueOther: as a key it
// has no single spelling, and servers older than 16 read some of them
// differently. What is decided here must follow from the token's class as
// scan.go tells classes apart, never from its value.
func (c *collector) constant(k *pgquery.A_Const) Value {
	if k.Isnull {
		return Value{Kind: ValueNull}
	}
	switch v := k.Val.(type) {
	case *pgquery.A_Const_Sval:
		return c.literal(v.Sval.GetSval(), k.Location, false)
	case *pgquery.A_Const_Ival:
		if c.plainInteger(k.Location) {
			return c.literal(strconv.Itoa(int(v.Ival.GetIval())), k.Location, true)
		}
	case *pgquery.A_Const_Fval: // an integer too large for int4 among them
		digits, negative := strings.CutPrefix(v.Fval.GetFval(), "-")
		if c.plainInteger(k.Location) && isDigits(digits) {
			return c.literal(decimal(digits, negative), k.Location, true)
		}
	}
	return Value{}
}

func (c *collector) literal(text string, location int32, numeric bool) Value {
	c.literals = append(c.literals, literal{text: text, location: location})
	return Value{Kind: ValueLiteral, Literal: len(c.literals) - 1, Numeric: numeric}
}

// plainInteger reports whether the token at location is decimal digits and no
// more. The grammar puts the location of a negative constant at its sign.
func (c *collector) plainInteger(location int32) bool {
	if location < 0 || int(location) >= len(c.src) {
		return false
	}
	sc := scanner{text: c.src, pos: int(location)}
	for sc.space() && (sc.at('-') || sc.at('(')) {
		sc.pos++
	}
	if !sc.digits() {
		return false
	}
	return sc.pos == len(c.src) || !isIdentifierByte(c.src[sc.pos]) && c.src[sc.pos] != '.'
}

// decimal is the canonical spelling of an integer's digits.
func decimal(digits string, negative bool) string {
	digits = strings.TrimLeft(digits, "0")
	if digits == "" {
		return "0"
	}
	if negative {
		return "-" + digits
	}
	return digits
}

func isDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// castType names the type of a cast by its catalog name; the grammar has
// already turned aliases such as bigint into pg_catalog.int8.
func castType(t *pgquery.TypeName) (name string, dimensions int, ok bool) {
	parts := stringList(t.GetNames())
	// varchar(3) cuts its value, and %TYPE depends on the catalog.
	if len(t.GetTypmods()) > 0 || t.GetSetof() || t.GetPctType() {
		return "", 0, false
	}
	switch {
	case len(parts) == 1:
		return parts[0], len(t.ArrayBounds), true
	case len(parts) == 2 && parts[0] == "pg_catalog":
		return parts[1], len(t.ArrayBounds), true
	}
	return "", 0, false
}

// array returns the values of = ANY (n): one Value with Array for a whole
// array, one per element for ARRAY[...]; nil when it cannot be known.
func (c *collector) array(n *pgquery.Node) []Value {
	cast := ""
	if t := n.GetTypeCast(); t != nil {
		name, dimensions, ok := castType(t.TypeName)
		if !ok || dimensions != 1 {
			return nil
		}
		n, cast = t.Arg, name
	}
	switch e := n.GetNode().(type) {
	case *pgquery.Node_AArrayExpr:
		values := c.values(e.AArrayExpr.Elements)
		for i := range values {
			// One cast after the other: the first may already have changed it.
			if cast != "" && values[i].Cast != "" {
				return nil
			}
			values[i].Cast += cast
		}
		return values
	case *pgquery.Node_ParamRef:
		if e.ParamRef.Number > 0 {
			return []Value{{Kind: ValueParam, Param: int(e.ParamRef.Number), Cast: cast, Array: true}}
		}
	case *pgquery.Node_AConst:
		if v := c.constant(e.AConst); v.Kind == ValueLiteral && !v.Numeric {
			v.Cast, v.Array = cast, true
			return []Value{v}
		}
	}
	return nil
}
