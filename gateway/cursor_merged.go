package gateway

import (
	"strconv"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// A cursor over several nodes. Every node DECLAREs one of that name for its own
// rows, at once, so that the rows are those of that moment, as in Postgres; FETCH
// and MOVE take portions of them and merge them as a stream. By DECLARE and FETCH
// and not by Bind and Execute, because only a FETCH says in which format it wants
// its columns.
//
// Of a merge there is no way back: such a cursor goes forward only. What one node
// combines (aggregates, groups) is a cursor of that node, which can do all that a
// cursor can.

// declareMerged runs DECLARE for rows of several nodes.
func (s *session) declareMerged(x *execution, r *route) error {
	name, options := x.st.Prepared, &x.st.Cursor
	switch {
	case s.portals.get(name) != nil:
		return s.behindOwed(x, duplicateCursor(name))
	case s.state == idle:
		return s.behindOwed(x, sqlError(pgerrcode.NoActiveSQLTransaction, "DECLARE CURSOR can only be used in transaction blocks"))
	case len(s.portals.byName) >= s.gw.cfg.MaxPortals:
		return s.behindOwed(x, tooManyPortals(s.gw.cfg.MaxPortals))
	}
	if s.pending.bind != nil && s.pending.bind == x.portal {
		declared := *x // settling uses the memory of x
		s.pending.describe = x.describe
		if err := s.settle(); err != nil {
			return err
		}
		declared.describe, *x = false, declared
	}
	if err := s.planCombination(x, r); err != nil {
		return err
	}
	if options.Scroll && !x.plan.split.Aggregated {
		return refuse(refusedScroll)
	}
	p := &portal{name: name, statement: x.combined, route: *r, level: len(s.block.savepoints), options: options}
	x.declared, x.maxRows = p, 0
	if err := s.onNodes(x, r); err != nil {
		return err
	}
	s.portals.add(p)
	s.complete("DECLARE CURSOR")
	return nil
}

// declaration is DECLARE for what a node is asked instead of the client's query.
func (x *execution) declaration(query string) string {
	text := "DECLARE " + participant.QuoteIdentifier(x.declared.name)
	for _, option := range []struct {
		is   bool
		word string
	}{
		{x.st.Cursor.Binary, " BINARY"}, {x.st.Cursor.Insensitive, " INSENSITIVE"}, {x.st.Cursor.Scroll, " SCROLL"},
		{x.st.Cursor.NoScroll || !x.plan.split.Aggregated, " NO SCROLL"},
	} {
		if option.is {
			text += option.word
		}
	}
	return text + " CURSOR FOR " + query
}

// declarations are what the nodes are asked. A cursor has the snapshot with which
// its DECLARE was executed.
func (x *execution) declarations(m *rowMerge) series {
	bind := x.bindParameters()
	x.bindLimit(bind, m.skip, m.left)
	return series{
		parse: func(b *participant.Branch) {
			b.Parse(&pgproto3.Parse{Query: x.declaration(x.plan.split.Node), ParameterOIDs: x.plan.params})
		},
		bind: func(b *participant.Branch) {
			b.Bind(bind)
			b.Execute(&pgproto3.Execute{})
		},
		opened: 'C',
		rest: func(src *rowSource) {
			b := src.branch
			b.Describe(&pgproto3.Describe{ObjectType: 'P', Name: portalKey(m.name)}) // its columns are held against the plan's
			b.Sync()
		},
	}
}

// openCursor declares the cursor on all nodes. Their rows are asked for by the
// first FETCH.
func (s *session) openCursor(x *execution) error {
	p := x.declared
	m, err := s.newMerge(x)
	if err != nil {
		return err
	}
	m.portal, m.name, m.cursor = p, p.name, true
	if err := s.sendTogether(x, m, x.declarations(m)); err != nil {
		return m.giveUp(s, err)
	}
	if err := m.drain(s); err != nil {
		return m.giveUp(s, err)
	}
	for _, src := range m.sources {
		src.ended = false
	}
	p.merge = m
	return nil
}

// declareCombined declares the cursor of what one node combines, there.
func (s *session) declareCombined(x *execution, b *participant.Branch, bind *pgproto3.Bind) error {
	b.StartSeries()
	b.Parse(&pgproto3.Parse{Query: x.declaration(x.plan.final), ParameterOIDs: x.plan.finalParams})
	b.Bind(bind)
	b.Execute(&pgproto3.Execute{})
	b.Sync()
	if err := b.Send(); err != nil {
		return err
	}
	if _, err := s.readRow(b); err != nil {
		return withoutPosition(err)
	}
	x.declared.at, x.declared.nodeName = b, x.declared.name
	return nil
}

// mergedCursor is the cursor over several nodes that FETCH, MOVE or CLOSE names,
// nil if it is no such cursor.
func (s *session) mergedCursor(st *sqlparse.Statement) *portal {
	switch st.Kind {
	case sqlparse.Fetch, sqlparse.Move, sqlparse.CloseCursor:
	default:
		return nil
	}
	if p := s.portals.get(st.Prepared); p != nil && p.merge != nil && p.merge.cursor {
		return p
	}
	return nil
}

// answerCursor sends what is owed in front of the rows of FETCH, or in front of
// the tag of MOVE and CLOSE: the gateway itself knows all that is asked.
func (s *session) answerCursor(st *statement, cursor, p *portal, describe bool) error {
	if st != nil && s.pending.parse == st {
		if err := s.settleParse(); err != nil {
			return err
		}
	}
	d := noRows(nil)
	if st.parsed.Kind == sqlparse.Fetch {
		d = cursor.statement.description
	}
	if err := d.formatsFit(p.bind.ResultFormatCodes); err != nil {
		return err
	}
	if s.pending.bind == p {
		s.pending.bind = nil
		s.client.send(&pgproto3.BindComplete{})
	}
	switch {
	case !describe:
	case d.returnsRows():
		s.client.send(d.rowDescription(p.bind.ResultFormatCodes))
	default:
		s.client.sendRaw(d.frame)
	}
	return nil
}

// fetchMerged runs FETCH and MOVE.
func (s *session) fetchMerged(x *execution, cursor *portal) error {
	switch {
	case s.timedOut():
		return errTransactionTimeout
	case cursor.broken:
		return s.behindOwed(x, cannotBeRun(cursor.name))
	}
	m, show := cursor.merge, x.st.Kind == sqlparse.Fetch
	var formats []int16
	if cursor.options.Binary { // which is so for the simple protocol only
		formats = []int16{1}
	}
	if x.portal != nil {
		if err := s.answerCursor(x.portal.statement, cursor, x.portal, x.describe); err != nil {
			return err
		}
		formats = x.portal.bind.ResultFormatCodes
	}
	skip, take, err := m.steps(x.st, cursor)
	if err != nil {
		return err
	}
	if show {
		if err := s.fetchIn(m, spread(formats, m.plan.visible)); err != nil {
			return err
		}
	}
	if _, err := s.pass(x, m, skip, false); err != nil {
		return err
	}
	if x.portal == nil && show {
		if take != 0 && !m.atEnd { // an error comes in front of the description
			if err := s.startCursor(m, take); err != nil {
				return err
			}
		}
		s.client.send(cursor.statement.description.rowDescription(formats))
	}
	passed, err := s.pass(x, m, take, show)
	if err != nil {
		return err
	}
	s.keepMerge(cursor, m)
	verb := "MOVE"
	if show {
		verb = "FETCH"
	}
	if x.st.Kind == sqlparse.Move && x.st.Count == 0 && x.st.Direction != "absolute" && m.onRow() {
		passed = 1 // it is told that there is a row, and stays there
	}
	if x.spool != nil {
		x.merged.tag, x.merged.counted, x.merged.count = verb, true, uint64(passed)
		return nil
	}
	if x.portal != nil {
		s.completed(x.portal)
	}
	s.complete(verb + " " + strconv.FormatInt(passed, 10))
	return nil
}

// executeCursor runs the cursor by the protocol, of which it is a portal.
func (s *session) executeCursor(p *portal, maxRows uint32) error {
	if refusal := transitions[s.state][onStatement].refusal; refusal != nil {
		return refusal
	}
	m := p.merge
	if p.broken {
		return cannotBeRun(p.name)
	}
	x := &s.x
	*x = execution{st: p.statement.parsed, portal: p, run: true, plan: m.plan, combined: p.statement}
	if err := s.fetchIn(m, spread(nil, m.plan.visible)); err != nil {
		return err
	}
	take := int64(-1)
	if maxRows > 0 {
		take = int64(maxRows)
	}
	passed, err := s.pass(x, m, take, true)
	if err != nil {
		return err
	}
	s.keepMerge(p, m)
	if passed == take {
		s.client.send(&pgproto3.PortalSuspended{})
		return nil
	}
	s.complete("SELECT " + strconv.FormatInt(passed, 10))
	return nil
}

// closeMerged runs CLOSE, also at the nodes: the name may be used again.
func (s *session) closeMerged(x *execution, cursor *portal) error {
	if x.portal != nil {
		if err := s.answerCursor(x.portal.statement, cursor, x.portal, x.describe); err != nil {
			return err
		}
	}
	if err := s.closeAtNodes(cursor); err != nil {
		return err
	}
	s.portals.remove(cursor.name)
	if x.portal != nil {
		s.completed(x.portal)
	}
	s.complete("CLOSE CURSOR")
	return nil
}

// closeAtNodes closes the nodes' portals of a merge.
func (s *session) closeAtNodes(p *portal) error {
	for _, src := range p.merge.sources {
		if err := src.branch.Lost(); err != nil {
			return err
		}
		src.branch.StartSeries()
		src.branch.Close(&pgproto3.Close{ObjectType: 'P', Name: portalKey(p.merge.name)})
		src.branch.Sync()
		if err := src.branch.Send(); err != nil {
			return err
		}
		src.waiting = true
	}
	return p.merge.drain(s)
}
