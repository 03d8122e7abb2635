package gateway

import (
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// Cursors. In Postgres a cursor that DECLARE makes and a portal that Bind makes
// are one thing with one name: FETCH, MOVE, CLOSE and WHERE CURRENT OF know
// portals, and Describe, Execute and Close know cursors. Here too: the session's
// portals hold both, and a node holds each under the client's own name, so that
// what is sent there verbatim finds it.
//
// One node holds a cursor, or several hold its parts (cursor_merged.go). What Bind
// makes of several nodes' rows is a portal of the gateway's, which Execute and
// Close know, but no SQL.

// declareCursor runs DECLARE.
func (s *session) declareCursor(x *execution) error {
	name := x.st.Prepared
	if s.state == implicit && x.portal != nil {
		// The nodes have a block then; a client of Postgres has none in a pipeline.
		return s.behindOwed(x, sqlError(pgerrcode.NoActiveSQLTransaction, "DECLARE CURSOR can only be used in transaction blocks"))
	}
	r, err := s.route(x)
	if err != nil {
		return err
	}
	if r.multi() {
		return s.declareMerged(x, &r)
	}
	switch there := s.portals.get(name); {
	case there == nil:
		if s.state != idle && len(s.portals.byName) >= s.gw.cfg.MaxPortals {
			return s.behindOwed(x, tooManyPortals(s.gw.cfg.MaxPortals))
		}
	case there.at != nil && (r.anyNode || r.nodes[0] == there.at.Node()):
		r.at(there.at) // which says so, or what else is wrong
	default:
		return s.behindOwed(x, duplicateCursor(name))
	}
	if err := s.onNodes(x, &r); err != nil {
		return err
	}
	if s.block == nil {
		return nil // no node has accepted it then
	}
	query := x.st.Inner
	s.portals.add(&portal{
		name: name, statement: &statement{sql: query.SQL, parsed: query}, route: r, level: len(s.block.savepoints),
		at: s.branches[0], nodeName: name,
	})
	return nil
}

// behindOwed is an error of the gateway's own, behind what is owed to the
// messages before Execute.
func (s *session) behindOwed(x *execution, err error) error {
	if s.pending.bind == nil || s.pending.bind != x.portal {
		return err
	}
	s.pending.describe = x.describe
	if settled := s.settle(); settled != nil {
		return settled
	}
	return err
}

func duplicateCursor(name string) error {
	return sqlErrorf(pgerrcode.DuplicateCursor, "cursor %q already exists", name)
}

func tooManyPortals(limit int) error {
	return sqlErrorf(pgerrcode.ProgramLimitExceeded, "too many portals (limit %d)", limit)
}

// at makes the route lead to one branch.
func (r *route) at(b *participant.Branch) {
	r.nodes, r.anyNode, r.combine = []*participant.Node{b.Node()}, false, nil
}

// here is where the portal runs: once a node holds it, there.
func (p *portal) here() route {
	r := p.route
	if p.at != nil {
		r.at(p.at)
	}
	return r
}

// cursorRoute finds the node of the cursor that FETCH, MOVE or CLOSE names.
func (s *session) cursorRoute(st *sqlparse.Statement) (route, error) {
	cursor := s.portals.get(st.Prepared)
	switch {
	case cursor == nil:
		return s.foreignCursor(st.Prepared)
	case cursor.broken:
		return route{}, cannotBeRun(cursor.name)
	case cursor.at == nil:
		return route{}, refuse(refusedNoCursor, st.Prepared)
	}
	var r route
	r.at(cursor.at)
	return r, nil
}

// fetchCursor runs FETCH, MOVE and CLOSE at the cursor's node.
func (s *session) fetchCursor(x *execution) error {
	if cursor := s.mergedCursor(x.st); cursor != nil && cursor != x.portal {
		return s.fetchMerged(x, cursor)
	}
	r, err := s.cursorRoute(x.st)
	switch {
	case x.portal == nil:
	case x.portal.at != nil:
		r, err = x.portal.here(), nil // it may have fetched already what it is asked for
	case x.portal == s.portals.get(x.st.Prepared):
		// Of itself: any node that knows it by its name says that this cannot be.
		r, err = anyNode, nil
		x.portal.nodeName = x.portal.name
	}
	if err != nil {
		return s.behindOwed(x, err)
	}
	return s.onNodes(x, &r)
}

// foreignCursor is a cursor that the gateway has not seen made: a function may
// have. With one node in the transaction it is there or nowhere.
func (s *session) foreignCursor(name string) (route, error) {
	if s.block != nil && s.block.t != nil {
		if branches := s.block.t.Branches(); len(branches) == 1 && branches[0].Open() {
			var r route
			r.at(branches[0])
			return r, nil
		}
	}
	return route{}, sqlErrorf(pgerrcode.InvalidCursorName, "cursor %q does not exist", name)
}

// nodeOf is the node that holds the cursor, nil when none does.
func (ps *portalSet) nodeOf(name string) (node *participant.Node, exists bool) {
	p := ps.get(name)
	if p == nil || p.at == nil {
		return nil, p != nil
	}
	return p.at.Node(), true
}

// closeCursor runs CLOSE, also of a portal that only the gateway has.
func (s *session) closeCursor(x *execution) error {
	if x.st.All {
		return s.closeAllCursors(x)
	}
	name := x.st.Prepared
	if cursor := s.mergedCursor(x.st); cursor != nil && cursor != x.portal {
		return s.closeMerged(x, cursor)
	}
	if cursor := s.portals.get(name); cursor != nil && cursor.at == nil && cursor != x.portal {
		s.portals.remove(name)
		s.complete("CLOSE CURSOR")
		return nil
	}
	if err := s.fetchCursor(x); err != nil {
		return err
	}
	s.portals.remove(name)
	return nil
}

// closeAllCursors runs CLOSE ALL, which closes every portal but the one it runs
// in.
func (s *session) closeAllCursors(x *execution) error {
	if s.block != nil && s.block.t != nil {
		if err := s.block.broadcast("CLOSE ALL"); err != nil {
			return err
		}
	}
	s.portals.clear()
	if x.portal != nil {
		s.portals.add(x.portal)
	}
	s.complete("CLOSE CURSOR ALL")
	return nil
}

// describeHeld has the node describe a portal that it holds.
func (s *session) describeHeld(p *portal) error {
	if err := p.at.Lost(); err != nil {
		return err
	}
	p.at.StartSeries()
	p.at.Describe(&pgproto3.Describe{ObjectType: 'P', Name: p.nodeName})
	p.at.Sync()
	if err := p.at.Send(); err != nil {
		return err
	}
	d, err := s.readDescription(p.at)
	if err != nil {
		return err
	}
	s.client.sendRaw(d.frame)
	return nil
}
