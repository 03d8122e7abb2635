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
	told     bool    // it has been
	run      bool    // Execute; without it the node only checks Parse and Bind
	maxRows  uint32  // 0: all

	plan     *combinePlan // of a SELECT whose rows are combined, else nil
	declared *portal      // the cursor that DECLARE makes for them, else nil
	combined *statement   // it, as it was described

	merged    merge        // of the nodes' answers
	spool     *spool       // where rows go instead of to the client
	explained *explaining  // of EXPLAIN, else nil
	copy      *copyOut     // of a COPY TO STDOUT, else nil
	parts     *insertParts // of an INSERT of rows of several nodes, else nil
	together  bool         // its snapshots are to be of one instant
	// described tells which nodes describe the statement before the window.
	described []bool
	// collect keeps the tags for completeMerged, though there be one node only.
	collect bool
	quiet   bool // the statement has failed: what the other nodes say is dropped

	verifying  bool         // the description under way is compared, not relayed
	learnt     *description // of a statement that has none, while it is read
	knownFirst bool         // the first branch had the statement prepared already

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
	if s.timedOut() {
		return errTransactionTimeout
	}
	if r.schema && x.run {
		return s.changeSchema(x, r)
	}
	if r.rows != nil {
		var err error
		if x.parts, err = s.splitInsert(x, r); err != nil {
			return err
		}
	}
	if s.state == idle && r.writes && (r.multi() || x.explained != nil || x.spool != nil) {
		// A statement that writes on several nodes needs a transaction around it,
		// and its tag must wait for that to commit. So does EXPLAIN ANALYZE, and
		// one whose rows are kept here: if that fails nothing must have been done.
		s.hold = x.sql != "" // of the simple protocol; EXECUTE has a portal there too
		if err := s.advance(onSeveral); err != nil {
			return err
		}
	}
	if begin, ok := s.wantsSnapshots(x, r); ok && s.state == idle {
		s.hold = x.sql != ""
		if err := s.advanceTo(onSeveral, begin); err != nil {
			return err
		}
	}
	if s.state == idle {
		x.together = s.readsTogether(x, r)
		return s.autocommit(x, r)
	}
	if err := s.enlistAll(r); err != nil {
		return err
	}
	x.together = s.readsTogether(x, r) && !s.block.repeatableRead() && !s.block.serializable()
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
	if r.reference != nil {
		return s.onReference(x, r)
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
func (s *session) autocommit(x *execution, r *route) (err error) {
	if r.multi() && serializableByDefault(s.settings) {
		return errSerializable
	}
	t, err := s.beginTransaction()
	if err != nil {
		return err
	}
	defer func() {
		t.End()
		s.observeAutocommit(r.writes, err)
	}()
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
	if err != nil && x.portal != nil && x.plan == nil && isStalePlan(err) {
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
	x.quiet, x.verifying, x.learnt = false, false, nil
	return s.exchange(x)
}

// exchange sends the statement to all of s.branches, then reads their answers:
// they work at the same time. The first error wins; the others' answers are
// read to their end, so that the connections stay usable.
func (s *session) exchange(x *execution) error {
	x.merged.begin(len(s.branches))
	if x.explained != nil {
		return s.explainOnNodes(x)
	}
	if x.plan != nil {
		return s.combineRows(x)
	}
	if x.copy != nil && x.together {
		return s.copyTogether(x)
	}
	if s.mustVerifyFirst(x) {
		if err := s.prepareVerified(x); err != nil {
			return err
		}
	}
	sent, err := s.sendToAll(x)
	s.answerKnown(x)
	for i, b := range s.branches[:sent] {
		x.merged.nth = i
		failure := s.relay(b, x)
		switch {
		case failure == nil:
		case x.parts != nil:
			err, x.quiet = x.parts.prefer(err, i, failure), true
		case err == nil:
			err, x.quiet = failure, true
		}
	}
	if err == nil && x.parts != nil {
		err = s.handOutReturned(x)
	}
	if err == nil && x.merged.several() && x.merged.tag != "" && x.spool == nil {
		s.completeMerged(x)
	}
	return err
}

// sendToAll sends the statement to all of s.branches, and returns to how many of
// them it has.
func (s *session) sendToAll(x *execution) (sent int, err error) {
	if x.together {
		if err := s.exchangeTogether(x); err != nil {
			return 0, err
		}
		return len(s.branches), nil
	}
	for i, b := range s.branches {
		x.merged.nth = i
		if err := s.send(x, b); err != nil {
			x.quiet = true
			return i, err
		}
	}
	return len(s.branches), nil
}

// send writes the statement to one branch.
func (s *session) send(x *execution, b *participant.Branch) error {
	switch {
	case x.portal == nil && x.parts != nil:
		b.Query(x.parts.parts[x.merged.nth].sql)
		return b.Send()
	case x.portal == nil:
		b.Query(x.sql)
		return b.Send()
	case x.parts != nil:
		return s.sendPart(x, b, x.merged.nth)
	}
	return s.sendSeries(x, b)
}

// sendSeries writes Parse (if the connection does not know the statement), Bind,
// Describe, Execute and Sync.
func (s *session) sendSeries(x *execution, b *participant.Branch) error {
	s.appendParse(x, b, false)
	s.appendBind(x, b)
	s.appendExecute(x, b)
	return b.Send()
}
