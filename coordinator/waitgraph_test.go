package coordinator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pgpact/pgpact/participant"
)

// at is a part of a transaction: the number is its process and its virtual transaction.
func at(node string, n int) holderAt {
	return holderAt{node, participant.LockHolder{PID: uint32(n), VXID: fmt.Sprintf("%d/1", n)}}
}

func waitsFor(from, to holderAt, since int64) waitEdge {
	return waitEdge{from: from, to: to, since: since, mode: "ShareLock", lock: "transaction 7"}
}

// txOf is a transaction with these parts, of which those with an edge wait.
func txOf(epoch, serial int64, edges []waitEdge, parts ...holderAt) waitingTx {
	tx := waitingTx{name: txName{Epoch: epoch, Serial: serial}, branches: parts, able: true}
	for _, e := range edges {
		if slices.Contains(parts, e.from) {
			tx.waits = append(tx.waits, e.wait())
		}
	}
	return tx
}

// twoOnTwo is the usual deadlock: 1 waits on b for 2, which waits on a for 1 and has begun to later.
func twoOnTwo() *waitGraph {
	edges := []waitEdge{waitsFor(at("b", 11), at("b", 12), 100), waitsFor(at("a", 2), at("a", 1), 200)}
	return &waitGraph{edges: edges, txs: []waitingTx{txOf(1, 1, edges, at("a", 1), at("b", 11)), txOf(2, 2, edges, at("a", 2), at("b", 12))}}
}

// victims are the names of those who are to be cancelled.
func victims(g *waitGraph) (names []string) {
	for _, d := range findDeadlocks(g) {
		if d.victim == nil {
			names = append(names, "nobody")
		} else {
			names = append(names, d.victim.name.String())
		}
	}
	return names
}

func TestVictims(t *testing.T) {
	id := participant.ID{Epoch: 1, Sequence: 5}
	prepared := holderAt{"a", participant.LockHolder{GID: participant.GID{Cluster: "c", ID: id, Node: "a"}.String()}}
	// The first is in phase one: prepared on a, where the second waits for it, and at it on b.
	inPhaseOne := func() *waitGraph {
		g := twoOnTwo()
		g.edges[1].to = prepared
		g.edges[0].since = 300
		g.txs[0] = txOf(1, 1, g.edges, at("b", 11))
		g.txs[0].id = id
		g.prepared = map[participant.ID]bool{id: true}
		return g
	}
	for _, c := range []struct {
		name  string
		graph func() *waitGraph
		want  string
	}{
		{"whose wait began last", twoOnTwo, "2#2"},
		{"whose gateway is at work", func() *waitGraph {
			g := twoOnTwo()
			g.txs[1].able = false
			return g
		}, "1#1"},
		{"nobody, if no gateway is at work", func() *waitGraph {
			g := twoOnTwo()
			g.txs[0].able, g.txs[1].able = false, false
			return g
		}, "nobody"},
		{"no cycle, if nobody says what belongs together", func() *waitGraph {
			g := twoOnTwo()
			g.txs = g.txs[:1]
			return g
		}, ""},
		{"no cycle, if what was said is of another wait", func() *waitGraph {
			g := twoOnTwo()
			g.txs[0].waits[0].since++
			return g
		}, ""},
		{"no cycle, if a process id is another transaction's now", func() *waitGraph {
			g := twoOnTwo()
			g.edges[1].to.VXID = "1/2"
			return g
		}, ""},
		{"not who is prepared", inPhaseOne, "2#2"},
		{"not who is prepared and has stopped, though its gateway has said nothing", func() *waitGraph {
			g := inPhaseOne()
			g.txs = g.txs[1:]
			g.preparing = map[holderAt]participant.ID{at("b", 11): id}
			return g
		}, "2#2"},
		{"who is prepared, if there is nobody else", func() *waitGraph {
			g := inPhaseOne()
			g.txs[1].able = false
			return g
		}, "1#1"},
		{"a node's own deadlock is the node's", func() *waitGraph {
			edges := []waitEdge{waitsFor(at("a", 1), at("a", 2), 1), waitsFor(at("a", 2), at("a", 1), 2)}
			return &waitGraph{edges: edges, txs: []waitingTx{txOf(1, 1, edges, at("a", 1), at("b", 3)), txOf(1, 2, edges, at("a", 2), at("b", 4))}}
		}, ""},
		{"two of a node's own that meet in one transaction", func() *waitGraph {
			edges := []waitEdge{
				waitsFor(at("a", 1), at("a", 2), 1), waitsFor(at("a", 2), at("a", 1), 2),
				waitsFor(at("b", 1), at("b", 2), 1), waitsFor(at("b", 2), at("b", 1), 2),
			}
			return &waitGraph{edges: edges, txs: []waitingTx{
				txOf(1, 1, edges, at("a", 1), at("b", 1)), txOf(1, 2, edges, at("a", 2)), txOf(1, 3, edges, at("b", 2)),
			}}
		}, ""},
		{"a client of a node itself is in it, and is not ours", func() *waitGraph {
			// 1: a holds, waits on b for 2; 2 waits on b for 9, which waits on b for somebody who has begun before 1 on b ...
			edges := []waitEdge{waitsFor(at("b", 11), at("b", 9), 1), waitsFor(at("b", 9), at("b", 12), 9), waitsFor(at("a", 2), at("a", 1), 3)}
			return &waitGraph{edges: edges, txs: []waitingTx{txOf(1, 1, edges, at("a", 1), at("b", 11)), txOf(1, 2, edges, at("a", 2), at("b", 12))}}
		}, "1#2"},
		{"who only waits for the cycle is left alone", func() *waitGraph {
			g := twoOnTwo()
			g.edges = append(g.edges, waitsFor(at("a", 3), at("a", 1), 999), waitsFor(at("b", 4), at("b", 12), 998))
			g.txs = append(g.txs, txOf(3, 1, g.edges, at("a", 3)), txOf(3, 2, g.edges, at("b", 4)))
			return g
		}, "2#2"},
		{"each of two cycles has one", func() *waitGraph {
			g := twoOnTwo()
			more := []waitEdge{waitsFor(at("b", 21), at("b", 22), 100), waitsFor(at("a", 32), at("a", 31), 50)}
			g.edges = append(g.edges, more...)
			g.txs = append(g.txs, txOf(1, 3, more, at("a", 31), at("b", 21)), txOf(2, 4, more, at("a", 32), at("b", 22)))
			return g
		}, "2#2 1#3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(victims(c.graph()), " "); got != c.want {
				t.Errorf("victims %q, want %q", got, c.want)
			}
		})
	}
}

