package coordinator

// Life of an UPDATE, step 13: when step 12 did not happen.

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// recoverer finishes what was left unfinished, by this gateway or any other. It
// is harmless if several do it at once: every step is idempotent, and what it
// obeys is settled by the decision log's primary key (I2).
type recoverer struct {
	c       *Coordinator
	nudges  map[string]chan struct{} // one per loop: a node's name, heldLoop of it, or ""
	orphans idSet                    // ours, given up by their session: no need to wait for age

	mu         sync.Mutex
	held       map[string][]participant.PreparedBranch // by node: see lockonly.go
	reported   map[participant.ID]bool
	damage     map[Damage]bool
	identities map[string]participant.Identity // as the decision log was told
	first      map[string]bool                 // nodes that it was told of before
	rechecks   map[string]recheck              // under way, by node

	keys        *keySweep   // of restoreKeys alone, as is the next
	wholeSince  int64       // which of the log's connections found the keys to be whole
	keysMissing atomic.Bool // a question has found that they are not
}

// Damage is a transaction whose decision a node contradicts: a forced outcome,
// or a failover that lost what the node had acknowledged. It is never counted
// as finished, and is named until a person has dealt with it.
type Damage struct {
	ID       participant.ID
	Node     string
	Decision Decision
}

func newRecoverer(c *Coordinator) *recoverer {
	r := &recoverer{
		c: c, nudges: map[string]chan struct{}{"": make(chan struct{}, 1)}, held: map[string][]participant.PreparedBranch{},
		reported: map[participant.ID]bool{}, damage: map[Damage]bool{}, identities: map[string]participant.Identity{},
		first: map[string]bool{}, rechecks: map[string]recheck{},
	}
	r.nudges[keysLoop] = make(chan struct{}, 1)
	for _, node := range c.cfg.Nodes {
		r.nudges[node.Name()] = make(chan struct{}, 1)
		r.nudges[heldLoop(node)] = make(chan struct{}, 1)
	}
	return r
}

// start runs a sweep loop for each node, so that an unreachable node delays
// only its own branches; one for those of the node's that have to wait for
// another node's; one for idempotency keys; and one that marks what is finished and
// purges.
func (r *recoverer) start(ctx context.Context, wg *sync.WaitGroup) {
	for _, node := range r.c.cfg.Nodes {
		wg.Go(func() {
			r.loop(ctx, node.Name(), func(ctx context.Context) error { return r.sweep(ctx, node) })
		})
		wg.Go(func() {
			r.loop(ctx, heldLoop(node), func(ctx context.Context) error { return r.commitHeld(ctx, node) })
		})
	}
	wg.Go(func() { r.loop(ctx, keysLoop, r.restoreKeys) })
	purge := newPurger(r.c)
	wg.Go(func() {
		r.loop(ctx, "", func(ctx context.Context) error { return errors.Join(r.finishAll(ctx), purge.run(ctx)) })
	})
}

