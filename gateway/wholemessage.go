package gateway

import (
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"
)

// errMessageFormat is what Postgres says to a message that does not follow its
// own format (pq_getmsgend and its kin).
var errMessageFormat = sqlError(pgerrcode.ProtocolViolation, "invalid message format")

// decode decodes with pgproto3, whose decoders check every length and count but
// pass over bytes behind the last field; Postgres refuses those. The answer to a
// message that is wrong comes behind what is owed to those before it.
func (s *session) decode(msg pgproto3.FrontendMessage, body []byte) error {
	if msg.Decode(body) == nil && bodySize(msg) == len(body) {
		return nil
	}
	if err := s.settle(); err != nil {
		return err
	}
	return errMessageFormat
}

// noBody refuses a body where the format has none.
func (s *session) noBody(body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if err := s.settle(); err != nil {
		return err
	}
	return errMessageFormat
}

// bodySize is the length that the fields of a message take (PostgreSQL
// documentation, "Message Formats").
func bodySize(msg pgproto3.FrontendMessage) int {
	const zero, short, long = 1, 2, 4 // a string's end, an Int16, an Int32
	switch msg := msg.(type) {
	case *pgproto3.Parse:
		return len(msg.Name) + zero + len(msg.Query) + zero + short + long*len(msg.ParameterOIDs)
	case *pgproto3.Bind:
		size := len(msg.DestinationPortal) + zero + len(msg.PreparedStatement) + zero +
			short + short*len(msg.ParameterFormatCodes) + short + short + short*len(msg.ResultFormatCodes)
		for _, value := range msg.Parameters {
			size += long + len(value)
		}
		return size
	case *pgproto3.Describe:
		return 1 + len(msg.Name) + zero
	case *pgproto3.Close:
		return 1 + len(msg.Name) + zero
	case *pgproto3.Execute:
		return len(msg.Portal) + zero + long
	}
	return -1 // no message that is decoded here
}
