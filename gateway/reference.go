package gateway

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// Reference tables have the same rows on every node (docs/adr/0012). A statement
// that changes one runs on every node; which ones are let through says
// route_reference.go. Two things keep the rows the same then.
//
// One writer at a time: a lock of the table's own is held on every node from
// before the statement until the branch there has committed. It is taken on the
// first node alone, and the statement has ended there before the next node is
// asked: who must wait waits there, so writers cannot meet in different orders,
// and of two tables taken in different orders that node notices the deadlock.
// The others' locks are for what the first node's does not cover: that its branch
// may be committed a moment before theirs.
//
// And nothing is believed: each statement returns one column more, a hash of the
// row that it has written or deleted. The hashes of all nodes must be the same,
// in any order, or the transaction fails.

// referenceLock locks a reference table against others that change it. The first
// number stands beside that of oneAtATime, the second is of the table's name. It
// is no lock of the table itself: those need privileges, and FOR UPDATE followed
// by UPDATE would have to make one lock into another.
func referenceLock(tables []*Table) string {
	var keys []int32
	for _, t := range tables {
		h := fnv.New32a()
		_, _ = h.Write([]byte(t.String()))
		keys = append(keys, int32(h.Sum32()))
	}
	slices.Sort(keys)
	var sql []string
	for _, key := range slices.Compact(keys) {
		sql = append(sql, "SELECT pg_catalog.pg_advisory_xact_lock(1885827170, "+strconv.Itoa(int(key))+")")
	}
	return strings.Join(sql, ";")
}

// onReference runs a statement that changes reference tables, or locks rows of
// theirs, on s.branches, the first of which everybody takes first.
func (s *session) onReference(x *execution, r *route) error {
	ref := r.reference
	lock := referenceLock(ref.tables)
	if !ref.writes {
		if lock != "" && r.writes {
			if err := s.askThese(s.branches[:1], lock); err != nil {
				return err
			}
		}
		return s.exchange(x)
	}
	t := ref.tables[0]
	if x.explained != nil {
		return s.explainReference(x, r, lock)
	}
	x.merged.begin(1)
	if err := s.askThese(s.branches[:1], lock); err != nil {
		return err
	}
	if err := s.sendHashed(x, s.branches[0]); err != nil {
		return err
	}
	first, err := s.readHashed(x, s.branches[0], true)
	if err != nil {
		return err
	}
	if err := s.askThese(s.branches[1:], lock); err != nil {
		return err
	}
	if err := s.repeatOnOthers(x, t, first); err != nil {
		return err
	}
	if err := x.merged.addTag([]byte(first.tag)); err != nil {
		return err
	}
	if x.spool == nil {
		s.completeMerged(x)
	}
	return nil
}

// repeatOnOthers runs the statement on all nodes but the first, at the same
// time, and compares what they have done with what the first has.
func (s *session) repeatOnOthers(x *execution, t *Table, first *referenceAnswer) error {
	others := s.branches[1:]
	var err error
	sent := 0
	for _, b := range others {
		if err = s.sendHashed(x, b); err != nil {
			break
		}
		sent++
	}
	for _, b := range others[:sent] {
		got, failure := s.readHashed(x, b, false)
		if failure == nil {
			failure = s.sameAnswer(t, first, got)
		}
		if err == nil {
			err = failure
		}
	}
	return err
}

// referenceAnswer is what one node has done.
type referenceAnswer struct {
	node string
	tag  string
	sum  uint64 // of the hashes of the rows' hashes: in any order the same
}

// sameAnswer compares two nodes' answers.
func (s *session) sameAnswer(t *Table, a, b *referenceAnswer) error {
	switch {
	case a.tag != b.tag:
		return s.notTheSame(t, fmt.Sprintf("Node %q answered %s, node %q %s.", a.node, a.tag, b.node, b.tag))
	case a.sum != b.sum:
		return s.notTheSame(t, fmt.Sprintf("Nodes %q and %q would have written other rows.", a.node, b.node))
	}
	return nil
}

