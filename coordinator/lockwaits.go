package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// LockWaitInfo is one edge of the waits-for graph, for people.
type LockWaitInfo struct {
	Node        string
	PID         uint32 // the server process that waits
	Transaction string // its transaction's id, or gateway epoch#number while it has none; "" when nobody says it is theirs
	Gateway     string // the epoch of that transaction's gateway, or ""
	Mode, Lock  string
	Waited      time.Duration
	BlockedBy   string // "process 77" or "prepared transaction ..."
	Blocker     string // whose that is, as Transaction
	Deadlock    bool   // it is part of a cycle over several nodes
}

// LockWaits is who waits for whom on all nodes at this moment, the longest wait
// first. If a node, or the decision database, cannot be asked, the error says so
// and the rest is returned.
func (c *Coordinator) LockWaits(ctx context.Context) ([]LockWaitInfo, error) {
	own := c.active.all()
	looks := map[string]participant.LockLook{}
	silent := map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range c.cfg.Nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
			defer cancel()
			look, err := node.LockWaits(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent[node.Name()] = err
				return
			}
			looks[node.Name()] = look
		})
	}
	wg.Wait()
	epoch := c.epoch.Load().number
	txs, _ := ownWaits(epoch, own, looks)
	others, err := c.log.readWaits(ctx, epoch, c.detect.stale())
	if err != nil {
		err = fmt.Errorf("transactions of other gateways are not known: %w", err)
	}
	if len(silent) > 0 {
		err = errors.Join(fmt.Errorf("not all nodes could be asked: %w", errorList(silent)), err)
	}
	g := &waitGraph{txs: append(txs, others...)}
	g.edges, g.preparing, g.prepared = edgesOf(looks)
	return describeWaits(g, looks), err
}

// describeWaits makes rows of the graph.
func describeWaits(g *waitGraph, looks map[string]participant.LockLook) []LockWaitInfo {
	inCycle := map[waitEdge]bool{}
	for _, d := range findDeadlocks(g) {
		for _, e := range d.cycle {
			inCycle[e] = true
		}
	}
	ps := g.parties()
	names := make([]string, len(ps.all))
	for id, n := range ps.byID {
		names[n] = id.String()
	}
	for n, p := range ps.all {
		if p.tx != nil {
			names[n] = p.tx.String()
		}
	}
	list := make([]LockWaitInfo, 0, len(g.edges))
	for _, e := range g.edges {
		from, to := ps.of[e.from], ps.of[e.to]
		gateway, _, _ := strings.Cut(strings.ReplaceAll(names[from], "#", "/"), "/")
		info := LockWaitInfo{
			Node: e.from.node, PID: e.from.PID, Transaction: names[from], Gateway: gateway, Mode: e.mode, Lock: e.lock,
			BlockedBy: e.to.String(), Blocker: names[to], Deadlock: inCycle[e],
		}
		for _, w := range looks[e.from.node].Waits {
			if w.Waiter == e.from.LockHolder {
				info.Waited = w.Waited
			}
		}
		list = append(list, info)
	}
	slices.SortStableFunc(list, func(a, b LockWaitInfo) int { return cmp.Compare(b.Waited, a.Waited) })
	return list
}
