package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// Resolution is what a person wants done with one transaction.
type Resolution struct {
	ID participant.ID
	// Node, when not empty, narrows an outcome forced against a decision to the
	// branch on this node. Nothing else can be meant for one node alone.
	Node string
	// Wish is the outcome wanted; NoDecision: whatever is decided.
	Wish Decision
	// Force has the wish done although it contradicts what is decided or visible,
	// or may do so. It is recorded first, for ever.
	Force bool
	// By is who forces, for the record.
	By string
}

// Resolved is what Resolve has done.
type Resolved struct {
	Decision Decision // what is recorded now
	Finished []string // nodes whose branch was finished just now
	Left     []string // nodes on which something is still prepared, or which cannot be asked
	Broken   []string // what may be broken, in sentences; only after Force
}

// RefusedError is why Resolve did nothing: it would contradict a decision or
// what a node shows, or nobody can know that it would not.
type RefusedError struct{ Reason, Hint string }

func (e *RefusedError) Error() string { return e.Reason + "\n" + e.Hint }

// Resolve finishes a transaction by hand. Without Force it does only what
// recovery would be allowed to do (I1 to I4), at once and for this transaction.
// It works without Start.
func (c *Coordinator) Resolve(ctx context.Context, r Resolution) (Resolved, error) {
	s, err := c.sight(ctx, r.ID)
	if err != nil {
		return Resolved{}, err
	}
	if s.decision == NoDecision && len(s.prepared)+len(s.committed) == 0 && len(s.silent) == 0 {
		return Resolved{}, &RefusedError{Reason: fmt.Sprintf("transaction %s has no decision, and no node shows a trace of it", r.ID),
			Hint: "There is nothing to resolve: without a decision it is aborted."}
	}
	wish, refusal := r.judge(s)
	switch {
	case refusal != nil && r.Force && r.Wish != NoDecision:
		return c.force(ctx, r, s)
	case refusal != nil:
		return Resolved{Decision: s.decision}, refusal
	case s.decision == NoDecision:
		settled, err := c.settleByHand(ctx, r.ID, s, wish)
		if err != nil {
			return Resolved{}, err
		}
		if settled != wish {
			return Resolved{Decision: settled}, &RefusedError{Reason: fmt.Sprintf("transaction %s has just been decided otherwise: %s", r.ID, settled),
				Hint: "Nothing was done; pgpact transactions shows what is left of it."}
		}
		c.cfg.Logger.Info("transaction settled by hand", "transaction", r.ID.String(), "decision", wish.String())
	}
	return c.finishByHand(ctx, r, s, wish), nil
}

// settleByHand settles an undecided transaction: a commit, which is one that a
// branch record proves, with the key that it bears (I10).
func (c *Coordinator) settleByHand(ctx context.Context, id participant.ID, s sighted, wish Decision) (Decision, error) {
	if wish == Commit {
		return c.restore(ctx, id, participant.BranchRecord{Participants: s.participants, Role: s.role, Key: s.key})
	}
	return c.log.settle(ctx, record{id: id, participants: s.participants}, wish)
}

// sighted is what can be seen of a transaction.
type sighted struct {
	known
	prepared     []participant.GID // what is prepared
	committed    []string          // nodes that show its branch record
	participants []string          // by a branch record; nil if none is visible
	role, key    string            // by a branch record, too
	silent       []string          // nodes that cannot be asked
}

// sight looks at one transaction: the decision, then what is prepared, then the
// branch records.
func (c *Coordinator) sight(ctx context.Context, id participant.ID) (s sighted, err error) {
	looked, err := c.log.look(ctx, []participant.ID{id}, 0)
	if err != nil {
		return s, err
	}
	s.known = looked[id]
	states := c.recover.nodeStates(ctx, []participant.ID{id})
	for _, node := range c.cfg.Nodes {
		state, asked := states[node.Name()]
		gid, prepared := state.prepared[id]
		record, committed := state.records[id]
		switch {
		case !asked:
			s.silent = append(s.silent, node.Name())
		case prepared:
			s.prepared = append(s.prepared, gid)
		case committed:
			s.committed = append(s.committed, node.Name())
			s.participants, s.role, s.key = record.Participants, record.Role, record.Key
		}
	}
	return s, nil
}

