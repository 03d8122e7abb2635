package sqlparse

// ValueKind says where a Value comes from.
type ValueKind uint8

// The kinds of values.
const (
	ValueOther   ValueKind = iota // an expression that only the node can compute
	ValueLiteral                  // a constant in the text: Statement.Text
	ValueParam                    // $n
	ValueNull                     // NULL
	ValueDefault                  // DEFAULT in a VALUES row
)

// Value is one value as the statement gives it: a constant, a parameter, or
// something that cannot be known here.
type Value struct {
	Kind ValueKind
	// Literal is the index into Statement.Literals for ValueLiteral. Facts are
	// shared between statements that differ in their constants only, so the
	// constant itself is never in here.
	Literal int
	// Numeric: the constant is an integer token, its text the plain decimal
	// ("-5", "7"); otherwise a string token.
	Numeric bool
	Param   int // n of $n for ValueParam
	// Cast is the type of an explicit cast around the value, "" for none, by
	// its catalog name: "int2", "int4", "int8", "text", "varchar", "uuid", ...
	// whatever alias the text used. Casts with a modifier (varchar(3)), array
	// casts other than T[] on an Array value, and casts of casts are
	// ValueOther. A cast to another type than the column's may change the value
	// ('ab'::name is cut, 'a '::bpchar loses its space): look before trusting it.
	Cast string
	// Array: the value is a whole array, from = ANY (value). The text of a
	// constant is then to be read with ParseArray.
	Array bool
	// Listed: the value stands in a VALUES list in FROM or IN, where it takes
	// the list's type before it meets the column: the type of a parameter
	// without a cast is not the column's, and a text that is no key is an error
	// of another kind.
	Listed bool
}
