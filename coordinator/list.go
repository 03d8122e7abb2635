package coordinator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// TransactionInfo is one transaction that is in doubt, decided but unfinished,
// or damaged, for people.
type TransactionInfo struct {
	ID       string        `json:"id"`
	State    string        `json:"state"`    // "in doubt", "unfinished" or "not ours to touch"
	Decision string        `json:"decision"` // "committed", "aborted" or "none"
	Prepared []string      `json:"prepared"` // nodes that hold it prepared now
	Expected []string      `json:"expected"` // participants by the decision record, if there is one
	Age      time.Duration `json:"age_ns"`   // since it was prepared, or decided
	Gateway  string        `json:"gateway"`  // name of the gateway that began it
	Alive    bool          `json:"gateway_alive"`
}

// Transactions lists what is in doubt or unfinished over all nodes, oldest
// first. Nodes that cannot be asked are named in the error, which does not
// spoil the list. It works without Start.
func (c *Coordinator) Transactions(ctx context.Context) ([]TransactionInfo, error) {
	infos := map[participant.ID]*TransactionInfo{}
	var unreachable []string
	for _, node := range c.cfg.Nodes {
		prepared, err := node.ListPrepared(ctx)
		if err != nil {
			unreachable = append(unreachable, fmt.Sprintf("%v", err))
			continue
		}
		for _, p := range prepared {
			info := infos[p.ID]
			if info == nil {
				info = &TransactionInfo{ID: p.ID.String(), State: "in doubt", Decision: NoDecision.String()}
				infos[p.ID] = info
			}
			info.Prepared = append(info.Prepared, node.Name())
			info.Age = max(info.Age, p.Age)
		}
	}
	if err := c.addDecisions(ctx, infos); err != nil {
		return nil, err
	}
	list := make([]TransactionInfo, 0, len(infos))
	for _, info := range infos {
		list = append(list, *info)
	}
	slices.SortFunc(list, func(a, b TransactionInfo) int { return int(b.Age - a.Age) })
	if len(unreachable) > 0 {
		return list, fmt.Errorf("not all nodes could be asked: %v", unreachable)
	}
	return list, nil
}

// addDecisions completes the list with what the decision log knows.
func (c *Coordinator) addDecisions(ctx context.Context, infos map[participant.ID]*TransactionInfo) error {
	ids := make([]participant.ID, 0, len(infos))
	for id := range infos {
		ids = append(ids, id)
	}
	looked, err := c.log.look(ctx, ids, 0)
	if err != nil {
		return err
	}
	for id, info := range infos {
		k := looked[id]
		info.Decision, info.Gateway, info.Alive = k.decision.String(), k.gateway, k.alive
		if k.forgottenOrUnknown(id) {
			info.State = "not ours to touch"
		}
	}
	var after participant.ID
	for {
		page, err := c.log.unfinishedAfter(ctx, after, finishPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, u := range page {
			info := infos[u.id]
			if info == nil {
				info = &TransactionInfo{ID: u.id.String(), Age: u.age}
				infos[u.id] = info
			}
			info.State, info.Decision, info.Expected = "unfinished", u.decision.String(), u.participants
			info.Gateway, info.Alive = u.gateway, u.alive
		}
		after = page[len(page)-1].id
	}
}

// Damage lists the contradictions recovery has found.
func (c *Coordinator) Damage() []Damage {
	c.recover.mu.Lock()
	defer c.recover.mu.Unlock()
	list := make([]Damage, 0, len(c.recover.damage))
	for d := range c.recover.damage {
		list = append(list, d)
	}
	return list
}