// notTheSame is the error of nodes that have not done the same. A transaction
// that looks at old snapshots may have met another's changes on one node only:
// then it is as if it had met them on all.
func (s *session) notTheSame(t *Table, detail string) error {
	code := pgerrcode.ObjectNotInPrerequisiteState
	if s.repeatableRead() {
		code = pgerrcode.SerializationFailure
	}
	err := sqlErrorf(code, "the rows of reference table %s would not be the same on all nodes", t)
	err.Detail = detail + " Nothing has been done."
	err.Hint = "A value in the statement may depend on the node, as 'now' does: compute it in the client. " +
		"If not, \"pgpact check\" tells whether the table is the same on all nodes now."
	return err
}

// repeatableRead tells whether the block's statements all look at one snapshot.
func (s *session) repeatableRead() bool {
	if s.block == nil {
		return false
	}
	level := s.block.modes.isolation
	if level == "" {
		level, _ = s.block.base.Get(isolationDefault)
	}
	return strings.EqualFold(level, "repeatable read")
}

// sendHashed sends the statement with the column more.
func (s *session) sendHashed(x *execution, b *participant.Branch) error {
	text := x.sql
	if x.portal != nil {
		text = x.portal.statement.sql
	}
	text, ok := x.st.RowHash(text)
	if !ok {
		return sqlError(pgerrcode.InternalError, "a statement's end is not where it should be")
	}
	if x.portal == nil {
		b.Query(text)
		return b.Send()
	}
	p := x.portal
	b.StartSeries()
	s.portals.closeAbandoned(b)
	b.Parse(&pgproto3.Parse{Query: text, ParameterOIDs: p.statement.oids})
	bind := p.bind
	bind.DestinationPortal, bind.PreparedStatement = "", ""
	if len(bind.ResultFormatCodes) > 1 {
		bind.ResultFormatCodes = append(slices.Clone(bind.ResultFormatCodes), 0)
	}
	b.Bind(&bind)
	b.Describe(&pgproto3.Describe{ObjectType: 'P'})
	b.Execute(&pgproto3.Execute{})
	b.Sync()
	return b.Send()
}

// readHashed reads one node's answer. The first's rows, without the column more,
// are the client's.
func (s *session) readHashed(x *execution, b *participant.Branch, first bool) (*referenceAnswer, error) {
	a := &referenceAnswer{node: b.Node().Name()}
	var refused error
	for {
		frame, err := b.Receive()
		if err != nil {
			return nil, err
		}
		switch frame.Type() {
		case 'Z':
			return a, refused
		case 'E':
			if refused == nil {
				refused = refusedBy(b, frame)
			}
			continue
		case 'N':
			if first { // the others say the same
				s.client.sendRaw(frame.Raw())
			}
			continue
		case 'S':
			s.relayParameter(frame)
			continue
		}
		if refused == nil {
			refused = s.takeHashed(x, a, frame, first)
		}
	}
}

// takeHashed takes one frame of the answer itself.
func (s *session) takeHashed(x *execution, a *referenceAnswer, frame pgwire.Frame, first bool) error {
	switch frame.Type() {
	case '1':
		if first && s.pending.parse != nil {
			s.pending.parse = nil
			s.sendOnce(frame)
		}
	case '2':
		if first && s.pending.bind != nil {
			s.pending.bind = nil
			s.sendOnce(frame)
		}
	case 'T':
		if first {
			return s.describeHashed(x, frame)
		}
	case 'D':
		row, hash, ok := cutLastColumn(frame.Body())
		if !ok {
			return errRow
		}
		h := fnv.New64a()
		_, _ = h.Write(hash)
		a.sum += h.Sum64()
		switch {
		case !first || !x.st.Returning:
		case x.spool != nil:
			return x.spool.add(row)
		default:
			s.client.sendRaw(row)
		}
	case 'C':
		a.tag = strings.TrimSuffix(string(frame.Body()), "\x00")
	}
	return nil
}

