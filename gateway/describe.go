package gateway

import (
	"slices"
	"sync"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// description is what a node said of a statement: its parameters and columns.
// It is shared between sessions and immutable.
type description struct {
	params []uint32
	fields []pgproto3.FieldDescription
	frame  []byte // RowDescription with all formats text, or NoData
}

// noRows describes statements that the gateway or Postgres runs without a plan.
func noRows(params []uint32) *description {
	frame, _ := (&pgproto3.NoData{}).Encode(nil) // never fails
	return &description{params: params, frame: frame}
}

// showDescription is the one text column of SHOW.
func showDescription(name string) *description {
	d := &description{fields: []pgproto3.FieldDescription{{
		Name: []byte(name), DataTypeOID: oidText, DataTypeSize: -1, TypeModifier: -1,
	}}}
	d.frame, _ = d.rowDescription(nil).Encode(nil) // far from 1 GiB
	return d
}

// returnsRows tells whether Describe is answered by RowDescription.
func (d *description) returnsRows() bool { return d.frame[0] == 'T' }

// rowDescription is the description with the formats of a Bind: none, one for
// all columns, or one for each (checked by formatsFit).
func (d *description) rowDescription(formats []int16) *pgproto3.RowDescription {
	fields := slices.Clone(d.fields)
	for i := range fields {
		switch len(formats) {
		case 0:
			fields[i].Format = 0
		case 1:
			fields[i].Format = formats[0]
		default:
			fields[i].Format = formats[i]
		}
	}
	return &pgproto3.RowDescription{Fields: fields}
}

func (d *description) formatsFit(formats []int16) error {
	if len(formats) > 1 && len(formats) != len(d.fields) {
		return sqlErrorf(pgerrcode.ProtocolViolation, "bind message has %d result formats but query has %d columns", len(formats), len(d.fields))
	}
	return nil
}

// descriptionCache keeps descriptions by the statement's key, for all sessions,
// as long as the nodes' catalogs stay as they are.
type descriptionCache struct {
	catalog func() *Catalog

	mu         sync.Mutex
	seen       *Catalog
	generation uint64
	entries    *lru.Cache[string, *description]
}

func newDescriptionCache(size int, catalog func() *Catalog) (*descriptionCache, error) {
	entries, err := lru.New[string, *description](size)
	if err != nil {
		return nil, err
	}
	return &descriptionCache{catalog: catalog, entries: entries}, nil
}

// refresh drops everything when the catalogs have changed, and returns their
// generation, which is part of every statement's key: what is prepared at the
// nodes under older keys is not used for statements prepared from now on.
func (c *descriptionCache) refresh() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if current := c.catalog(); current != c.seen {
		c.seen = current
		c.generation++
		c.entries.Purge()
	}
	return c.generation
}

func (c *descriptionCache) get(key string) *description {
	d, _ := c.entries.Get(key)
	return d
}

func (c *descriptionCache) remove(key string) { c.entries.Remove(key) }

func (c *descriptionCache) add(key string, d *description) { c.entries.Add(key, d) }

// describeStatement makes st.description known, by asking a node if need be.
func (s *session) describeStatement(st *statement) error {
	if st.parsed != nil && st.parsed.Kind == sqlparse.Execute {
		return s.describeExecute(st)
	}
	if st.description != nil {
		return nil
	}
	if st.description = st.ownDescription(); st.description != nil {
		return nil
	}
	if st.key == "" {
		s.giveKey(st)
	}
	if st.parsed.Kind == sqlparse.Fetch {
		if s.block == nil {
			st.description = noRows(st.oids) // of no cursor
			return nil
		}
		if cursor := s.mergedCursor(st.parsed); cursor != nil {
			of := cursor.statement.description
			st.description = &description{params: st.oids, fields: of.fields, frame: of.frame}
			return nil
		}
	}
	if st.description = s.gw.descriptions.get(st.key); st.description != nil {
		return nil
	}
	b, done, err := s.branchToAsk(st)
	if err != nil {
		return err
	}
	defer done()
	d, err := s.askDescription(b, st)
	if err != nil {
		return err
	}
	st.description = d
	if st.parsed.Kind != sqlparse.Fetch { // what a cursor returns is this session's
		s.gw.descriptions.add(st.key, d)
	}
	return nil
}

