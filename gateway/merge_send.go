package gateway

import (
	"encoding/binary"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/sqlparse"
)

// sendMerged gives the client the next rows of a merge: all, or as many as it
// has asked for.
func (s *session) sendMerged(x *execution, m *rowMerge) error {
	sent := uint64(0)
	for len(m.order) > 0 && m.wantsMore() {
		if x.maxRows > 0 && sent == uint64(x.maxRows) {
			return s.suspendMerge(x, m)
		}
		src := m.order[0]
		if m.skip > 0 {
			m.skip--
		} else {
			if err := s.sendRow(x, m, src); err != nil {
				return m.giveUp(s, err)
			}
			sent++
		}
		if err := m.next(s, src); err != nil {
			return m.giveUp(s, err)
		}
		if s.client.writeErr != nil {
			return m.giveUp(s, s.client.writeErr)
		}
	}
	if x.maxRows > 0 && sent == uint64(x.maxRows) {
		return s.suspendMerge(x, m) // Postgres too suspends after the very last row
	}
	if err := m.drain(s); err != nil {
		return err
	}
	if x.portal != nil {
		s.completed(x.portal)
		s.keepMerge(x.portal, nil)
	}
	if x.spool != nil {
		x.merged.tag, x.merged.counted, x.merged.count = "SELECT", true, sent
		return nil
	}
	s.complete("SELECT " + strconv.FormatUint(sent, 10))
	return nil
}

// wantsMore tells whether the row at the head belongs to the result.
func (m *rowMerge) wantsMore() bool {
	if m.left != 0 {
		return true
	}
	return m.plan.split.Ties && m.hasLast && m.less(m.order[0].keys, m.last) == 0
}

// sendRow sends the row at the head without its hidden columns.
func (s *session) sendRow(x *execution, m *rowMerge, src *rowSource) error {
	m.took(src)
	row := src.row
	if m.plan.split.Hidden > 0 {
		var err error
		if m.scratch, err = visibleRow(m.scratch[:0], row, m.plan.visible); err != nil {
			return err
		}
		row = m.scratch
	}
	if x.spool != nil {
		return x.spool.add(row)
	}
	s.client.sendRaw(row)
	return nil
}

// took counts the row at the head towards LIMIT.
func (m *rowMerge) took(src *rowSource) {
	if m.left > 0 {
		if m.left--; m.left == 0 && m.plan.split.Ties {
			m.last, m.hasLast = cloneKeys(m.last, src.keys), true
		}
	}
}

// visibleRow appends to out the DataRow with the row's first columns only.
func visibleRow(out, row []byte, columns int) ([]byte, error) {
	at := pgwire.HeaderLen + 2
	for range columns {
		if len(row) < at+4 {
			return nil, errRow
		}
		length := int(int32(binary.BigEndian.Uint32(row[at:])))
		at += 4 + max(length, 0)
	}
	if len(row) < at {
		return nil, errRow
	}
	out = append(out, 'D')
	out = binary.BigEndian.AppendUint32(out, uint32(at-1))
	out = binary.BigEndian.AppendUint16(out, uint16(columns))
	return append(out, row[pgwire.HeaderLen+2:at]...), nil
}

func cloneKeys(into, keys [][]byte) [][]byte {
	for len(into) < len(keys) {
		into = append(into, nil)
	}
	for i, k := range keys {
		if k == nil {
			into[i] = nil
		} else {
			into[i] = append(make([]byte, 0, len(k)), k...)
		}
	}
	return into
}

// next moves the source at the head on to its next row, and sees that the node
// sorts as the gateway does. Its keys lie in the connection's buffer, so they
// are copied before the next row is read.
func (m *rowMerge) next(s *session, src *rowSource) error {
	m.order = m.order[1:]
	if len(m.order) == 0 {
		m.order = nil
	}
	if len(m.compare) == 0 {
		return m.advance(s, src)
	}
	src.keep()
	if err := m.advance(s, src); err != nil {
		return err
	}
	if src.hasRow && !m.plan.locking && m.less(src.before, src.keys) > 0 {
		return errOrder
	}
	return nil
}

