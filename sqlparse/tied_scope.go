package sqlparse

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// tiedColumn is a column of one mention of a relation; the pointer is what it is
// known by.
type tiedColumn struct {
	class  int
	origin *tiedOrigin // nil for a computed one
}

type tiedOrigin struct{ schema, table, column string }

// tiedName is a column under the name by which it can be referred to; "" for
// one whose name is Postgres's to give.
type tiedName struct {
	name   string
	column *tiedColumn
}

// tiedRelation is an entry of FROM.
type tiedRelation struct {
	name    string
	columns []tiedName
	vague   bool // it may have columns of other names
}

// tiedFrame is a query level: what can be named in its expressions, and what is
// known of it. With relations but no keys it stands for a place where they are
// of no use.
type tiedFrame struct {
	parent    *tiedFrame
	relations []*tiedRelation
	visible   []tiedName // unqualified, in the order of *
	vague     bool       // one of the relations is
	// split: rows are of several nodes. The keys of the frames around are those
	// of another row then, of another node perhaps.
	split     bool
	key, weak map[*tiedColumn]bool
}

// blind is a frame from within which nothing around is a key.
func blind(f *tiedFrame) *tiedFrame {
	if f == nil {
		return nil
	}
	return &tiedFrame{parent: f, split: true}
}

// systemColumns are columns of every table that the catalog does not list.
var systemColumns = []string{"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}

// find resolves a reference as Postgres does (parse_relation.c): the innermost
// level that has the name. nil when it cannot be told. The column is of frame.
func (f *tiedFrame) find(fields []string) (col *tiedColumn, frame *tiedFrame) {
	for ; f != nil; f = f.parent {
		switch len(fields) {
		case 1:
			if found := named(f.visible, fields[0]); len(found) == 1 {
				return found[0], f
			} else if len(found) > 1 || f.vague || len(f.relations) > 0 && slices.Contains(systemColumns, fields[0]) {
				return nil, nil
			}
		case 2:
			found := f.called(fields[0])
			if len(found) == 0 {
				continue
			}
			if len(found) > 1 {
				return nil, nil
			}
			if columns := named(found[0].columns, fields[1]); len(columns) == 1 {
				return columns[0], f
			}
			return nil, nil // a function of the row, perhaps
		default:
			return nil, nil
		}
	}
	return nil, nil
}

func named(list []tiedName, name string) []*tiedColumn {
	var found []*tiedColumn
	for _, v := range list {
		if v.name == name {
			found = append(found, v.column)
		}
	}
	return found
}

func (f *tiedFrame) called(name string) []*tiedRelation {
	var found []*tiedRelation
	for _, r := range f.relations {
		if r.name == name {
			found = append(found, r)
		}
	}
	return found
}

// starred are the columns of * or name.*, nil when they are not all known.
func (f *tiedFrame) starred(fields []string) []tiedName {
	if len(fields) == 0 {
		if f.vague {
			return nil
		}
		return f.visible
	}
	if found := f.called(fields[0]); len(fields) == 1 && len(found) == 1 && !found[0].vague {
		return found[0].columns
	}
	return nil
}

// strength tells what a column, found from within f in the frame, is there: a
// key or a weak key of the row that f's expressions are computed for.
func (f *tiedFrame) strength(col *tiedColumn, frame *tiedFrame) (key, weak bool) {
	for ; f != nil && f != frame; f = f.parent {
		if f.split {
			return false, false
		}
	}
	return frame.key[col], frame.weak[col]
}

// isKey: the expression is a key of this level's own rows.
func (f *tiedFrame) isKey(n *pgquery.Node) bool {
	fields := reference(n)
	if fields == nil || isStar(n) {
		return false
	}
	col, frame := f.find(fields)
	return col != nil && frame == f && f.key[col]
}

func (f *tiedFrame) anyKey(list []*pgquery.Node) bool { return slices.ContainsFunc(list, f.isKey) }

// tiedCTEs is the chain of CTEs visible at a place.
type tiedCTEs struct {
	parent *tiedCTEs
	name   string
	result *tiedResult
}

func (e *tiedCTEs) find(name string) *tiedResult {
	for ; e != nil; e = e.parent {
		if e.name == name {
			return e.result
		}
	}
	return nil
}

// tiedResult is what a query returns.
type tiedResult struct {
	split   bool
	columns []tiedOutput
}

// tiedOutput is a column of a result.
type tiedOutput struct {
	name      string
	class     int
	origin    *tiedOrigin
	key, weak bool
}

// relation is a mention of the result in FROM, under a name and with the names
// of an alias's columns, and what it is to the join.
func (r *tiedResult) relation(alias string, names []string) (*tiedRelation, *tiedItem) {
	rel, item := &tiedRelation{name: alias}, newTiedItem(r.split)
	for i, out := range r.columns {
		col := &tiedColumn{class: out.class, origin: out.origin}
		name := out.name
		if i < len(names) {
			name = names[i]
		}
		if name == "*" { // would be taken for a star
			name = ""
		}
		rel.columns = append(rel.columns, tiedName{name, col})
		rel.vague = rel.vague || name == ""
		if r.split && out.key {
			item.key[col] = true
		}
		if r.split && (out.key || out.weak) {
			item.weak[col] = true
		}
	}
	return rel, item
}
