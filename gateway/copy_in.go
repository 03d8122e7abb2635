package gateway

import (
	"bytes"
	"context"
	"slices"
	"strconv"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// COPY FROM STDIN: every row goes, as the bytes it came in, to the node that
// owns its key, and all of it is one transaction. One node begins the COPY at
// once, so that a statement that is wrong is refused before the client sends
// anything; the others begin when the first row for them arrives.
//
// What is wrong with the data is for a node to say: see copy_wrong.go.

// copyData runs COPY. To the nodes it goes as a simple query whichever protocol
// the client uses: the answers to the two are the same.
func (s *session) copyData(x *execution) error {
	c := x.st.Copy
	if !c.Stdio {
		return refuseCopyFile(c)
	}
	p := x.portal
	if p != nil {
		x.portal, x.sql = nil, x.st.SQL
	}
	var err error
	if c.From {
		err = s.copyFrom(x)
	} else {
		err = s.copyTo(x)
	}
	if p != nil && err == nil {
		s.completed(p)
		s.sendHeld() // its commit comes with Sync
	}
	return err
}

func refuseCopyFile(c *sqlparse.Copy) error {
	what := "to a file"
	switch {
	case c.Program && c.From:
		what = "from an external program"
	case c.Program:
		what = "to an external program"
	case c.From:
		what = "from a file"
	}
	return refuse(refusedCopyFile, what)
}

// copyIn is a COPY FROM STDIN under way.
type copyIn struct {
	s      *session
	sql    string
	table  *Table
	format copyFormat
	taints bool

	split  *splitter
	key    fieldReader
	noKey  bool   // the rows have no key at all
	header *piece // what each node's data begins with
	line   uint64 // the client's lines that have been placed

	// nodes are the COPYs begun, by the node's index in the placement. first is
	// the one begun at once, styled one that has seen a line's end and so can
	// judge others.
	nodes         []*copyNode
	first, styled *copyNode
	response      []byte // the first node's CopyInResponse
	whole         bool   // every node gets all rows: nothing is split

	everywhere bool // a reference table over several nodes

	// instead is the error if judge takes what it should have refused; without a
	// judge it is an error of the gateway's own.
	instead error
	judge   *copyNode

	// marked is a last row with the end marker behind it. Postgres comes to it
	// when the client has come to its end.
	marked *piece
}

func (s *session) copyFrom(x *execution) error {
	target, err := s.gw.router.routeCopyFrom(s.interrupt.context(), x.st, &s.routing)
	if err != nil {
		return err
	}
	if target.table == nil {
		return s.onNodes(x, &anyNode)
	}
	c := &copyIn{s: s, sql: x.sql, table: target.table, taints: target.taints}
	placement := s.gw.router.placement
	c.whole = len(placement.nodes) == 1 || c.table.Reference
	if c.format, err = formatOf(x.st.Copy.Options); err != nil {
		return err
	}
	if !c.table.Reference {
		at := keyPosition(c.table, x.st.Copy)
		if c.noKey = at < 0; c.noKey && !c.whole && c.table.key().hasDefault() {
			return missingKey(c.table)
		}
		c.key = newFieldReader(&c.format, at, c.table.key().Name)
	}
	c.nodes = make([]*copyNode, len(placement.nodes))
	if s.state == idle {
		// All or nothing over the nodes; the tag must wait for the commit.
		s.hold = true
		if err := s.advance(onSeveral); err != nil {
			return err
		}
	}
	defer c.stop()
	begin := c.beginFirst
	if c.table.Reference && len(placement.nodes) > 1 {
		begin = c.beginEverywhere
	}
	if err := begin(); err != nil {
		return err
	}
	return c.run()
}

// beginFirst begins the COPY at a node that the transaction has already, or at
// any.
func (c *copyIn) beginFirst() error {
	b, err := c.s.enlistAny()
	if err != nil {
		return err
	}
	return c.beginWith(b)
}

// beginWith begins the COPY at the branch that is asked first.
func (c *copyIn) beginWith(b *participant.Branch) error {
	n, err := c.begin(b)
	if err != nil {
		return err
	}
	c.first = n
	c.nodes[slices.Index(c.s.gw.router.placement.nodes, b.Node())] = n
	columns, err := copyColumns(c.response)
	if err != nil {
		return c.abort(err)
	}
	if len(c.format.unknown) > 0 {
		// Its node knows the option, the gateway does not know what it means.
		return c.abort(refuse(refusedCopyOption, c.format.unknown[0]))
	}
	if version := b.Conn().Parameters()["server_version"]; majorVersion(version) >= 18 {
		c.format.dotEnds = false
	}
	c.split = newSplitter(&c.format, columns, c.s.gw.server.cfg.MaxMessageSize)
	return nil
}

// copyColumns is the number of columns in a CopyInResponse.
func copyColumns(response []byte) (int, error) {
	var msg pgproto3.CopyInResponse
	if err := msg.Decode(response[pgwire.HeaderLen:]); err != nil {
		return 0, err
	}
	return len(msg.ColumnFormatCodes), nil
}

// majorVersion reads server_version, "15.6 (Debian ...)" or "18devel".
func majorVersion(version string) int {
	end := 0
	for end < len(version) && version[end] >= '0' && version[end] <= '9' {
		end++
	}
	major, _ := strconv.Atoi(version[:end])
	return major
}

// run takes the client's data to its end.
func (c *copyIn) run() error {
	s := c.s
	ctx := s.interrupt.context()
	s.client.sendRaw(c.response)
	for {
		if !s.client.reader.Complete() {
			if err := s.client.flush(); err != nil {
				s.ended = err
				return c.abort(err)
			}
		}
		msg, err := s.client.next(wait{timeout: s.clockLeft()})
		if err != nil {
			s.ended = s.waitError(err)
			return c.abort(s.ended)
		}
		// Postgres looks for a cancel between rows.
		if ctx.Err() != nil {
			return c.abort(context.Cause(ctx))
		}
		switch msg.Type() {
		case 'd':
			if err := c.data(msg.Body()); err != nil {
				return err
			}
		case 'c':
			return c.done()
		case 'f':
			message, err := cString(msg.Body())
			if err != nil {
				return c.abort(err)
			}
			return c.failedByClient(message)
		case 'H', 'S':
			// of a client that sent them behind Execute, before it knew of COPY
		default:
			// Postgres does not read the rest of such a message either.
			s.ended = frontError(pgerrcode.ProtocolViolation, "terminating connection because protocol synchronization was lost")
			return c.abort(sqlErrorf(pgerrcode.ProtocolViolation, "unexpected message type 0x%02X during COPY from stdin", msg.Type()))
		}
	}
}

// data places what a CopyData message brings. An error is the COPY's end: the
// nodes are out of it.
func (c *copyIn) data(data []byte) error {
	if c.whole {
		for _, n := range c.nodes {
			if n == nil {
				continue
			}
			if err := n.add(c, data); err != nil {
				return c.stopped(err)
			}
		}
		return nil
	}
	c.split.feed(data)
	return c.pieces()
}

func (c *copyIn) pieces() error {
	for {
		p, ok, err := c.split.next()
		if err != nil {
			return c.abort(err)
		}
		if !ok {
			return nil
		}
		if p.header && !p.wrong {
			err = c.takeHeader(&p)
		} else {
			err = c.place(&p)
		}
		if err != nil {
			return c.stopped(err)
		}
		if c.instead != nil {
			return c.finish()
		}
	}
}

// takeHeader keeps the header for the nodes that begin later. The first node
// judges it.
func (c *copyIn) takeHeader(p *piece) error {
	header := *p
	header.data = bytes.Clone(p.data)
	c.header = &header
	err := c.first.addHeader(c)
	if c.format.kind != binaryFormat {
		c.line += p.lines(p.eol)
	}
	return err
}

// place sends a row to its node.
func (c *copyIn) place(p *piece) error {
	row := p.data[:p.content]
	switch {
	case p.wrong:
		return c.refusedLine(p)
	case p.marker && p.content == 0:
		return nil
	case p.marker && c.marked == nil:
		marked := *p
		marked.data = bytes.Clone(p.data)
		c.marked = &marked
		return nil
	}
	if c.noKey {
		return c.refused(c.first, p, nullKey(c.table))
	}
	value, state := c.key.read(row)
	switch state {
	case fieldMissing:
		return c.refused(c.first, p, errMalformedRow)
	case fieldNull:
		return c.refused(c.first, p, nullKey(c.table))
	case fieldDefault:
		if c.table.key().hasDefault() {
			return c.refuse(missingKey(c.table), p)
		}
		return c.refused(c.first, p, nullKey(c.table))
	}
	return c.placeByKey(value, p)
}

func (c *copyIn) placeByKey(value []byte, p *piece) error {
	key := c.table.key()
	text := string(value)
	if c.format.kind == binaryFormat {
		var ok bool
		if text, ok = binaryText(key.Type, value); !ok {
			return c.refused(c.first, p, errMalformedRow)
		}
	}
	canonicalText, ok := canonical(key.class, text)
	switch {
	case !ok:
		return c.refused(c.first, p, invalidText(key.Type, text))
	case truncatedWhenStored(canonicalText, key.Length):
		return c.refuse(refuse(refusedTruncatedKey, c.table.String(), key.Name, key.TypeName), p)
	}
	index := c.s.gw.router.placement.indexFor(canonicalText)
	n := c.nodes[index]
	if n == nil {
		var err error
		if n, err = c.beginAt(index); err != nil {
			return err
		}
	}
	return n.addRow(c, p)
}

// beginAt begins the COPY at another node.
func (c *copyIn) beginAt(index int) (*copyNode, error) {
	b, err := c.s.enlist(c.s.gw.router.placement.nodes[index])
	if err != nil {
		return nil, err
	}
	n, err := c.begin(b)
	if err != nil {
		return nil, err
	}
	c.nodes[index] = n
	if c.header != nil {
		return n, n.addHeader(c)
	}
	return n, nil
}

// begin begins the COPY at a branch.
func (c *copyIn) begin(b *participant.Branch) (*copyNode, error) {
	b.MarkWrites()
	if c.taints {
		b.Conn().Taint()
	}
	b.Query(c.sql)
	if err := b.Send(); err != nil {
		return nil, err
	}
	n := &copyNode{branch: b}
	for {
		frame, err := b.Receive()
		if err != nil {
			return nil, err
		}
		switch frame.Type() {
		case 'G':
			if c.response == nil {
				c.response = bytes.Clone(frame.Raw())
			}
			n.feed = b.StartFeed()
			return n, nil
		case 'Z':
			if n.failure == nil {
				return nil, sqlError(pgerrcode.InternalError, "a node did not begin COPY")
			}
			return nil, n.failure
		default:
			n.take(c, frame)
		}
	}
}
