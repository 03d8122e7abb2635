package sqlparse

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// scope is what column names can refer to at one query level.
// See "Table Expressions" in the Postgres manual, and parse_relation.c.
type scope struct {
	parent *scope // of the enclosing query level, for correlated references
	rels   []*relation
}

// relation is an entry of FROM as far as names go: a table, or something with
// columns of its own (subquery, function, CTE), whose table is -1.
type relation struct {
	table  int
	name   string // the alias, or the table's name
	schema string // of a table without an alias
	// hidden: an alias around the join it stands in hides the name. opaque: its
	// columns have been renamed by a column alias list, so no column name of
	// this query is one of the table's.
	hidden, opaque bool
	// USING merges columns: unqualified, such a column belongs to the other
	// side. With shadowAll, any column may have been merged (NATURAL).
	shadowed  []string
	shadowAll bool
	// lists are the columns of a VALUES list, as far as their values are known.
	lists map[string][]Value
}

// column is a resolved reference.
type column struct {
	name string
	// tables has one entry when the reference is certain, several when the
	// name was unqualified. Only tables of one scope are ever in here.
	tables []int
}

// resolve finds what a column reference means. ok is false when that cannot be
// told, or is no column of a table.
func (s *scope) resolve(ref *pgquery.ColumnRef) (col column, ok bool) {
	fields := stringList(ref.Fields)
	if len(fields) != len(ref.Fields) || s == nil { // a star, or nothing in scope
		return column{}, false
	}
	switch len(fields) {
	case 1:
		return s.unqualified(fields[0])
	case 2:
		return s.qualified("", fields[0], fields[1])
	case 3:
		return s.qualified(fields[0], fields[1], fields[2])
	}
	return column{}, false
}

// unqualified looks in the innermost scope only. The name may really be an
// outer column, but then none of the candidates has it: an inner one wins.
func (s *scope) unqualified(name string) (column, bool) {
	return unqualifiedIn(s.rels, name)
}

func unqualifiedIn(rels []*relation, name string) (column, bool) {
	col := column{name: name}
	for _, r := range rels {
		if r.table < 0 || r.opaque || r.shadowAll || slices.Contains(r.shadowed, name) {
			continue
		}
		col.tables = append(col.tables, r.table)
	}
	return col, len(col.tables) > 0
}

func (s *scope) qualified(schema, name, col string) (column, bool) {
	for ; s != nil; s = s.parent {
		var found *relation
		for _, r := range s.rels {
			if r.hidden || r.name != name {
				continue
			}
			if found != nil {
				return column{}, false
			}
			found = r
		}
		if found == nil {
			continue
		}
		// With a schema the search is by the relation's identity, which the
		// search path decides: only the same spelling is certain.
		if schema != "" && found.schema != schema || found.table < 0 || found.opaque {
			return column{}, false
		}
		return column{name: col, tables: []int{found.table}}, true
	}
	return column{}, false
}

// tables lists the tables of a stretch of relations.
func tables(rels []*relation) []int {
	var out []int
	for _, r := range rels {
		if r.table >= 0 {
			out = append(out, r.table)
		}
	}
	return out
}

// rename applies an alias to everything in rels, as for (a JOIN b ...) AS j.
func rename(rels []*relation, alias *pgquery.Alias) {
	for _, r := range rels {
		r.hidden = true
		r.opaque = r.opaque || len(alias.Colnames) > 0
	}
}
