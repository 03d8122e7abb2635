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

// The barrier: snapshots on several nodes that show every distributed
// transaction wholly or not at all, on stock Postgres and without clocks.
//
// A decision to commit is written by a statement that also deletes from the
// empty table pgpact.gate, and so holds a ROW EXCLUSIVE lock on it. A window
// takes that table in SHARE mode. While it is open
//
//  1. nothing is decided: what is committed is in the log, and stays as it is;
//  2. what is prepared at the nodes is listed, and then, in the next statement,
//     the log is asked which of that is committed. A transaction that is
//     committed and not on the list of a node has been applied there;
//  3. what is committed and still prepared is waited for, for its phase two
//     needs no decision;
//  4. then snapshots are opened. Each transaction is decided and applied on all
//     the nodes, or not decided, and so applied on none.
//  5. The lock is given back by COMMIT. Only if that succeeds has it been held
//     all the time, and only then do the snapshots count.
//
// Every clause is here because a simpler form gave wrong sums (FACTS section 7,
// docs/adr/0013); barrier_wrong_test.go shows that they still do.
//
// One window serves all readers of this gateway that have arrived meanwhile.
// Those of other gateways may be open at the same time: SHARE goes with SHARE.
// Between two of its windows a gateway rests, so that writers can decide.

// barrierTimes bound a window. Whatever they are, no reader gets a wrong
// snapshot: one who is too slow goes through another window.
type barrierTimes struct {
	lock  time.Duration // waiting for the decisions under way; who decides waits behind us
	whole time.Duration // from the lock to its release
	list  time.Duration // one node's list
	drain time.Duration // waiting for what is committed and still prepared
	// restFactor is how many lengths of a window the gateway rests after it, at
	// most restMost.
	restFactor int
	restMost   time.Duration
}

var defaultBarrierTimes = barrierTimes{
	lock: 250 * time.Millisecond, whole: time.Second, list: 250 * time.Millisecond, drain: 100 * time.Millisecond,
	restFactor: 2, restMost: 250 * time.Millisecond,
}

// patient are the times of a window after one that was too short for somebody:
// where a decision takes longer than lock, or its phase two longer than drain,
// readers would wait in vain for ever. Lock and window together stay below the
// deciders' lock_timeout. A node that does not answer is not waited for longer.
func (t barrierTimes) patient() barrierTimes {
	t.lock, t.drain, t.whole = 3*t.lock, 5*t.drain, t.whole+t.whole/2
	return t
}

// barrierRetry is the rest after a window that could not be opened.
const barrierRetry = 50 * time.Millisecond

// SnapshotError says that no snapshots of the nodes at one instant could be had
// within the bound. Nothing has been read.
type SnapshotError struct {
	Waited time.Duration
	Err    error // why, as of the last try
}

func (e *SnapshotError) Error() string {
	return fmt.Sprintf("the nodes could not be read at one instant within %s: %v", e.Waited, e.Err)
}
func (e *SnapshotError) Unwrap() error { return e.Err }

// Why a reader had to go without a snapshot.
var (
	errNoWindow      = errors.New("no window has been opened yet")
	errTooSlow       = errors.New("the snapshots were opened too slowly")
	errDecisionsBusy = errors.New("the decisions under way took too long")
)

// waitsForBranch is why a node cannot be read yet.
type waitsForBranch struct {
	gid participant.GID
}

func (e *waitsForBranch) Error() string {
	return fmt.Sprintf("transaction %s has committed, but its part at node %q is not finished", e.gid.ID, e.gid.Node)
}

// snapshotRequest is a reader that waits for a window.
type snapshotRequest struct {
	nodes    []*participant.Node
	admitted chan struct{} // closed when the window is open for it
	opened   chan struct{} // closed when it has opened its snapshots, or failed to
	verdict  chan error    // buffered: whether they count
	reason   error         // why it has not been admitted; guarded by barrier.mu
}

// barrier opens windows: one goroutine, one connection to the decision database,
// and one to each node.
type barrier struct {
	c       *Coordinator
	times   barrierTimes
	wake    chan struct{}
	stopped chan struct{}
	conn    *logConn // of the goroutine
	short   bool     // the window before was too short for somebody
	hooks   barrierHooks

	mu      sync.Mutex
	waiting []*snapshotRequest
}

