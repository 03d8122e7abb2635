package gateway

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
)

// Frames on their way from nodes to the client. Rows pass as bytes; with one
// node everything does.

// errUnexpectedCopy: something that was taken for an ordinary statement began a
// COPY. There is no safe way back into step.
var errUnexpectedCopy = errors.New("the node began a COPY")

// relay passes one branch's answer on, up to its ReadyForQuery, which is not
// passed on. What the node refused is the error; it is reported by the caller,
// with everything that has to happen then.
func (s *session) relay(b *participant.Branch, x *execution) error {
	var refused error
	cancelled := false
	for {
		frame, err := b.Receive()
		if err != nil {
			if _, ok := errors.AsType[*nodeEnded](refused); ok {
				return refused
			}
			return err
		}
		switch frame.Type() {
		case 'Z':
			return refused
		case 'E':
			if refused == nil {
				refused = refusedBy(b, frame)
			}
		case 'N':
			if !x.quiet {
				s.client.sendRaw(frame.Raw())
			}
		case 'S':
			s.relayParameter(frame)
		case 'A': // LISTEN is refused: a notification is nobody's
		case 'G', 'H', 'W':
			if frame.Type() == 'H' && x.copy != nil {
				if refused == nil && !x.quiet {
					refused = s.relayCopy(x, frame)
				}
				continue
			}
			b.Conn().Abandon(errUnexpectedCopy)
			return sqlError(pgerrcode.FeatureNotSupported, "COPY is not supported here")
		default:
			if refused == nil && !x.quiet {
				refused = s.relayAnswer(b, x, frame)
			}
			if (s.client.writeErr != nil || x.copy != nil && (x.quiet || refused != nil)) && !cancelled {
				cancelled = true // nobody will read the rest
				b.Conn().Cancel()
			}
		}
	}
}

// refusedBy is a node's ErrorResponse as an error.
func refusedBy(b *participant.Branch, frame pgwire.Frame) error {
	pgErr, err := participant.DecodeError(frame.Body())
	if err != nil {
		return err
	}
	if pgErr.SeverityUnlocalized == "FATAL" || pgErr.SeverityUnlocalized == "PANIC" {
		return &nodeEnded{node: b.Node().Name(), err: pgErr}
	}
	return pgErr
}

// relayAnswer passes on one frame of the statement's own answer: all of it from
// the first node, rows and tags from the others.
func (s *session) relayAnswer(b *participant.Branch, x *execution, frame pgwire.Frame) error {
	switch frame.Type() {
	case 'D':
		if x.spool != nil {
			return x.spool.add(frame.Raw())
		}
		s.client.sendRaw(frame.Raw())
	case 'C':
		if x.merged.several() || x.spool != nil {
			return x.merged.addTag(frame.Body())
		}
		if x.portal != nil {
			x.portal.completed()
		}
		s.completeRaw(frame.Raw())
	case 'T', 'n':
		return s.relayDescription(x, frame)
	case 't':
		x.verifying = true // only our own Describe of a statement is answered so
	case '1':
		x.portal.statement.parsedAt(b)
		if s.pending.parse != nil {
			s.pending.parse = nil
			s.client.sendRaw(frame.Raw())
		}
	case '2':
		if s.pending.bind != nil {
			s.pending.bind = nil
			s.client.sendRaw(frame.Raw())
		}
	case 's':
		x.portal.suspended(b)
		s.client.sendRaw(frame.Raw())
	case '3':
		// of a portal of ours
	case 'd', 'c':
		return s.relayCopy(x, frame)
	default: // EmptyQueryResponse
		if x.merged.nth == 0 {
			s.client.sendRaw(frame.Raw())
		}
	}
	return nil
}

// relayDescription passes the first node's RowDescription or NoData on and
// compares the others' with it.
func (s *session) relayDescription(x *execution, frame pgwire.Frame) error {
	if x.verifying {
		x.verifying = false
		return x.portal.statement.verify(frame)
	}
	if !x.merged.several() {
		s.client.sendRaw(frame.Raw())
		return nil
	}
	if x.merged.nth > 0 {
		return x.merged.sameDescription(frame)
	}
	x.merged.description = append(x.merged.description[:0], frame.Raw()...)
	s.client.sendRaw(frame.Raw())
	return nil
}

// relayParameter takes note of a ParameterStatus: the statement, being the
// client's own, has changed a parameter.
func (s *session) relayParameter(frame pgwire.Frame) {
	var msg pgproto3.ParameterStatus
	if msg.Decode(frame.Body()) == nil { // participant.Conn has decoded it before
		s.noteParameter(msg.Name, msg.Value)
	}
}

// merge joins the answers of several nodes to one statement.
type merge struct {
	nodes, nth  int
	description []byte // the first node's RowDescription or NoData frame
	tag         string // the verb, with all in front of the count
	count       uint64
	counted     bool
}

func (m *merge) begin(nodes int) { *m = merge{nodes: nodes, description: m.description[:0]} }

func (m *merge) several() bool { return m.nodes > 1 }

// addTag adds one node's CommandComplete: counts are summed.
func (m *merge) addTag(body []byte) error {
	tag := string(bytes.TrimSuffix(body, []byte{0}))
	verb, count, counted := cutCount(tag)
	if m.tag != "" && verb != m.tag {
		return sqlErrorf(pgerrcode.InternalError, "the nodes completed one statement as %q and %q", m.tag, verb)
	}
	m.tag, m.counted = verb, counted
	m.count += count
	return nil
}

// cutCount splits a tag such as "INSERT 0 5" into "INSERT 0" and 5.
func cutCount(tag string) (verb string, count uint64, counted bool) {
	i := bytes.LastIndexByte([]byte(tag), ' ')
	if i < 0 {
		return tag, 0, false
	}
	count, err := strconv.ParseUint(tag[i+1:], 10, 64)
	if err != nil {
		return tag, 0, false
	}
	return tag[:i], count, true
}

// completeMerged sends the one tag that stands for all nodes.
func (s *session) completeMerged(x *execution) {
	if x.portal != nil {
		x.portal.completed()
	}
	s.complete(x.merged.fullTag(x.merged.count))
}

func (m *merge) fullTag(count uint64) string {
	if !m.counted {
		return m.tag
	}
	return m.tag + " " + strconv.FormatUint(count, 10)
}

// sameDescription refuses to merge rows of different shapes. OIDs and numbers of
// the tables' columns are each node's own and may differ.
func (m *merge) sameDescription(frame pgwire.Frame) error {
	if sameShape(m.description[pgwire.HeaderLen:], frame.Body(), m.description[0], frame.Type()) {
		return nil
	}
	return sqlError(pgerrcode.FeatureNotSupported, "the nodes' results have different columns")
}

// sameShape compares two RowDescriptions, or NoData, by what a client relies on.
func sameShape(a, b []byte, typeA, typeB byte) bool {
	if typeA != typeB {
		return false
	}
	if bytes.Equal(a, b) {
		return true
	}
	var left, right pgproto3.RowDescription
	if left.Decode(a) != nil || right.Decode(b) != nil || len(left.Fields) != len(right.Fields) {
		return false
	}
	for i := range left.Fields {
		l, r := &left.Fields[i], &right.Fields[i]
		if !bytes.Equal(l.Name, r.Name) || l.DataTypeOID != r.DataTypeOID ||
			l.TypeModifier != r.TypeModifier || l.Format != r.Format {
			return false
		}
	}
	return true
}