func TestConfirmed(t *testing.T) {
	e := waitsFor(at("a", 1), at("a", 2), 1)
	again := e
	again.since++
	other := e
	other.to = at("a", 3)
	reused := e
	reused.to.VXID = "2/2"
	if got := confirmed([]waitEdge{e}, []waitEdge{again, other, reused}); len(got) != 0 {
		t.Errorf("taken for the same: %v", got)
	}
	if got := confirmed([]waitEdge{other, e}, []waitEdge{e}); len(got) != 1 || got[0] != e {
		t.Errorf("%v", got)
	}
}

func TestDetail(t *testing.T) {
	d := findDeadlocks(twoOnTwo())[0]
	want := `Node "a": Process 2 waits for ShareLock on transaction 7; blocked by process 1.
Node "a": Process 1 is one transaction with process 11 on node "b".
Node "b": Process 11 waits for ShareLock on transaction 7; blocked by process 12.
Node "b": Process 12 is one transaction with process 2 on node "a".`
	if got := d.detail(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// drawGraph makes a cluster of some nodes whose transactions, each with a part on some of them, wait for each other at random. A part
// waits for at most a few others of its node, and of all its transaction's parts any number may wait, as in one statement over several
// nodes. forward keeps every wait from a lower to a higher transaction: there is no cycle then.
func drawGraph(t *rapid.T, forward bool) *waitGraph {
	nodes := rapid.IntRange(1, 4).Draw(t, "nodes")
	n := rapid.IntRange(2, 9).Draw(t, "transactions")
	spread := rapid.SliceOfN(rapid.IntRange(1, 1<<nodes-1), n, n).Draw(t, "parts")
	here := func(tx, node int) bool { return spread[tx]&(1<<node) != 0 }
	part := func(tx, node int) holderAt { return at(string(rune('a'+node)), tx+1) }
	g := &waitGraph{}
	for from := range n {
		for node := range nodes {
			if !here(from, node) {
				continue
			}
			for range rapid.IntRange(0, 2).Draw(t, "waits") {
				to := rapid.IntRange(0, n-1).Draw(t, "for")
				if to == from || !here(to, node) || forward && to < from {
					continue
				}
				e := waitsFor(part(from, node), part(to, node), int64(100*from+node))
				if !slices.Contains(g.edges, e) {
					g.edges = append(g.edges, e)
				}
			}
		}
	}
	for i := range n {
		var parts []holderAt
		for node := range nodes {
			if here(i, node) {
				parts = append(parts, part(i, node))
			}
		}
		tx := txOf(int64(i%2+1), int64(i), g.edges, parts...)
		tx.able = rapid.IntRange(0, 9).Draw(t, "able") > 0
		g.txs = append(g.txs, tx)
	}
	return g
}

// hasCycle is the plainest search for a cycle over transactions, local or not: transactions that wait for nobody that is left are taken
// away until nothing changes.
func hasCycle(g *waitGraph, without map[txName]bool) bool {
	owner := map[holderAt]txName{}
	for _, tx := range g.txs {
		for _, b := range tx.branches {
			owner[b] = tx.name
		}
	}
	left := map[txName]map[txName]bool{}
	for _, e := range g.edges {
		from, to := owner[e.from], owner[e.to]
		if without[from] || without[to] {
			continue
		}
		if left[from] == nil {
			left[from] = map[txName]bool{}
		}
		left[from][to] = true
	}
	for changed := true; changed; {
		changed = false
		for from, tos := range left {
			for to := range tos {
				if len(left[to]) == 0 {
					delete(tos, to)
					changed = true
				}
			}
			if len(tos) == 0 {
				delete(left, from)
			}
		}
	}
	return len(left) > 0
}

func TestNoCycleNoVictim(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if got := victims(drawGraph(t, true)); len(got) > 0 {
			t.Errorf("victims %v of a graph without a cycle", got)
		}
	})
}