// barrierHooks are nil but in tests that do it wrong.
type barrierHooks struct {
	listed  func([]participant.GID) []participant.GID // what a node is taken to have listed
	opening func()                                    // the snapshots are about to be opened
	release func(error) error                         // whether the release counts
}

func newBarrier(c *Coordinator) *barrier {
	return &barrier{c: c, times: defaultBarrierTimes, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// OpenSnapshots has open called at a moment at which every distributed
// transaction is applied on all of nodes, or on none of them, and stays so until
// open returns. What it has to do is to open snapshots there; Parse, waiting for
// slots, connections or locks belong before. It is called again if what it has
// opened does not count. Its own error is returned as it is.
//
// The wait is bounded by Config.SnapshotTimeout: a *SnapshotError.
func (c *Coordinator) OpenSnapshots(ctx context.Context, nodes []*participant.Node, open func() error) error {
	bound := c.cfg.SnapshotTimeout
	timer := time.NewTimer(bound)
	defer timer.Stop()
	failed := func(reason error) error { return &SnapshotError{Waited: bound, Err: reason} }
	for {
		r := c.barrier.join(nodes)
		var stop error
		select {
		case <-r.admitted:
		case <-timer.C:
			stop = failed(c.barrier.leave(r))
		case <-ctx.Done():
			_ = c.barrier.leave(r) // why it waited is nothing to a client that has given up
			stop = context.Cause(ctx)
		case <-c.barrier.stopped:
			return fmt.Errorf("%w: %w", ErrDecisionUnreachable, ErrShuttingDown)
		}
		if stop != nil {
			close(r.opened) // it may have been admitted at the same time
			return stop
		}
		if err := r.open(open); err != nil {
			return err
		}
		reason := <-r.verdict
		if reason == nil {
			return nil
		}
		select {
		case <-timer.C:
			return failed(reason)
		default:
		}
	}
}

// open calls f and tells the window that it has returned, however it has.
func (r *snapshotRequest) open(f func() error) error {
	defer close(r.opened)
	return f()
}

func (b *barrier) join(nodes []*participant.Node) *snapshotRequest {
	r := &snapshotRequest{nodes: nodes, admitted: make(chan struct{}), opened: make(chan struct{}), verdict: make(chan error, 1), reason: errNoWindow}
	b.mu.Lock()
	b.waiting = append(b.waiting, r)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return r
}

// leave takes a reader out of the queue and tells why it is still in it.
func (b *barrier) leave(r *snapshotRequest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = slices.DeleteFunc(b.waiting, func(other *snapshotRequest) bool { return other == r })
	return r.reason
}

// run is the barrier's goroutine.
func (b *barrier) run(ctx context.Context) {
	defer close(b.stopped)
	defer b.disconnect()
	for {
		select {
		case <-b.wake:
		case <-ctx.Done():
			return
		}
		for b.anybody() && ctx.Err() == nil {
			rest, err := b.window(ctx)
			if err != nil {
				b.blame(err)
				b.c.cfg.Logger.Debug("no window for readers of several nodes", "error", err)
			}
			pause(ctx, rest)
		}
	}
}

func (b *barrier) anybody() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting) > 0
}

// wanted are the nodes that somebody waits for.
func (b *barrier) wanted() []*participant.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	var nodes []*participant.Node
	for _, r := range b.waiting {
		for _, node := range r.nodes {
			if !slices.Contains(nodes, node) {
				nodes = append(nodes, node)
			}
		}
	}
	return nodes
}

// blame tells everybody who waits why there was no window.
func (b *barrier) blame(reason error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.waiting {
		r.reason = reason
	}
}

// blameNode tells those who wait for a node why it could not be read.
func (b *barrier) blameNode(node *participant.Node, reason error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.waiting {
		if slices.Contains(r.nodes, node) {
			r.reason = reason
		}
	}
}

// admit lets in those who wait for nothing but these nodes.
func (b *barrier) admit(nodes []*participant.Node) []*snapshotRequest {
	b.mu.Lock()
	defer b.mu.Unlock()
	var admitted []*snapshotRequest
	b.waiting = slices.DeleteFunc(b.waiting, func(r *snapshotRequest) bool {
		for _, node := range r.nodes {
			if !slices.Contains(nodes, node) {
				return false
			}
		}
		admitted = append(admitted, r)
		close(r.admitted)
		return true
	})
	return admitted
}

func (b *barrier) disconnect() {
	if b.conn != nil {
		b.conn.close()
		b.conn = nil
	}
}
