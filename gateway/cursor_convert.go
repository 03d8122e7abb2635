package gateway

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
)

// Rows that were read ahead for a cursor are in the formats of the FETCH that has
// read them; a later one may want others. (The JDBC driver's does: it asks for text
// until it has run a statement five times, then for binary.) Only a node can write
// a value in the other format, so one is given the rows and returns them.

// convertBytes bounds what is sent to the node before its answers are read, so
// that neither side waits for the other to read.
const convertBytes = 16 << 10

// convertKept writes the rows that m keeps in new formats.
func (s *session) convertKept(m *rowMerge, formats []int16) error {
	if m.hasLast || slices.ContainsFunc(m.plan.columns, func(oid uint32) bool { return oid >= firstUserOID }) {
		return refuse(refusedFormat) // numbers of the clients' own types are each node's own
	}
	for _, src := range m.sources {
		var rows [][]byte
		if src.hasRow {
			rows = append(rows, src.row)
		}
		for !src.kept.empty() {
			rows = append(rows, src.kept.take())
		}
		var converted keptRows
		for len(rows) > 0 {
			n, err := s.convertSome(m, rows, formats, &converted)
			if err != nil {
				return m.giveUp(s, err)
			}
			rows = rows[n:]
		}
		if src.hasRow {
			src.row = bytes.Clone(converted.take())
		}
		src.kept = converted
	}
	return nil
}

// convertSome converts the first rows, and says how many.
func (s *session) convertSome(m *rowMerge, rows [][]byte, formats []int16, into *keptRows) (n int, err error) {
	columns := make([]string, len(m.plan.columns))
	for i := range columns {
		columns[i] = "$" + strconv.Itoa(i+1)
	}
	b := m.sources[0].branch
	b.StartSeries()
	b.Parse(&pgproto3.Parse{Query: "SELECT " + strings.Join(columns, ","), ParameterOIDs: m.plan.columns})
	for size := 0; n < len(rows) && (n == 0 || size+len(rows[n]) <= convertBytes); n++ {
		size += len(rows[n])
		var row pgproto3.DataRow
		if err := row.Decode(rows[n][pgwire.HeaderLen:]); err != nil || len(row.Values) != len(columns) {
			return 0, errRow
		}
		b.Bind(&pgproto3.Bind{Parameters: row.Values, ParameterFormatCodes: m.formats, ResultFormatCodes: formats})
		b.Execute(&pgproto3.Execute{})
	}
	b.Sync()
	if err := b.Send(); err != nil {
		return 0, err
	}
	exchange, from, got := &rowMerge{plan: m.plan}, &rowSource{branch: b, waiting: true}, 0
	var failed error
	for from.waiting {
		row, err := exchange.receive(s, from)
		switch {
		case err != nil && failed == nil:
			failed = err
		case row != nil:
			into.add(row)
			got++
		}
	}
	if failed == nil && got != n {
		failed = errRow
	}
	return n, failed
}