// Every cycle that is reported is one, over more than one node's part of a transaction, and its victim is in it and can be cancelled;
// without the victims no such cycle is left.
func TestEveryCycleIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGraph(t, false)
		found := findDeadlocks(g)
		owner := map[holderAt]txName{}
		for _, tx := range g.txs {
			for _, b := range tx.branches {
				owner[b] = tx.name
			}
		}
		gone := map[txName]bool{}
		for _, d := range found {
			crossed, able := false, map[txName]bool{}
			for _, tx := range g.txs {
				able[tx.name] = tx.able
			}
			anybody := false
			for i, e := range d.cycle {
				next := d.cycle[(i+1)%len(d.cycle)]
				if !slices.Contains(g.edges, e) || owner[e.to] != owner[next.from] {
					t.Fatalf("not a cycle: %v", d.cycle)
				}
				crossed = crossed || e.to != next.from
				anybody = anybody || able[owner[e.from]]
			}
			if !crossed {
				t.Errorf("a node's own deadlock: %v", d.cycle)
			}
			if (d.victim != nil) != anybody {
				t.Errorf("victim %v, though somebody can be cancelled: %v", d.victim, anybody)
			}
			if d.victim == nil {
				return // what is behind it stays
			}
			if !able[d.victim.name] || !slices.ContainsFunc(d.cycle, func(e waitEdge) bool { return owner[e.from] == d.victim.name }) {
				t.Errorf("%v is no victim for %v", d.victim.name, d.cycle)
			}
			gone[d.victim.name] = true
		}
		if len(found) > 0 && !hasCycle(g, nil) {
			t.Errorf("no cycle at all, but %v", found)
		}
		rest := &waitGraph{txs: g.txs}
		for _, e := range g.edges {
			if !gone[owner[e.from]] && !gone[owner[e.to]] {
				rest.edges = append(rest.edges, e)
			}
		}
		if left := findDeadlocks(rest); len(left) > 0 {
			t.Errorf("still there without the victims: %v", left)
		}
	})
}

// Two gateways see the same graph, in another order, one knows its own and is told of the other's: their victims are the same.
func TestSameVictimsForEveryObserver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGraph(t, false)
		want := victims(g)
		seed := rapid.Uint64().Draw(t, "order")
		r := rand.New(rand.NewPCG(seed, seed))
		other := &waitGraph{edges: slices.Clone(g.edges), txs: slices.Clone(g.txs)}
		r.Shuffle(len(other.edges), func(i, j int) { other.edges[i], other.edges[j] = other.edges[j], other.edges[i] })
		r.Shuffle(len(other.txs), func(i, j int) { other.txs[i], other.txs[j] = other.txs[j], other.txs[i] })
		if got := victims(other); !slices.Equal(got, want) {
			t.Errorf("one sees %v, the other %v", want, got)
		}
	})
}

// What one gateway publishes another reads as it was meant.
func TestPublishedAsMeant(t *testing.T) {
	g := twoOnTwo()
	g.txs[1].id = participant.ID{Epoch: 2, Sequence: 9}
	var read []waitingTx
	for _, tx := range g.txs {
		text := publishWaits([]waitingTx{tx})
		read = append(read, readPublished([][]string{{fmt.Sprint(tx.name.Epoch), "1000", "true", text}}, 1e9)...)
	}
	got := &waitGraph{edges: g.edges, txs: read}
	if v := victims(got); !slices.Equal(v, []string{"2#2"}) || read[1].id != g.txs[1].id {
		t.Errorf("victims %v of %+v", v, read)
	}
	for name, row := range map[string][]string{
		"stale": {"2", "2000000", "true", publishWaits(g.txs[1:])},
		"dead":  {"2", "1000", "false", publishWaits(g.txs[1:])},
	} {
		if txs := readPublished([][]string{row}, 1e9); len(txs) != 1 || txs[0].able {
			t.Errorf("%s: %+v", name, txs)
		}
	}
	if txs := readPublished([][]string{{"2", "1000", "true", `{"of": "a newer version"}`}}, 1e9); len(txs) != 0 {
		t.Errorf("%+v", txs)
	}
}
