package gateway

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// nodeCatalog is what one node's catalog says.
type nodeCatalog struct {
	fingerprint string
	tables      map[relationKey]*Table
	functions   map[relationKey]functionFacts
	relations   map[relationKey]relationKind // system and own ones
	system      map[string]functionFacts     // functions of pg_catalog
	collation   string                       // the database's: provider and locale
}

// clientSQL reads the relations and functions of the clients' schemas, a row
// for each column (one row for a relation without) and each function name.
// Everything is qualified: the search path of the login role is not ours.
const clientSQL = `SELECT 'column' AS what, n.nspname::text AS a, c.relname::text AS b, c.relkind::text AS c,
 coalesce(a.attname::text, '') AS d, coalesce(a.atttypid, 0)::text AS e, coalesce(a.atttypmod, 0)::text AS f,
 coalesce(pg_catalog.format_type(a.atttypid, a.atttypmod), '') AS g, coalesce(co.collname::text, '') AS h,
 coalesce(co.collisdeterministic, true)::text AS i, coalesce(a.attnotnull, false)::text AS j,
 coalesce(a.attidentity::text, '') || coalesce(a.attgenerated::text, '') AS k,
 coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '') AS l,
 (SELECT p.nr FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS p(attnum, nr)
   WHERE p.attnum = a.attnum AND p.nr <= i.indnkeyatts)::text AS m,
 EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid)::text AS o,
 coalesce((SELECT x.relname::text FROM pg_catalog.pg_class x WHERE x.oid = i.indexrelid), '') AS p,
 CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'
  AND k.conname = '` + sqlparse.ReferenceConstraint + `' AND pg_catalog.pg_get_expr(k.conbin, k.conrelid) = 'true') THEN 'reference ' ELSE '' END ||
 CASE WHEN c.relhasrules OR EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal) THEN 'triggers' ELSE '' END AS q,
 coalesce(a.attnum, 0) AS number
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S'
 LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
 LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
 AND n.nspname NOT IN ('information_schema', 'pgpact') AND pg_catalog.left(n.nspname::text, 3) <> 'pg_'
UNION ALL
SELECT 'function', n.nspname::text, p.proname::text, pg_catalog.bool_or(p.provolatile = 'v')::text,
 pg_catalog.bool_and(p.provolatile = 'i')::text, pg_catalog.bool_or(p.prokind = 'a')::text,
 pg_catalog.bool_or(p.proretset)::text, '', '', '', '', '', '', '', '', '', '', 0
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
GROUP BY n.nspname, p.proname`

// systemSQL reads the functions of pg_catalog and the relations that are not
// the clients'. It changes with the server's version only.
const systemSQL = `SELECT 'function' AS what, '' AS schema, p.proname::text AS name, pg_catalog.bool_or(p.provolatile = 'v')::text AS v,
 pg_catalog.bool_and(p.provolatile = 'i')::text AS i, pg_catalog.bool_or(p.prokind = 'a')::text AS a,
 pg_catalog.bool_or(p.proretset)::text AS s
FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace GROUP BY p.proname
UNION ALL
SELECT 'collation', '', coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') || ':' ||
 coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', d.datcollate::text), '', '', '', ''
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
UNION ALL
SELECT 'relation', n.nspname::text, c.relname::text, '', '', '', ''
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname IN ('pg_catalog', 'information_schema', 'pgpact')`

// fingerprintSQL is equal as long as clientSQL and systemSQL say the same. No
// column may be called line: that would be taken for the whole of it.
const fingerprintSQL = `SELECT pg_catalog.current_setting('server_version') || ' ' ||
 pg_catalog.md5(coalesce(pg_catalog.string_agg(line::text, ' ' ORDER BY line::text), '')) FROM (` + clientSQL + `) line`

// readNodeCatalog reads a node's catalog, or returns known when that is still
// what the node says. The fingerprint is taken first: a change between the two
// readings is then found by the next look.
func readNodeCatalog(ctx context.Context, node *participant.Node, known *nodeCatalog) (*nodeCatalog, error) {
	rows, err := node.Query(ctx, fingerprintSQL)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return nil, fmt.Errorf("node %q: unexpected answer to the catalog's fingerprint", node.Name())
	}
	fingerprint := rows[0][0]
	if known != nil && known.fingerprint == fingerprint {
		return known, nil
	}
	read := &nodeCatalog{
		fingerprint: fingerprint,
		tables:      map[relationKey]*Table{},
		functions:   map[relationKey]functionFacts{},
		relations:   map[relationKey]relationKind{},
		system:      map[string]functionFacts{},
	}
	if rows, err = node.Query(ctx, systemSQL); err != nil {
		return nil, err
	}
	if err := read.addSystem(rows); err != nil {
		return nil, fmt.Errorf("node %q: %w", node.Name(), err)
	}
	if rows, err = node.Query(ctx, clientSQL+` ORDER BY what, a, b, number`); err != nil {
		return nil, err
	}
	if err := read.addClient(rows); err != nil {
		return nil, fmt.Errorf("node %q: %w", node.Name(), err)
	}
	return read, nil
}

