package gateway

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
)

// Rows of several nodes, each of which has sorted its own, become one stream.
// Of every node only the row at the head is looked at, where the connection's
// read buffer has it, and the next one is read when the client has been given
// that: a slow client slows the nodes down, and the size of a result does not
// matter here. Only a portal or cursor whose rows are taken in portions holds
// rows back (merge_portion.go).

// rowMerge is a merge under way.
type rowMerge struct {
	plan    *combinePlan
	compare []compareFunc
	sources []*rowSource
	order   []*rowSource // those with a row, the next one first
	started bool

	skip    int64 // rows of OFFSET still to come
	left    int64 // rows of LIMIT still to come, -1 for all
	last    [][]byte
	hasLast bool // last are the keys of the row sent last, for WITH TIES

	portal  *portal // whose rows are taken in portions at the nodes, nil otherwise
	name    string  // of it at the nodes
	fetch   uint32  // rows that the client wants at once, 0 for all
	cursor  bool    // the nodes know it by DECLARE, and give rows by FETCH
	formats []int16 // of a cursor's columns, hidden ones too, as last fetched
	passed  int64   // rows that a cursor has left behind
	atEnd   bool    // it stands behind the last one
	scratch []byte
}

// rowSource is one node's rows.
type rowSource struct {
	branch  *participant.Branch
	waiting bool // an exchange is under way: ReadyForQuery has not come
	ended   bool // the node has no more rows
	row     []byte
	keys    [][]byte
	before  [][]byte // the keys of the row before, to see that the node's order is ours
	hasRow  bool
	kept    keptRows
	memory  []byte // of before

	asked, got uint32 // rows of this exchange; 0 asked is all
	rows, size uint64 // rows so far, and their bytes
}

// errOrder: merging would give a wrong order.
var errOrder = errors.New("a node sorts rows in another order than the gateway")

// newMerge prepares the merge of a statement's rows.
func (s *session) newMerge(x *execution) (*rowMerge, error) {
	m := &rowMerge{plan: x.plan, left: -1}
	var err error
	if m.skip, m.left, err = x.limits(); err != nil {
		return nil, err
	}
	m.compareIn(x.resultFormats())
	for _, b := range s.branches {
		m.sources = append(m.sources, &rowSource{branch: b})
	}
	if x.maxRows > 0 {
		m.fetch = x.maxRows
		if s.state == idle {
			// The portal ends with this exchange: all that is needed now is fetched.
			m.fetch = uint32(min(int64(x.maxRows)+m.skip, int64(^uint32(0)>>1)))
		} else {
			m.portal, m.name = x.portal, s.portals.nodeName()
		}
	}
	return m, nil
}

// compareIn makes the merge compare keys in the formats of the client's columns.
func (m *rowMerge) compareIn(formats []int16) {
	m.compare = m.compare[:0]
	for _, key := range m.plan.keys {
		isBinary := key.column >= m.plan.visible || formats[key.column] == 1
		m.compare = append(m.compare, comparison(key.oid, isBinary))
	}
}

// limits are the rows of OFFSET and LIMIT.
func (x *execution) limits() (skip, left int64, err error) {
	left = -1
	split := x.plan.split
	if split.Offset != nil {
		n, ok, err := x.rowCount(*split.Offset)
		switch {
		case err != nil:
			return 0, 0, err
		case ok && n < 0:
			return 0, 0, sqlError("2201X", "OFFSET must not be negative")
		case ok:
			skip = n
		}
	}
	if split.Limit != nil {
		n, ok, err := x.rowCount(*split.Limit)
		switch {
		case err != nil:
			return 0, 0, err
		case ok && n < 0:
			return 0, 0, sqlError("2201W", "LIMIT must not be negative")
		case ok:
			left = n
		}
	}
	return skip, left, nil
}

// mergeRows runs a combined statement whose rows are merged.
func (s *session) mergeRows(x *execution) error {
	m, err := s.newMerge(x)
	if err != nil {
		return err
	}
	if err := s.openTogether(x, m); err != nil {
		return m.giveUp(s, err)
	}
	if err := s.answerBind(x); err != nil {
		return m.giveUp(s, err)
	}
	return s.sendMerged(x, m)
}

// openTogether starts the statement on every node and waits for the first row
// of each.
func (s *session) openTogether(x *execution, m *rowMerge) error {
	if err := s.sendTogether(x, m, x.split(m)); err != nil {
		return err
	}
	for _, src := range m.sources {
		if err := m.advance(s, src); err != nil {
			return err
		}
	}
	m.started = true
	return nil
}

// split is a node's statement. The series is one of the extended protocol
// whatever the client speaks, for hidden columns are binary.
func (x *execution) split(m *rowMerge) series {
	plan := x.plan
	bind := x.bindParameters()
	x.bindLimit(bind, m.skip, m.left)
	bind.ResultFormatCodes = x.resultFormats()
	for range plan.split.Hidden {
		bind.ResultFormatCodes = append(bind.ResultFormatCodes, 1)
	}
	if m.portal != nil {
		bind.DestinationPortal = m.name
	}
	return series{
		parse:  x.parseSplit,
		bind:   func(b *participant.Branch) { b.Bind(bind) },
		opened: '2',
		rest: func(src *rowSource) {
			b := src.branch
			b.Describe(&pgproto3.Describe{ObjectType: 'P', Name: bind.DestinationPortal})
			b.Execute(&pgproto3.Execute{Portal: bind.DestinationPortal, MaxRows: m.portion(src)})
			b.Sync()
		},
	}
}

