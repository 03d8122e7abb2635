package coordinator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pgpact/pgpact/participant"
)

// The waits-for graph of the whole cluster and the search for deadlocks in it.
// Everything here is a function of its arguments: two gateways that see the same
// graph find the same cycles and the same victims (docs/adr/0014).

// holderAt is a transaction's part at one node, as that node's lock table knows
// it.
type holderAt struct {
	node string
	participant.LockHolder
}

func (h holderAt) compare(other holderAt) int {
	return cmp.Or(cmp.Compare(h.node, other.node), cmp.Compare(h.PID, other.PID), cmp.Compare(h.VXID, other.VXID), cmp.Compare(h.GID, other.GID))
}

// waitEdge says that from waits for to, and since when. It is comparable: the
// same edge, seen twice, has been there all the time in between. A wait that ends
// and begins again has another since, and who has ended never comes back under
// the same virtual transaction id.
type waitEdge struct {
	from, to   holderAt
	since      int64 // by the node's clock
	mode, lock string
}

func (e waitEdge) compare(other waitEdge) int {
	return cmp.Or(e.from.compare(other.from), e.to.compare(other.to), cmp.Compare(e.since, other.since),
		cmp.Compare(e.lock, other.lock), cmp.Compare(e.mode, other.mode))
}

// txName names a transaction of a gateway that may have no global id.
type txName struct {
	Epoch, Serial int64
}

// String spells the name as SHOW pgpact.lock_waits does.
func (n txName) String() string { return fmt.Sprintf("%d#%d", n.Epoch, n.Serial) }

// waitingTx is what a gateway knows of a transaction of its own that waits.
type waitingTx struct {
	name     txName
	id       participant.ID // zero: none yet
	branches []holderAt
	// waits are waits of its branches. While any of them lasts the transaction is
	// in the middle of the same statement, so its branches are what they were.
	waits []waitEdge
	// able: its gateway has lately shown that it is at work, so it can be
	// expected to cancel it.
	able bool
}

// String is the transaction's global id if it has one.
func (tx *waitingTx) String() string {
	if !tx.id.IsZero() {
		return tx.id.String()
	}
	return tx.name.String()
}

// waitGraph is what is known at one moment.
type waitGraph struct {
	edges     []waitEdge
	preparing map[holderAt]participant.ID // whose phase one a wait is
	prepared  map[participant.ID]bool     // have a branch prepared on some node
	txs       []waitingTx
}

// deadlock is a cycle: each edge's waiter belongs to the transaction that the
// edge before it waits for.
type deadlock struct {
	cycle []waitEdge
	// victim is who is to be cancelled, nil when nobody in the cycle can be.
	victim *waitingTx
}

// party is a transaction in the graph: all its parts on all nodes that are known
// to belong together. What nobody claims is a party of its own.
type party struct {
	edges    []waitEdge // what its parts wait for
	tx       *waitingTx // nil: not a gateway's that we know, so no candidate
	prepared bool
}

// parties finds out what belongs together: by what gateways say of their
// transactions, by gid, and by whose phase one a process is at.
type parties struct {
	of   map[holderAt]int
	byID map[participant.ID]int
	all  []*party
}

func (g *waitGraph) parties() *parties {
	ps := &parties{of: map[holderAt]int{}, byID: map[participant.ID]int{}}
	waits := map[waitEdge]bool{}
	for _, e := range g.edges {
		waits[e.wait()] = true
	}
	txs := slices.Clone(g.txs)
	slices.SortFunc(txs, func(a, b waitingTx) int {
		return cmp.Or(cmp.Compare(a.name.Epoch, b.name.Epoch), cmp.Compare(a.name.Serial, b.name.Serial))
	})
	for i := range txs {
		tx := &txs[i]
		// What was said of it is of now only if a wait that it said it was in lasts.
		if !slices.ContainsFunc(tx.waits, func(e waitEdge) bool { return waits[e.wait()] }) {
			continue
		}
		n := ps.add(&party{tx: tx})
		for _, b := range tx.branches {
			if _, taken := ps.of[b]; !taken {
				ps.of[b] = n
			}
		}
		if !tx.id.IsZero() {
			ps.byID[tx.id] = n
		}
	}
	for _, e := range g.edges {
		from := ps.party(e.from, g.preparing[e.from])
		ps.all[from].edges = append(ps.all[from].edges, e)
		ps.party(e.to, g.preparing[e.to])
	}
	for id, n := range ps.byID {
		ps.all[n].prepared = g.prepared[id]
	}
	for _, p := range ps.all {
		slices.SortFunc(p.edges, waitEdge.compare)
	}
	return ps
}