// keep copies the keys out of the read buffer, into memory that is used again.
func (src *rowSource) keep() {
	total := 0
	for _, k := range src.keys {
		total += len(k)
	}
	if src.memory == nil || cap(src.memory) < total { // of nil an empty text would be a NULL
		src.memory = make([]byte, 0, 2*total+1)
	}
	memory := src.memory[:0]
	for i, k := range src.keys {
		if k == nil {
			continue
		}
		from := len(memory)
		memory = append(memory, k...)
		src.keys[i] = memory[from:len(memory):len(memory)]
	}
}

// suspendMerge ends a portion.
func (s *session) suspendMerge(x *execution, m *rowMerge) error {
	if m.portal == nil {
		if err := m.drain(s); err != nil {
			return err
		}
		s.client.send(&pgproto3.PortalSuspended{})
		return nil
	}
	if err := s.park(m); err != nil {
		return m.giveUp(s, err)
	}
	s.keepMerge(x.portal, m)
	s.client.send(&pgproto3.PortalSuspended{})
	return nil
}

// continueMerge executes a portal whose rows are merged once more.
func (s *session) continueMerge(p *portal, maxRows uint32) error {
	if refusal := transitions[s.state][onStatement].refusal; refusal != nil {
		return refusal
	}
	x := &s.x
	*x = execution{st: p.statement.parsed, portal: p, run: true, maxRows: maxRows, plan: p.merge.plan, combined: p.statement}
	s.hold = false
	m := p.merge
	m.fetch = maxRows
	return s.sendMerged(x, m)
}

// drain reads what the nodes still send, which nobody wants.
func (m *rowMerge) drain(s *session) error {
	var failed error
	for _, src := range m.sources {
		for src.waiting {
			if _, err := m.receive(s, src); err != nil && failed == nil {
				failed = err
			}
		}
	}
	return failed
}

// giveUp ends the exchanges of all nodes after an error, so that their
// connections stay usable: what they still do is cancelled.
func (m *rowMerge) giveUp(s *session, err error) error {
	for _, src := range m.sources {
		if src.waiting {
			src.branch.Conn().Cancel()
		}
	}
	for _, src := range m.sources {
		for src.waiting {
			_, _ = m.receive(s, src) // the first error counts
		}
		s.endSeries(src.branch)
	}
	if m.portal != nil {
		s.keepMerge(m.portal, nil)
		m.portal.broken = true
	}
	return withoutPosition(err)
}

// rowCount reads a number of LIMIT or OFFSET; ok is false for NULL.
func (x *execution) rowCount(v sqlparse.Value) (n int64, ok bool, err error) {
	text, oid := "", uint32(oidInt8)
	switch {
	case v.Kind == sqlparse.ValueNull:
		return 0, false, nil
	case v.Kind == sqlparse.ValueLiteral:
		text = x.plan.split.Text(v)
	case x.portal == nil || v.Param > len(x.portal.bind.Parameters):
		return 0, false, sqlErrorf("42P02", "there is no parameter $%d", v.Param)
	default:
		data := x.portal.bind.Parameters[v.Param-1]
		if data == nil {
			return 0, false, nil
		}
		if types := x.combined.description.params; v.Param <= len(types) {
			oid = types[v.Param-1]
		}
		text = string(data)
		if spread(x.portal.bind.ParameterFormatCodes, len(x.portal.bind.Parameters))[v.Param-1] == 1 {
			if text, ok = binaryText(oid, data); !ok {
				return 0, false, sqlErrorf("22P03", "incorrect binary data format in bind parameter %d", v.Param)
			}
		}
	}
	if classOf(oid) != integerKey {
		return 0, false, refuse(refusedCombination, "LIMIT or OFFSET with a parameter of type "+typeName(oid), "", "Declare the parameter as bigint.")
	}
	plain, ok := canonical(integerKey, text)
	if !ok {
		return 0, false, invalidText(oid, text)
	}
	if n, err = strconv.ParseInt(plain, 10, 64); err != nil {
		return 0, false, sqlError("22003", "bigint out of range")
	}
	return n, true, nil
}

// combineRows runs a statement whose rows are combined.
func (s *session) combineRows(x *execution) error {
	if x.declared != nil && !x.plan.split.Aggregated {
		return s.openCursor(x)
	}
	if !x.plan.split.Aggregated {
		return s.mergeRows(x)
	}
	if x.maxRows == 0 || x.spool != nil {
		return s.aggregateRows(x)
	}
	// Groups are few: they wait here for the client to ask for more.
	x.spool = s.newSpool()
	return s.aggregateRows(x)
}
