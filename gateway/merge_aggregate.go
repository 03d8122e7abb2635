package gateway

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
)

// maxPartials bounds the memory, in bytes, for the nodes' partial results of
// one statement: groups that the gateway must hold before one node combines
// them.
const maxPartials = 32 << 20

// partials are the nodes' partial results: for each column the elements of an
// array in binary format.
type partials struct {
	columns [][]byte
	nulls   []bool
	rows    uint32
	size    int
}

// aggregateRows runs a combined statement in two steps: every node's partial
// results are gathered, and the first node combines them.
func (s *session) aggregateRows(x *execution) error {
	m := &rowMerge{plan: x.plan, left: -1}
	for _, b := range s.branches {
		m.sources = append(m.sources, &rowSource{branch: b})
	}
	p := &partials{columns: make([][]byte, len(x.plan.types)), nulls: make([]bool, len(x.plan.types))}
	if err := s.sendTogether(x, m, x.partial()); err != nil {
		return m.giveUp(s, err)
	}
	for _, src := range m.sources {
		for src.waiting {
			row, err := m.receive(s, src)
			if err == nil && row != nil {
				err = p.add(row)
			}
			if err != nil {
				return m.giveUp(s, err)
			}
		}
	}
	return s.combinePartials(x, s.branches[0], p)
}

// partial is the first step at a node.
func (x *execution) partial() series {
	bind := x.bindParameters()
	bind.ResultFormatCodes = []int16{1}
	return series{
		parse:  x.parseSplit,
		bind:   func(b *participant.Branch) { b.Bind(bind) },
		opened: '2',
		rest: func(src *rowSource) {
			b := src.branch
			b.Describe(&pgproto3.Describe{ObjectType: 'P'})
			b.Execute(&pgproto3.Execute{})
			b.Sync()
		},
	}
}

// add takes a row apart: each value, with its length in front, is an element of
// its column's array as it stands.
func (p *partials) add(row []byte) error {
	p.rows++
	if p.size += len(row); p.size > maxPartials {
		return withHint(
			sqlErrorf(pgerrcode.ProgramLimitExceeded, "the groups of a statement over several nodes are limited to %d MB", maxPartials>>20),
			"Group by the shard key, or restrict the rows with WHERE.")
	}
	body := row[pgwire.HeaderLen:]
	if len(body) < 2 || int(binary.BigEndian.Uint16(body)) != len(p.columns) {
		return errRow
	}
	body = body[2:]
	for i := range p.columns {
		if len(body) < 4 {
			return errRow
		}
		length := int(int32(binary.BigEndian.Uint32(body)))
		p.nulls[i] = p.nulls[i] || length < 0
		end := 4 + max(length, 0)
		if len(body) < end {
			return errRow
		}
		p.columns[i] = append(p.columns[i], body[:end]...)
		body = body[end:]
	}
	return nil
}

// array is a column as an array in binary format (array_recv).
func (p *partials) array(i int, element uint32) []byte {
	var header []byte
	flag := uint32(0)
	if p.nulls[i] {
		flag = 1
	}
	dimensions := uint32(1)
	if p.rows == 0 {
		dimensions = 0
	}
	for _, n := range []uint32{dimensions, flag, element} {
		header = binary.BigEndian.AppendUint32(header, n)
	}
	if p.rows > 0 {
		header = binary.BigEndian.AppendUint32(header, p.rows)
		header = binary.BigEndian.AppendUint32(header, 1)
	}
	return append(header, p.columns[i]...)
}

// combinePartials runs the second step and passes its rows on.
func (s *session) combinePartials(x *execution, b *participant.Branch, p *partials) error {
	bind := x.bindParameters()
	for i, element := range x.plan.types {
		bind.Parameters = append(bind.Parameters, p.array(i, element))
		bind.ParameterFormatCodes = append(bind.ParameterFormatCodes, 1)
		p.columns[i] = nil
	}
	if x.declared != nil {
		return s.declareCombined(x, b, bind)
	}
	bind.ResultFormatCodes = x.resultFormats()
	b.StartSeries()
	b.Parse(&pgproto3.Parse{Query: x.plan.final, ParameterOIDs: x.plan.finalParams})
	b.Bind(bind)
	b.Execute(&pgproto3.Execute{})
	b.Sync()
	m := &rowMerge{plan: x.plan, left: -1}
	src := &rowSource{branch: b}
	m.sources = append(m.sources, src)
	if err := b.Send(); err != nil {
		return err
	}
	src.waiting = true
	var sent uint64
	for answered := false; ; sent++ {
		row, err := m.receive(s, src)
		if err != nil {
			return withoutPosition(err)
		}
		if !answered {
			answered = true
			if err := s.answerBind(x); err != nil {
				return m.giveUp(s, err)
			}
		}
		if row == nil {
			break
		}
		if x.spool != nil {
			err = x.spool.add(row)
		} else {
			s.client.sendRaw(row)
			err = s.client.writeErr
		}
		if err != nil {
			return m.giveUp(s, err)
		}
	}
	if x.spool != nil {
		x.merged.tag, x.merged.counted, x.merged.count = "SELECT", true, sent
		return nil
	}
	if x.portal != nil {
		s.completed(x.portal)
	}
	s.complete("SELECT " + strconv.FormatUint(sent, 10))
	return nil
}

// withoutPosition drops an error's position, which counts in a statement that
// the client has never seen.
func withoutPosition(err error) error {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		copied := *pgErr
		copied.Position = 0
		return &copied
	}
	return err
}