func (r *recoverer) loop(ctx context.Context, name string, work func(context.Context) error) {
	failing := false
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := work(bounded)
		cancel()
		if err != nil && ctx.Err() == nil && !failing {
			r.c.cfg.Logger.Warn("recovery is held up", "node", name, "error", err)
		}
		failing = err != nil
		timer := time.NewTimer(r.c.cfg.SweepInterval)
		select {
		case <-r.nudges[name]:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// nudge has every loop sweep now.
func (c *Coordinator) nudge() {
	for _, ch := range c.recover.nudges {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// handOver leaves a transaction of ours to recovery, which need not wait for
// any age: the session that ran it has given it up. It must not be running any
// more when the sweeps are woken, or they would pass it by until the next.
func (c *Coordinator) handOver(id participant.ID) {
	c.recover.orphans.add(id)
	c.running.remove(id)
	c.nudge()
}

// sweep resolves what is prepared on one node: first the list, then the
// decisions, so that a decision seen is at least as new as the branch.
func (r *recoverer) sweep(ctx context.Context, node *participant.Node) error {
	prepared, err := node.ListPrepared(ctx)
	if err != nil {
		r.c.cfg.Observer.NodeSwept(node.Name(), Swept{Err: err})
		return err
	}
	all := len(prepared)
	prepared = slices.DeleteFunc(prepared, func(p participant.PreparedBranch) bool {
		return r.c.running.has(p.ID) && p.Age < r.c.cfg.InDoubtTimeout
	})
	if len(prepared) == 0 {
		r.c.cfg.Observer.NodeSwept(node.Name(), Swept{Prepared: all})
		return nil
	}
	ids := make([]participant.ID, len(prepared))
	for i, p := range prepared {
		ids[i] = p.ID
	}
	looked, err := r.c.log.look(ctx, ids, r.c.cfg.GraceAfterRestart)
	r.c.cfg.Observer.NodeSwept(node.Name(), r.sweptOf(all, prepared, looked)) // without an answer all are in doubt
	if err != nil {
		return errors.Join(err, r.commitProven(ctx, node, prepared))
	}
	decisions := map[participant.ID]Decision{}
	var undecided []doubtful
	for _, p := range prepared {
		switch k := looked[p.ID]; {
		case r.ownersTurn(p, k):
		case k.decision != NoDecision:
			decisions[p.ID] = k.decision
		default:
			undecided = append(undecided, doubtful{id: p.ID, age: p.Age})
		}
	}
	if len(undecided) > 0 {
		presumed, err := r.c.presume(ctx, undecided)
		for id, decision := range presumed {
			decisions[id] = decision
		}
		if err != nil {
			r.c.cfg.Logger.Warn("transactions stay in doubt for now", "node", node.Name(), "error", err)
		}
	}
	return r.apply(ctx, node, r.holdBack(node, prepared, decisions), decisions)
}

// ownersTurn: a live gateway's young transaction is its own business. Not so
// once an abort is recorded: then its owner has given it up, or will find that
// it was presumed lost, and whoever sees the branch may free its rows (I4).
func (r *recoverer) ownersTurn(p participant.PreparedBranch, k known) bool {
	switch {
	case p.ID.Epoch == r.c.epoch.Load().number:
		return false // ours, and not running any more
	case k.decision == Abort:
		return false
	case k.decision == Commit:
		return k.alive && p.Age < 2*r.c.cfg.FinishTimeout // its phase two is under way
	}
	return k.alive && p.Age < r.c.cfg.InDoubtTimeout
}

// apply tells the node what was decided of its prepared branches.
func (r *recoverer) apply(ctx context.Context, node *participant.Node, prepared []participant.PreparedBranch, decisions map[participant.ID]Decision) error {
	var errs []error
	for _, p := range prepared {
		var err error
		switch decisions[p.ID] {
		case Commit:
			r.c.pass(pointRecoverCommit)
			err = node.CommitPrepared(ctx, p.GID)
			r.c.pass(pointRecoverCommitted)
		case Abort:
			r.c.pass(pointRecoverRollback)
			err = node.RollbackPrepared(ctx, p.GID)
			r.c.pass(pointRecoverRolledBack)
		default:
			continue
		}
		switch {
		case err == nil:
			r.c.cfg.Observer.Recovered(RecoveryAction{What: actionOf(decisions[p.ID]), ID: p.ID, Node: node.Name(), Count: 1})
			r.c.cfg.Logger.Info("in-doubt branch finished", "gid", p.GID.String(), "node", node.Name(), "decision", decisions[p.ID].String())
		case errors.Is(err, participant.ErrGIDUnknown), errors.Is(err, participant.ErrBusy):
			// Somebody else is at it, or was faster; the next sweep will see.
		default:
			errs = append(errs, err)
			if ctx.Err() != nil {
				return errors.Join(errs...)
			}
		}
	}
	return errors.Join(errs...)
}

// commitProven: the decision database cannot be asked, so nothing is decided.
// But a branch record visible on any node proves the commit (I8), and the
// others may follow it.
func (r *recoverer) commitProven(ctx context.Context, node *participant.Node, prepared []participant.PreparedBranch) error {
	ids := make([]participant.ID, len(prepared))
	for i, p := range prepared {
		ids[i] = p.ID
	}
	proven, _ := r.c.branchRecords(ctx, ids)
	decisions := map[participant.ID]Decision{}
	for id, proof := range proven {
		decisions[id] = Commit
		r.c.cfg.Logger.Warn("the decision database cannot be asked, but a branch record proves the commit", "transaction", id.String(), "nodes", proof.nodes)
	}
	return r.apply(ctx, node, r.holdBack(node, prepared, decisions), decisions)
}

// reportUnknown logs, once, a prepared branch that nothing may be done about
// (I7).
func (r *recoverer) reportUnknown(id participant.ID) {
	r.mu.Lock()
	known := r.reported[id]
	r.reported[id] = true
	r.mu.Unlock()
	if !known {
		r.c.cfg.Observer.Recovered(RecoveryAction{What: ActionLeftAlone, ID: id, Count: 1})
		r.c.cfg.Logger.Error("a prepared transaction belongs to an epoch this decision database does not know, or is older than its horizon; it is left alone",
			"transaction", id.String())
	}
}

// finishPage is how many unfinished decisions are looked at together.
const finishPage = 500

// finishAll marks decisions that have been applied by all their participants,
// and reports damage.
func (r *recoverer) finishAll(ctx context.Context) error {
	// What is left of a check goes on at the next sweep; what is unfinished need
	// not wait for it.
	checked := r.noteIdentities(ctx)
	var after participant.ID
	for {
		page, err := r.c.log.unfinishedAfter(ctx, after, finishPage)
		if err != nil || len(page) == 0 {
			return errors.Join(checked, err)
		}
		after = page[len(page)-1].id
		due := slices.DeleteFunc(page, func(u unfinished) bool {
			young := u.age < 2*r.c.cfg.FinishTimeout
			ours := u.id.Epoch == r.c.epoch.Load().number
			return r.c.running.has(u.id) || (young && u.alive && !ours) || (young && ours && !r.orphans.has(u.id))
		})
		if err := r.finishPage(ctx, due); err != nil {
			return errors.Join(checked, err)
		}
		if len(page) < finishPage {
			return checked
		}
	}
}

// finishPage asks every node what is prepared there, then, afterwards, which
// branch records are visible: a branch that is in neither was not committed.
func (r *recoverer) finishPage(ctx context.Context, page []unfinished) error {
	if len(page) == 0 {
		return nil
	}
	ids := make([]participant.ID, len(page))
	for i, u := range page {
		ids[i] = u.id
	}
	states := r.nodeStates(ctx, ids)
	var finished []participant.ID
	for _, u := range page {
		if r.finishedEverywhere(u, states) {
			finished = append(finished, u.id)
		}
	}
	if len(finished) == 0 {
		return nil
	}
	r.c.pass(pointRecoverFinish)
	marked, err := r.c.markFinished(ctx, finished, agreed(states))
	if err != nil || marked == 0 {
		return err
	}
	for _, id := range finished {
		r.orphans.remove(id)
	}
	r.c.cfg.Observer.Recovered(RecoveryAction{What: ActionFinished, ID: finished[0], Count: marked})
	r.c.cfg.Logger.Info("transactions seen applied everywhere, marked finished", "count", marked, "first", finished[0].String())
	return nil
}

// nodeState is what a node shows of a page of transactions.
type nodeState struct {
	prepared map[participant.ID]participant.GID
	records  map[participant.ID]participant.BranchRecord
	server   participant.Identity // who showed the records
}

// nodeStates asks all nodes in parallel; one that cannot be asked is missing.
func (r *recoverer) nodeStates(ctx context.Context, ids []participant.ID) map[string]nodeState {
	states := map[string]nodeState{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range r.c.cfg.Nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, r.c.cfg.ConnectTimeout)
			defer cancel()
			list, err := node.ListPrepared(ctx)
			if err != nil {
				return
			}
			records, server, err := node.BranchRecordsSeen(ctx, ids)
			if err != nil {
				return
			}
			state := nodeState{prepared: map[participant.ID]participant.GID{}, records: records, server: server}
			for _, p := range list {
				state.prepared[p.ID] = p.GID
			}
			mu.Lock()
			states[node.Name()] = state
			mu.Unlock()
		})
	}
	wg.Wait()
	return states
}

// finishedEverywhere: every participant has applied the decision. When the
// participants are not known, every node must have been asked; it is a
// participant if it shows a trace.
func (r *recoverer) finishedEverywhere(u unfinished, states map[string]nodeState) bool {
	names := u.participants
	if len(names) == 0 {
		for _, node := range r.c.cfg.Nodes {
			names = append(names, node.Name())
		}
	}
	finished := true
	for _, name := range names {
		state, asked := states[name]
		_, prepared := state.prepared[u.id]
		switch {
		case !asked, prepared:
			finished = false
		case state.contradicts(u, name):
			finished = false
			r.reportDamage(Damage{ID: u.id, Node: name, Decision: u.decision})
		}
	}
	return finished
}

func (r *recoverer) reportDamage(d Damage) {
	r.mu.Lock()
	known := r.damage[d]
	r.damage[d] = true
	r.mu.Unlock()
	if !known {
		r.c.cfg.Observer.Recovered(RecoveryAction{What: ActionDamage, ID: d.ID, Node: d.Node, Count: 1})
		r.c.cfg.Logger.Error("DAMAGE: a node contradicts the decision: a forced outcome, or a failover lost what it had acknowledged",
			"transaction", d.ID.String(), "node", d.Node, "decision", d.Decision.String())
	}
}
