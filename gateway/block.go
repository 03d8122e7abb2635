package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// block is a session's transaction, explicit or implicit: everything a node
// must be told that is enlisted in the middle of it. A block that no statement
// has needed a node for holds no transaction slot.
type block struct {
	t *coordinator.Transaction // nil until a node, or an id, is needed

	begin string // BEGIN with its options
	modes modes  // what COMMIT AND CHAIN hands on
	// chained is what AND CHAIN has handed to this block. It is all that a failed
	// block hands on: an abort undoes what BEGIN and SET TRANSACTION set, as it
	// undoes any setting, but not what StartTransaction began with (xact.c).
	chained modes
	// journal are the statements that every node must have run since BEGIN, in
	// their order: savepoints and settings.
	journal    []journalEntry
	savepoints []savepoint

	base     participant.Settings // the session's when the block began
	settings participant.Settings // the session's once the block has committed
	tainted  bool                 // SET has run: connections are reset afterwards
	// local are settings for the rest of the block that the gateway itself must
	// know (the search path).
	local participant.Settings

	key string // idempotency key, "" for none
	// schema numbers the last change that the block has made to the schema, 0
	// for none. What was found out of a statement since is nobody else's.
	schema uint64

	reads  instant // of a block at REPEATABLE READ
	opened bool    // a snapshot may have been opened for it
	// absent are the nodes that are not in its snapshots, and why.
	absent map[*participant.Node]error

	// before are the reported parameters as they were before the block changed
	// them, kept those whose change outlives it; keeping: the change now under
	// way does.
	before, kept map[string]string
	keeping      bool
}

type journalEntry struct {
	sql       string
	savepoint string // the savepoint it makes, "" for a setting
}

func (s *session) newBlock(m modes) *block {
	return &block{
		modes: m, begin: "BEGIN" + m.sql(),
		base: s.settings, settings: s.settings, local: s.settings,
	}
}

// plainOpening is the opening of most branches. Its capacity is its length:
// appending to it copies.
var plainOpening = []string{"BEGIN"}

// opening is what a node enlisted now has to run before its first statement.
func (b *block) opening() []string {
	if len(b.journal) == 0 && b.begin == "BEGIN" {
		return plainOpening
	}
	opening := make([]string, 0, 1+len(b.journal))
	opening = append(opening, b.begin)
	for _, entry := range b.journal {
		opening = append(opening, entry.sql)
	}
	return opening
}

// modes are a transaction's characteristics, as far as its client gave them.
type modes struct {
	isolation  string // lower case, "" for the default
	readOnly   *bool
	deferrable *bool
}

func modesOf(control *sqlparse.TransactionControl) modes {
	if control == nil {
		return modes{}
	}
	return modes{isolation: control.Isolation, readOnly: control.ReadOnly, deferrable: control.Deferrable}
}

// with returns m changed by what is given in other.
func (m modes) with(other modes) modes {
	if other.isolation != "" {
		m.isolation = other.isolation
	}
	if other.readOnly != nil {
		m.readOnly = other.readOnly
	}
	if other.deferrable != nil {
		m.deferrable = other.deferrable
	}
	return m
}

// sql is the modes as they follow BEGIN or SET TRANSACTION, with a blank in
// front of each.
func (m modes) sql() string {
	var sql string
	if m.isolation != "" {
		sql += " ISOLATION LEVEL " + strings.ToUpper(m.isolation)
	}
	if m.readOnly != nil {
		if *m.readOnly {
			sql += " READ ONLY"
		} else {
			sql += " READ WRITE"
		}
	}
	if m.deferrable != nil {
		if *m.deferrable {
			sql += " DEFERRABLE"
		} else {
			sql += " NOT DEFERRABLE"
		}
	}
	return sql
}

// serializable tells whether the transaction is to run at SERIALIZABLE.
func (b *block) serializable() bool {
	if b.modes.isolation != "" {
		return strings.EqualFold(b.modes.isolation, "serializable")
	}
	// What SET has made of the default meanwhile is for the next transaction.
	return serializableByDefault(b.base)
}

// serializableByDefault tells whether a transaction that says nothing else runs
// at SERIALIZABLE. Every session has the setting: see isolationDefault.
func serializableByDefault(settings participant.Settings) bool {
	level, ok := settings.Get(isolationDefault)
	return !ok || strings.EqualFold(level, "serializable")
}

// advance moves the session's transaction on as the table of states says, and
// does what that means: warn, commit, roll back, begin.
func (s *session) advance(event txEvent) error { return s.advanceTo(event, modes{}) }