// describeHashed tells the client of its columns, if it has asked, and compares
// them with what it was told before.
func (s *session) describeHashed(x *execution, frame pgwire.Frame) error {
	var msg pgproto3.RowDescription
	if err := msg.Decode(slices.Clone(frame.Body())); err != nil {
		return err
	}
	msg.Fields = msg.Fields[:len(msg.Fields)-1]
	if p := x.portal; p != nil {
		if told := p.statement.description; told != nil && told.returnsRows() {
			now := (&description{fields: msg.Fields}).rowDescription(nil)
			body, err := now.Encode(nil)
			if err != nil {
				return err
			}
			if !sameShape(told.frame[pgwire.HeaderLen:], body[pgwire.HeaderLen:], 'T', 'T') {
				return errStalePlan
			}
		}
		if !x.describe {
			return nil
		}
	}
	var told pgproto3.BackendMessage = &msg
	if !x.st.Returning {
		if x.portal == nil {
			return nil
		}
		told = &pgproto3.NoData{}
	}
	raw, err := told.Encode(nil)
	if err != nil {
		return err
	}
	s.describe(x, pgwire.NewFrame(raw))
	return nil
}

// cutLastColumn is the body of a DataRow as a frame without its last column, and
// that.
func cutLastColumn(body []byte) (frame, last []byte, ok bool) {
	if len(body) < 2 {
		return nil, nil, false
	}
	columns := int(binary.BigEndian.Uint16(body))
	at := 2
	for i := range columns {
		if len(body) < at+4 {
			return nil, nil, false
		}
		length := max(0, int(int32(binary.BigEndian.Uint32(body[at:]))))
		if len(body) < at+4+length {
			return nil, nil, false
		}
		if i == columns-1 {
			frame = append(make([]byte, 0, pgwire.HeaderLen+at), 'D')
			frame = binary.BigEndian.AppendUint32(frame, uint32(4+at))
			frame = binary.BigEndian.AppendUint16(frame, uint16(columns-1))
			return append(frame, body[2:at]...), body[at+4 : at+4+length], true
		}
		at += 4 + length
	}
	return nil, nil, false
}

// explainReference has the nodes explain a change of a reference table. With
// ANALYZE they make it: the whole table is compared then.
func (s *session) explainReference(x *execution, r *route, lock string) error {
	if r.writes {
		for _, branches := range [][]*participant.Branch{s.branches[:1], s.branches[1:]} {
			if err := s.askThese(branches, lock); err != nil {
				return err
			}
		}
	}
	if err := s.exchange(x); err != nil || !r.writes {
		return err
	}
	return s.sameEverywhere(r.reference.tables[0])
}

// sameEverywhere compares all rows of a reference table on all of s.branches.
func (s *session) sameEverywhere(t *Table) error {
	sums := make([]string, len(s.branches))
	for _, b := range s.branches {
		b.Query(t.ChecksumSQL())
		if err := b.Send(); err != nil {
			return err
		}
	}
	var failed error
	for i, b := range s.branches {
		row, err := s.readFirst(b, true)
		if err == nil && len(row) > 0 {
			sums[i] = string(row[0])
		}
		if failed == nil {
			failed = err
		}
	}
	if failed != nil {
		return failed
	}
	for i := range sums {
		if sums[i] != sums[0] {
			return s.notTheSame(t, fmt.Sprintf("Nodes %q and %q would have other rows.", s.branches[0].Node().Name(), s.branches[i].Node().Name()))
		}
	}
	return nil
}

// checkReferences compares the rows of the reference tables that ALTER TABLE has
// touched: a new column's default may have been another on each node.
func (s *session) checkReferences(st *sqlparse.Statement) error {
	if st.Kind != sqlparse.Alter || st.Object != "TABLE" || len(s.branches) == 1 {
		return nil
	}
	for i := range st.Tables {
		found := s.routing.catalog.lookup(st.Tables[i].Schema, st.Tables[i].Name, &s.routing)
		if t := found.table; t != nil && t.Reference {
			if err := s.sameEverywhere(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// ChecksumSettings are what the texts of rows depend on, for a connection on which
// ChecksumSQL is run to compare it with another's. Within a session they are the
// session's, on all nodes.
const ChecksumSettings = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; " +
	"SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET search_path = pg_catalog"

// ChecksumSQL is a query whose one text is the same on two nodes if the table's
// rows are: their number and the sum of their hashes.
func (t *Table) ChecksumSQL() string {
	return "SELECT pg_catalog.count(*) || ' rows, checksum ' || coalesce(pg_catalog.sum(" + sqlparse.RowHashOf("t") + "), 0) FROM ONLY " +
		participant.QuoteIdentifier(t.Schema) + "." + participant.QuoteIdentifier(t.Name) + " AS t"
}
