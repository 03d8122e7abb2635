package gateway

import (
	"context"

	"github.com/pgpact/pgpact/sqlparse"
)

// copyTarget is where the rows of a COPY FROM go.
type copyTarget struct {
	// table is nil for one that does not exist: any node says so.
	table  *Table
	taints bool
}

// routeCopyFrom finds the table of a COPY FROM STDIN and checks that it, and
// what the rows are filtered by, may be used. Where the rows go is seen row by
// row.
func (r *router) routeCopyFrom(ctx context.Context, st *sqlparse.Statement, session *routeSession) (copyTarget, error) {
	catalog := session.catalog
	if catalog == nil {
		catalog = r.catalogs.Fresh(ctx)
	}
	e := evaluation{catalog: catalog, placement: r.placement, st: st, session: session, fresh: session.catalog != nil}
	target, err := e.copyTarget()
	if !e.unknown || e.fresh {
		return target, err
	}
	e = evaluation{catalog: r.catalogs.Reload(ctx), placement: r.placement, st: st, session: session, fresh: true}
	return e.copyTarget()
}

func (e *evaluation) copyTarget() (copyTarget, error) {
	if err := e.resolve(); err != nil {
		return copyTarget{}, err
	}
	use, err := judgeFunctions(e.st.Functions, e.catalog, e.session)
	if err != nil {
		return copyTarget{}, err
	}
	if use.unknown {
		e.unknown = true
	}
	if e.unknown {
		return copyTarget{}, nil
	}
	if use.needsKey != nil && !e.onlyNode() {
		return copyTarget{}, refuse(*use.needsKey, use.needsKeyName)
	}
	if t := e.all[e.st.Target]; t != nil && t.Reference && !e.onlyNode() {
		if len(e.st.Tables) > 1 {
			return copyTarget{}, refuse(refusedReferenceAlone, t.String())
		}
		if err := e.checkCopyReference(t); err != nil {
			return copyTarget{}, err
		}
	}
	return copyTarget{table: e.all[e.st.Target], taints: use.taints}, nil
}

// routeCopyTo routes COPY TO STDOUT: a table like a SELECT of all its rows, a
// query like the query.
func (r *router) routeCopyTo(ctx context.Context, st *sqlparse.Statement, session *routeSession) (route, error) {
	if st.Copy.Query != nil {
		return r.route(ctx, st.Copy.Query, nil, session)
	}
	facts := *st.Facts
	facts.Kind, facts.Target = sqlparse.Select, -1
	return r.route(ctx, &sqlparse.Statement{SQL: st.SQL, Start: st.Start, Facts: &facts}, nil, session)
}
