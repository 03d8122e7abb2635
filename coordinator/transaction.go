package coordinator

// Life of an UPDATE, step 7: a node is enlisted.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
)

// ErrNoSlot is returned by Begin when all transaction slots stayed in use for
// SlotTimeout. To the client: 53300, nothing has been done.
var ErrNoSlot = errors.New("too many transactions are under way")

// Transaction is one client transaction: its branches, and, once it is tracked
// or commits in two phases, its global id. It belongs to one goroutine, except
// Cancel.
type Transaction struct {
	c      *Coordinator
	serial int64 // counts this gateway's transactions: most have no global id

	id      participant.ID
	tracked bool
	role    string
	key     string
	keyTag  string  // of the key, in gids
	keyFree logLife // in which life of the decision log the key was found to be free

	timing  Timing
	onPhase func(phase Phase, node string, began time.Time) // see OnPhase

	changing int // of two phases: how many writing branches changed rows, the rest only locked some

	mu       sync.Mutex // guards branches, ended and id against Cancel and the detector of deadlocks
	branches []*participant.Branch
	ended    bool
}

// Begin takes a transaction slot. Every transaction ends with Commit, Rollback
// or End, which give it back.
func (c *Coordinator) Begin(ctx context.Context) (*Transaction, error) {
	select {
	case c.slots <- struct{}{}:
		return c.active.begin(c), nil
	default:
	}
	began := time.Now()
	timer := time.NewTimer(c.cfg.SlotTimeout)
	defer timer.Stop()
	select {
	case c.slots <- struct{}{}:
		c.cfg.Observer.SlotWaited(time.Since(began), true)
		return c.active.begin(c), nil
	case <-timer.C:
		c.cfg.Observer.SlotWaited(time.Since(began), false)
		return nil, fmt.Errorf("%w: none of %d slots became free within %s", ErrNoSlot, c.cfg.Slots, c.cfg.SlotTimeout)
	case <-ctx.Done():
		c.cfg.Observer.SlotWaited(time.Since(began), false)
		return nil, context.Cause(ctx)
	}
}

// Branch is the transaction's branch at the node, nil if it is not enlisted.
func (t *Transaction) Branch(node *participant.Node) *participant.Branch {
	for _, b := range t.branches {
		if b.Node() == node {
			return b
		}
	}
	return nil
}

// Branches are the enlisted branches, in the order of enlistment.
func (t *Transaction) Branches() []*participant.Branch { return t.branches }

// Enlist makes a branch at the node. opening is BEGIN with its options and what
// the transaction already has (savepoints, settings); nil for autocommit, where
// each statement is a transaction of the node's own. Nothing is sent yet,
// unless a connection has to be made.
func (t *Transaction) Enlist(ctx context.Context, node *participant.Node, settings participant.Settings, opening []string) (*participant.Branch, error) {
	branch, err := node.NewBranch(ctx, settings, opening)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.branches = append(t.branches, branch)
	t.mu.Unlock()
	return branch, nil
}

// Drop takes a node out of the transaction, in which nothing has been done yet
// at it. Its connection is closed if a block was begun there.
func (t *Transaction) Drop(node *participant.Node) {
	branch := t.Branch(node)
	if branch == nil {
		return
	}
	t.mu.Lock()
	t.branches = slices.DeleteFunc(t.branches, func(b *participant.Branch) bool { return b == branch })
	t.mu.Unlock()
	branch.Release()
}

// Doomed is not nil once a branch has lost its connection: the transaction can
// only be rolled back.
func (t *Transaction) Doomed() error {
	for _, b := range t.branches {
		if err := b.Lost(); err != nil {
			return err
		}
	}
	return nil
}

// OnPhase has told called, within Commit, whenever the Observer's PhaseDone is: by
// whoever wants to know of this transaction and no other.
func (t *Transaction) OnPhase(told func(phase Phase, node string, began time.Time)) { t.onPhase = told }

// ID is the global transaction id, zero while none has been given.
func (t *Transaction) ID() participant.ID { return t.id }

// Track gives the transaction its global id now and promises that its outcome
// can be asked for later: it commits in two phases however few nodes it wrote
// on, and leaves a record.
func (t *Transaction) Track() participant.ID {
	t.tracked = true
	t.ensureID()
	return t.id
}

// Tracked tells whether the transaction's outcome can be asked for later.
func (t *Transaction) Tracked() bool { return t.tracked }

// SetIdempotencyKey tracks the transaction under a key, unique per role. A
// committed transaction that already bears it is a *KeyTakenError; when that
// cannot be asked, it is ErrDecisionUnreachable, or a *KeyUnsureError.
func (t *Transaction) SetIdempotencyKey(ctx context.Context, role, key string) error {
	answer, err := t.c.askKey(ctx, role, key, t.id)
	if err != nil {
		return err
	}
	if answer.found {
		return &KeyTakenError{Key: key, Winner: answer.winner}
	}
	t.role, t.key, t.keyTag, t.keyFree = role, key, participant.KeyTag(role, key), answer.life
	t.Track()
	return nil
}

