package gateway

import (
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// An INSERT whose rows belong to several nodes. Each node gets the client's own
// text, in which the rows of the others are blanks: an error's position is the
// same in both. The parameters keep their numbers; those that a node's text does
// not mention are NULLs of a type that is given.

// firstUserOID is FirstNormalObjectId of Postgres: types from here on are the
// clients' own, and their numbers differ from node to node.
const firstUserOID = 16384

// insertParts is such an INSERT on its way.
type insertParts struct {
	parts []insertPart // one for each branch, in their order
	rows  []int        // which part each row of VALUES is in

	bindMsg pgproto3.Bind
	first   int // the branch whose error is reported
}

type insertPart struct {
	sql   string
	count int         // of rows
	oids  []uint32    // of the parameters
	uses  map[int]int // parameters the text mentions

	returned []byte // DataRow frames
	ends     []int  // of each frame in returned
}

// splitInsert makes the parts of an INSERT.
func (s *session) splitInsert(x *execution, r *route) (*insertParts, error) {
	sql := x.sql
	if x.portal != nil {
		sql = x.portal.statement.sql
	}
	list, ok := sqlparse.FindRows(sql, len(r.rows))
	if !ok {
		return nil, refuse(refusedInsertShape)
	}
	rows := make([][]int, len(r.nodes))
	for i, node := range r.rows {
		rows[node] = append(rows[node], i)
	}
	in := &insertParts{rows: r.rows, parts: make([]insertPart, len(r.nodes)), first: -1}
	for i := range in.parts {
		in.parts[i] = insertPart{sql: list.Keep(rows[i]), count: len(rows[i])}
	}
	if x.portal == nil || x.portal.statement.params() == 0 {
		return in, nil
	}
	// The types are those of the whole statement, which a node has read as a
	// whole, with the errors in it.
	st := x.portal.statement
	if err := s.describeStatement(st); err != nil {
		return nil, err
	}
	for i := range in.parts {
		in.parts[i].uses = map[int]int{}
		for _, n := range list.Params(rows[i]) {
			in.parts[i].uses[n]++
		}
		in.parts[i].oids = partTypes(st, in.parts[i].uses)
	}
	return in, nil
}

// partTypes are the parameters' types in one part. A type of the client's own
// is left for the node to infer, as it was when the whole was described.
func partTypes(st *statement, uses map[int]int) []uint32 {
	oids := make([]uint32, len(st.description.params))
	for i, oid := range st.description.params {
		switch {
		case uses[i+1] == 0:
			oids[i] = oidText
		case i < len(st.oids) && st.oids[i] != 0:
			oids[i] = st.oids[i]
		case oid < firstUserOID:
			oids[i] = oid
		}
	}
	return oids
}

// bind is the client's Bind without the parameters of other parts.
func (in *insertParts) bind(nth int, p *portal) *pgproto3.Bind {
	part := &in.parts[nth]
	msg := &in.bindMsg
	msg.DestinationPortal, msg.PreparedStatement = p.nodeName, ""
	msg.ParameterFormatCodes, msg.ResultFormatCodes = p.bind.ParameterFormatCodes, p.bind.ResultFormatCodes
	msg.Parameters = append(msg.Parameters[:0], p.bind.Parameters...)
	for i := range msg.Parameters {
		if part.uses[i+1] == 0 {
			msg.Parameters[i] = nil
		}
	}
	return msg
}

// sendPart writes one part to its branch, by the extended protocol.
func (s *session) sendPart(x *execution, b *participant.Branch, nth int) error {
	p, part := x.portal, &x.parts.parts[nth]
	b.StartSeries()
	x.parseMsg = pgproto3.Parse{Query: part.sql, ParameterOIDs: part.oids}
	b.Parse(&x.parseMsg)
	if s.verifies(p.statement) {
		x.describeMsg = pgproto3.Describe{ObjectType: 'S'}
		b.Describe(&x.describeMsg)
	}
	b.Bind(x.parts.bind(nth, p))
	if x.describe {
		x.describeMsg = pgproto3.Describe{ObjectType: 'P', Name: p.nodeName}
		b.Describe(&x.describeMsg)
	}
	x.executeMsg = pgproto3.Execute{Portal: p.nodeName}
	b.Execute(&x.executeMsg)
	b.Sync()
	return b.Send()
}

// add keeps a row that a part returns. Together they are as bounded as the
// INSERT is.
func (in *insertParts) add(nth int, frame []byte) error {
	part := &in.parts[nth]
	if len(part.returned)+len(frame) > maxSpool {
		return sqlErrorf(pgerrcode.ProgramLimitExceeded, "RETURNING of rows of several nodes is limited to %d MB for each node", maxSpool>>20)
	}
	part.returned = append(part.returned, frame...)
	part.ends = append(part.ends, len(part.returned))
	return nil
}

// handOutReturned sends the rows in the order of VALUES, as Postgres returns
// them. ON CONFLICT or a trigger may have left rows out, and nothing says which:
// the rows of such a part then stand as near to their places as can be said.
func (s *session) handOutReturned(x *execution) error {
	in := x.parts
	next := make([]int, len(in.parts))
	for _, nth := range in.rows {
		part := &in.parts[nth]
		if next[nth] >= len(part.ends) {
			continue
		}
		from := 0
		if next[nth] > 0 {
			from = part.ends[next[nth]-1]
		}
		frame := part.returned[from:part.ends[next[nth]]]
		next[nth]++
		if x.spool != nil {
			if err := x.spool.add(frame); err != nil {
				return err
			}
			continue
		}
		s.client.sendRaw(frame)
	}
	return nil
}

// prefer chooses between the errors of two parts: Postgres reads all of the text
// before it runs any of it, and then row by row.
func (in *insertParts) prefer(have error, nth int, other error) error {
	if have == nil || in.before(nth, other, have) {
		in.first = nth
		return other
	}
	return have
}

func (in *insertParts) before(nth int, other, have error) bool {
	a, b := position(other), position(have)
	switch {
	case a != b:
		return a != 0 && (b == 0 || a < b)
	case in.first < 0:
		return false
	}
	for _, part := range in.rows {
		if part == nth || part == in.first {
			return part == nth
		}
	}
	return false
}

// position is where in the text a node has found an error, 0 for nowhere.
func position(err error) int32 {
	if pgErr, ok := err.(*pgconn.PgError); ok { //nolint:errorlint // as decoded
		return pgErr.Position
	}
	return 0
}
