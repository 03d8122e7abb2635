package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// listing is what the nodes of a window show as prepared.
type listing map[*participant.Node][]participant.GID

// window opens one window, and returns how long to rest after it.
func (b *barrier) window(ctx context.Context) (rest time.Duration, err error) {
	nodes, err := b.ready(ctx)
	if err != nil || len(nodes) == 0 {
		return barrierRetry, err
	}
	began := time.Now()
	times := b.times
	if b.short {
		times = times.patient()
	}
	if err := b.lock(ctx, times); err != nil {
		b.short = b.short || errors.Is(err, errDecisionsBusy)
		return barrierRetry, err
	}
	b.c.pass(pointWindowLocked)
	bounded, cancel := context.WithTimeout(ctx, times.whole)
	defer cancel()
	admitted, stuck, err := b.serve(bounded, nodes, times)
	b.short = len(stuck) > 0 || bounded.Err() != nil
	b.c.pass(pointWindowServed)
	if failed := b.release(ctx); err == nil {
		err = failed
	}
	b.c.pass(pointWindowReleased)
	for _, r := range admitted {
		r.judge(err)
	}
	rest = min(time.Duration(b.times.restFactor)*time.Since(began), b.times.restMost)
	if len(stuck) > 0 {
		b.help(ctx, stuck)
	}
	return rest, err
}

// ready makes the connections that the window needs: within it nothing must
// wait for one. It returns the nodes that it has one to.
func (b *barrier) ready(ctx context.Context) ([]*participant.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, b.c.cfg.ConnectTimeout)
	defer cancel()
	if b.conn == nil || !b.conn.fit() {
		conn, err := b.c.log.connect(ctx, "barrier")
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDecisionUnreachable, err)
		}
		b.conn = conn
	}
	return b.onNodes(b.wanted(), func(node *participant.Node) error { return node.ReadyToList(ctx) }), nil
}

// onNodes does something on all of nodes at the same time, and returns those
// where it has worked. The others' readers are told why.
func (b *barrier) onNodes(nodes []*participant.Node, do func(*participant.Node) error) (done []*participant.Node) {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { errs[i] = do(node) })
	}
	wg.Wait()
	for i, node := range nodes {
		if errs[i] != nil {
			b.blameNode(node, errs[i])
			continue
		}
		done = append(done, node)
	}
	return done
}

// lock begins the window.
func (b *barrier) lock(ctx context.Context, times barrierTimes) error {
	ctx, cancel := context.WithTimeout(ctx, times.lock+times.list)
	defer cancel()
	err := b.conn.lockGate(ctx, times)
	switch {
	case err == nil:
		return nil
	case participant.SQLState(err) == "55P03":
		return errDecisionsBusy
	}
	return fmt.Errorf("%w: %w", ErrDecisionUnreachable, err)
}

// release ends the window. Only its success proves that the lock was held until
// now: the server may have ended the transaction meanwhile.
func (b *barrier) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.times.list) // of its own: a reader that was late must not spoil it for the others
	defer cancel()
	err := b.conn.releaseGate(ctx)
	if b.hooks.release != nil {
		return b.hooks.release(err)
	}
	if err != nil {
		b.disconnect()
		return fmt.Errorf("%w: %w", ErrDecisionUnreachable, err)
	}
	return nil
}

// serve is what is done inside the window. It returns the readers whose
// snapshots count if the release succeeds, and what has kept others out.
func (b *barrier) serve(ctx context.Context, nodes []*participant.Node, times barrierTimes) (admitted []*snapshotRequest, stuck []participant.GID, err error) {
	listed, nodes := b.list(ctx, nodes)
	pending, err := b.decided(ctx, listed)
	if err != nil {
		return nil, nil, err
	}
	nodes, stuck = b.drain(ctx, nodes, pending, times.drain)
	if b.hooks.opening != nil {
		b.hooks.opening()
	}
	admitted = b.admit(nodes)
	for i, r := range admitted {
		select {
		case <-r.opened:
		case <-ctx.Done():
			for _, late := range admitted[i:] {
				late.isLate()
			}
			return admitted, stuck, nil
		}
	}
	return admitted, stuck, nil
}