// judge says what may be done without force, or why nothing may.
func (r Resolution) judge(s sighted) (Decision, *RefusedError) {
	refuse := func(hint, format string, args ...any) (Decision, *RefusedError) {
		return NoDecision, &RefusedError{Reason: fmt.Sprintf("transaction %s ", r.ID) + fmt.Sprintf(format, args...), Hint: hint}
	}
	const forceHint = "Nothing was done. With --force it is done all the same, recorded for ever, and the transaction may be left half done."
	switch {
	case s.decision != NoDecision && (r.Wish == NoDecision || r.Wish == s.decision):
		return s.decision, nil
	case s.decision != NoDecision:
		return refuse(forceHint, "is decided: %s", s.decision)
	case len(s.committed) > 0 && r.Wish == Abort:
		return refuse(forceHint, "has committed on node %s, whose branch record is visible", strings.Join(s.committed, ", "))
	case !s.epoch:
		return refuse(forceHint, "belongs to a gateway that this decision database does not know: its decision may be in another one, or lost with a backup")
	case s.forgottenOrUnknown(r.ID):
		return refuse(forceHint, "is so old that its decision has been forgotten")
	case len(s.committed) > 0:
		return Commit, nil // the decision was lost, and this is its proof (I8)
	case r.Wish == Commit:
		return refuse(forceHint, "has no decision, and no node shows that it has committed: without a decision it is aborted")
	case r.Wish == NoDecision:
		return refuse("--abort aborts it; a running gateway presumes that by itself when its own gateway is gone or in_doubt_timeout has passed.",
			"has no decision; its gateway %s", s.owner())
	case len(s.silent) > 0 && !s.sameLog:
		return refuse(forceHint, "may have committed: the decision database has changed since, and node %s cannot be asked", strings.Join(s.silent, ", "))
	}
	return Abort, nil
}

func (s sighted) owner() string {
	if s.alive {
		return s.gateway + " is alive"
	}
	return s.gateway + " is gone"
}

// errBeforeItsTurn is why a lock-only branch stays prepared.
var errBeforeItsTurn = errors.New("it only locked rows, and is committed after the branches that changed some")

// finishByHand applies a decision to what is prepared: branches that have only
// locked rows after the others, and committed only if those show that they have
// (I9). A person's force overrides that: it is about rows, not about locks.
func (c *Coordinator) finishByHand(ctx context.Context, r Resolution, s sighted, decision Decision) Resolved {
	done := Resolved{Decision: decision, Left: slices.Clone(s.silent)}
	slices.SortStableFunc(s.prepared, func(a, b participant.GID) int { return a.After - b.After })
	for _, gid := range s.prepared {
		var err error
		if gid.After > 0 && decision == Commit && !r.Force {
			proven, _ := c.branchRecords(ctx, []participant.ID{r.ID})
			if !proven[r.ID].changed(gid.After) {
				err = errBeforeItsTurn
			}
		}
		if err == nil {
			err = c.finishBranch(ctx, gid, decision)
		}
		if err != nil {
			c.cfg.Logger.Warn("branch not finished by hand", "gid", gid.String(), "node", gid.Node, "error", err)
			done.Left = append(done.Left, gid.Node)
			continue
		}
		c.cfg.Logger.Info("branch finished by hand", "gid", gid.String(), "node", gid.Node, "decision", decision.String())
		done.Finished = append(done.Finished, gid.Node)
	}
	return done
}

// finishBranch finishes one branch; one that is being finished by somebody else
// is waited for.
func (c *Coordinator) finishBranch(ctx context.Context, gid participant.GID, decision Decision) error {
	for {
		var err error
		if decision == Commit {
			err = c.nodes[gid.Node].CommitPrepared(ctx, gid)
		} else {
			err = c.nodes[gid.Node].RollbackPrepared(ctx, gid)
		}
		if errors.Is(err, participant.ErrGIDUnknown) {
			// Somebody was faster; only the branch record tells what he did (I8).
			records, lookErr := c.nodes[gid.Node].BranchRecords(ctx, []participant.ID{gid.ID})
			if _, committed := records[gid.ID]; lookErr == nil && committed == (decision == Commit) {
				return nil
			}
			return errors.Join(err, lookErr)
		}
		if !errors.Is(err, participant.ErrBusy) {
			return err
		}
		pause(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return err
		}
	}
}

