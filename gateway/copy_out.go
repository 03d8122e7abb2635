package gateway

import (
	"bytes"
	"encoding/binary"

	"github.com/jackc/pgerrcode"

	"github.com/pgpact/pgpact/internal/pgwire"
)

// COPY TO STDOUT is run like a SELECT; its rows come as CopyData, one row in
// each message (PostgreSQL documentation, "Message Formats": "Messages sent from
// the backend will always correspond to single data rows"). Of several nodes
// the client sees one response, one header, one end.

// copyOut is what a COPY TO STDOUT needs to know of its data.
type copyOut struct {
	binary bool
	header bool // the first row of each node is a header
	seen   int  // CopyData messages of the node at hand
}

func (s *session) copyTo(x *execution) error {
	r, err := s.gw.router.routeCopyTo(s.interrupt.context(), x.st, &s.routing)
	if err != nil {
		return err
	}
	if r.combine != nil && r.combine.needed {
		return refuse(refusedCombination, "COPY of a query whose rows must be combined", "", "Run the query, and copy what it returns.")
	}
	format, err := formatOf(x.st.Copy.Options)
	if err != nil {
		return err
	}
	x.copy = &copyOut{binary: format.kind == binaryFormat, header: format.header}
	return s.onNodes(x, &r)
}

// relayCopy passes on one frame of a COPY TO STDOUT.
func (s *session) relayCopy(x *execution, frame pgwire.Frame) error {
	first, last := x.merged.nth == 0, x.merged.nth == x.merged.nodes-1
	switch frame.Type() {
	case 'H':
		x.copy.seen = 0
		if first {
			x.merged.description = append(x.merged.description[:0], frame.Raw()...)
			s.client.sendRaw(frame.Raw())
		} else if !bytes.Equal(x.merged.description, frame.Raw()) {
			return sqlError(pgerrcode.FeatureNotSupported, "the nodes' results have different columns")
		}
	case 'c':
		if last {
			s.client.sendRaw(frame.Raw())
		}
	default:
		x.copy.seen++
		if x.copy.binary && x.merged.several() {
			return s.relayBinary(x, frame, first, last)
		}
		if x.copy.header && x.copy.seen == 1 && !first {
			return nil
		}
		s.client.sendRaw(frame.Raw())
	}
	return nil
}

// relayBinary keeps the first node's header and the last one's trailer. The
// header comes in one message with the first row, or the trailer.
func (s *session) relayBinary(x *execution, frame pgwire.Frame, first, last bool) error {
	body := frame.Body()
	header := 0
	if x.copy.seen == 1 {
		if !isBinaryHeader(body) {
			return sqlError(pgerrcode.InternalError, "a node's COPY data does not begin with its header")
		}
		header = binaryHeader + int(binary.BigEndian.Uint32(body[binaryHeader-4:]))
		header = min(header, len(body))
	}
	rest := body[header:]
	if bytes.Equal(rest, binaryTrailer) && !last {
		rest = nil
	}
	if !first {
		header = 0
	}
	if header+len(rest) == 0 {
		return nil
	}
	out := make([]byte, 0, pgwire.HeaderLen+header+len(rest))
	out = append(out, 'd')
	out = binary.BigEndian.AppendUint32(out, uint32(4+header+len(rest)))
	out = append(out, body[:header]...)
	s.client.sendRaw(append(out, rest...))
	return nil
}
