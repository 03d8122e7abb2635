package gateway

import (
	"slices"

	"github.com/pgpact/pgpact/sqlparse"
)

// lookup answers the questions of sqlparse.Combine from the catalog.
func (c *combining) lookup() *sqlparse.Lookup {
	if c.tied != nil {
		return c.tiedLookup()
	}
	return &sqlparse.Lookup{
		Column: func(name string) bool { return len(c.having(name)) > 0 },
		Key:    c.isKey,
		ColumnOf: func(schema, relation, column string) bool {
			found := c.catalog.lookup(schema, relation, c.session)
			return found.table != nil && found.table.column(column) >= 0
		},
		Aggregate: aggregates(c.catalog, c.session),
	}
}

// aggregates is what a Lookup says of functions.
func aggregates(catalog *Catalog, session *routeSession) func(sqlparse.Function) (aggregate, system bool) {
	return func(f sqlparse.Function) (aggregate, system bool) {
		facts, kind := catalog.function(f, session)
		return facts.aggregate, kind == systemFunction
	}
}

// having are the mentions whose table has the column.
func (c *combining) having(column string) []int {
	var found []int
	for i, t := range c.tables {
		if t != nil && t.column(column) >= 0 {
			found = append(found, i)
		}
	}
	return found
}

// named is the mention that goes by the name, -1 if none or several.
func (c *combining) named(name string) int {
	found := -1
	for i := range c.mentions {
		m := &c.mentions[i]
		if m.Alias == name || m.Alias == "" && m.Name == name {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}

// resolve finds the mention that a reference is a column of, -1 if that cannot
// be told.
func (c *combining) resolve(reference []string) int {
	column := reference[len(reference)-1]
	if len(reference) == 1 {
		if found := c.having(column); len(found) == 1 {
			return found[0]
		}
		return -1
	}
	i := c.named(reference[len(reference)-2])
	if i < 0 || c.tables[i] == nil || column != "*" && c.tables[i].column(column) < 0 {
		return -1
	}
	return i
}

// column is the table's column that a reference means, nil if that cannot be told.
func (c *combining) column(reference []string) *Column {
	if c.tied != nil {
		return c.tiedColumn(reference)
	}
	if i := c.resolve(reference); i >= 0 {
		return &c.tables[i].Columns[c.tables[i].column(reference[len(reference)-1])]
	}
	return nil
}

// isKey: the reference is a shard key that holds groups together, or a star
// that contains one.
func (c *combining) isKey(reference []string) bool {
	column := reference[len(reference)-1]
	if len(reference) == 1 && column == "*" {
		return slices.Contains(c.together, true)
	}
	i := c.resolve(reference)
	return i >= 0 && c.together[i] && (column == "*" || column == c.tables[i].key().Name)
}

// defaultCollation is what Column.Collation says of the database's own.
const defaultCollation = "default"

// isBytewise tells whether texts of the collation are ordered by their bytes.
func (c *combining) isBytewise(collation string) bool {
	switch collation {
	case "C", "POSIX", "ucs_basic":
		return true
	case defaultCollation:
		return c.catalog.bytewise()
	}
	return false
}

// bytewise tells whether an expression of a text type certainly has a collation
// that orders by bytes.
func (c *combining) bytewise(text sqlparse.TextOrder) bool {
	switch {
	case text.Mixed:
		return false
	case text.Collation != "":
		return c.isBytewise(text.Collation)
	}
	return !slices.ContainsFunc(c.collations(text), func(name string) bool { return !c.isBytewise(name) })
}

// collations are those that an expression without COLLATE may have: its
// column's, or any that the tables have.
func (c *combining) collations(text sqlparse.TextOrder) []string {
	if text.Reference != nil && text.Reference[len(text.Reference)-1] != "*" {
		if column := c.column(text.Reference); column != nil {
			return []string{column.Collation}
		}
	}
	names := []string{defaultCollation}
	for _, t := range c.tables {
		if t == nil {
			continue
		}
		for i := range t.Columns {
			if name := t.Columns[i].Collation; name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// finalCollation tells how the texts of a partial result are to be compared
// when they are combined: by their bytes, or as the database does by default.
func (c *combining) finalCollation(text sqlparse.TextOrder) (bytewise bool, err error) {
	if c.bytewise(text) {
		return true, nil
	}
	if !text.Mixed && text.Collation == "" && c.catalog.collation != "" &&
		slices.Equal(c.collations(text), []string{defaultCollation}) {
		return false, nil
	}
	return false, &sqlparse.NotCombined{What: "combining texts of this collation", Hint: `Use COLLATE "C" around the whole expression.`}
}