// force does what a person insists on. What will be done is durable before it
// is done: whoever looks later must find it, whatever happens here.
func (c *Coordinator) force(ctx context.Context, r Resolution, s sighted) (Resolved, error) {
	against := s.decision != NoDecision
	if r.Node != "" && against {
		s.prepared = slices.DeleteFunc(s.prepared, func(gid participant.GID) bool { return gid.Node != r.Node })
	}
	if against && len(s.prepared) == 0 {
		return Resolved{Decision: s.decision}, &RefusedError{Reason: fmt.Sprintf("transaction %s is decided (%s), and nothing of it is prepared any more where it could be forced", r.ID, s.decision),
			Hint: "What is committed or rolled back stays so. Nothing was done."}
	}
	note := fmt.Sprintf("%s by force of %s", r.Wish, r.By)
	if against {
		var nodes []string
		for _, gid := range s.prepared {
			nodes = append(nodes, gid.Node)
		}
		note = fmt.Sprintf("%s on node %s against the decision %s, by force of %s", r.Wish, strings.Join(nodes, ", "), s.decision, r.By)
	}
	recorded, err := c.log.recordForced(ctx, record{id: r.ID, participants: s.participants}, s.decision, r.Wish, note)
	if err != nil {
		return Resolved{}, err
	}
	if !recorded {
		return Resolved{}, &RefusedError{Reason: fmt.Sprintf("transaction %s has been decided by somebody else just now", r.ID),
			Hint: "Nothing was done; look again with pgpact transactions."}
	}
	c.cfg.Logger.Error("FORCED: a person has decided what the protocol would not", "transaction", r.ID.String(), "what", note)
	done := c.finishByHand(ctx, r, s, r.Wish)
	if r.Wish == Commit {
		c.restoreForced(ctx, r.ID)
	}
	if against {
		done.Decision = s.decision
	}
	done.Broken = s.broken(r, done)
	return done, nil
}

// restoreForced has the key of a commit by force known: it could not be read while
// its branches were prepared. What fails here is found by the next keysweep.go.
func (c *Coordinator) restoreForced(ctx context.Context, id participant.ID) {
	proven, _ := c.branchRecords(ctx, []participant.ID{id})
	if p := proven[id]; p.key != "" {
		if _, err := c.restore(ctx, id, participant.BranchRecord{Participants: p.participants, Role: p.role, Key: p.key}); err != nil {
			c.cfg.Logger.Warn("idempotency key of a forced commit not written down", "transaction", id.String(), "error", err)
		}
	}
}

// broken says in sentences what a forced outcome may have broken.
func (s sighted) broken(r Resolution, done Resolved) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	nodes := func(names []string) string { return strings.Join(names, ", ") }
	if s.decision != NoDecision && len(done.Finished) > 0 {
		add("the decision is %s, and node %s has now %s its part: the transaction is half done wherever another node follows the decision",
			s.decision, nodes(done.Finished), map[Decision]string{Commit: "committed", Abort: "rolled back"}[r.Wish])
	}
	if len(s.committed) > 0 && r.Wish == Abort {
		add("node %s has committed its part, for good", nodes(s.committed))
	}
	if s.decision == NoDecision && r.Wish == Commit {
		add("nobody knows whether every participant had prepared: one that shows no trace of it may have rolled its part back, and its rows lack this transaction")
		if s.alive {
			add("its gateway %s lives and may have told its client that the transaction is aborted", s.gateway)
		}
	}
	if s.decision == NoDecision && r.Wish == Abort {
		add("its gateway may have told its client COMMIT, and a node that could not be asked or was restored may have committed its part")
	}
	if len(s.silent) > 0 {
		add("node %s could not be asked; recovery will do there what is recorded now", nodes(s.silent))
	}
	return lines
}

// recordForced writes what a person forces. Without a decision the wish becomes
// the decision, if none has come meanwhile, of whatever epoch: nobody else can
// decide it any more (I2). Against a decision, the decision stays, the note
// stands beside it, and the transaction counts as unfinished from now on.
func (l *decisionLog) recordForced(ctx context.Context, r record, decision, wish Decision, note string) (bool, error) {
	epoch, sequence := strconv.FormatInt(r.id.Epoch, 10), strconv.FormatInt(r.id.Sequence, 10)
	const stamped = `to_char(clock_timestamp() AT TIME ZONE 'UTC','YYYY-MM-DD HH24:MI:SS "UTC"')||': '||$4::text`
	var rows [][]string
	var err error
	if decision == NoDecision {
		rows, err = l.query(ctx, `WITH gate AS (DELETE FROM pgpact.gate)
 INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role,heuristic) VALUES($1::bigint,$2::bigint,$3::text,$5::text[],'',`+stamped+`)
 ON CONFLICT (epoch,sequence) DO NOTHING RETURNING outcome`, epoch, sequence, wish.String(), note, arrayLiteral(r.participants))
	} else {
		rows, err = l.query(ctx, `UPDATE pgpact.transactions SET finished_at=NULL, heuristic=coalesce(heuristic||'; ','')||`+stamped+`
 WHERE epoch=$1::bigint AND sequence=$2::bigint AND outcome=$3::text RETURNING outcome`, epoch, sequence, decision.String(), note)
	}
	return len(rows) == 1, err
}
