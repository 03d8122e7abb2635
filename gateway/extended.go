package gateway

import (
	"errors"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"
)

// The extended protocol, so that no client can tell it from Postgres and yet no
// question to a node costs a round trip of its own if it can be helped.
//
// Whether a Parse or a Bind is right is for a node to say. But the usual series
// Parse, Bind, Describe, Execute, Sync goes to a node as one series anyway; so
// the answers to the first three are *pending* until Execute comes, and are
// then the node's own. If something else comes instead, what is pending is
// settled first: from the cache of descriptions, or by asking a node.

// pending are replies owed to the client, oldest first. Nothing that follows
// them may be sent before them.
type pending struct {
	parse    *statement // ParseComplete of this statement
	bind     *portal    // BindComplete of this portal, of that statement if there is one
	describe bool       // and the description of that portal
}

// extendedMessage serves one message of the extended protocol.
func (s *session) extendedMessage(kind byte, body []byte) error {
	switch kind {
	case 'P':
		return s.parseMessage(body)
	case 'B':
		return s.bindMessage(body)
	case 'D':
		return s.describeMessage(body)
	case 'E':
		return s.executeMessage(body)
	case 'C':
		return s.closeMessage(body)
	default: // Flush
		if err := s.noBody(body); err != nil {
			return err
		}
		return s.settle()
	}
}

func (s *session) parseMessage(body []byte) error {
	if err := s.settle(); err != nil {
		return err
	}
	var msg pgproto3.Parse
	if err := s.decode(&msg, body); err != nil {
		return err
	}
	if msg.Name == "" {
		s.dropUnnamed()
	}
	parsed, err := s.gw.parser.Parse(msg.Query)
	if err != nil {
		return err
	}
	if len(parsed) > 1 {
		return sqlError(pgerrcode.SyntaxError, "cannot insert multiple commands into a prepared statement")
	}
	st := &statement{name: msg.Name, sql: msg.Query, oids: msg.ParameterOIDs}
	if len(parsed) == 1 {
		st.parsed = &parsed[0]
		if option := st.parsed.Reference; option != nil && option.SQL != "" {
			st.sql = option.SQL
		}
		if s.state == failed && !exits(st.parsed) {
			return errAborted
		}
	}
	if err := s.keepStatement(st); err != nil {
		return err
	}
	if st.name != "" {
		s.giveKey(st)
	}
	if st.description = st.ownDescription(); st.description != nil {
		s.client.send(&pgproto3.ParseComplete{})
		return nil
	}
	s.pending.parse = st
	return nil
}

func (s *session) bindMessage(body []byte) error {
	p := &portal{}
	// The parameters must outlive the read buffer.
	if err := s.decode(&p.bind, slices.Clone(body)); err != nil {
		return err
	}
	p.name = p.bind.DestinationPortal
	p.statement = s.statements.get(p.bind.PreparedStatement)
	if s.pending.bind != nil || s.pending.parse != p.statement {
		if err := s.settle(); err != nil {
			return err
		}
	}
	if err := s.bindPortal(p); err != nil {
		// The error belongs behind the answer to Parse, which may be an error
		// itself: a table that does not exist is no question of routing.
		if settled := s.settle(); settled != nil {
			return settled
		}
		return err
	}
	s.portals.add(p)
	if p.statement.runsHere() {
		if err := s.settle(); err != nil { // EXECUTE may have its Parse unanswered
			return err
		}
		s.client.send(&pgproto3.BindComplete{})
		return nil
	}
	s.pending.bind = p
	return nil
}

