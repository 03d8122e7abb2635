package gateway

import (
	"slices"
	"strconv"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// mustVerifyFirst: a statement that writes must not run before its columns are
// known to be right; for others it is soon enough when they are.
func (s *session) mustVerifyFirst(x *execution) bool {
	return x.portal != nil && x.run && x.parts == nil && x.portal.at == nil && x.st.Writes && s.verifies(x.portal.statement)
}

// prepareVerified parses and describes a statement on the connections that do
// not know it yet, in an exchange of its own.
func (s *session) prepareVerified(x *execution) error {
	st := x.portal.statement
	for _, b := range s.branches {
		name, parsed := st.nameAt(b)
		if parsed {
			continue
		}
		b.StartSeries()
		x.parseMsg = pgproto3.Parse{Name: name, Query: st.sql, ParameterOIDs: st.oids}
		b.Parse(&x.parseMsg)
		x.describeMsg = pgproto3.Describe{ObjectType: 'S', Name: name}
		b.Describe(&x.describeMsg)
		b.Sync()
		if err := b.Send(); err != nil {
			return err
		}
		d, err := s.readDescription(b)
		if err != nil {
			return err
		}
		st.parsedAt(b)
		if err := st.verify(b, pgwire.NewFrame(d.frame)); err != nil {
			return err
		}
	}
	return nil
}

// portal is a bound statement, or a cursor made by DECLARE: to Postgres they are
// one thing.
type portal struct {
	name      string
	statement *statement    // of a cursor: its query
	bind      pgproto3.Bind // its parameters lie in memory of their own
	route     route
	level     int // number of savepoints when it was made

	// at is the branch whose node holds the portal open, nil for none. A portal
	// with a name has it there too, so that the node's SQL knows it (cursor.go);
	// the unnamed one has a name of ours there, and only while rows are left: our
	// own exchanges use the node's unnamed portal.
	at       *participant.Branch
	nodeName string

	// When no node holds it: the rows that are left of several nodes', whether it
	// has been run, and whether that was a SELECT.
	spool    *spool
	merge    *rowMerge // under way, its rows taken in portions
	kept     int       // bytes of the rows that merge keeps, as they count
	done     bool
	selected bool
	options  *sqlparse.Cursor // of a cursor over several nodes, else nil
	broken   bool             // an error has ended it, and not its transaction
}

// held tells whether the portal is to be held by its node from Bind on: as long
// as its transaction lasts, it is then what it is in Postgres.
func (p *portal) held() bool {
	return p.name != "" && !p.route.multi() && !p.statement.runsHere()
}

// bound notes that the branch has bound the portal.
func (p *portal) bound(b *participant.Branch) {
	if p.nodeName != "" {
		p.at = b
	}
}

// completed notes that the statement has run to its end. What a named portal
// can do then its node knows.
func (s *session) completed(p *portal) {
	if p.at != nil && p.name != "" {
		return
	}
	p.done = true
	s.portals.abandon(p)
}

// portalSet are a session's portals by the client's name.
type portalSet struct {
	byName map[string]*portal
	bytes  int    // of their parameters, and of rows kept for them
	named  uint64 // how many names for nodes were given out
	// abandoned are unnamed portals that a node holds and nobody can ask for any
	// more. They are closed with the next series there.
	abandoned []*portal
}

// size is what the portal counts for in MaxPortalBytes.
func (p *portal) size() int {
	size := len(p.name)
	for _, value := range p.bind.Parameters {
		size += len(value) + 4
	}
	if p.spool != nil {
		size += len(p.spool.frames)
	}
	return size + p.kept
}

func portalBytes(limit int) error {
	return sqlErrorf(pgerrcode.ProgramLimitExceeded, "portals too large together (limit %d bytes)", limit)
}

// nameLength is how much of a name counts: NAMEDATALEN - 1 of Postgres.
const nameLength = 63

// portalKey is what a portal is known by: Postgres compares no more of a name.
func portalKey(name string) string { return name[:min(len(name), nameLength)] }

func (ps *portalSet) get(name string) *portal { return ps.byName[portalKey(name)] }

// add adds a portal. An unnamed one takes the place of the one before it.
func (ps *portalSet) add(p *portal) {
	if ps.byName == nil {
		ps.byName = map[string]*portal{}
	}
	ps.remove(p.name)
	ps.byName[portalKey(p.name)] = p
	ps.bytes += p.size()
}

func (ps *portalSet) remove(name string) {
	if p := ps.get(name); p != nil {
		ps.drop(p)
		if p.name == "" {
			ps.abandon(p)
		}
	}
}

// drop forgets a portal of which its node holds nothing any more, or is told
// otherwise.
func (ps *portalSet) drop(p *portal) {
	ps.bytes -= p.size()
	delete(ps.byName, portalKey(p.name))
}

// abandon leaves a portal's remains to the next series at its node.
func (ps *portalSet) abandon(p *portal) {
	if p.at != nil {
		ps.abandoned = append(ps.abandoned, &portal{at: p.at, nodeName: p.nodeName})
		p.at = nil
	}
}

func (ps *portalSet) clear() {
	clear(ps.byName)
	ps.bytes = 0
	ps.abandoned = nil // gone with their transaction
}

// closeAbandoned appends Close messages for what was abandoned at the branch.
func (ps *portalSet) closeAbandoned(b *participant.Branch) {
	ps.abandoned = slices.DeleteFunc(ps.abandoned, func(p *portal) bool {
		if p.at == b {
			b.Close(&pgproto3.Close{ObjectType: 'P', Name: p.nodeName})
		}
		return p.at == b
	})
}

// nodeName is a name for an unnamed portal that outlives one exchange.
func (ps *portalSet) nodeName() string {
	ps.named++
	return "pgpact_" + strconv.FormatUint(ps.named, 10)
}

// release hands the portals of released savepoints to the level below.
func (ps *portalSet) release(index int) {
	for _, p := range ps.byName {
		p.level = min(p.level, index)
	}
}

// rollbackTo drops the portals made after the savepoint, as the nodes do.
func (ps *portalSet) rollbackTo(index int) {
	for _, p := range ps.byName {
		if p.level > index {
			ps.drop(p)
		}
	}
}

// runPortal executes a portal.
func (s *session) runPortal(p *portal, maxRows uint32) error {
	switch {
	case s.state == failed && !exits(p.statement.parsed):
		return errAborted
	case p.spool != nil:
		return s.handOut(p, maxRows)
	case p.merge != nil && p.merge.cursor:
		return s.executeCursor(p, maxRows)
	case p.merge != nil:
		return s.continueMerge(p, maxRows)
	case p.done && p.selected:
		s.complete("SELECT 0")
		return nil
	case p.done, p.broken:
		return cannotBeRun(p.name)
	}
	st := p.statement.parsed
	// A statement with nothing but Sync behind it is a transaction of its own,
	// which its node commits. Anything else begins an implicit transaction.
	if s.state == idle && !controlsTransaction(st) && !s.syncFollows() {
		if err := s.advance(onSeveral); err != nil {
			return err
		}
	}
	x := &s.x
	*x = execution{st: st, portal: p, run: true, maxRows: maxRows, describe: s.pending.describe}
	s.pending.describe = false
	switch {
	case p.route.combine != nil && st.Kind != sqlparse.Execute:
		// Merged in portions (merge_send.go).
	case st.Kind == sqlparse.Explain:
		x.spool, x.maxRows = s.newSpool(), 0 // as Postgres keeps it; it may be executed again
	case maxRows > 0 && (p.route.multi() || s.mergedCursor(st) != nil || st.Kind == sqlparse.Execute):
		// Every node gives all it has; the limit is of the merged rows.
		x.spool, x.maxRows = s.newSpool(), 0
	case s.state == idle || p.nodeName != "":
	case p.held():
		p.nodeName = p.name
	case maxRows > 0:
		p.nodeName = s.portals.nodeName()
	}
	s.hold = false
	if err := s.performPortal(x); err != nil {
		return err
	}
	if x.spool != nil {
		p.spool = x.spool
		p.spool.merged = x.merged
		if s.portals.get(p.name) == p {
			s.portals.bytes += len(p.spool.frames)
		}
		return s.handOut(p, maxRows)
	}
	p.done = p.at == nil                      // the gateway itself may have run it
	p.selected = x.st.Kind == sqlparse.Select // EXECUTE is what it executes
	return nil
}

func cannotBeRun(portal string) error {
	return sqlErrorf(pgerrcode.ObjectNotInPrerequisiteState, "portal %q cannot be run", portal)
}

// performPortal runs a portal, more than once if the statement may be repeated:
// nothing but Sync is behind it. Its commit is then part of each attempt.
func (s *session) performPortal(x *execution) error {
	if x.maxRows > 0 || x.spool != nil || x.portal.nodeName != "" || !s.retries(x.st) {
		return s.observed(x)
	}
	fresh := *x
	return s.retrying(func() error {
		told := x.told
		*x = fresh
		x.describe = x.describe && !told
		x.told = told
		s.hold = true
		if err := s.observed(x); err != nil {
			return err
		}
		return s.finish()
	})
}

// syncFollows tells whether the client's next message has arrived and is Sync.
func (s *session) syncFollows() bool {
	next, ok := s.client.reader.PeekType()
	return ok && next == 'S'
}

// maxSpool bounds the rows that a portal over several nodes keeps in memory.
const maxSpool = 64 << 20

// spool keeps the merged rows of several nodes while the client takes them in
// portions.
type spool struct {
	frames []byte
	ends   []int // of each row in frames
	next   int
	merged merge
	limit  int // what is left of MaxPortalBytes
}

// newSpool may take what the session's other portals leave.
func (s *session) newSpool() *spool {
	return &spool{limit: max(0, s.gw.cfg.MaxPortalBytes-s.portals.bytes)}
}

func (sp *spool) add(frame []byte) error {
	if len(sp.frames)+len(frame) > maxSpool {
		return withHint(
			sqlErrorf(pgerrcode.ProgramLimitExceeded, "a portal over several nodes is limited to %d MB", maxSpool>>20),
			"Execute it without a row limit.")
	}
	if len(sp.frames)+len(frame) > sp.limit {
		return sqlErrorf(pgerrcode.ProgramLimitExceeded, "portals too large together (%d bytes were left of the limit)", sp.limit)
	}
	sp.frames = append(sp.frames, frame...)
	sp.ends = append(sp.ends, len(sp.frames))
	return nil
}

// handOut sends the next rows of a spooled portal.
func (s *session) handOut(p *portal, maxRows uint32) error {
	sp, from, start := p.spool, 0, p.spool.next
	if start > 0 {
		from = sp.ends[start-1]
	}
	for sp.next < len(sp.ends) && (maxRows == 0 || sp.next-start < int(maxRows)) {
		s.client.sendRaw(sp.frames[from:sp.ends[sp.next]])
		from = sp.ends[sp.next]
		sp.next++
	}
	// Postgres too suspends a portal whose last row has just been sent.
	if maxRows > 0 && sp.next-start == int(maxRows) {
		s.client.send(&pgproto3.PortalSuspended{})
		return nil
	}
	count := sp.merged.count
	if sp.merged.tag == "SELECT" {
		count = uint64(sp.next - start)
	}
	s.complete(sp.merged.fullTag(count))
	return nil
}

// closePortal closes a portal, also where it is still open.
func (s *session) closePortal(name string) error {
	p := s.portals.get(name)
	if p == nil {
		return nil // not an error in the protocol
	}
	at := p.at
	s.portals.remove(name)
	if p.merge != nil {
		return s.closeAtNodes(p)
	}
	if at == nil || at.Lost() != nil || p.name == "" {
		return nil //nolint:nilerr // a lost branch holds no portal any more
	}
	at.StartSeries()
	at.Close(&pgproto3.Close{ObjectType: 'P', Name: p.nodeName})
	at.Sync()
	if err := at.Send(); err != nil {
		return err
	}
	_, err := s.readRow(at)
	return err
}