// wait is the edge without whom it waits for.
func (e waitEdge) wait() waitEdge { return waitEdge{from: e.from, since: e.since} }

func (ps *parties) add(p *party) int {
	ps.all = append(ps.all, p)
	return len(ps.all) - 1
}

// party is the party that a part belongs to.
func (ps *parties) party(h holderAt, preparing participant.ID) int {
	if n, ok := ps.of[h]; ok {
		return n
	}
	id := preparing
	if gid, ok := participant.ParseGID(h.GID); ok {
		id = gid.ID
	}
	n, known := ps.byID[id]
	if id.IsZero() || !known {
		n = ps.add(&party{})
	}
	if !id.IsZero() {
		ps.byID[id] = n
	}
	ps.of[h] = n
	return n
}

// findDeadlocks finds the deadlocks that span nodes, and a victim for each.
// Cycles within one node are that node's: Postgres finds them itself.
func findDeadlocks(g *waitGraph) []deadlock {
	ps := g.parties()
	var found []deadlock
	for _, component := range ps.components() {
		alive := map[int]bool{}
		for _, n := range component {
			alive[n] = true
		}
		// Every victim may leave other cycles; without one nothing can be done.
		for {
			cycle := ps.findCycle(component, alive)
			if cycle == nil {
				break
			}
			victim := ps.chooseVictim(cycle)
			if victim < 0 {
				found = append(found, deadlock{cycle: cycle})
				break
			}
			found = append(found, deadlock{cycle: cycle, victim: ps.all[victim].tx})
			delete(alive, victim)
		}
	}
	return found
}

// components are the strongly connected components of more than one party, or
// of one that waits for itself, in a fixed order (Tarjan's algorithm).
func (ps *parties) components() [][]int {
	t := &tarjan{ps: ps, index: make([]int, len(ps.all)), low: make([]int, len(ps.all)), on: make([]bool, len(ps.all))}
	for n := range ps.all {
		if t.index[n] == 0 {
			t.visit(n)
		}
	}
	for _, c := range t.found {
		slices.SortFunc(c, func(a, b int) int { return ps.all[a].edges[0].compare(ps.all[b].edges[0]) })
	}
	slices.SortFunc(t.found, func(a, b []int) int { return ps.all[a[0]].edges[0].compare(ps.all[b[0]].edges[0]) })
	return t.found
}

type tarjan struct {
	ps         *parties
	next       int
	index, low []int
	on         []bool
	stack      []int
	found      [][]int
}

func (t *tarjan) visit(n int) {
	t.next++
	t.index[n], t.low[n] = t.next, t.next
	t.stack, t.on[n] = append(t.stack, n), true
	self := false
	for _, e := range t.ps.all[n].edges {
		to := t.ps.of[e.to]
		self = self || to == n
		if t.index[to] == 0 {
			t.visit(to)
			t.low[n] = min(t.low[n], t.low[to])
		} else if t.on[to] {
			t.low[n] = min(t.low[n], t.index[to])
		}
	}
	if t.low[n] != t.index[n] {
		return
	}
	at := slices.Index(t.stack, n)
	component := slices.Clone(t.stack[at:])
	t.stack = t.stack[:at]
	for _, m := range component {
		t.on[m] = false
	}
	if len(component) > 1 || self {
		t.found = append(t.found, component)
	}
}

// step is a place in the search: an edge, and whether the way to it has passed
// from one part of a transaction to another.
type step struct {
	edge    waitEdge
	crossed bool
}

// findCycle finds a shortest cycle, from the first edge that is on one, that
// passes at least once from one part of a transaction to another; nil if there is
// none. One that does not is a deadlock of one node's own.
func (ps *parties) findCycle(component []int, alive map[int]bool) []waitEdge {
	for _, n := range component {
		if !alive[n] {
			continue
		}
		for _, first := range ps.all[n].edges {
			if cycle := ps.cycleFrom(n, first, alive); cycle != nil {
				return cycle
			}
		}
	}
	return nil
}

