package gateway

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// What a schema change has made is looked at on a node, inside the transaction
// and with the gateway's own rules for tables: nothing has to be guessed from
// the statement's text (LIKE, domains, SELECT lists), and a change that is
// refused takes the transaction with it.

// constraintsSQL lists what one node can enforce only among its own rows: unique
// and exclusion constraints without the shard key, foreign keys that do not pair
// the shard keys of both tables. A reference table has all rows on every node, so
// it may have any of the former, and be referred to by anybody, as long as no
// shard key follows a change of it. One line each: what, table, name.
const constraintsSQL = `WITH r AS (SELECT conrelid AS rel FROM pg_catalog.pg_constraint
  WHERE contype = 'c' AND conname = '` + sqlparse.ReferenceConstraint + `' AND pg_catalog.pg_get_expr(conbin, conrelid) = 'true'),
k AS (SELECT i.indrelid AS rel, i.indkey[0] AS attnum FROM pg_catalog.pg_index i
  WHERE i.indisprimary AND i.indrelid NOT IN (SELECT rel FROM r)),
t AS (SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_catalog.pg_class c
 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgpact'))
SELECT pg_catalog.string_agg(line, E'\n') FROM (
 SELECT 'unique index ' || x.relname || ' of table ' || t.name AS line FROM pg_catalog.pg_index i
  JOIN k ON k.rel = i.indrelid JOIN t ON t.oid = i.indrelid JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
 WHERE (i.indisunique OR i.indisexclusion) AND NOT i.indisprimary AND (i.indisexclusion OR NOT EXISTS (
  SELECT FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS p(attnum, nr) WHERE p.attnum = k.attnum AND p.nr <= i.indnkeyatts))
 UNION ALL
 SELECT 'foreign key ' || f.conname || ' of table ' || t.name FROM pg_catalog.pg_constraint f
  JOIN t ON t.oid = f.conrelid LEFT JOIN k a ON a.rel = f.conrelid LEFT JOIN k b ON b.rel = f.confrelid
 WHERE f.contype = 'f' AND NOT EXISTS (
  SELECT FROM ROWS FROM (pg_catalog.unnest(f.conkey), pg_catalog.unnest(f.confkey)) AS p(here, there) WHERE p.here = a.attnum AND p.there = b.attnum)
  AND NOT (f.confrelid IN (SELECT rel FROM r) AND (a.attnum IS NULL OR a.attnum <> ALL (f.conkey) OR f.confupdtype IN ('a', 'r') AND f.confdeltype IN ('a', 'r', 'c')))
) q`

// askConstraints are the lines of constraintsSQL.
func (s *session) askConstraints(b *participant.Branch) ([]string, error) {
	if len(s.gw.router.placement.nodes) == 1 {
		return nil, nil
	}
	text, err := s.askQuietly(b, constraintsSQL)
	return strings.Split(text, "\n"), err
}

// checkSchema refuses what a schema change has made if it cannot be used, or if
// a node could not hold it true. before are the constraints that there were.
func (s *session) checkSchema(b *participant.Branch, before []string) error {
	committed := s.gw.catalogs.Current()
	changed, err := s.askCatalog(b, committed)
	if err != nil {
		return err
	}
	if err := s.gw.catalogs.compare(committed, changed); err != nil {
		return err
	}
	after, err := s.askConstraints(b)
	if err != nil {
		return err
	}
	for _, line := range after {
		if line == "" || slices.Contains(before, line) {
			continue
		}
		if strings.HasPrefix(line, "foreign") {
			return refuse(refusedForeignKey, line)
		}
		return refuse(refusedUnique, line)
	}
	s.routing.catalog = changed
	s.block.schema = s.gw.schemaChanges.Add(1)
	return nil
}

// askCatalog reads the catalog as the transaction sees it, on one of its nodes:
// all of them have run the same. What is known of differences between the nodes
// stays known.
func (s *session) askCatalog(b *participant.Branch, committed *Catalog) (*Catalog, error) {
	rows, err := s.askRows(b, clientSQL+` ORDER BY what, a, b, number`)
	if err != nil {
		return nil, err
	}
	read := &nodeCatalog{
		tables: map[relationKey]*Table{}, functions: map[relationKey]functionFacts{},
		relations: map[relationKey]relationKind{}, system: committed.systemFunctions, collation: committed.collation,
	}
	if err := read.addClient(rows); err != nil {
		return nil, err
	}
	for name, r := range committed.relations {
		if r.kind != userRelation {
			read.relations[name] = r.kind
		}
	}
	changed := mergeCatalogs([]*participant.Node{b.Node()}, []*nodeCatalog{read})
	for name, r := range committed.relations {
		if now, ok := changed.relations[name]; ok && r.table != nil && r.table.differs && now.table != nil {
			now.table.unusable, now.table.differs = r.table.unusable, true
		}
	}
	changed.differences = committed.differences
	return changed, nil
}

// askRows runs a query of the session's own and returns all its rows as text.
func (s *session) askRows(b *participant.Branch, sql string) (rows [][]string, refused error) {
	b.Query(sql)
	if err := b.Send(); err != nil {
		return nil, err
	}
	for {
		frame, err := b.Receive()
		if err != nil {
			return nil, err
		}
		switch frame.Type() {
		case 'D':
			var row pgproto3.DataRow
			if err := row.Decode(frame.Body()); err != nil {
				return nil, err
			}
			cells := make([]string, len(row.Values))
			for i, value := range row.Values {
				cells[i] = string(value)
			}
			rows = append(rows, cells)
		case 'E':
			if refused == nil {
				refused = refusedBy(b, frame)
			}
		case 'Z':
			return rows, refused
		}
	}
}

// compare refuses tables that could not be used, and a change of how a table is
// sharded: the rows are where the old key has put them, and other gateways go by
// it until they have noticed.
func (h *catalogHolder) compare(committed, changed *Catalog) error {
	for name, r := range changed.relations {
		t := r.table
		if t == nil || strings.IndexByte("rpf", t.Kind) < 0 {
			continue
		}
		old := committed.relations[name].table
		switch {
		case old == nil && t.unusable != nil:
			refused := *t.unusable
			refused.Hint = "For instance: CREATE TABLE accounts (id text PRIMARY KEY, balance bigint). " + refused.Hint
			return &refused
		case old == nil:
			if gone := h.vanished(name); gone != nil && !sameSharding(gone, t) {
				return refuse(refusedNameReused, t.String())
			}
		case old.unusable == nil && (t.unusable != nil || !sameSharding(old, t)):
			if old.Reference || t.Reference {
				return refuse(refusedConversion, t.String())
			}
			return refuse(refusedResharding, t.String(), old.key().Name)
		}
	}
	return nil
}

// sameSharding tells whether a gateway that knows one table routes statements
// with the other rightly.
func sameSharding(x, y *Table) bool {
	if x.unusable != nil || y.unusable != nil {
		return x.unusable != nil && y.unusable != nil
	}
	if x.Reference || y.Reference {
		return x.Reference && y.Reference
	}
	a, b := x.key(), y.key()
	return a.Name == b.Name && a.class == b.class && x.PrimaryKey[0] == y.PrimaryKey[0]
}
