package coordinator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// States of a TransactionInfo.
const (
	StateInDoubt    = "in doubt"          // prepared, decision not known
	StateUnfinished = "unfinished"        // decided, not yet applied everywhere
	StateDamaged    = "damaged"           // a node contradicts the decision
	StateForced     = "forced"            // applied everywhere, and a person forced the outcome
	StateNotOurs    = "not ours to touch" // of an unknown epoch, or below its horizon
)

// What one node shows of a transaction.
const (
	NodePrepared    = "prepared"
	NodeLocks       = "prepared (only locks)" // to be committed after the others (I9)
	NodeCommitted   = "committed"             // its branch record is visible (I8)
	NodeRolledBack  = "rolled back"           // an abort is decided, and nothing is there
	NodeNoTrace     = "no trace"              // neither prepared nor committed
	NodeUnreachable = "unreachable"           // it cannot be asked now
	NodeLost        = "lost"                  // a commit is decided, and there is neither branch nor branch record
	NodeContradicts = "committed it"          // an abort is decided, and the branch record is visible
)

// TransactionInfo is one transaction that is in doubt, decided but unfinished,
// damaged, or was forced, for people.
type TransactionInfo struct {
	ID       string            `json:"id"`
	State    string            `json:"state"`
	Decision string            `json:"decision"`  // "committed", "aborted" or "none"
	Nodes    map[string]string `json:"nodes"`     // what each node that matters shows
	Prepared []string          `json:"prepared"`  // nodes that hold it prepared now
	Expected []string          `json:"expected"`  // participants by the decision record, if there is one
	Damaged  []string          `json:"damaged"`   // nodes that contradict the decision
	Forced   string            `json:"forced"`    // what a person forced, and when; "" for nothing
	KeyAgain string            `json:"key_again"` // that its idempotency key was used again, and by whom; "" if it was not
	Age      time.Duration     `json:"age_ns"`    // since it was prepared, or decided
	Gateway  string            `json:"gateway"`   // name of the gateway that began it
	Alive    bool              `json:"gateway_alive"`
}

// Transactions lists what is in doubt, unfinished, damaged or forced over all
// nodes, oldest first. It is read from the decision log and the nodes each
// time, so every process gives the same answer. Nodes that cannot be asked are
// named in the error, which does not spoil the list. It works without Start.
func (c *Coordinator) Transactions(ctx context.Context) ([]TransactionInfo, error) {
	l := &lister{c: c, decided: map[participant.ID]unfinished{}, infos: map[participant.ID]*TransactionInfo{}}
	// The decisions before the nodes: of a transaction seen decided, a participant
	// that afterwards neither holds it prepared nor, later still, shows its branch
	// record has lost it. In another order that could be a matter of the moment.
	if err := l.readDecided(ctx); err != nil {
		return nil, unanswered(ctx, err)
	}
	again, err := l.c.log.usedAgain(ctx)
	if err != nil {
		return nil, unanswered(ctx, err)
	}
	l.nameUsedAgain(again)
	l.listPrepared(ctx)
	if err := l.lookAtRest(ctx); err != nil {
		return nil, unanswered(ctx, err)
	}
	l.readRecords(ctx)
	for id, info := range l.infos {
		l.judge(id, info)
	}
	list := make([]TransactionInfo, 0, len(l.infos))
	for _, info := range l.infos {
		list = append(list, *info)
	}
	slices.SortFunc(list, func(a, b TransactionInfo) int {
		if a.Age != b.Age {
			return int(b.Age - a.Age)
		}
		return strings.Compare(a.ID, b.ID)
	})
	if len(l.silent) > 0 {
		return list, fmt.Errorf("not all nodes could be asked: %w", errorList(l.silent))
	}
	return list, nil
}

// lister gathers one list.
type lister struct {
	c       *Coordinator
	decided map[participant.ID]unfinished // as seen before any node was asked
	infos   map[participant.ID]*TransactionInfo
	states  map[string]nodeState // of nodes that could be asked
	silent  map[string]error     // the others
}

// readDecided reads what is decided and unfinished, and what was forced.
func (l *lister) readDecided(ctx context.Context) error {
	for _, which := range []string{whereUnfinished, whereForced} {
		var after participant.ID
		for {
			page, err := l.c.log.decidedAfter(ctx, which, after, finishPage)
			if err != nil {
				return err
			}
			for _, u := range page {
				l.decided[u.id] = u
				l.infos[u.id] = &TransactionInfo{
					ID: u.id.String(), State: StateUnfinished, Decision: u.decision.String(), Expected: u.participants,
					Forced: u.forced, Age: u.age, Gateway: u.gateway, Alive: u.alive,
				}
				if u.finished {
					l.infos[u.id].State = StateForced
				}
			}
			if len(page) < finishPage {
				break
			}
			after = page[len(page)-1].id
		}
	}
	return nil
}

// nameUsedAgain adds the transactions under whose idempotency keys another one
// has committed: both stand, and a person has to see to that.
func (l *lister) nameUsedAgain(list []keyUsedAgain) {
	for _, u := range list {
		info := l.infos[u.id]
		if info == nil {
			info = &TransactionInfo{ID: u.id.String(), Decision: NoDecision.String()}
			l.infos[u.id] = info
		}
		who := "another transaction, which is forgotten"
		if !u.other.IsZero() {
			who = "transaction " + u.other.String()
		}
		info.KeyAgain = fmt.Sprintf("%s has also committed under its idempotency key %q of role %q", who, u.key, u.role)
	}
}

