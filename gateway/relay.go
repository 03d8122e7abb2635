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
	return s.relayUntil(b, x, nil)
}

// relayUntil is relay up to a message in the middle of a series, which at tells
// by its type, or up to what the node refuses there.
func (s *session) relayUntil(b *participant.Branch, x *execution, at func(kind byte) bool) error {
	var refused error
	cancelled := false
	for {
		frame, err := b.Receive()
		if err != nil {
			return ended(refused, err)
		}
		kind := frame.Type()
		switch kind {
		case 'Z':
			return refused
		case 'E':
			if refused == nil {
				refused = refusedBy(b, frame)
			}
			if at != nil && refusedInSeries(refused) {
				return refused
			}
		case 'N':
			if !x.quiet && !(x.collect && x.merged.nth > 0) { // of a schema change every node says the same
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
				refused = s.relayAny(b, x, frame)
			}
			if at != nil && at(kind) {
				return refused
			}
			if (s.client.writeErr != nil || x.copy != nil && (x.quiet || refused != nil)) && !cancelled {
				cancelled = true // nobody will read the rest
				b.Conn().Cancel()
			}
		}
	}
}

// refusedInSeries: the node reads on, and skips what comes up to Sync. Otherwise
// it closes the connection.
func refusedInSeries(err error) bool {
	_, over := errors.AsType[*nodeEnded](err)
	return !over
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
		if x.parts != nil {
			return x.parts.add(x.merged.nth, frame.Raw())
		}
		if x.spool != nil {
			return x.spool.add(frame.Raw())
		}
		s.client.sendRaw(frame.Raw())
	case 'C':
		if x.merged.several() || x.spool != nil || x.collect {
			return x.merged.addTag(frame.Body())
		}
		if x.portal != nil {
			s.completed(x.portal)
		}
		s.completeRaw(frame.Raw())
	case 'T', 'n':
		return s.relayDescription(b, x, frame)
	case 't':
		x.verifying = true // only our own Describe of a statement is answered so
		if x.portal.statement.description == nil {
			return s.learn(x, frame)
		}
	case '1':
		if x.parts == nil {
			x.portal.statement.parsedAt(b)
		}
		if s.pending.parse != nil {
			s.pending.parse = nil
			s.sendOnce(frame)
		}
	case '2':
		x.portal.bound(b)
		if s.pending.bind != nil {
			s.pending.bind = nil
			s.sendOnce(frame)
		}
	case 's':
		s.client.sendRaw(frame.Raw())
	case '3':
		// of a portal that was abandoned
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
func (s *session) relayDescription(b *participant.Branch, x *execution, frame pgwire.Frame) error {
	if x.verifying {
		x.verifying = false
		if x.learnt != nil {
			return s.learn(x, frame)
		}
		return x.portal.statement.verify(b, frame)
	}
	if !x.merged.several() {
		s.describe(x, frame)
		return nil
	}
	if x.merged.nth > 0 {
		return x.merged.sameDescription(frame)
	}
	x.merged.description = append(x.merged.description[:0], frame.Raw()...)
	s.describe(x, frame)
	return nil
}

// describe sends a description. That of a portal is an answer to Describe, which
// was asked for once, whatever becomes of Execute.
func (s *session) describe(x *execution, frame pgwire.Frame) {
	if x.portal == nil {
		s.client.sendRaw(frame.Raw())
		return
	}
	x.told = true
	s.sendOnce(frame)
}

// parseComplete is sendOnce of the answer to Parse.
func (s *session) parseComplete() {
	s.unseen += pgwire.HeaderLen
	s.client.send(&pgproto3.ParseComplete{})
}

// sendOnce sends what is not to be sent again if the statement is repeated.
func (s *session) sendOnce(frame pgwire.Frame) {
	s.unseen += uint64(len(frame.Raw()))
	s.client.sendRaw(frame.Raw())
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
		s.completed(x.portal)
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

// sameType compares the numbers of two types. Those of the clients' own types
// are each node's own; that the tables' types agree by name is the catalog's
// affair.
func sameType(a, b uint32) bool { return a == b || a >= firstUserOID && b >= firstUserOID }

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
		if !bytes.Equal(l.Name, r.Name) || !sameType(l.DataTypeOID, r.DataTypeOID) ||
			l.TypeModifier != r.TypeModifier || l.Format != r.Format {
			return false
		}
	}
	return true
}
