package gateway

import (
	"strconv"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// mustVerifyFirst: a statement that writes must not run before its columns are
// known to be right; for others it is soon enough when they are.
func (x *execution) mustVerifyFirst() bool {
	return x.portal != nil && x.run && x.portal.at == nil && x.st.Writes && x.portal.statement.verifiable()
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
		if err := st.verify(pgwire.NewFrame(d.frame)); err != nil {
			return err
		}
	}
	return nil
}

// portal is a bound statement.
type portal struct {
	name      string
	statement *statement
	bind      pgproto3.Bind // its parameters lie in memory of their own
	route     route
	level     int // number of savepoints when it was made

	// A portal with rows left lives at one node under a name of ours, or, when
	// its rows come from several, in the spool.
	at       *participant.Branch
	nodeName string
	spool    *spool
	done     bool
}

// completed notes that all rows have been returned.
func (p *portal) completed() { p.done, p.at = true, nil }

// suspended notes that the portal stays open at the branch.
func (p *portal) suspended(b *participant.Branch) { p.at = b }

// portalSet are a session's portals by the client's name.
type portalSet struct {
	byName map[string]*portal
	named  uint64 // how many names for nodes were given out
}

func (ps *portalSet) get(name string) *portal { return ps.byName[name] }

func (ps *portalSet) add(p *portal) {
	if ps.byName == nil {
		ps.byName = map[string]*portal{}
	}
	ps.byName[p.name] = p
}

func (ps *portalSet) remove(name string) { delete(ps.byName, name) }

func (ps *portalSet) clear() { clear(ps.byName) }

// nodeName is a name for a portal that outlives one exchange.
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
	for name, p := range ps.byName {
		if p.level > index {
			delete(ps.byName, name)
		}
	}
}

// runPortal executes a portal.
func (s *session) runPortal(p *portal, maxRows uint32) error {
	switch {
	case p.spool != nil:
		return s.handOut(p, maxRows)
	case p.done && p.statement.parsed.Kind == sqlparse.Select:
		s.complete("SELECT 0")
		return nil
	case p.done:
		return sqlErrorf(pgerrcode.ObjectNotInPrerequisiteState, "portal %q cannot be run", p.name)
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
	if maxRows > 0 {
		switch {
		case p.route.multi() || st.Kind == sqlparse.Execute:
			// Every node gives all it has; the limit is of the merged rows.
			x.spool, x.maxRows = &spool{}, 0
		case s.state != idle && p.nodeName == "":
			p.nodeName = s.portals.nodeName()
		}
	}
	s.hold = false
	if err := s.perform(x); err != nil {
		return err
	}
	if x.spool != nil {
		p.spool = x.spool
		p.spool.merged = x.merged
		return s.handOut(p, maxRows)
	}
	return nil
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
}

func (sp *spool) add(frame []byte) error {
	if len(sp.frames)+len(frame) > maxSpool {
		return withHint(
			sqlErrorf(pgerrcode.ProgramLimitExceeded, "a portal over several nodes is limited to %d MB", maxSpool>>20),
			"Execute it without a row limit.")
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
	s.portals.remove(name)
	if p.at == nil || p.at.Lost() != nil || s.state == failed {
		return nil //nolint:nilerr // a lost branch holds no portal any more
	}
	p.at.StartSeries()
	p.at.Close(&pgproto3.Close{ObjectType: 'P', Name: p.nodeName})
	p.at.Sync()
	if err := p.at.Send(); err != nil {
		return err
	}
	for {
		frame, err := p.at.Receive()
		if err != nil {
			return err
		}
		switch frame.Type() {
		case 'E':
			return refusedBy(p.at, frame)
		case 'Z':
			return nil
		}
	}
}
