package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pgpact/pgpact/participant"
)

// After a failover or a restore of the decision database, recovery goes once
// through the keyed branch records of every node and gives the decision log the
// keys that it has lost. Then the log's keys are whole, and a question about a
// key needs no node any more (keys.go).

const (
	keysLoop = "idempotency keys"
	// keyPage is how many keyed branch records are compared together.
	keyPage = 2000
)

// keySweep is how far one life of the decision log has been made whole.
type keySweep struct {
	life  logLife
	nodes map[string]*nodeKeys
}

// nodeKeys is how far the records of one node have been gone through.
type nodeKeys struct {
	begun, done bool
	after       participant.KeyedRecord
}

// restoreKeys is one turn of the loop. Where it has got to is kept for the next:
// its time may be up, or a node down.
func (r *recoverer) restoreKeys(ctx context.Context) error {
	// A failover takes the connection; a restore under it is seen by who asks for a
	// key. So a log that is whole costs nothing here.
	made, missing := r.c.log.made.Load(), r.keysMissing.Swap(false)
	if made == r.wholeSince && made > 0 && !missing {
		return nil
	}
	r.wholeSince = 0
	life, whole, err := r.c.log.keysWhole(ctx)
	switch {
	case err != nil:
		return err
	case whole:
		r.wholeSince = made
		return nil
	}
	if r.keys == nil || r.keys.life != life {
		r.keys = &keySweep{life: life, nodes: map[string]*nodeKeys{}}
		for _, node := range r.c.cfg.Nodes {
			r.keys.nodes[node.Name()] = &nodeKeys{}
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, len(r.c.cfg.Nodes))
	for i, node := range r.c.cfg.Nodes {
		wg.Go(func() { errs[i] = r.restoreKeysOf(ctx, node, r.keys.nodes[node.Name()]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := r.c.log.markKeysWhole(ctx, life); err != nil {
		return err
	}
	r.c.cfg.Logger.Info("the idempotency keys of all nodes' branch records are in the decision log", "life", life.String())
	r.keys = nil
	return nil
}

// restoreKeysOf goes through the records of one node. It begins when nothing is
// prepared there any more that an earlier life of the log may have decided to
// commit under a key: what is committed later would be overlooked. A decision of
// the present life has its key with it.
func (r *recoverer) restoreKeysOf(ctx context.Context, node *participant.Node, at *nodeKeys) error {
	if at.done {
		return nil
	}
	if !at.begun {
		if err := r.noLostAttempts(ctx, node); err != nil {
			return err
		}
		at.begun = true
	}
	for {
		page, err := node.KeyedRecords(ctx, at.after, keyPage)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			at.done = true
			return nil
		}
		missing, err := r.c.log.missingKeys(ctx, page)
		if err != nil {
			return err
		}
		for _, m := range missing {
			if _, err := r.c.restore(ctx, m.ID, m.BranchRecord); err != nil {
				return err
			}
		}
		at.after = page[len(page)-1]
	}
}

// keysNotWhole has restoreKeys look, now.
func (r *recoverer) keysNotWhole() {
	r.keysMissing.Store(true)
	select {
	case r.nudges[keysLoop] <- struct{}{}:
	default:
	}
}

// noLostAttempts fails while a keyed branch of an epoch of an earlier life, or of
// one that is not known, is prepared on the node. Recovery's sweeps settle the
// former, a person the latter.
func (r *recoverer) noLostAttempts(ctx context.Context, node *participant.Node) error {
	prepared, err := node.ListPrepared(ctx)
	if err != nil {
		return err
	}
	var ids []participant.ID
	for _, p := range prepared {
		if p.KeyTag != "" {
			ids = append(ids, p.ID)
		}
	}
	looked, err := r.c.log.look(ctx, ids, r.c.cfg.GraceAfterRestart)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if k := looked[id]; !k.epoch || !k.sameLog {
			return fmt.Errorf("node %q: transaction %s is in doubt, and its idempotency key cannot be read before that is over", node.Name(), id)
		}
	}
	return nil
}
