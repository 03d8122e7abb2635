package gateway

import (
	"errors"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// execution is one statement on its way to the nodes and back, whichever
// protocol it came by.
type execution struct {
	st *sqlparse.Statement

	sql string // simple protocol: the text to send

	portal   *portal // extended protocol, else nil
	describe bool    // the client waits for the portal's description
	run      bool    // Execute; without it the node only checks Parse and Bind
	maxRows  uint32  // 0: all

	merged merge    // of the nodes' answers
	spool  *spool   // where rows go instead of to the client
	copy   *copyOut // of a COPY TO STDOUT, else nil
	quiet  bool     // the statement has failed: what the other nodes say is dropped

	verifying  bool // the description under way is compared, not relayed
	knownFirst bool // the first branch had the statement prepared already

	// Messages, here so that they need no memory of their own.
	parseMsg    pgproto3.Parse
	describeMsg pgproto3.Describe
	executeMsg  pgproto3.Execute
}

// simple makes x a statement of the simple protocol.
func (x *execution) simple(st *sqlparse.Statement, sql string) *execution {
	*x = execution{st: st, sql: sql, run: true}
	return x
}

// onNodes runs the statement where route says, within the session's
// transaction, if there is one.
func (s *session) onNodes(x *execution, r *route) error {
	if s.state == idle && r.writes && r.multi() {
		// A statement that writes on several nodes needs a transaction around it,
		// and its tag must wait for that to commit.
		s.hold = x.sql != "" // of the simple protocol; EXECUTE has a portal there too
		if err := s.advance(onSeveral); err != nil {
			return err
		}
	}
	if s.state == idle {
		return s.autocommit(x, r)
	}
	if err := s.enlistAll(r); err != nil {
		return err
	}
	for _, b := range s.branches {
		switch {
		case r.writes && locksOnly(x.st):
			b.MarkLocks()
		case r.writes:
			b.MarkWrites()
		}
		if r.taints {
			b.Conn().Taint()
		}
	}
	return s.exchange(x)
}

// locksOnly tells whether a statement does nothing but lock rows. Its locks must
// outlast the commits of the nodes that were written to, or whoever waits for
// them reads what those nodes show of before: the coordinator commits such
// branches after the others.
func locksOnly(st *sqlparse.Statement) bool {
	return st.Locking && !st.Writes && len(st.Functions) == 0
}

// enlistAll fills s.branches with the block's branches at the route's nodes.
func (s *session) enlistAll(r *route) error {
	s.branches = s.branches[:0]
	if r.anyNode {
		b, err := s.enlistAny()
		if err == nil {
			s.branches = append(s.branches, b)
		}
		return err
	}
	for _, node := range r.nodes {
		b, err := s.enlist(node)
		if err != nil {
			return err
		}
		s.branches = append(s.branches, b)
	}
	return nil
}

// autocommit runs a statement that is a transaction by itself: at one node, or,
// when it only reads, at several.
func (s *session) autocommit(x *execution, r *route) error {
	if level, _ := s.settings.Get("default_transaction_isolation"); r.multi() && level == "serializable" {
		return errSerializable
	}
	t, err := s.beginTransaction()
	if err != nil {
		return err
	}
	defer t.End()
	join := func(node *participant.Node) (*participant.Branch, error) {
		return s.join(t, node, s.settings, nil)
	}
	s.branches = s.branches[:0]
	if r.anyNode {
		b, err := s.gw.firstThatAnswers(join)
		if err != nil {
			return err
		}
		s.branches = append(s.branches, b)
	}
	for _, node := range r.nodes {
		b, err := join(node)
		if err != nil {
			return err
		}
		s.branches = append(s.branches, b)
	}
	if r.taints {
		for _, b := range s.branches {
			b.Conn().Taint()
		}
	}
	err = s.exchange(x)
	if err != nil && x.portal != nil && isStalePlan(err) {
		err = s.retryStalePlan(x)
	}
	if err != nil && r.writes && s.branches[0].Lost() != nil {
		return &unknownOutcome{err: err}
	}
	return err
}

// isStalePlan recognises a prepared statement that another session had parsed on
// this connection before a table was changed.
func isStalePlan(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == pgerrcode.FeatureNotSupported && pgErr.Message == stalePlan
}

const stalePlan = "cached plan must not change result type"

// errStalePlan: the statement's result is no longer what its client was told.
var errStalePlan = sqlError(pgerrcode.FeatureNotSupported, stalePlan)

// retryStalePlan parses the statement anew and runs it again. Nothing has been
// sent to the client, and nothing has been done at the node. If the tables have
// changed since the *client* prepared it, the comparison with what the client
// was told fails it again, and then rightly.
func (s *session) retryStalePlan(x *execution) error {
	for _, b := range s.branches {
		b.ForgetStatement(x.portal.statement.key)
	}
	x.quiet, x.verifying = false, false
	return s.exchange(x)
}

// exchange sends the statement to all of s.branches, then reads their answers:
// they work at the same time. The first error wins; the others' answers are
// read to their end, so that the connections stay usable.
func (s *session) exchange(x *execution) error {
	x.merged.begin(len(s.branches))
	if x.mustVerifyFirst() {
		if err := s.prepareVerified(x); err != nil {
			return err
		}
	}
	var err error
	sent := 0
	for i, b := range s.branches {
		x.merged.nth = i
		if err = x.send(b); err != nil {
			x.quiet = true
			break
		}
		sent++
	}
	if x.knownFirst && s.pending.parse != nil {
		s.pending.parse = nil // the node will not say it: it need not parse
		s.client.send(&pgproto3.ParseComplete{})
	}
	for i, b := range s.branches[:sent] {
		x.merged.nth = i
		if failure := s.relay(b, x); failure != nil && err == nil {
			err, x.quiet = failure, true
		}
	}
	if err == nil && x.merged.several() && x.merged.tag != "" && x.spool == nil {
		s.completeMerged(x)
	}
	return err
}

// send writes the statement to one branch.
func (x *execution) send(b *participant.Branch) error {
	if x.portal == nil {
		b.Query(x.sql)
		return b.Send()
	}
	return x.sendSeries(b)
}

// sendSeries writes Parse (if the connection does not know the statement), Bind,
// Describe, Execute and Sync.
func (x *execution) sendSeries(b *participant.Branch) error {
	p := x.portal
	st := p.statement
	b.StartSeries()
	if p.at != b { // else it is open there already
		name, parsed := st.nameAt(b)
		if x.merged.nth == 0 {
			x.knownFirst = parsed
		}
		if !parsed {
			x.parseMsg = pgproto3.Parse{Name: name, Query: st.sql, ParameterOIDs: st.oids}
			b.Parse(&x.parseMsg)
			if st.verifiable() {
				x.describeMsg = pgproto3.Describe{ObjectType: 'S', Name: name}
				b.Describe(&x.describeMsg)
			}
		}
		p.bind.PreparedStatement, p.bind.DestinationPortal = name, p.nodeName
		b.Bind(&p.bind)
	}
	if x.describe {
		x.describeMsg = pgproto3.Describe{ObjectType: 'P', Name: p.nodeName}
		b.Describe(&x.describeMsg)
	}
	if x.run {
		x.executeMsg = pgproto3.Execute{Portal: p.nodeName, MaxRows: x.maxRows}
		b.Execute(&x.executeMsg)
	}
	b.Sync()
	return b.Send()
}
