package gateway

import (
	"context"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// Table is a relation as the nodes know it: a table, or something that is
// refused when a statement names it (a view, a sequence, ...).
type Table struct {
	Schema, Name string
	// Kind is pg_class.relkind: r table, p partitioned table, v view,
	// m materialized view, f foreign table, S sequence.
	Kind byte
	// Columns in the table's order, which is what INSERT without a column list
	// counts by. Dropped columns are not among them.
	Columns []Column
	// PrimaryKey are indexes into Columns, in the key's order.
	PrimaryKey []int
	// KeyName is the name of the primary key's constraint.
	KeyName string
	// Parent: other tables inherit from it.
	Parent bool
	// Reference: the same rows are on every node (reference.go).
	Reference bool
	// Triggers: it has triggers of its own, or rules.
	Triggers bool

	// unusable is the reason why statements with this relation are refused,
	// nil for a table that is sharded by its key.
	unusable *pgconn.PgError
	// differs is that reason: a table that is being made, or changed, node by node
	// does so for a moment.
	differs bool
}

// Column is a column of a Table.
type Column struct {
	Name          string
	Type          uint32 // OID, the same on all nodes for built-in types only
	TypeName      string // with its modifier, as format_type writes it
	Length        int    // n of varchar(n), 0 without
	Collation     string // "" for a type without
	Deterministic bool   // of the collation
	NotNull       bool
	Default       string // expression, "" without
	Identity      bool
	Generated     bool // GENERATED ALWAYS AS (...) STORED

	class keyClass
	// varies names what makes the default another on each node, "" for nothing;
	// only of reference tables.
	varies string
}

// key is the column by which the table is sharded: the first of its primary
// key. Only for tables without an unusable reason.
func (t *Table) key() *Column { return &t.Columns[t.PrimaryKey[0]] }

// column is the index of a column, -1 for none.
func (t *Table) column(name string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// String is the qualified name, as messages for people write it.
func (t *Table) String() string { return t.Schema + "." + t.Name }

// relationKey names a relation or a function.
type relationKey struct{ schema, name string }

// functionFacts is what routing needs to know of a function; of several with
// one name, the worst.
type functionFacts struct {
	volatile  bool // at least one
	immutable bool // all of them
	aggregate bool // at least one
	set       bool // at least one returns a set
}

// Catalog is what the nodes' catalogs say, as far as routing needs it. It is
// immutable.
type Catalog struct {
	relations map[relationKey]relation
	functions map[relationKey]functionFacts // of all schemas but pg_catalog

	systemFunctions map[string]functionFacts // of pg_catalog

	// collation is the databases' own, its provider (c libc, i ICU, b built in)
	// and locale: "c:C.UTF-8"; "" when they differ.
	collation string

	differences []string
}

// bytewise tells whether texts without a collation of their own are ordered by
// their bytes. glibc's C.UTF-8 is ordered by code points, which in UTF-8 is the
// same.
func (c *Catalog) bytewise() bool {
	switch c.collation {
	case "c:C", "c:POSIX", "c:C.UTF-8", "c:C.utf8", "b:C", "b:C.UTF-8":
		return true
	}
	return false
}

// relation is an entry of the catalog; table is nil unless kind is
// userRelation.
type relation struct {
	table *Table
	kind  relationKind
}

// LoadCatalog reads the catalogs of all nodes. A node that cannot be reached
// is left out, but one must answer.
func LoadCatalog(ctx context.Context, nodes []*participant.Node) (*Catalog, error) {
	holder, err := newCatalogHolder(ctx, nodes, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return holder.Current(), nil
}

// Differences says in plain lines what the nodes do not agree about; a table
// among them is refused to clients until they do. Nodes that could not be read
// are not compared.
func (c *Catalog) Differences() []string { return c.differences }

// Tables are the sharded tables and the relations that are refused, in no
// order.
func (c *Catalog) Tables() []*Table {
	var all []*Table
	for _, r := range c.relations {
		if r.table != nil {
			all = append(all, r.table)
		}
	}
	return all
}

// ShardKey is the column by which the table is sharded, or the reason why the
// table has none.
func (t *Table) ShardKey() (*Column, error) {
	if t.unusable != nil {
		return nil, t.unusable
	}
	if t.Reference {
		return nil, refuse(refusedReferenceKey, t.String())
	}
	return t.key(), nil
}

const (
	// ownSchema holds node, branches and bucket() on every node.
	ownSchema      = "pgpact"
	systemSchema   = "pg_catalog"
	standardSchema = "information_schema"
	toastSchema    = "pg_toast"
)

// relationKind is what a name in a statement stands for.
type relationKind uint8

const (
	unknownRelation relationKind = iota
	systemRelation
	ownRelation // of our schema, closed to clients
	userRelation
)

// lookup finds the relation a statement names, by the rules of Postgres's
// search path ("5.9.3 The Schema Search Path"): pg_catalog comes first unless
// the path gives it another place. Temporary relations do not exist here.
func (c *Catalog) lookup(schema, name string, session *routeSession) relation {
	switch schema {
	case "":
		if !session.namesSystemSchema() {
			if r, ok := c.relations[relationKey{systemSchema, name}]; ok {
				return r
			}
		}
		for _, element := range session.searchPath {
			if r, ok := c.relations[relationKey{session.schema(element), name}]; ok {
				return r
			}
		}
		return relation{}
	case ownSchema: // closed to clients, whether the relation exists or not
		return relation{kind: ownRelation}
	case systemSchema, standardSchema, toastSchema:
		return relation{kind: systemRelation}
	}
	return c.relations[relationKey{schema, name}]
}

// functionKind is what a function's name stands for.
type functionKind uint8

const (
	unknownFunction functionKind = iota
	systemFunction
	ownFunction
	userFunction
)

// function finds a function by its name. The arguments' types, which choose
// among functions of one name, are not known here, so a function of the
// client's own hides a system function of its name.
func (c *Catalog) function(f sqlparse.Function, session *routeSession) (functionFacts, functionKind) {
	switch f.Schema {
	case "":
		if len(c.functions) > 0 {
			for _, element := range session.searchPath {
				if facts, ok := c.functions[relationKey{session.schema(element), f.Name}]; ok {
					return facts, userFunction
				}
			}
		}
		if facts, ok := c.systemFunctions[f.Name]; ok {
			return facts, systemFunction
		}
		return functionFacts{}, unknownFunction
	case systemSchema:
		// The grammar writes EXTRACT and its like as functions that an older
		// server has by another name: not known is no reason to refuse.
		return c.systemFunctions[f.Name], systemFunction
	case standardSchema: // JDBC asks for information_schema._pg_expandarray
		return functionFacts{}, systemFunction
	case ownSchema:
		return functionFacts{}, ownFunction
	}
	if facts, ok := c.functions[relationKey{f.Schema, f.Name}]; ok {
		return facts, userFunction
	}
	return functionFacts{}, unknownFunction
}

// schema is the schema that an element of the search path stands for.
func (s *routeSession) schema(element string) string {
	if element == "$user" {
		return s.user
	}
	return element
}

// namesSystemSchema tells whether the search path gives pg_catalog a place.
func (s *routeSession) namesSystemSchema() bool {
	for _, element := range s.searchPath {
		if element == systemSchema {
			return true
		}
	}
	return false
}

// judge says why a relation cannot be used, or nil: the rules of DESIGN
// section 6, each by its name.
func judge(t *Table) *pgconn.PgError {
	if why, ok := refusedRelationKinds[t.Kind]; ok {
		return refuse(why, t.String())
	}
	if t.Parent {
		return refuse(refusedInheritance, t.String())
	}
	if t.Reference {
		return nil // its rows need no place
	}
	if len(t.PrimaryKey) == 0 {
		return refuse(refusedNoPrimaryKey, t.String())
	}
	key := t.key()
	switch {
	case key.class == notAKey:
		return refuse(refusedKeyType, t.String(), key.Name, key.TypeName)
	case !key.Deterministic:
		return refuse(refusedKeyCollation, t.String(), key.Name, key.Collation)
	case key.Generated:
		return refuse(refusedGeneratedKey, t.String(), key.Name)
	}
	return nil
}

// isSequence tells whether the column's default comes from a sequence, each
// node's own.
func (c *Column) isSequence() bool {
	return c.Identity || strings.Contains(c.Default, "nextval(")
}

// hasDefault tells whether the nodes would make a value when none is given.
func (c *Column) hasDefault() bool { return c.Identity || c.Generated || c.Default != "" }