// parseSplit has a node parse its statement.
func (x *execution) parseSplit(b *participant.Branch) {
	b.Parse(&pgproto3.Parse{Query: x.plan.split.Node, ParameterOIDs: x.plan.params})
}

// answerBind sends what the client waits for before rows: the nodes have read
// the statement and its parameters by now.
func (s *session) answerBind(x *execution) error {
	st := x.combined
	if x.portal != nil {
		if err := st.description.formatsFit(x.portal.bind.ResultFormatCodes); err != nil {
			return err
		}
	}
	if s.pending.bind != nil && s.pending.bind == x.portal {
		s.pending.bind = nil
		s.client.send(&pgproto3.BindComplete{})
	}
	switch {
	case x.portal == nil:
		s.client.send(st.description.rowDescription(nil))
	case x.describe:
		s.client.send(st.description.rowDescription(x.portal.bind.ResultFormatCodes))
	}
	return nil
}

// advance reads the next row of a source, if it has one, and puts the source
// into its place in the order.
func (m *rowMerge) advance(s *session, src *rowSource) error {
	src.hasRow = false
	row, err := m.read(s, src)
	if err != nil || row == nil {
		return err
	}
	src.row, src.hasRow = row, true
	if len(m.compare) > 0 {
		src.keys, src.before = src.before, src.keys
		if src.keys, err = m.cut(src.keys[:0], row); err != nil {
			return err
		}
	}
	m.place(src)
	return nil
}

// read is the next row of a source, nil at its end.
func (m *rowMerge) read(s *session, src *rowSource) ([]byte, error) {
	if !src.kept.empty() {
		return src.kept.take(), nil
	}
	for {
		if !src.waiting {
			if src.ended {
				return nil, nil
			}
			if err := m.ask(src); err != nil {
				return nil, err
			}
		}
		row, err := m.receive(s, src)
		if err != nil || row != nil {
			return row, err
		}
	}
}

// receive reads an exchange up to its next row (nil: it is over).
func (m *rowMerge) receive(s *session, src *rowSource) ([]byte, error) {
	return m.receiveUntil(s, src, nil)
}

// receiveUntil is receive up to a message in the middle of a series, which at
// tells by its type, or up to what the node refuses there.
func (m *rowMerge) receiveUntil(s *session, src *rowSource, at func(kind byte) bool) ([]byte, error) {
	var refused error
	for {
		frame, err := src.branch.Receive()
		if err != nil {
			src.waiting, src.ended = false, true
			return nil, ended(refused, err)
		}
		kind := frame.Type()
		switch kind {
		case 'D':
			if refused == nil {
				src.count(frame.Raw())
				return frame.Raw(), nil
			}
		case 'Z':
			src.waiting = false
			return nil, refused
		case 'T':
			if refused = m.plan.verify(frame); refused != nil {
				s.forgetPlan(m.plan)
			}
		case 'C': // of FETCH too, which may have given all it was asked for
			src.ended = !m.cursor || src.asked == 0 || src.got < src.asked
		case 's':
			src.ended = m.portal == nil // it ends with this exchange
		case 'E':
			src.ended = true
			if refused == nil {
				refused = refusedBy(src.branch, frame)
				if isFormatCount(refused) { // the formats are ours: the node has other columns now
					refused = errStalePlan
					s.forgetPlan(m.plan)
				}
			}
			if at != nil && refusedInSeries(refused) {
				return nil, refused
			}
		case 'N':
			s.client.sendRaw(frame.Raw())
		case 'S':
			s.relayParameter(frame)
		}
		if at != nil && at(kind) {
			return nil, refused
		}
	}
}

var errRow = errors.New("a node sent a malformed row")

// cut finds the sort keys of a DataRow; they lie in it.
func (m *rowMerge) cut(keys [][]byte, row []byte) ([][]byte, error) {
	for range m.plan.keys {
		keys = append(keys, nil)
	}
	if len(row) < pgwire.HeaderLen+2 {
		return nil, errRow
	}
	columns := int(binary.BigEndian.Uint16(row[pgwire.HeaderLen:]))
	at := pgwire.HeaderLen + 2
	for i := range columns {
		if len(row) < at+4 {
			return nil, errRow
		}
		length := int(int32(binary.BigEndian.Uint32(row[at:])))
		at += 4
		if length < 0 {
			continue
		}
		if len(row)-at < length {
			return nil, errRow
		}
		for k := range m.plan.keys {
			if m.plan.keys[k].column == i {
				keys[k] = row[at : at+length : at+length]
			}
		}
		at += length
	}
	return keys, nil
}

// less tells whether keys a sort before keys b: below, at or above zero.
func (m *rowMerge) less(a, b [][]byte) int {
	for i, compare := range m.compare {
		key := &m.plan.keys[i]
		var c int
		switch {
		case a[i] == nil && b[i] == nil:
			continue
		case a[i] == nil || b[i] == nil:
			c = -1
			if (a[i] == nil) != key.nullsFirst {
				c = 1
			}
			return c
		default:
			c = compare(a[i], b[i])
		}
		if c != 0 {
			if key.desc {
				return -c
			}
			return c
		}
	}
	return 0
}

// place puts a source with a new row among the others. Without sort keys the
// sources follow each other.
func (m *rowMerge) place(src *rowSource) {
	at := len(m.order)
	if m.started && len(m.compare) == 0 {
		at = 0
	}
	for len(m.compare) > 0 && at > 0 && m.less(src.keys, m.order[at-1].keys) < 0 {
		at--
	}
	m.order = slices.Insert(m.order, at, src)
}
