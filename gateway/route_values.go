package gateway

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/sqlparse"
)

// keyVerdict is what came of reading a value as a key.
type keyVerdict uint8

const (
	keyUnknown keyVerdict = iota // only the node can compute it
	keyIs                        // the text is the key
	keyNull                      // NULL equals no key
	// keyNever: no key, or an error of the node's (a missing operator or cast,
	// bytes that are no value of the type). Any node will do for it.
	keyNever
)

// knowable tells whether a value can be read here at all. A list is judged as a
// whole before one value is read: IN takes the common type of its values, so
// one that is not understood makes all the others doubtful.
func knowable(v *sqlparse.Value) bool {
	switch v.Kind {
	case sqlparse.ValueOther, sqlparse.ValueDefault:
		return false
	case sqlparse.ValueNull:
		return true
	}
	return v.Cast == "" || castOID(v.Cast) != 0
}

// key reads v as a key of column, which is t's. The steps are Postgres's own:
// the value in its own type, the explicit cast if there is one, the column's
// type.
func (e *evaluation) key(t *Table, column *Column, v *sqlparse.Value) (string, keyVerdict, error) {
	var text string
	var oid uint32 // of the value; 0: a constant without a type, which takes the type it meets
	switch {
	case !knowable(v) || v.Array:
		return "", keyUnknown, nil
	case v.Kind == sqlparse.ValueNull:
		return "", keyNull, nil
	case v.Kind == sqlparse.ValueLiteral:
		text = e.st.Text(*v)
		if v.Numeric {
			oid = oidInt8
		}
	default:
		data, binary, verdict := e.parameter(v.Param)
		if verdict != keyIs {
			return "", verdict, nil
		}
		var err error
		if oid, err = e.parameterType(v, firstType(castOID(v.Cast), column.Type)); err != nil {
			return "", keyUnknown, err
		}
		if classOf(oid) == notAKey {
			return "", keyUnknown, refuse(refusedParameterType, v.Param, typeName(oid), t.String(), column.Name, column.TypeName)
		}
		text = string(data)
		if binary {
			var ok bool
			if text, ok = binaryText(oid, data); !ok {
				return "", keyNever, nil
			}
		}
	}
	key, verdict, err := readKey(text, oid, castOID(v.Cast), column.Type)
	if err != nil && v.Listed {
		return "", keyUnknown, nil // that the types do not fit is an error of another kind, and a node's
	}
	return key, verdict, err
}

// readKey takes text through the types: its own, the cast's, the column's.
func readKey(text string, own, cast, column uint32) (string, keyVerdict, error) {
	first := firstType(own, cast, column)
	key, ok := canonical(classOf(first), text)
	if !ok {
		return "", keyNever, invalidText(first, text)
	}
	if cast != 0 && cast != first {
		if key, ok = canonical(classOf(cast), key); !ok {
			return "", keyNever, nil
		}
	}
	// Between classes there is no operator "=" and often no cast: the node says
	// so, unless somebody has made one, for which this is then the key.
	if key, ok = canonical(classOf(column), key); !ok {
		return "", keyNever, nil
	}
	return key, keyIs, nil
}

func firstType(types ...uint32) uint32 {
	for _, oid := range types {
		if oid != 0 {
			return oid
		}
	}
	return 0
}

// invalidText is the error of Postgres's input functions. It is raised here,
// not left to some node: a newer server may know spellings that are not known
// here, and would run the statement, perhaps on the wrong node.
func invalidText(oid uint32, text string) error {
	return &pgconn.PgError{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "22P02",
		Message: fmt.Sprintf("invalid input syntax for type %s: \"%s\"", typeName(oid), text),
	}
}