func (ps *parties) cycleFrom(n int, first waitEdge, alive map[int]bool) []waitEdge {
	start := step{edge: first}
	before := map[step]step{}
	seen := map[step]bool{start: true}
	for queue := []step{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		to := ps.of[at.edge.to]
		if !alive[to] {
			continue
		}
		if to == n && (at.crossed || at.edge.to != first.from) {
			if cycle := way(at, start, before); ps.simple(cycle) {
				return cycle
			}
		}
		for _, e := range ps.all[to].edges {
			next := step{edge: e, crossed: at.crossed || e.from != at.edge.to}
			if !seen[next] {
				seen[next], before[next] = true, at
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// way is the way back from a step to the start.
func way(at, start step, before map[step]step) []waitEdge {
	cycle := []waitEdge{at.edge}
	for at != start {
		at = before[at]
		cycle = append(cycle, at.edge)
	}
	slices.Reverse(cycle)
	return cycle
}

// simple tells whether each party is on the cycle once. Otherwise it is several,
// and each of them is found by itself, or is a node's own.
func (ps *parties) simple(cycle []waitEdge) bool {
	on := map[int]bool{}
	for _, e := range cycle {
		on[ps.of[e.from]] = true
	}
	return len(on) == len(cycle)
}

// chooseVictim picks the party whose wait in the cycle began last, of those that
// can be cancelled: it has closed the cycle, and the others have waited longer.
// Nothing but the nodes' own words decides, so every gateway picks the same, and
// no gateway's clock matters. A transaction in its phase one comes last: what is
// prepared is as good as done, and if its gateway has stopped it is in doubt and
// nobody's to cancel. It returns -1 if nobody can be.
func (ps *parties) chooseVictim(cycle []waitEdge) int {
	best, victim := -1, waitEdge{}
	for _, e := range cycle {
		n := ps.of[e.from]
		p := ps.all[n]
		if p.tx == nil || !p.tx.able {
			continue
		}
		if best >= 0 {
			q := ps.all[best]
			if c := cmp.Or(compareBool(q.prepared, p.prepared), cmp.Compare(e.since, victim.since), e.from.compare(victim.from)); c <= 0 {
				continue
			}
		}
		best, victim = n, e
	}
	return best
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// confirmed are the edges that both looks have seen.
func confirmed(before, now []waitEdge) []waitEdge {
	seen := make(map[waitEdge]bool, len(before))
	for _, e := range before {
		seen[e] = true
	}
	var both []waitEdge
	for _, e := range now {
		if seen[e] {
			both = append(both, e)
		}
	}
	return both
}

// detail words a cycle as Postgres does (DeadLockReport in deadlock.c), with the
// node in front and a line where one transaction is two processes.
func (d *deadlock) detail() string {
	lines := make([]string, 0, 2*len(d.cycle))
	for i, e := range d.cycle {
		lines = append(lines, fmt.Sprintf("Node %q: Process %d waits for %s on %s; blocked by %s.", e.from.node, e.from.PID, e.mode, e.lock, e.to))
		if next := d.cycle[(i+1)%len(d.cycle)].from; next != e.to {
			lines = append(lines, fmt.Sprintf("Node %q: %s is one transaction with process %d on node %q.",
				e.to.node, capital(e.to.String()), next.PID, next.node))
		}
	}
	return strings.Join(lines, "\n")
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// edgesOf makes the graph's edges of what the nodes have shown.
func edgesOf(looks map[string]participant.LockLook) (edges []waitEdge, preparing map[holderAt]participant.ID, prepared map[participant.ID]bool) {
	preparing, prepared = map[holderAt]participant.ID{}, map[participant.ID]bool{}
	for node, look := range looks {
		maps.Copy(prepared, look.Prepared)
		for _, w := range look.Waits {
			from := holderAt{node, w.Waiter}
			if !w.Preparing.IsZero() {
				preparing[from] = w.Preparing
			}
			for _, blocker := range w.Blockers {
				edges = append(edges, waitEdge{from: from, to: holderAt{node, blocker}, since: w.Since, mode: w.Mode, lock: w.Lock})
			}
		}
	}
	slices.SortFunc(edges, waitEdge.compare)
	return edges, preparing, prepared
}