func (n *nodeCatalog) addSystem(rows [][]string) error {
	for _, row := range rows {
		if len(row) != 7 {
			return fmt.Errorf("catalog row of %d columns", len(row))
		}
		switch {
		case row[0] == "function":
			n.system[row[2]] = readFunction(row[3:7])
		case row[0] == "collation":
			n.collation = row[2]
		case row[1] == ownSchema:
			n.relations[relationKey{row[1], row[2]}] = ownRelation
		default:
			n.relations[relationKey{row[1], row[2]}] = systemRelation
		}
	}
	return nil
}

func readFunction(row []string) functionFacts {
	return functionFacts{volatile: row[0] == "true", immutable: row[1] == "true", aggregate: row[2] == "true", set: row[3] == "true"}
}

func (n *nodeCatalog) addClient(rows [][]string) error {
	keys := map[*Table][][2]int{} // position in the primary key, column
	for _, row := range rows {
		if len(row) != 18 {
			return fmt.Errorf("catalog row of %d columns", len(row))
		}
		name := relationKey{row[1], row[2]}
		if row[0] == "function" {
			n.functions[name] = readFunction(row[3:7])
			continue
		}
		t := n.tables[name]
		if t == nil {
			t = &Table{Schema: row[1], Name: row[2], Kind: row[3][0], Parent: row[14] == "true",
				Reference: strings.HasPrefix(row[16], "reference"), Triggers: strings.HasSuffix(row[16], "triggers")}
			n.tables[name] = t
		}
		if row[4] == "" {
			continue // a relation without columns
		}
		column, err := readColumn(row)
		if err != nil {
			return fmt.Errorf("table %s: %w", t, err)
		}
		t.Columns = append(t.Columns, column)
		if position, err := strconv.Atoi(row[13]); err == nil {
			keys[t] = append(keys[t], [2]int{position, len(t.Columns) - 1})
			t.KeyName = row[15]
		}
	}
	for t, key := range keys {
		slices.SortFunc(key, func(x, y [2]int) int { return cmp.Compare(x[0], y[0]) })
		for _, k := range key {
			t.PrimaryKey = append(t.PrimaryKey, k[1])
		}
	}
	return nil
}

// readColumn reads a row of clientSQL.
func readColumn(row []string) (Column, error) {
	oid, err := strconv.ParseUint(row[5], 10, 32)
	if err != nil {
		return Column{}, err
	}
	modifier, err := strconv.Atoi(row[6])
	if err != nil {
		return Column{}, err
	}
	c := Column{
		Name: row[4], Type: uint32(oid), TypeName: row[7], Collation: row[8], Deterministic: row[9] == "true",
		NotNull: row[10] == "true", Default: row[12],
		Identity:  strings.ContainsAny(row[11], "ad"), // attidentity: always, by default
		Generated: strings.Contains(row[11], "s"),     // attgenerated: stored
		class:     classOf(uint32(oid)),
	}
	if c.Generated {
		c.Default = "" // the generation expression is kept there too
	}
	if c.Type == oidVarchar && modifier > 4 { // VARHDRSZ is added
		c.Length = modifier - 4
	}
	return c, nil
}

// mergeCatalogs makes one catalog of the nodes' (nil for a node that has never
// answered), judges the tables, and refuses those the nodes do not agree about.
func mergeCatalogs(nodes []*participant.Node, read []*nodeCatalog) *Catalog {
	c := &Catalog{relations: map[relationKey]relation{}, functions: map[relationKey]functionFacts{}}
	var names []string
	var known []*nodeCatalog
	for i, n := range read {
		if n != nil {
			names, known = append(names, nodes[i].Name()), append(known, n)
		}
	}
	for i, n := range known {
		if i == 0 {
			c.collation = n.collation
		} else if c.collation != n.collation {
			c.collation = ""
		}
		for name, kind := range n.relations {
			c.relations[name] = relation{kind: kind}
		}
		for name, facts := range n.functions {
			c.functions[name] = worst(c.functions, name, facts)
		}
		// A function that is volatile on the newer server only is volatile.
		merged := map[string]functionFacts{}
		for name, facts := range n.system {
			merged[name] = worst(c.systemFunctions, name, facts)
		}
		for name, facts := range c.systemFunctions {
			if _, ok := merged[name]; !ok {
				merged[name] = facts
			}
		}
		c.systemFunctions = merged
	}
	for _, name := range sortedNames(known, func(n *nodeCatalog) map[relationKey]*Table { return n.tables }) {
		t, difference := mergeTable(name, names, known)
		if difference != "" {
			c.differences = append(c.differences, difference)
			t.unusable = refuse(refusedDifference, t.String())
			t.unusable.Detail, t.differs = difference, true
		} else {
			t.unusable = judge(t)
		}
		if t.Reference {
			t.Columns = slices.Clone(t.Columns) // the nodes' own stay as they were read
			c.judgeDefaults(t)
		}
		c.relations[name] = relation{table: t, kind: userRelation}
	}
	for _, name := range sortedNames(known, func(n *nodeCatalog) map[relationKey]functionFacts { return n.functions }) {
		if difference := functionDifference(name, names, known); difference != "" {
			c.differences = append(c.differences, difference)
		}
	}
	return c
}

