package gateway

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
)

// A statement at READ COMMITTED that reads several nodes at one instant: one
// series at each node, in three parts. The window of the barrier is open for the
// second part only, in which nothing waits for anything but the node's answer.

// together is such a statement, as it is sent to one node and another. Each
// function appends to a series, or reads what has come of it.
type together struct {
	branches []*participant.Branch
	// parse begins the series with what takes the tables' locks.
	parse func(i int)
	// bind opens the snapshot. again: one that did not count has been opened before.
	bind func(i int, again bool)
	// rest runs the statement, up to Sync.
	rest func(i int)
	// opened is the type of the message that answers the second part: '2' of Bind.
	opened byte
	// receive reads up to the answer to the first or second part (at tells by its
	// type whether a message is that), or up to what the node refuses.
	receive func(i int, at func(kind byte) bool) error
}

// send takes the statement through the window. On an error some branches may be
// left in the middle of their series: see endSeries.
func (w *together) send(s *session) error {
	ctx := s.interrupt.context()
	parsed := func(kind byte) bool { return kind == '1' || kind == 'T' || kind == 'n' }
	if err := w.exchange(w.parse, parsed); err != nil {
		return err
	}
	nodes := make([]*participant.Node, 0, len(w.branches))
	for _, b := range w.branches {
		nodes = append(nodes, b.Node())
	}
	again := false
	err := s.atOneInstant(nodes, func() error {
		bind := func(i int) { w.bind(i, again) }
		again = true
		return w.exchange(bind, func(kind byte) bool { return kind == w.opened })
	})
	if err == nil && ctx.Err() != nil { // a cancel is no business of a node that waits for us
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	for i, b := range w.branches {
		w.rest(i)
		if err := b.Send(); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends a part to all branches, then reads their answers to it.
func (w *together) exchange(appendPart func(i int), at func(kind byte) bool) error {
	for i, b := range w.branches {
		appendPart(i)
		b.Flush()
		if err := b.Send(); err != nil {
			return err
		}
	}
	var err error
	for i := range w.branches {
		if failed := w.receive(i, at); failed != nil && err == nil {
			err = failed
		}
	}
	return err
}

// endSeries ends the series in which an error has left a branch, so that its
// connection stays usable: what the node still does is cancelled.
func (s *session) endSeries(b *participant.Branch) {
	if !b.InSeries() || b.Lost() != nil {
		return
	}
	b.Conn().Cancel()
	b.Sync()
	if b.Send() == nil {
		_, _ = s.readFirst(b, true) // the first error counts
	}
}

// exchangeTogether is exchange for a statement whose rows need not be combined.
func (s *session) exchangeTogether(x *execution) error {
	w := &together{
		branches: s.branches,
		opened:   '2',
		parse:    func(i int) { x.merged.nth = i; s.appendParse(x, s.branches[i], true) },
		bind: func(i int, _ bool) {
			s.answerKnown(x)
			s.appendBind(x, s.branches[i])
		},
		rest: func(i int) { s.appendExecute(x, s.branches[i]) },
		receive: func(i int, at func(kind byte) bool) error {
			x.merged.nth = i
			return s.relayUntil(s.branches[i], x, x.ends(i, at))
		},
	}
	if err := w.send(s); err != nil {
		for _, b := range s.branches {
			s.endSeries(b)
		}
		return err
	}
	return nil
}

// answerKnown answers the client's Parse of a statement that the first node need
// not parse, and so says nothing of.
func (s *session) answerKnown(x *execution) {
	if x.knownFirst && s.pending.parse != nil {
		s.pending.parse = nil
		s.parseComplete()
	}
}

// ends is at, but where the node describes the statement it has parsed: then the
// part ends with the description.
func (x *execution) ends(i int, at func(kind byte) bool) func(kind byte) bool {
	described := x.described
	if i < len(described) && described[i] {
		return func(kind byte) bool { return kind != '1' && at(kind) }
	}
	return at
}

// appendParse begins the series with Parse, unless the connection knows the
// statement. With locks, what it knows is described, for that takes the locks on
// the tables that Parse would take.
func (s *session) appendParse(x *execution, b *participant.Branch, locks bool) {
	b.StartSeries()
	s.portals.closeAbandoned(b)
	described := false
	if x.portal == nil {
		x.parseMsg = pgproto3.Parse{Query: x.sql}
		b.Parse(&x.parseMsg)
	} else if p := x.portal; p.at != b { // else it is open there already
		st := p.statement
		name, parsed := st.nameAt(b)
		if x.merged.nth == 0 {
			x.knownFirst = parsed
		}
		if !parsed {
			x.parseMsg = pgproto3.Parse{Name: name, Query: st.sql, ParameterOIDs: st.oids}
			b.Parse(&x.parseMsg)
			described = s.verifies(st) || s.learns(st)
		} else {
			s.learns(st) // another session may have had it described
			described = locks
		}
		if described {
			x.describeMsg = pgproto3.Describe{ObjectType: 'S', Name: name}
			b.Describe(&x.describeMsg)
		}
	}
	if locks {
		x.described = append(x.described[:min(x.merged.nth, len(x.described))], described)
	}
}

// appendBind goes on with Bind. Each connection has names of its own for the
// statements that it knows.
func (s *session) appendBind(x *execution, b *participant.Branch) {
	p := x.portal
	switch {
	case p == nil:
		b.Bind(&pgproto3.Bind{})
	case p.at != b:
		p.bind.PreparedStatement, _ = p.statement.nameAt(b)
		p.bind.DestinationPortal = p.nodeName
		b.Bind(&p.bind)
	}
}

// appendExecute ends the series.
func (s *session) appendExecute(x *execution, b *participant.Branch) {
	name := ""
	if x.portal != nil {
		name = x.portal.nodeName
	}
	if x.describe || x.portal == nil {
		x.describeMsg = pgproto3.Describe{ObjectType: 'P', Name: name}
		b.Describe(&x.describeMsg)
	}
	if x.run {
		x.executeMsg = pgproto3.Execute{Portal: name, MaxRows: x.maxRows}
		b.Execute(&x.executeMsg)
	}
	b.Sync()
}

// series are the three parts of a combined SELECT at a node.
type series struct {
	parse func(b *participant.Branch)
	// bind opens the snapshot. Its last answer is of the type opened.
	bind   func(b *participant.Branch)
	opened byte
	rest   func(src *rowSource)
}

// sendTogether sends the nodes of a combined SELECT their statements. This is
// where the snapshots that it reads by are opened: at one instant, or each when
// the message arrives at its node.
func (s *session) sendTogether(x *execution, m *rowMerge, parts series) error {
	if !x.together {
		for _, src := range m.sources {
			src.branch.StartSeries()
			parts.parse(src.branch)
			parts.bind(src.branch)
			parts.rest(src)
			if err := src.branch.Send(); err != nil {
				return err
			}
			src.waiting = true
		}
		return nil
	}
	w := &together{
		opened: parts.opened,
		parse: func(i int) {
			m.sources[i].branch.StartSeries()
			parts.parse(m.sources[i].branch)
		},
		bind: func(i int, again bool) {
			if again && m.name != "" {
				m.sources[i].branch.Close(&pgproto3.Close{ObjectType: 'P', Name: portalKey(m.name)})
			}
			parts.bind(m.sources[i].branch)
		},
		rest: func(i int) {
			parts.rest(m.sources[i])
			m.sources[i].waiting = true
		},
		receive: func(i int, at func(kind byte) bool) error {
			_, err := m.receiveUntil(s, m.sources[i], at)
			return err
		},
	}
	for _, src := range m.sources {
		w.branches = append(w.branches, src.branch)
	}
	return w.send(s)
}

// relayAny passes on one frame of an answer, whatever part of the statement it
// belongs to. A simple query has no answers to Parse and Bind.
func (s *session) relayAny(b *participant.Branch, x *execution, frame pgwire.Frame) error {
	if kind := frame.Type(); x.portal == nil && (kind == '1' || kind == '2') {
		return nil
	}
	return s.relayAnswer(b, x, frame)
}

// ended is err, or the node's own reason for ending the connection, if it gave
// one.
func ended(refused, err error) error {
	if _, ok := errors.AsType[*nodeEnded](refused); ok {
		return refused
	}
	return err
}
