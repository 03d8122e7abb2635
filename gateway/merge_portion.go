package gateway

import (
	"bytes"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
)

// A merge whose rows are taken in portions: by Execute with a row limit, or by
// FETCH. Between two portions the nodes' connections must be free for other
// statements, so what a node has sent and nobody has taken yet is kept here.
// That is why a node is never asked for more than portionBytes or so at once,
// however many rows the client wants: a wish for all of them passes through.

// portionBytes is how much a node is asked for at once, by the length that its
// rows have had so far; firstPortion is how many rows while that is not known.
const (
	portionBytes = 256 << 10
	firstPortion = 100
)

// keptRows are rows that were read ahead, one behind the other.
type keptRows struct {
	frames []byte
	ends   []int // of each row in frames
	next   int
}

func (k *keptRows) empty() bool { return k.next == len(k.ends) }

// add copies a row. Those taken before are dropped first if there are no others.
func (k *keptRows) add(row []byte) {
	if k.empty() {
		k.frames, k.ends, k.next = k.frames[:0], k.ends[:0], 0
	}
	k.frames = append(k.frames, row...)
	k.ends = append(k.ends, len(k.frames))
}

// take is the next row; it stays as it is until add.
func (k *keptRows) take() []byte {
	from := 0
	if k.next > 0 {
		from = k.ends[k.next-1]
	}
	k.next++
	return k.frames[from:k.ends[k.next-1]]
}

// ask asks a node for the next rows of its portal or cursor.
func (m *rowMerge) ask(src *rowSource) error {
	src.asked, src.got = m.portion(src), 0
	b := src.branch
	b.StartSeries()
	if m.cursor {
		count := "ALL"
		if src.asked > 0 {
			count = strconv.FormatUint(uint64(src.asked), 10)
		}
		b.Parse(&pgproto3.Parse{Query: "FETCH FORWARD " + count + " FROM " + participant.QuoteIdentifier(m.name)})
		b.Bind(&pgproto3.Bind{ResultFormatCodes: m.formats})
		b.Execute(&pgproto3.Execute{})
	} else {
		b.Execute(&pgproto3.Execute{Portal: m.name, MaxRows: src.asked})
	}
	b.Sync()
	if err := b.Send(); err != nil {
		return err
	}
	src.waiting = true
	return nil
}

// portion is how many rows a node is asked for, 0 for all.
func (m *rowMerge) portion(src *rowSource) uint32 {
	if m.fetch == 0 || m.portal == nil {
		return m.fetch
	}
	most := uint64(firstPortion)
	if src.rows > 0 {
		most = max(1, portionBytes*src.rows/src.size)
	}
	return uint32(min(most, uint64(m.fetch)))
}

// count takes note of a row's length.
func (src *rowSource) count(row []byte) {
	src.got++
	src.rows++
	src.size += uint64(len(row))
}

// park makes the nodes' connections free: what they still send of what they
// were asked for is kept. It is part of what the session's portals may take.
func (s *session) park(m *rowMerge) error {
	for _, src := range m.sources {
		if !src.waiting {
			continue
		}
		if src.hasRow {
			src.row = bytes.Clone(src.row)
			var err error
			if src.keys, err = m.cut(src.keys[:0], src.row); err != nil {
				return err
			}
		}
		for src.waiting {
			row, err := m.receive(s, src)
			if err != nil {
				return err
			}
			if row == nil {
				continue
			}
			src.kept.add(row)
			if s.portals.bytes-m.portal.size()+m.size() > s.gw.cfg.MaxPortalBytes {
				return portalBytes(s.gw.cfg.MaxPortalBytes)
			}
		}
	}
	return nil
}

// size is the memory of the rows that the merge keeps.
func (m *rowMerge) size() int {
	size := 0
	if m == nil {
		return 0
	}
	for _, src := range m.sources {
		size += len(src.kept.frames)
	}
	return size
}

// keepMerge leaves the rest of a merge to its portal; nil: nothing is left.
func (s *session) keepMerge(p *portal, m *rowMerge) {
	counted := s.portals.get(p.name) == p
	if counted {
		s.portals.bytes -= p.size()
	}
	p.merge, p.kept = m, m.size()
	if counted {
		s.portals.bytes += p.size()
	}
}