// bindPortal checks a Bind as far as that can be done without a node, and finds
// out where it leads.
func (s *session) bindPortal(p *portal) error {
	st := p.statement
	if st == nil {
		return noStatement(p.bind.PreparedStatement)
	}
	params := len(p.bind.Parameters)
	if n := len(p.bind.ParameterFormatCodes); n > 1 && n != params {
		return sqlErrorf(pgerrcode.ProtocolViolation, "bind message has %d parameter formats but %d parameters", n, params)
	}
	if params != st.params() {
		return sqlErrorf(pgerrcode.ProtocolViolation,
			"bind message supplies %d parameters, but prepared statement %q requires %d", params, st.name, st.params())
	}
	for _, format := range slices.Concat(p.bind.ParameterFormatCodes, p.bind.ResultFormatCodes) {
		if format != 0 && format != 1 {
			return sqlErrorf(pgerrcode.InvalidParameterValue, "unsupported format code: %d", format)
		}
	}
	if s.state == failed && st.parsed != nil && (!exits(st.parsed) || params > 0) {
		return errAborted
	}
	if p.name != "" && s.portals.get(p.name) != nil {
		return duplicateCursor(p.name)
	}
	if len(s.portals.byName) >= s.gw.cfg.MaxPortals {
		return tooManyPortals(s.gw.cfg.MaxPortals)
	}
	if p.name == "" {
		s.portals.remove("") // this one takes its place
	}
	if s.portals.bytes+p.size() > s.gw.cfg.MaxPortalBytes {
		return portalBytes(s.gw.cfg.MaxPortalBytes)
	}
	if s.block != nil {
		p.level = len(s.block.savepoints)
	}
	if st.runsHere() || st.routedLate() {
		return nil
	}
	return s.routePortal(p)
}

// routePortal asks the router, and, if that needs the parameters' types, a node
// first.
func (s *session) routePortal(p *portal) error {
	st := p.statement
	bound := boundValues{values: p.bind.Parameters, formats: p.bind.ParameterFormatCodes, types: st.oids}
	if st.description != nil {
		bound.types = st.description.params
	}
	var err error
	p.route, err = s.gw.router.route(s.interrupt.context(), st.parsed, &bound, &s.routing)
	if !errors.Is(err, errParameterTypes) {
		return err
	}
	if err := s.describeStatement(st); err != nil {
		return err
	}
	bound.types = st.description.params
	p.route, err = s.gw.router.route(s.interrupt.context(), st.parsed, &bound, &s.routing)
	return err
}

func (s *session) describeMessage(body []byte) error {
	var msg pgproto3.Describe
	if err := s.decode(&msg, body); err != nil {
		return err
	}
	switch msg.ObjectType {
	case 'S':
		return s.describeNamed(msg.Name)
	case 'P':
		p := s.portals.get(msg.Name)
		if p != nil && s.pending.bind == p && !s.pending.describe {
			s.pending.describe = true
			return nil
		}
		if err := s.settle(); err != nil {
			return err
		}
		if p == nil {
			return noPortal(msg.Name)
		}
		return s.describePortal(p)
	}
	return sqlErrorf(pgerrcode.ProtocolViolation, "invalid DESCRIBE message subtype %d", msg.ObjectType)
}

func (s *session) describeNamed(name string) error {
	if err := s.settle(); err != nil {
		return err
	}
	st := s.statements.get(name)
	if st == nil {
		return noStatement(name)
	}
	if s.state == failed && st.parsed != nil && st.parsed.Returns {
		return errAborted
	}
	if err := s.describeAgain(st); err != nil {
		if errors.Is(err, errStalePlan) { // found out behind the parameters
			s.client.send(&pgproto3.ParameterDescription{ParameterOIDs: st.description.params})
		}
		return err
	}
	s.client.send(&pgproto3.ParameterDescription{ParameterOIDs: st.description.params})
	s.client.sendRaw(st.description.frame)
	return nil
}

func (s *session) describePortal(p *portal) error {
	st := p.statement
	if s.state == failed && st.parsed != nil && st.parsed.Returns {
		return errAborted
	}
	if p.at != nil {
		return s.describeHeld(p)
	}
	if err := s.describeAgain(st); err != nil {
		return err
	}
	if !st.description.returnsRows() {
		s.client.sendRaw(st.description.frame)
		return nil
	}
	if err := st.description.formatsFit(p.bind.ResultFormatCodes); err != nil {
		return err
	}
	s.client.send(st.description.rowDescription(p.bind.ResultFormatCodes))
	return nil
}

