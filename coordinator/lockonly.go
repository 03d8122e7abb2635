package coordinator

import (
	"context"
	"errors"
	"slices"

	"github.com/pgpact/pgpact/participant"
)

// Branches that have only locked rows (I9). What their locks protect may lie on
// other nodes: who gets such a lock next must find there what was committed
// under it. So they are committed last: by commit.go in a round of its own, and
// by recovery, here, once every branch that changed rows shows its record.

// errLocksHeld is why phase two has left a lock-only branch prepared.
var errLocksHeld = errors.New("it only locked rows, and keeps the locks until the branches that changed rows have committed")

// changingFirst sorts a transaction's writing branches: those that changed rows,
// or may have, before those that only locked some. It returns how many change.
func changingFirst(writing []*participant.Branch) (changing int) {
	slices.SortStableFunc(writing, func(a, b *participant.Branch) int {
		switch {
		case a.OnlyLocks() == b.OnlyLocks():
			return 0
		case a.OnlyLocks():
			return 1
		}
		return -1
	})
	for changing < len(writing) && !writing[changing].OnlyLocks() {
		changing++
	}
	return changing
}

// after is what the branch's gid says of the order: how many others must have
// committed before it. If no branch changed anything, there is none to keep.
func (t *Transaction) after(b *participant.Branch) int {
	if b.OnlyLocks() {
		return t.changing
	}
	return 0
}

// heldLoop is the name of the node's loop that commits what a sweep held back.
func heldLoop(node *participant.Node) string { return node.Name() + " (lock-only branches)" }

// holdBack takes from what a sweep has found the lock-only branches that are to
// be committed, hands them to a loop of their own, and returns the others. Other
// nodes have to be asked about them, and one that hangs must not keep this
// node's other branches waiting. A rollback needs no order.
func (r *recoverer) holdBack(node *participant.Node, prepared []participant.PreparedBranch, decisions map[participant.ID]Decision) (others []participant.PreparedBranch) {
	var held []participant.PreparedBranch
	for _, p := range prepared {
		if p.After > 0 && decisions[p.ID] == Commit {
			held = append(held, p)
		} else {
			others = append(others, p)
		}
	}
	if len(held) == 0 {
		return others
	}
	r.mu.Lock()
	r.held[node.Name()] = held
	r.mu.Unlock()
	select {
	case r.nudges[heldLoop(node)] <- struct{}{}:
	default:
	}
	return others
}

// commitHeld commits those lock-only branches held back on the node whose turn
// it is: all the branches that changed rows show their records (I9, I8). The
// others wait for a later sweep, which finds and holds them again. That the
// commit is decided has been read, and cannot change any more (I1, I2).
func (r *recoverer) commitHeld(ctx context.Context, node *participant.Node) error {
	r.mu.Lock()
	held := r.held[node.Name()]
	delete(r.held, node.Name())
	r.mu.Unlock()
	if len(held) == 0 {
		return nil
	}
	ids := make([]participant.ID, len(held))
	for i, p := range held {
		ids[i] = p.ID
	}
	proven, silent := r.c.branchRecords(ctx, ids)
	var turn []participant.PreparedBranch
	decisions := map[participant.ID]Decision{}
	for _, p := range held {
		if proven[p.ID].changed(p.After) {
			turn = append(turn, p)
			decisions[p.ID] = Commit
			continue
		}
		r.c.cfg.Logger.Debug("lock-only branch waits for those that changed rows", "gid", p.GID.String(),
			"committed", proven[p.ID].nodes, "participants", proven[p.ID].participants, "silent", silent)
	}
	return r.apply(ctx, node, turn, decisions)
}

// changed tells whether all the branches that changed rows, n of them, show
// their records. Nothing else is proof: neither a decision, nor that nothing is
// prepared at a node any more, which may have lost what it had acknowledged.
func (p proof) changed(n int) bool {
	if len(p.participants) < n { // no record is visible yet
		return false
	}
	for _, name := range p.participants[:n] {
		if !slices.Contains(p.nodes, name) {
			return false
		}
	}
	return true
}