// eachNode asks all nodes in parallel that have not failed to answer yet.
func (l *lister) eachNode(ctx context.Context, ask func(ctx context.Context, node *participant.Node) error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := map[string]error{}
	for _, node := range l.c.cfg.Nodes {
		if l.silent[node.Name()] != nil {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, l.c.cfg.ConnectTimeout)
			defer cancel()
			if err := ask(ctx, node); err != nil {
				mu.Lock()
				failed[node.Name()] = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for name, err := range failed {
		l.silent[name] = err
		delete(l.states, name)
	}
}

// listPrepared adds what is prepared on the nodes.
func (l *lister) listPrepared(ctx context.Context) {
	l.states, l.silent = map[string]nodeState{}, map[string]error{}
	var mu sync.Mutex
	l.eachNode(ctx, func(ctx context.Context, node *participant.Node) error {
		prepared, err := node.ListPrepared(ctx)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		state := nodeState{prepared: map[participant.ID]participant.GID{}, records: map[participant.ID]participant.BranchRecord{}}
		for _, p := range prepared {
			state.prepared[p.ID] = p.GID
			info := l.infos[p.ID]
			if info == nil {
				info = &TransactionInfo{ID: p.ID.String(), State: StateInDoubt, Decision: NoDecision.String()}
				l.infos[p.ID] = info
			}
			info.Prepared = append(info.Prepared, node.Name())
			info.Age = max(info.Age, p.Age)
		}
		l.states[node.Name()] = state
		return nil
	})
}

// lookAtRest asks the decision log about what the nodes have shown beyond what
// was seen decided before.
func (l *lister) lookAtRest(ctx context.Context) error {
	var rest []participant.ID
	for id := range l.infos {
		if _, seen := l.decided[id]; !seen {
			rest = append(rest, id)
		}
	}
	looked, err := l.c.log.look(ctx, rest, 0)
	if err != nil {
		return err
	}
	for _, id := range rest {
		k, info := looked[id], l.infos[id]
		info.Decision, info.Gateway, info.Alive = k.decision.String(), k.gateway, k.alive
		switch {
		case k.decision != NoDecision:
			info.State = StateUnfinished
		case k.forgottenOrUnknown(id):
			info.State = StateNotOurs
		}
	}
	return nil
}

// readRecords asks the nodes for branch records of everything in the list.
func (l *lister) readRecords(ctx context.Context) {
	ids := make([]participant.ID, 0, len(l.infos))
	for id := range l.infos {
		ids = append(ids, id)
	}
	for page := range slices.Chunk(ids, finishPage) {
		l.eachNode(ctx, func(ctx context.Context, node *participant.Node) error {
			records, err := node.BranchRecords(ctx, page)
			maps.Copy(l.states[node.Name()].records, records) // one goroutine for each node
			return err
		})
	}
}

// judge says what each node shows, and whether that contradicts the decision.
func (l *lister) judge(id participant.ID, info *TransactionInfo) {
	info.Nodes = map[string]string{}
	u, decided := l.decided[id]
	for _, node := range l.c.cfg.Nodes {
		name := node.Name()
		state, asked := l.states[name]
		expected := slices.Contains(info.Expected, name)
		_, prepared := state.prepared[id]
		_, committed := state.records[id]
		switch {
		case !asked && (expected || len(info.Expected) == 0):
			info.Nodes[name] = NodeUnreachable
		case decided && state.contradicts(u, name):
			info.Damaged = append(info.Damaged, name)
			info.Nodes[name] = map[Decision]string{Commit: NodeLost, Abort: NodeContradicts}[u.decision]
		case expected || prepared || committed:
			info.Nodes[name] = state.show(id, info.Decision)
		}
	}
	slices.Sort(info.Prepared)
	if len(info.Damaged) > 0 || info.KeyAgain != "" {
		info.State = StateDamaged
	}
}

// show is what a node that answers says of a transaction.
func (s nodeState) show(id participant.ID, decision string) string {
	gid, prepared := s.prepared[id]
	_, committed := s.records[id]
	switch {
	case prepared && gid.After > 0:
		return NodeLocks
	case prepared:
		return NodePrepared
	case committed:
		return NodeCommitted
	case decision == Abort.String():
		return NodeRolledBack
	}
	return NodeNoTrace
}

// contradicts: what the node shows cannot be, if the decision was seen before
// the node was asked what is prepared there, and that before its branch records.
// When the participants are not known, the absence of a record says nothing.
func (s nodeState) contradicts(u unfinished, node string) bool {
	_, prepared := s.prepared[u.id]
	_, committed := s.records[u.id]
	switch {
	case prepared:
		return false
	case u.decision == Abort:
		return committed
	}
	return !committed && slices.Contains(u.participants, node)
}

// errorList makes one error of several nodes' errors, in the order of names.
func errorList(byNode map[string]error) error {
	var lines []string
	for _, err := range byNode {
		lines = append(lines, err.Error())
	}
	slices.Sort(lines)
	return fmt.Errorf("%s", strings.Join(lines, "; "))
}

// Damage lists the contradictions this gateway's recovery has found. Any
// process finds them again with Transactions.
func (c *Coordinator) Damage() []Damage {
	c.recover.mu.Lock()
	defer c.recover.mu.Unlock()
	list := make([]Damage, 0, len(c.recover.damage))
	for d := range c.recover.damage {
		list = append(list, d)
	}
	return list
}