func (s *session) executeMessage(body []byte) error {
	var msg pgproto3.Execute
	if err := s.decode(&msg, body); err != nil {
		return err
	}
	p := s.portals.get(msg.Portal)
	if s.pending.bind != p || p == nil || p.statement.runsHere() {
		if err := s.settle(); err != nil {
			return err
		}
	}
	switch {
	case p == nil:
		return noPortal(msg.Portal)
	case p.statement.parsed == nil:
		s.client.send(&pgproto3.EmptyQueryResponse{})
		return nil
	case int32(msg.MaxRows) < 0:
		msg.MaxRows = 0 // all, as for Postgres
	}
	return s.runPortal(p, msg.MaxRows)
}

func (s *session) closeMessage(body []byte) error {
	if err := s.settle(); err != nil {
		return err
	}
	var msg pgproto3.Close
	if err := s.decode(&msg, body); err != nil {
		return err
	}
	switch msg.ObjectType {
	case 'S':
		s.statements.remove(msg.Name)
	case 'P':
		if err := s.closePortal(msg.Name); err != nil {
			return err
		}
	default:
		return sqlErrorf(pgerrcode.ProtocolViolation, "invalid CLOSE message subtype %d", msg.ObjectType)
	}
	s.client.send(&pgproto3.CloseComplete{})
	return nil
}

// syncMessage ends a pipeline: its implicit transaction commits, errors are
// over.
func (s *session) syncMessage() {
	if !s.skipping {
		s.atSync = s.state != inBlock
		err := s.settle()
		s.atSync = false
		if err == nil {
			err = s.advance(onFinish)
		}
		if err != nil {
			s.report(err)
		}
	}
	if s.block == nil {
		s.portals.clear()
	}
	s.skipping, s.inSeries = false, false
	s.readyForQuery()
}

// settle sends the replies that are owed, after a node has said that they are
// true.
func (s *session) settle() error {
	switch {
	case s.pending.bind != nil:
		return s.settleBind(s.pending.bind)
	case s.pending.parse != nil:
		return s.settleParse()
	}
	return nil
}

// settleParse answers a Parse.
func (s *session) settleParse() error {
	if err := s.describeStatement(s.pending.parse); err != nil {
		return err
	}
	s.pending.parse = nil
	s.client.send(&pgproto3.ParseComplete{})
	return nil
}

// settleBind has a node bind a portal that is not executed yet. One that its
// node does not hold is only checked: Execute will bind it again.
func (s *session) settleBind(p *portal) error {
	describe := s.pending.describe
	s.pending.describe = false
	if cursor := s.mergedCursor(p.statement.parsed); cursor != nil {
		return s.answerCursor(p.statement, cursor, p, describe)
	}
	x := &s.x
	*x = execution{st: p.statement.parsed, portal: p, describe: describe}
	r, err := s.route(x)
	known := err == nil
	if err != nil {
		if !p.statement.routedLate() {
			return err
		}
		r = anyNode // that there is no such cursor is said when it is run
	}
	if known && p.held() && !s.atSync {
		if s.state == idle {
			if err := s.advance(onSeveral); err != nil {
				return err
			}
		}
		// Whoever fetches from it runs it: the branch is marked now.
		p.nodeName = p.name
		return s.onNodes(x, &r)
	}
	p.nodeName, r.writes, r.taints, r.rows, r.reference = "", false, false, nil, nil // nothing is run
	if r.multi() {
		r.nodes = r.nodes[:1]
	}
	return s.onNodes(x, &r)
}

// abandonPending forgets what an error has made void.
func (s *session) abandonPending() {
	if st := s.pending.parse; st != nil && s.statements.get(st.name) == st {
		s.statements.remove(st.name)
	}
	if p := s.pending.bind; p != nil && s.portals.get(p.name) == p {
		s.portals.remove(p.name)
	}
	s.pending = pending{}
}

func noPortal(name string) error {
	return sqlErrorf(pgerrcode.InvalidCursorName, "portal %q does not exist", name)
}