// KeyTakenError says that another transaction has committed under the
// idempotency key. To the client: 23505, certainly not done (again).
type KeyTakenError struct {
	Key    string
	Winner participant.ID
}

func (e *KeyTakenError) Error() string {
	return fmt.Sprintf("transaction %s has already committed with idempotency key %q", e.Winner, e.Key)
}

func (t *Transaction) ensureID() {
	if t.id.IsZero() {
		id := t.c.nextID()
		t.mu.Lock()
		t.id = id
		t.mu.Unlock()
	}
}

// Broadcast runs one statement of transaction control (a savepoint, SET) on
// every branch that is open, and has the others run it when they open. The
// first refusal is the error; the branches may then differ, so the caller must
// treat the transaction as failed.
func (t *Transaction) Broadcast(sql string) error {
	var sent []*participant.Branch
	var firstErr error
	note := func(err error) {
		if firstErr == nil {
			firstErr = err
		}
	}
	for _, b := range t.branches {
		if b.Lost() != nil {
			note(b.Lost())
			continue
		}
		if !b.Open() {
			b.AddOpening(sql)
			continue
		}
		b.Query(sql)
		if err := b.Send(); err != nil {
			note(err)
			continue
		}
		sent = append(sent, b)
	}
	for _, b := range sent {
		if err := drain(b); err != nil {
			note(err)
		}
	}
	return firstErr
}

// drain reads a branch's answer to its end; what the node refused is the error.
func drain(b *participant.Branch) error {
	var refused error
	for {
		frame, err := b.Receive()
		if err != nil {
			return err
		}
		switch frame.Type() {
		case 'E':
			pgErr, err := participant.DecodeError(frame.Body())
			if err != nil {
				return err
			}
			refused = pgErr
		case 'Z':
			return refused
		}
	}
}

// Cancel asks every node to cancel what the transaction is doing there. It may
// be called from any goroutine, and changes nothing once the commit has been
// handed over to the decider.
func (t *Transaction) Cancel() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	for _, b := range t.branches {
		b.Conn().Cancel()
	}
}

// Break closes the connections on which a Cancel was not answered, from any
// goroutine: the nodes roll back what was not prepared. Like Cancel it changes
// nothing once the commit has been handed over to the decider.
func (t *Transaction) Break() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	for _, b := range t.branches {
		b.Conn().Break()
	}
}

// Rollback rolls every branch back. It cannot fail: what cannot be told to a
// node, the node does by itself when the connection closes.
func (t *Transaction) Rollback() {
	if t.ended {
		return // rolled back before its client said so (ADR 0014)
	}
	began, kind := time.Now(), t.kind(t.writingBranches())
	t.rollbackBranches(t.branches)
	if t.tracked {
		t.c.settleLater(t.id, t.participants(nil))
	}
	t.End()
	t.c.cfg.Observer.TransactionEnded(kind, Aborted, time.Since(began))
}

// rollbackBranches rolls back branches that have not been prepared, in
// parallel.
func (t *Transaction) rollbackBranches(branches []*participant.Branch) {
	sent := make([]*participant.Branch, 0, len(branches))
	for _, b := range branches {
		if b.SendRollback() {
			sent = append(sent, b)
		}
	}
	for _, b := range sent {
		b.ReceiveRollback()
	}
}

// participants are the names of the writing branches' nodes.
func (t *Transaction) participants(writing []*participant.Branch) []string {
	names := make([]string, 0, len(writing))
	for _, b := range writing {
		names = append(names, b.Node().Name())
	}
	return names
}

// End gives the connections and the slot back. It is what an autocommit
// statement ends with; Commit and Rollback call it themselves. A block that is
// still open is rolled back by closing its connection.
func (t *Transaction) End() {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	t.ended = true
	branches := t.branches
	t.branches = nil
	t.mu.Unlock()
	for _, b := range branches {
		b.Release()
	}
	if !t.id.IsZero() {
		t.c.running.remove(t.id)
	}
	t.c.active.end(t)
	<-t.c.slots
}

// Outcome is what a client learns of a transaction.
type Outcome int

// The outcomes.
const (
	Unknown Outcome = iota
	Committed
	Aborted
)

func (o Outcome) String() string {
	return [...]string{"unknown", "committed", "aborted"}[o]
}

// Result of a commit.
type Result struct {
	Outcome Outcome
	// ID is set when the transaction has one: an unknown outcome can be asked
	// for with it later.
	ID participant.ID
	// Err is why it is Aborted or Unknown. For Aborted it may be the node's own
	// error (*pgconn.PgError), to be passed on unchanged.
	Err error
	// Unfinished are the nodes that have not confirmed their part of a
	// committed transaction yet; recovery sees to them.
	Unfinished []string
	// Timing is how long the parts of the commit took.
	Timing Timing
	// Notices of the nodes, for the client.
	Notices []*pgconn.PgError
}
