package gateway

// Life of an UPDATE, station 6: facts, catalog and placement say which nodes
// a statement must run on.

import (
	"context"
	"errors"
	"strings"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// route is where a statement must run.
type route struct {
	// nodes are the nodes that must run the statement, in the placement's
	// order; nil with anyNode. The slice is shared and not to be changed.
	nodes []*participant.Node
	// anyNode: one node, whichever. The session takes one that the transaction
	// has already enlisted, else one that answers.
	anyNode bool
	// writes: the branch has or may have a transaction id afterwards. It
	// commits with the writing branches.
	writes bool
	// wouldWrite, of EXPLAIN: the statement that is explained writes, whether or
	// not it is run.
	wouldWrite bool
	// taints: the connection may keep session state that nobody tracks (a
	// function of the client's own was called): see participant.Conn.Taint.
	taints bool
	// combine is set for a SELECT that several nodes run.
	combine *combining
	// rows tells, for an INSERT whose rows belong to several nodes, which row of
	// its VALUES goes to which of nodes: each node gets its own rows only.
	rows []int
	// schema: a schema change, to be run on one node after the other.
	schema bool
	// reference is set for what changes or locks rows of reference tables.
	reference *referenceUse
	// references are the reference tables that the statement names, filled only
	// when routeSession.explain asks.
	references []*Table
	// keys are the shard key values the statement is held to, filled only when
	// routeSession.explain asks.
	keys []keyInfo
}

// multi tells whether several nodes run the statement and their rows and tags
// are merged.
func (r *route) multi() bool { return len(r.nodes) > 1 }

// keyInfo is one key value of a route, for EXPLAIN.
type keyInfo struct {
	table  *Table
	key    string // canonical text
	bucket int
	node   *participant.Node // nil: the table is not held to values of its key
}

// routeSession is what routing needs to know of the session.
type routeSession struct {
	user       string   // what $user in the search path stands for
	searchPath []string // unquoted elements of search_path, "$user" as it is
	// cursor tells, for WHERE CURRENT OF, whether there is such a cursor and which
	// node holds it, nil for none. nil: there are no cursors.
	cursor  func(name string) (node *participant.Node, exists bool)
	explain bool // fill route.keys
	// catalog is what the session's own transaction has made of the tables, nil
	// while it has changed none.
	catalog *Catalog
}

// boundValues are the parameters of one execution, as Bind gives them.
type boundValues struct {
	values  [][]byte // nil: NULL
	formats []int16  // none (all text), one for all, or one for each
	// types are the parameters' types: as declared by Parse or, better, as a
	// node described them. 0 or missing: not known.
	types []uint32
}

// errParameterTypes is returned when a key cannot be read from a parameter
// without its type. The session asks a node to describe the statement and
// routes again with boundValues.types complete. It never reaches a client.
var errParameterTypes = errors.New("gateway: the type of a parameter that holds a key must be known")

// router decides where statements run. It is safe for concurrent use.
type router struct {
	placement *Placement
	catalogs  *catalogHolder
}

func newRouter(placement *Placement, catalogs *catalogHolder) *router {
	return &router{placement: placement, catalogs: catalogs}
}

// route says where st must run, or why it cannot be run: a *pgconn.PgError,
// or errParameterTypes. bound is nil for a statement without parameters. ctx
// bounds the reading of the nodes' catalogs, which happens only when st names
// something unknown.
//
// It is for Select, Insert, Update and Delete, for what stands around one
// (Explain, DeclareCursor), for schema changes, and for all that is never run
// (LOCK, DO, MERGE, ...), which it refuses. What a session does by itself (transaction
// control, SET, SQL PREPARE and EXECUTE, FETCH, ...) is no business of the
// router.
func (r *router) route(ctx context.Context, st *sqlparse.Statement, bound *boundValues, session *routeSession) (route, error) {
	switch st.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete:
	case sqlparse.Explain:
		return r.routeExplain(ctx, st, bound, session)
	case sqlparse.DeclareCursor:
		return r.routeCursor(ctx, st, bound, session)
	default:
		if isSchemaKind(st.Kind) {
			return r.routeSchema(ctx, st, session)
		}
		return route{}, refuseKind(st)
	}
	catalog := session.catalog
	if catalog == nil {
		catalog = r.catalogs.Fresh(ctx)
	}
	e := evaluation{catalog: catalog, placement: r.placement, st: st, bound: bound, session: session, fresh: session.catalog != nil}
	got, err := e.route()
	if !e.unknown || e.fresh {
		return got, err
	}
	// Made a moment ago, perhaps. If not, any node says so in Postgres's words.
	e = evaluation{catalog: r.catalogs.Reload(ctx), placement: r.placement, st: st, bound: bound, session: session, fresh: true}
	return e.route()
}

// routeExplain routes EXPLAIN where its statement would go.
func (r *router) routeExplain(ctx context.Context, st *sqlparse.Statement, bound *boundValues, session *routeSession) (route, error) {
	if st.Inner == nil {
		return route{}, refuse(refusedOther)
	}
	switch st.Inner.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete:
	case sqlparse.DeclareCursor, sqlparse.Create, sqlparse.Execute:
		return route{}, refuse(refusedExplainOf, strings.ToUpper(st.Inner.Kind.String()))
	}
	got, err := r.route(ctx, st.Inner, bound, session)
	if err != nil {
		return route{}, err
	}
	got.wouldWrite = got.writes
	got.writes = got.writes && st.Analyze // without ANALYZE nothing is run
	return got, nil
}

// routeCursor routes DECLARE where its query would go.
func (r *router) routeCursor(ctx context.Context, st *sqlparse.Statement, bound *boundValues, session *routeSession) (route, error) {
	if st.Cursor.Hold {
		return route{}, refuse(refusedHold)
	}
	if st.Inner == nil {
		return route{}, refuse(refusedOther)
	}
	got, err := r.route(ctx, st.Inner, bound, session)
	if err != nil {
		return route{}, err
	}
	if got.multi() && got.combine == nil {
		return route{}, refuse(refusedCursor)
	}
	return got, nil
}

// refuseKind refuses a statement by its kind alone.
func refuseKind(st *sqlparse.Statement) error {
	if st.Temp {
		return refuse(refusedTemporary)
	}
	why, ok := refusedKinds[st.Kind]
	if !ok {
		return refuse(refusedOther)
	}
	command := strings.ToUpper(st.Kind.String())
	if st.Object != "" && !strings.Contains(command, " ") {
		command += " " + st.Object
	}
	return refuse(why, command)
}