// isLate: a reader has not opened its snapshots in time. The others need not
// suffer for it.
func (r *snapshotRequest) isLate() {
	select {
	case <-r.opened:
	default:
		r.verdict <- errTooSlow
	}
}

// judge tells a reader whether its snapshots count, unless it has been told.
func (r *snapshotRequest) judge(err error) {
	select {
	case r.verdict <- err:
	default:
	}
}

// list asks nodes what is prepared there.
func (b *barrier) list(ctx context.Context, nodes []*participant.Node) (listing, []*participant.Node) {
	ctx, cancel := context.WithTimeout(ctx, b.times.list)
	defer cancel()
	listed := listing{}
	var mu sync.Mutex
	nodes = b.onNodes(nodes, func(node *participant.Node) error {
		gids, err := node.ListGIDs(ctx)
		if b.hooks.listed != nil {
			gids = b.hooks.listed(gids)
		}
		mu.Lock()
		listed[node] = gids
		mu.Unlock()
		return err
	})
	return listed, nodes
}

// decided is the part of a list that is committed. It is asked for in a
// statement after the list: what was decided before the window, and only that,
// is seen by it. A branch that has only locked rows does not matter: there is
// nothing of it to be seen (I9).
func (b *barrier) decided(ctx context.Context, listed listing) (listing, error) {
	var ids []participant.ID
	for _, gids := range listed {
		for _, gid := range gids {
			if gid.After == 0 {
				ids = append(ids, gid.ID)
			}
		}
	}
	committed, err := b.conn.committedOf(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDecisionUnreachable, err)
	}
	pending := listing{}
	for node, gids := range listed {
		for _, gid := range gids {
			if gid.After == 0 && committed[gid.ID] {
				pending[node] = append(pending[node], gid)
			}
		}
	}
	return pending, nil
}

// drain waits until what is committed is prepared no longer: its phase two is
// under way, or helped along by recovery. Nothing can be added to it as long as
// the window is open, so a list that has none of it is the end; right after a
// decision something always is, and a reader that came back later for it would
// find the next. It returns the nodes where nothing is pending, and what is on
// the others.
func (b *barrier) drain(ctx context.Context, nodes []*participant.Node, pending listing, bound time.Duration) ([]*participant.Node, []participant.GID) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for wait := 200 * time.Microsecond; len(pending) > 0; wait = min(2*wait, 5*time.Millisecond) {
		pause(ctx, wait)
		if ctx.Err() != nil {
			break
		}
		var asked []*participant.Node
		for node := range pending {
			asked = append(asked, node)
		}
		listed, answered := b.list(ctx, asked)
		for _, node := range answered {
			pending[node] = slices.DeleteFunc(pending[node], func(gid participant.GID) bool { return !slices.Contains(listed[node], gid) })
			if len(pending[node]) == 0 {
				delete(pending, node)
			}
		}
	}
	var stuck []participant.GID
	for node, gids := range pending {
		b.blameNode(node, &waitsForBranch{gid: gids[0]})
		stuck = append(stuck, gids...)
	}
	clear := slices.DeleteFunc(slices.Clone(nodes), func(node *participant.Node) bool { return len(pending[node]) > 0 })
	return clear, stuck
}

// help commits branches that are decided, as recovery would (I1: the decision
// has been read). Their gateway may be gone.
func (b *barrier) help(ctx context.Context, stuck []participant.GID) {
	ctx, cancel := context.WithTimeout(ctx, b.c.cfg.FinishTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, gid := range stuck {
		wg.Go(func() {
			b.c.pass(pointHelpCommit)
			err := b.c.nodes[gid.Node].CommitPrepared(ctx, gid)
			b.c.pass(pointHelpCommitted)
			b.c.cfg.Logger.Info("a reader has waited for an in-doubt branch", "gid", gid.String(), "error", err)
		})
	}
	wg.Wait()
}
