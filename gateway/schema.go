package gateway

import (
	"context"
	"slices"
	"strings"

	"github.com/pgpact/pgpact/sqlparse"
)

// Schema changes run on every node in one distributed transaction: here is which
// ones, schema_run.go runs them, schema_check.go looks at what has come of them.

// isSchemaKind: kinds of statements that run on every node alike.
func isSchemaKind(k sqlparse.Kind) bool {
	switch k {
	case sqlparse.Create, sqlparse.Alter, sqlparse.Drop, sqlparse.Truncate, sqlparse.Comment, sqlparse.Grant, sqlparse.Revoke:
		return true
	}
	return false
}

// schemaObjects are the objects that can be created, altered and dropped through
// the gateway. What is not here belongs to a whole server, cannot be done in a
// transaction, or hides SQL that the gateway could not place.
var schemaObjects = []string{
	"TABLE", "INDEX", "SCHEMA", "TYPE", "DOMAIN", "VIEW", "SEQUENCE", "STATISTICS", "COLLATION", "EXTENSION",
	"CONSTRAINT", "DOMCONSTRAINT", "POLICY", "TRIGGER",
}

// routeSchema says that a schema change runs on all nodes, or why it does not.
func (r *router) routeSchema(ctx context.Context, st *sqlparse.Statement, session *routeSession) (route, error) {
	command := strings.ToUpper(st.Kind.String())
	if st.Object != "" {
		command += " " + st.Object
	}
	text := st.SQL
	if st.Reference != nil {
		if st.Reference.Wrong != "" {
			return route{}, refuse(refusedReferenceOption, st.Reference.Wrong)
		}
		text = st.Reference.SQL
	}
	switch {
	case st.Temp:
		return route{}, refuse(refusedTemporary)
	case st.Object == "TABLE AS" || st.Object == "MATERIALIZED VIEW" && st.Kind == sqlparse.Create:
		return route{}, refuse(refusedTableAs, command)
	case st.Kind != sqlparse.Truncate && !slices.Contains(schemaObjects, st.Object):
		return route{}, refuse(refusedSchemaObject, command)
	case slices.Contains(session.searchPath, ownSchema) || sqlparse.Mentions(text, ownSchema):
		return route{}, refuse(refusedOwn, ownSchema, "*")
	case st.Concurrently && st.Unique && len(r.placement.nodes) > 1:
		return route{}, refuse(refusedUniqueConcurrently)
	}
	if err := checkLeftBehind(st); err != nil {
		return route{}, err
	}
	if err := r.checkMentions(ctx, st, session); err != nil {
		return route{}, err
	}
	return route{nodes: r.placement.nodes, writes: true, schema: true}, nil
}

// checkMentions refuses a schema change of what clients may not change, and of a
// table that is not the same on all nodes. While another gateway commits a
// change, it is not for a moment.
func (r *router) checkMentions(ctx context.Context, st *sqlparse.Statement, session *routeSession) error {
	catalog := session.catalog
	if catalog == nil {
		catalog = r.catalogs.Renew(ctx)
	}
	for tries := 0; ; tries++ {
		differs := false
		for i := range st.Tables {
			found := catalog.lookup(st.Tables[i].Schema, st.Tables[i].Name, session)
			switch {
			case found.kind == ownRelation:
				return refuse(refusedOwn, ownSchema, st.Tables[i].Name)
			case found.kind == systemRelation && st.Object != "VIEW":
				return refuse(refusedSystemWrite, st.Tables[i].Name)
			case found.table == nil || !found.table.differs:
			case tries == 5 || session.catalog != nil:
				copied := *found.table.unusable
				return &copied
			default:
				differs = true
			}
		}
		if !differs {
			return nil
		}
		catalog = r.catalogs.Reload(ctx)
	}
}
