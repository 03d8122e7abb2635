package gateway

import (
	"errors"
	"strings"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/participant"
)

// Reading several nodes at one instant. When that is, the coordinator says
// (coordinator/barrier.go); what opens a snapshot at a node, and when it must, is
// known here:
//
//   - A statement at READ COMMITTED gets its snapshot at Bind. So Parse, which
//     takes the tables' locks, goes in front of the window, Bind into it, and
//     Execute behind it (together.go).
//   - A transaction at REPEATABLE READ gets its snapshot with its first statement,
//     whatever that is. Which nodes it will read is not known then, so it is given
//     a snapshot on all of them, by a statement of ours.
//   - COPY TO and EXPLAIN ANALYZE get theirs only when they are run. Outside of a
//     block they are run in a transaction at REPEATABLE READ; inside one at READ
//     COMMITTED, COPY is begun in the window (copy_together.go).

// instant is how a block at REPEATABLE READ reads.
type instant uint8

const (
	undecided  instant = iota // no statement has needed a node yet
	ofEachNode                // read_consistency was per_node then
	ofAllNodes                // the snapshots are there
)

// repeatableRead tells whether the block's statements share one snapshot, and
// may yet be at several nodes.
func (b *block) repeatableRead() bool {
	if b.modes.isolation != "" {
		return strings.EqualFold(b.modes.isolation, repeatableRead)
	}
	return repeatableByDefault(b.base)
}

const repeatableRead = "repeatable read"

func repeatableByDefault(settings participant.Settings) bool {
	level, _ := settings.Get(isolationDefault)
	return strings.EqualFold(level, repeatableRead)
}

// readsTogether tells whether a statement reads several nodes so that its
// snapshots are to be of one instant.
func (s *session) readsTogether(x *execution, r *route) bool {
	return r.multi() && x.run && readsOnly(x) && s.readsAtomically()
}

// readsOnly tells whether what the statement returns is of its snapshots. The
// rows that UPDATE and DELETE find are not: each node looks for them when it runs
// the statement.
func readsOnly(x *execution) bool {
	st := x.st
	if x.explained != nil {
		return st.Analyze && st.Inner != nil && isSelect(st.Inner)
	}
	return isSelect(st) || x.copy != nil || x.declared != nil
}

// runsWhole tells whether no message of the statement opens its snapshot without
// running it.
func runsWhole(x *execution) bool { return x.explained != nil || x.copy != nil }

// wantsSnapshots tells whether a statement outside of a block is to be run in a
// transaction at REPEATABLE READ, for the sake of its snapshots, and that
// transaction's characteristics.
func (s *session) wantsSnapshots(x *execution, r *route) (modes, bool) {
	switch {
	case !s.readsTogether(x, r), serializableByDefault(s.settings):
		return modes{}, false
	case repeatableByDefault(s.settings):
		return modes{}, true
	}
	return modes{isolation: repeatableRead}, runsWhole(x)
}

// openBlockSnapshots gives a block at REPEATABLE READ its snapshots, before
// anything is sent that would open one at a single node. needed is the node that
// must be among them; another that cannot be reached stays outside of the
// transaction.
func (s *session) openBlockSnapshots(needed *participant.Node) error {
	b := s.block
	if b.reads != undecided || !b.repeatableRead() {
		return b.absent[needed]
	}
	if !s.readsAtomically() {
		b.reads = ofEachNode
		return nil
	}
	t, err := s.transaction()
	if err != nil {
		return err
	}
	if err := s.enlistForSnapshots(t, needed); err != nil {
		return err
	}
	for {
		err := s.openSnapshots(t)
		if err == nil {
			b.reads = ofAllNodes
			return nil
		}
		node, ok := s.unreadable(err)
		if !ok || node == needed || len(t.Branches()) < 2 {
			return err
		}
		t.Drop(node)
		b.missing(node, err)
	}
}

// missing notes that a node is not in the block's snapshots.
func (b *block) missing(node *participant.Node, why error) {
	if b.absent == nil {
		b.absent = map[*participant.Node]error{}
	}
	b.absent[node] = why
}

// enlistForSnapshots enlists every node that can be reached.
func (s *session) enlistForSnapshots(t *coordinator.Transaction, needed *participant.Node) error {
	for _, node := range s.gw.nodes {
		if t.Branch(node) != nil {
			continue
		}
		branch, err := s.join(t, node, s.block.base, s.block.opening())
		switch {
		case err == nil && s.block.tainted:
			branch.Conn().Taint()
		case err == nil:
		case !isUnreachable(err) || node == needed:
			return err
		default:
			s.block.missing(node, err)
		}
	}
	if len(t.Branches()) == 0 {
		return s.block.absent[s.gw.nodes[0]]
	}
	return nil
}

// unreadable is the node for which snapshots could not be had, if it is one
// node's fault.
func (s *session) unreadable(err error) (*participant.Node, bool) {
	if _, ok := errors.AsType[*coordinator.SnapshotError](err); !ok {
		return nil, false
	}
	name := ""
	if e, ok := errors.AsType[*participant.ConnectError](err); ok {
		name = e.Node
	} else if e, ok := errors.AsType[*participant.LostError](err); ok {
		name = e.Node
	}
	for _, node := range s.gw.nodes {
		if node.Name() == name {
			return node, true
		}
	}
	return nil, false
}

// openSnapshots opens the block's snapshots, at one instant, on all its
// branches. BEGIN alone would open none.
func (s *session) openSnapshots(t *coordinator.Transaction) error {
	branches := t.Branches()
	nodes := make([]*participant.Node, 0, len(branches))
	for _, b := range branches {
		nodes = append(nodes, b.Node())
	}
	return s.atOneInstant(nodes, func() error {
		if s.block.opened { // a snapshot that does not count goes with its transaction only
			for _, b := range branches {
				if err := b.Restart(s.block.opening()); err != nil {
					return err
				}
			}
		}
		s.block.opened = true
		return s.askBranches(branches, "SELECT 1")
	})
}

// askBranches runs a statement of ours on branches at the same time.
func (s *session) askBranches(branches []*participant.Branch, sql string) error {
	var err error
	sent := 0
	for _, b := range branches {
		b.Query(sql)
		if err = b.Send(); err != nil {
			break
		}
		sent++
	}
	for i, b := range branches[:sent] {
		if _, failed := s.readFirst(b, i > 0); failed != nil && err == nil {
			err = failed
		}
	}
	return err
}

// atOneInstant calls open in a window of the barrier. The wait is bounded as
// that for a slot is.
func (s *session) atOneInstant(nodes []*participant.Node, open func() error) error {
	ctx, done := s.waitContext()
	defer done()
	return s.gw.coordinator.OpenSnapshots(ctx, nodes, open)
}