// sortedNames are the names in all the maps.
func sortedNames[V any](known []*nodeCatalog, of func(*nodeCatalog) map[relationKey]V) []relationKey {
	all := map[relationKey]struct{}{}
	for _, n := range known {
		for name := range of(n) {
			all[name] = struct{}{}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(x, y relationKey) int {
		return cmp.Or(cmp.Compare(x.schema, y.schema), cmp.Compare(x.name, y.name))
	})
}

// worst combines what two nodes, or two versions, say of one function.
func worst[K comparable](of map[K]functionFacts, name K, facts functionFacts) functionFacts {
	other, ok := of[name]
	if !ok {
		return facts
	}
	return functionFacts{
		volatile:  facts.volatile || other.volatile,
		immutable: facts.immutable && other.immutable,
		aggregate: facts.aggregate || other.aggregate,
		set:       facts.set || other.set,
	}
}

// mergeTable returns the table as the first node that has it says (a copy, for
// the catalog to judge), and what another node says differently.
func mergeTable(name relationKey, names []string, known []*nodeCatalog) (*Table, string) {
	var first *Table
	var firstName, missing string
	for i, n := range known {
		if t := n.tables[name]; t == nil {
			missing = names[i]
		} else if first == nil {
			first, firstName = t, names[i]
		}
	}
	merged := *first
	if missing != "" {
		return &merged, fmt.Sprintf("table %s: node %q has it, node %q does not", first, firstName, missing)
	}
	for i, n := range known {
		if what := tableDifference(first, n.tables[name]); what != "" {
			return &merged, fmt.Sprintf("table %s differs between node %q and node %q: %s", first, firstName, names[i], what)
		}
	}
	return &merged, ""
}

// tableDifference says what differs between x and y. Types are compared by
// name: the OIDs of the clients' own types differ from node to node.
func tableDifference(x, y *Table) string {
	switch {
	case x.Kind != y.Kind:
		return fmt.Sprintf("kind %c and kind %c", x.Kind, y.Kind)
	case x.Parent != y.Parent:
		return "only one of them has tables that inherit from it"
	case x.Reference != y.Reference:
		return "only one of them is a reference table"
	case x.Reference && x.Triggers != y.Triggers:
		return "only one of them has triggers or rules"
	}
	for i := range max(len(x.Columns), len(y.Columns)) {
		if i >= len(x.Columns) || i >= len(y.Columns) {
			return fmt.Sprintf("%d columns and %d columns", len(x.Columns), len(y.Columns))
		}
		if a, b := x.Columns[i].definition(), y.Columns[i].definition(); a != b {
			return fmt.Sprintf("column %d is %s and %s", i+1, a, b)
		}
	}
	if a, b := x.keyNames(), y.keyNames(); a != b {
		return fmt.Sprintf("primary key (%s) and primary key (%s)", a, b)
	}
	return ""
}

// definition is the column as CREATE TABLE would say it.
func (c *Column) definition() string {
	text := fmt.Sprintf("%q %s", c.Name, c.TypeName)
	if c.Collation != "" && c.Collation != "default" {
		text += fmt.Sprintf(" collate %q", c.Collation)
	}
	if !c.Deterministic {
		text += " (nondeterministic)"
	}
	if c.NotNull {
		text += " not null"
	}
	if c.Default != "" {
		text += " default " + c.Default
	}
	switch {
	case c.Identity:
		text += " identity"
	case c.Generated:
		text += " generated"
	}
	return text
}

func (t *Table) keyNames() string {
	var names []string
	for _, i := range t.PrimaryKey {
		names = append(names, t.Columns[i].Name)
	}
	return strings.Join(names, ", ")
}

// functionDifference says which node lacks a function that another has.
func functionDifference(name relationKey, names []string, known []*nodeCatalog) string {
	var has, lacks string
	for i, n := range known {
		if _, ok := n.functions[name]; ok {
			has = names[i]
		} else {
			lacks = names[i]
		}
	}
	if lacks == "" {
		return ""
	}
	return fmt.Sprintf("function %s.%s: node %q has it, node %q does not", name.schema, name.name, has, lacks)
}
