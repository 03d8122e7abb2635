package gateway

import (
	"slices"

	"github.com/jackc/pgerrcode"

	"github.com/pgpact/pgpact/sqlparse"
)

// The steps of a cursor over several nodes.

// onRow tells whether the cursor stands on a row.
func (m *rowMerge) onRow() bool { return m.passed > 0 && !m.atEnd }

// steps says how many rows are to be passed over, and how many then taken, -1 for
// all (DoPortalRunFetch of Postgres). Whatever would lead back is refused.
func (m *rowMerge) steps(st *sqlparse.Statement, cursor *portal) (skip, take int64, err error) {
	count, backward := st.Count, st.Direction == "backward"
	if st.Direction == "absolute" {
		return m.absolute(count, cursor)
	}
	if count < 0 {
		count, backward = -count, !backward
	}
	switch {
	case count == 0 && (st.Kind == sqlparse.Move || !m.onRow()):
		return 0, 0, nil
	case count == 0: // once more the row that it stands on
		return 0, 0, cursor.cannotGoBack()
	case backward && (cursor.options.NoScroll || m.passed > 0):
		return 0, 0, cursor.cannotGoBack()
	case backward: // in front of the first row
		return 0, 0, nil
	case st.Direction == "relative":
		return count - 1, 1, nil
	case count == sqlparse.FetchAll:
		return 0, -1, nil
	}
	return 0, count, nil
}

// absolute are the steps of FETCH ABSOLUTE, FIRST and LAST.
func (m *rowMerge) absolute(count int64, cursor *portal) (skip, take int64, err error) {
	at := m.passed
	if m.atEnd {
		at++
	}
	switch {
	case count > at:
		return count - at - 1, 1, nil
	case count == 0 && at == 0:
		return 0, 0, nil
	}
	return 0, 0, cursor.cannotGoBack()
}

// cannotGoBack is the error of a step backward.
func (p *portal) cannotGoBack() error {
	p.broken = true // as any error in the middle of it makes it
	if p.options.NoScroll {
		return withHint(sqlError(pgerrcode.ObjectNotInPrerequisiteState, "cursor can only scan forward"),
			"Declare it with SCROLL option to enable backward scan.")
	}
	return refuse(refusedBackward)
}

// fetchIn sets the formats of the columns.
func (s *session) fetchIn(m *rowMerge, formats []int16) error {
	for range m.plan.split.Hidden {
		formats = append(formats, 1)
	}
	if slices.Equal(formats, m.formats) {
		return nil
	}
	if len(m.order) > 0 {
		if err := s.convertKept(m, formats); err != nil {
			return err
		}
	}
	m.formats = formats
	m.compareIn(formats)
	for _, src := range m.order {
		var err error
		if src.keys, err = m.cut(src.keys[:0], src.row); err != nil {
			return err
		}
	}
	return nil
}

// pass goes over rows, -1 for all, and gives them to the client if they are to be
// shown. It leaves the nodes' connections free.
func (s *session) pass(x *execution, m *rowMerge, count int64, show bool) (passed int64, err error) {
	if count == 0 || m.atEnd {
		return 0, nil
	}
	if err := s.startCursor(m, count); err != nil {
		return 0, err
	}
	for (count < 0 || passed < count) && len(m.order) > 0 && m.wantsMore() {
		src := m.order[0]
		switch {
		case m.skip > 0:
			m.skip--
			passed--
		case show:
			err = s.sendRow(x, m, src)
		default:
			m.took(src)
		}
		if err == nil {
			err = m.next(s, src)
		}
		if err == nil {
			err = s.client.writeErr
		}
		if err != nil {
			return 0, m.giveUp(s, err)
		}
		passed++
	}
	m.passed += passed
	m.atEnd = count < 0 || passed < count
	if err := s.park(m); err != nil {
		return 0, m.giveUp(s, err)
	}
	return passed, nil
}

// startCursor makes the merge ready for the next rows, -1 for all. The first time
// it asks all nodes, which find theirs at the same time.
func (s *session) startCursor(m *rowMerge, count int64) error {
	m.fetch = 0
	if count >= 0 {
		m.fetch = uint32(max(1, min(count+m.skip, 1<<31-1)))
	}
	if m.started {
		return nil
	}
	if m.formats == nil { // of MOVE before any FETCH
		if err := s.fetchIn(m, spread(nil, m.plan.visible)); err != nil {
			return err
		}
	}
	for _, src := range m.sources {
		if err := m.ask(src); err != nil {
			return m.giveUp(s, err)
		}
	}
	for _, src := range m.sources {
		if err := m.advance(s, src); err != nil {
			return m.giveUp(s, err)
		}
	}
	m.started = true
	return nil
}