// describeAgain is describeStatement for a client that asks: when the catalogs
// have changed since the statement was described, a node says whether it is still
// the same, as Postgres looks again then.
func (s *session) describeAgain(st *statement) error {
	known := st.description
	generation := s.gw.descriptions.refresh()
	if known == nil || !known.returnsRows() || st.generation == generation || st.ownDescription() != nil ||
		st.parsed.Kind == sqlparse.Execute {
		return s.describeStatement(st)
	}
	b, done, err := s.branchToAsk(st)
	if err != nil {
		return err
	}
	defer done()
	d, err := s.askDescription(b, st)
	if err != nil {
		return err
	}
	if err := st.verify(b, pgwire.NewFrame(d.frame)); err != nil {
		return err
	}
	st.generation = generation
	return nil
}

// describeExecute describes EXECUTE as the statement that it names now; without
// one it returns nothing, until it is run.
func (s *session) describeExecute(st *statement) error {
	st.description = noRows(st.oids)
	target := s.statements.get(st.parsed.Prepared)
	if target == nil || target == st {
		return nil
	}
	if target.parsed != nil && target.parsed.Kind == sqlparse.Execute {
		return nil // refused when it is run
	}
	if err := s.describeStatement(target); err != nil {
		return err
	}
	st.description = &description{params: st.oids, fields: target.description.fields, frame: target.description.frame}
	return nil
}

// ownDescription describes what needs no node: statements the gateway runs, and
// those that Postgres itself does not look into before they run.
func (st *statement) ownDescription() *description {
	switch {
	case st.parsed == nil:
		return noRows(st.oids)
	case st.parsed.Kind == sqlparse.Show && isOwnSetting(st.parsed.Setting.Name):
		return ownSettingDescription(st.parsed.Setting.Name)
	case st.parsed.Kind == sqlparse.Show && isHeld(st.parsed.Setting.Name):
		return showDescription(st.parsed.Setting.Name)
	case isOwnCall(st.parsed):
		return callDescription(st.parsed)
	}
	switch st.parsed.Kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Merge, sqlparse.Explain,
		sqlparse.Show, sqlparse.Fetch, sqlparse.Call, sqlparse.Execute, sqlparse.DeclareCursor:
		return nil
	}
	return noRows(st.oids)
}

// branchToAsk is a branch of the block, because only that sees what the block
// has created; else a connection for this one question. A block that has no
// node yet does not get one for it, nor does it need a second slot.
func (s *session) branchToAsk(st *statement) (b *participant.Branch, done func(), err error) {
	if s.block != nil && s.block.t != nil {
		if st.parsed.Kind == sqlparse.Fetch {
			if p := s.portals.get(st.parsed.Prepared); p != nil && p.at != nil {
				return p.at, func() {}, p.at.Lost()
			}
		}
		b, err = s.enlistAny()
		return b, func() {}, err
	}
	t, err := s.beginTransaction()
	if err != nil {
		return nil, nil, err
	}
	b, err = s.gw.firstThatAnswers(func(node *participant.Node) (*participant.Branch, error) {
		return s.join(t, node, s.settings, nil)
	})
	if err != nil {
		t.End()
		return nil, nil, err
	}
	return b, t.End, nil
}

// askDescription has a node parse and describe the statement.
func (s *session) askDescription(b *participant.Branch, st *statement) (*description, error) {
	b.StartSeries()
	b.Parse(&pgproto3.Parse{Query: st.sql, ParameterOIDs: st.oids})
	b.Describe(&pgproto3.Describe{ObjectType: 'S'})
	b.Sync()
	if err := b.Send(); err != nil {
		return nil, err
	}
	return s.readDescription(b)
}

// readDescription reads the answer to Parse, Describe and Sync.
func (s *session) readDescription(b *participant.Branch) (*description, error) {
	d := &description{}
	var refused error
	for {
		frame, err := b.Receive()
		if err != nil {
			return nil, err
		}
		switch frame.Type() {
		case 't':
			var msg pgproto3.ParameterDescription
			if err := msg.Decode(frame.Body()); err != nil {
				return nil, err
			}
			d.params = msg.ParameterOIDs
		case 'T', 'n':
			if err := d.take(frame); err != nil {
				return nil, err
			}
		case 'E':
			if refused == nil {
				refused = refusedBy(b, frame)
			}
		case 'N':
			s.client.sendRaw(frame.Raw())
		case 'S':
			s.relayParameter(frame)
		case 'Z':
			if refused == nil && d.frame == nil {
				refused = sqlError(pgerrcode.InternalError, "a node did not describe a statement")
			}
			return d, refused
		}
	}
}

// take keeps a RowDescription or NoData, in memory of its own.
func (d *description) take(frame pgwire.Frame) error {
	d.frame = slices.Clone(frame.Raw())
	if frame.Type() == 'n' {
		return nil
	}
	var msg pgproto3.RowDescription
	if err := msg.Decode(d.frame[pgwire.HeaderLen:]); err != nil {
		return err
	}
	d.fields = msg.Fields
	return nil
}