// advanceTo is advance with the characteristics of a block that begins.
func (s *session) advanceTo(event txEvent, begin modes) error {
	step := &transitions[s.state][event]
	if step.refusal != nil {
		return step.refusal
	}
	if step.warning != nil {
		s.warn(step.warning)
	}
	if step.chain {
		begin = s.block.modes
		if s.state == failed {
			begin = s.block.chained
		}
		begin = s.block.handOn(begin)
	}
	var err error
	switch step.ending {
	case commits:
		err = s.commit()
	case rollsBack:
		s.rollback()
	}
	s.state = step.next
	if err != nil {
		s.state = idle // the transaction is over, whatever was to follow it
	}
	if s.state == failed && len(s.block.savepoints) == 0 {
		s.stopClock() // a failed transaction is over, as Postgres sees it
	}
	if s.state != idle && s.block == nil {
		s.block = s.newBlock(begin)
		if step.chain {
			s.block.chained = begin
		}
		s.startClock()
		if s.gw.cfg.Tracer != nil {
			s.traceBlock()
		}
	}
	return err
}

// handOn is what AND CHAIN hands on of the block's characteristics m: also the
// default it began with, if SET has changed that for transactions to come.
func (b *block) handOn(m modes) modes {
	began, _ := b.base.Get(isolationDefault)
	if next, _ := b.settings.Get(isolationDefault); m.isolation == "" && !strings.EqualFold(began, next) {
		m.isolation = strings.ToLower(began)
	}
	return m
}

// transaction returns the block's transaction, taking a slot for it if it has
// none yet.
func (s *session) transaction() (*coordinator.Transaction, error) {
	if s.block.t == nil {
		t, err := s.beginTransaction()
		if err != nil {
			return nil, err
		}
		s.block.t = t
	}
	return s.block.t, nil
}

// beginTransaction takes a slot. It waits no longer than the coordinator's
// bound, the client's patience (cancel) and its life.
func (s *session) beginTransaction() (*coordinator.Transaction, error) {
	if s.block == nil && s.clockUntil.IsZero() {
		s.startClock()
	}
	ctx, done := s.waitContext()
	defer done()
	t, err := s.gw.coordinator.Begin(ctx)
	if err != nil {
		return nil, err
	}
	s.interrupt.aim(t)
	if s.gw.cfg.Tracer != nil {
		t.OnPhase(s.tracePhase)
	}
	return t, nil
}

// waitContext bounds the wait for a slot or a connection: by cancel, by the
// client's life, and by statement_timeout, which no node counts yet.
func (s *session) waitContext() (context.Context, context.CancelFunc) {
	ctx := s.interrupt.context()
	if s.timeouts.statement == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, s.timeouts.statement, errStatementTimeout)
}

// enlist returns the block's branch at node; a new one will open with all that
// the block has.
func (s *session) enlist(node *participant.Node) (*participant.Branch, error) {
	if err := s.openBlockSnapshots(node); err != nil {
		return nil, err
	}
	t, err := s.transaction()
	if err != nil {
		return nil, err
	}
	if branch := t.Branch(node); branch != nil {
		if err := branch.Lost(); err != nil {
			return nil, err
		}
		return branch, nil
	}
	if len(t.Branches()) > 0 && s.block.serializable() {
		return nil, errSerializable
	}
	branch, err := s.join(t, node, s.block.base, s.block.opening())
	if err == nil && s.block.tainted {
		branch.Conn().Taint()
	}
	return branch, err
}

// join is Enlist, with a cancelled wait reported as what it is.
func (s *session) join(t *coordinator.Transaction, node *participant.Node, settings participant.Settings, opening []string) (*participant.Branch, error) {
	ctx, done := s.waitContext()
	defer done()
	branch, err := t.Enlist(ctx, node, s.forNodes(settings), opening)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err == nil && s.gw.cfg.Tracer != nil {
		branch.Watch(func(began time.Time) { s.traceNode(node.Name(), began) })
	}
	return branch, err
}

// enlistAny returns the block's first branch; if it has none it enlists the
// first node that answers.
func (s *session) enlistAny() (*participant.Branch, error) {
	if err := s.openBlockSnapshots(nil); err != nil {
		return nil, err
	}
	t, err := s.transaction()
	if err != nil {
		return nil, err
	}
	if branches := t.Branches(); len(branches) > 0 {
		return branches[0], branches[0].Lost()
	}
	return s.gw.firstThatAnswers(s.enlist)
}

// isUnreachable tells whether err says that a node could not be used at all, so
// that another may be asked instead.
func isUnreachable(err error) bool {
	if _, ok := errors.AsType[*participant.ConnectError](err); ok {
		return true
	}
	_, ok := errors.AsType[*participant.IdentityError](err)
	return ok
}

// doomed is not nil when a branch of the block has lost its connection.
func (b *block) doomed() error {
	if b.t == nil {
		return nil
	}
	return b.t.Doomed()
}

// record adds a statement that later branches must run too.
func (b *block) record(sql string) { b.journal = append(b.journal, journalEntry{sql: sql}) }

// forgetSavepoints drops the savepoints from index on, their places in the
// journal included: what was set between them stays.
func (b *block) forgetSavepoints(index int) {
	from := b.savepoints[index].journal
	b.savepoints = b.savepoints[:index]
	kept := slices.DeleteFunc(b.journal[from:], func(e journalEntry) bool { return e.savepoint != "" })
	b.journal = b.journal[:from+len(kept)]
}
