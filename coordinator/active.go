package coordinator

import (
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
)

// activeSet are the transactions under way, for who looks for deadlocks.
type activeSet struct {
	mu     sync.Mutex
	serial int64
	of     map[*Transaction]struct{}
}

// begin makes a transaction, which has its slot already.
func (s *activeSet) begin(c *Coordinator) *Transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[*Transaction]struct{}{}
	}
	s.serial++
	t := &Transaction{c: c, serial: s.serial}
	s.of[t] = struct{}{}
	return t
}

func (s *activeSet) end(t *Transaction) {
	s.mu.Lock()
	delete(s.of, t)
	s.mu.Unlock()
}

// ownTx is a transaction of this gateway at the moment of a snapshot.
type ownTx struct {
	t        *Transaction
	id       participant.ID
	branches []ownBranch
}

// ownBranch is one of its branches: the turn says whether an answer is
// outstanding, and which one (participant.Conn.Turn).
type ownBranch struct {
	conn *participant.Conn
	node string
	pid  uint32
	turn uint64
}

func (b ownBranch) waiting() bool { return b.turn%2 == 1 }

// waiting are the transactions that wait for an answer of a node.
func (s *activeSet) waiting() []ownTx {
	var list []ownTx
	for _, tx := range s.all() {
		if slices.ContainsFunc(tx.branches, ownBranch.waiting) {
			list = append(list, tx)
		}
	}
	return list
}

// all are snapshots of all transactions that are on some node.
func (s *activeSet) all() []ownTx {
	s.mu.Lock()
	all := make([]*Transaction, 0, len(s.of))
	for t := range s.of {
		all = append(all, t)
	}
	s.mu.Unlock()
	list := make([]ownTx, 0, len(all))
	for _, t := range all {
		if tx := t.snapshot(); len(tx.branches) > 0 {
			list = append(list, tx)
		}
	}
	return list
}

func (t *Transaction) snapshot() ownTx {
	t.mu.Lock()
	defer t.mu.Unlock()
	tx := ownTx{t: t, id: t.id, branches: make([]ownBranch, 0, len(t.branches))}
	for _, b := range t.branches {
		conn := b.Conn()
		tx.branches = append(tx.branches, ownBranch{conn: conn, node: conn.Node().Name(), pid: conn.PID(), turn: conn.Turn()})
	}
	return tx
}

// cancelAs cancels what the transaction still waits for as it did when the
// snapshot was taken; its session reads err. False: it waits for that no more,
// or its commit has been handed over to the decider.
func (tx *ownTx) cancelAs(err *pgconn.PgError) bool {
	tx.t.mu.Lock()
	defer tx.t.mu.Unlock()
	if tx.t.ended {
		return false
	}
	cancelled := false
	for _, b := range tx.branches {
		if b.waiting() && b.conn.CancelAs(b.turn, err) {
			cancelled = true
		}
	}
	return cancelled
}