// parameter is the value of $n: keyIs with its bytes, keyNull, or keyUnknown
// when no values are bound (a statement that is only to be described).
func (e *evaluation) parameter(n int) (data []byte, binary bool, verdict keyVerdict) {
	b := e.bound
	if b == nil || n < 1 || n > len(b.values) {
		return nil, false, keyUnknown
	}
	if b.values[n-1] == nil {
		return nil, false, keyNull
	}
	switch {
	case len(b.formats) == 1:
		binary = b.formats[0] == 1
	case n <= len(b.formats):
		binary = b.formats[n-1] == 1
	}
	return b.values[n-1], binary, keyIs
}

// parameterType is the type of the parameter: as declared or described. Postgres
// infers an undeclared type from the place where the parameter is used first;
// that is the type it meets here if it is used nowhere else.
func (e *evaluation) parameterType(v *sqlparse.Value, met uint32) (uint32, error) {
	if n := v.Param - 1; n < len(e.bound.types) {
		if oid := e.bound.types[n]; oid != 0 && oid != oidUnknown {
			return oid, nil
		}
	}
	if v.Listed && v.Cast == "" || !usedOnce(e.st.SQL, v.Param) {
		return 0, errParameterTypes
	}
	return met, nil
}

// usedOnce tells whether sql mentions $n exactly once. A mention in a comment
// or a string counts too, which errs on the safe side.
func usedOnce(sql string, n int) bool {
	uses := 0
	for i := 0; i < len(sql); {
		next := strings.IndexByte(sql[i:], '$')
		if next < 0 {
			break
		}
		i += next + 1
		number := 0
		for ; i < len(sql) && sql[i] >= '0' && sql[i] <= '9' && number < 1<<20; i++ {
			number = number*10 + int(sql[i]-'0')
		}
		if number == n {
			uses++
		}
	}
	return uses == 1
}

// arrayKeys reads the elements of = ANY (array). known is false when the array
// cannot be read here; a node will say what is wrong with it, if anything.
func (e *evaluation) arrayKeys(t *Table, column *Column, v *sqlparse.Value) (keys []string, known bool, err error) {
	cast := castOID(v.Cast)
	var own uint32 // of the elements
	var elements []string
	switch v.Kind {
	case sqlparse.ValueLiteral:
		if elements, _, err = sqlparse.ParseArray(e.st.Text(*v)); err != nil {
			return nil, false, nil //nolint:nilerr // malformed: no key is known, and a node says what is wrong
		}
	case sqlparse.ValueParam:
		data, binary, verdict := e.parameter(v.Param)
		if verdict != keyIs {
			return nil, verdict == keyNull, nil
		}
		if own, elements, known, err = e.parameterArray(t, column, v, data, binary); err != nil || !known {
			return nil, false, err
		}
	default:
		return nil, v.Kind == sqlparse.ValueNull, nil
	}
	keys = elements[:0]
	for _, element := range elements {
		key, verdict, err := readKey(element, own, cast, column.Type)
		if err != nil {
			return nil, false, err
		}
		if verdict == keyIs {
			keys = append(keys, key)
		}
	}
	return keys, true, nil
}

// parameterArray reads an array parameter; own is the type of its elements.
func (e *evaluation) parameterArray(t *Table, column *Column, v *sqlparse.Value, data []byte, binary bool) (own uint32, elements []string, known bool, err error) {
	const metArray = ^uint32(0) // stands for an array of what is met here
	oid, err := e.parameterType(v, metArray)
	if err != nil {
		return 0, nil, false, err
	}
	own = elementOID(oid)
	switch {
	case oid == metArray:
		own = firstType(castOID(v.Cast), column.Type)
		if own == oidVarchar && v.Cast == "" {
			own = oidText // varchar has no operators of its own
		}
	case own == 0 && classOf(oid) == textKey && v.Cast != "":
		binary = false // $1::int4[] of a text: the text is read as an array
	case own == 0:
		return 0, nil, false, refuse(refusedParameterType, v.Param, typeName(oid), t.String(), column.Name, column.TypeName+"[]")
	}
	if binary {
		elements, known = binaryArray(data, own)
		return own, elements, known, nil
	}
	elements, _, err = sqlparse.ParseArray(string(data))
	return own, elements, err == nil, nil
}
