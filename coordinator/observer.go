package coordinator

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// Observer is told what the coordinator does, while it does it: metrics and the
// status page are made of that. Its methods are called from many goroutines and
// on the clients' path, so they must neither wait nor fail; nothing here depends
// on what they do. The coordinator does not know what becomes of it.
type Observer interface {
	// TransactionEnded tells that a transaction has ended by Commit or Rollback;
	// took is the time within that call. A statement in autocommit, which ends with
	// End, is not among them: only who ran it knows how it went.
	TransactionEnded(kind Kind, outcome Outcome, took time.Duration)
	// PhaseDone tells how long a node took for its part of a phase; of PhaseDecide,
	// the decision database, with the node "". The nodes work at the same time and
	// are read one after the other, so a node is never shown quicker than those that
	// were read before it: the slowest of a phase is exact, the others are bounds.
	PhaseDone(phase Phase, node string, took time.Duration)
	// DecisionsWritten tells how many decisions one statement has carried.
	DecisionsWritten(count int)
	// SlotWaited tells how long a transaction waited for a slot, if it had to, and
	// whether it got one.
	SlotWaited(took time.Duration, got bool)
	// NodeSwept tells what a look at a node has found.
	NodeSwept(node string, found Swept)
	// Recovered tells of one action of recovery.
	Recovered(action RecoveryAction)
}

// Kind of a transaction: by which protocol it commits.
type Kind int

// The kinds.
const (
	KindRead     Kind = iota // nothing was written
	KindOnePhase             // written on one node
	KindTwoPhase             // written on several, or its outcome can be asked for
	KindCount
)

func (k Kind) String() string { return [KindCount]string{"read", "one-phase", "two-phase"}[k] }

// Phase of a commit.
type Phase int

// The phases. PhaseCommit is a plain COMMIT, of a transaction in one phase.
const (
	PhasePrepare Phase = iota
	PhaseDecide
	PhaseCommitPrepared
	PhaseCommit
	PhaseCount
)

func (p Phase) String() string {
	return [PhaseCount]string{"prepare", "decide", "commit prepared", "commit"}[p]
}

// Swept is what recovery's look at a node has found.
type Swept struct {
	Err      error // the node could not be looked at: nothing else is known
	Prepared int   // prepared branches of ours, whoever is at work on them
	// InDoubt are those of them that no session of a living gateway is at work on,
	// and whose decision was not known when this look began; Oldest is the age of
	// the oldest.
	InDoubt int
	Oldest  time.Duration
}

// RecoveryAction is something recovery has done, or has had to leave.
type RecoveryAction struct {
	What  string // one of the words below
	ID    participant.ID
	Node  string // "" when it concerns the decision
	Count int    // of transactions, 1 or more
}

// What recovery does.
const (
	ActionCommitted     = "branch committed"          // a prepared branch followed its decision
	ActionRolledBack    = "branch rolled back"        // the same
	ActionSettledCommit = "settled as committed"      // a decision was lost, and a branch record proved it
	ActionSettledAbort  = "settled as aborted"        // presumed abort
	ActionFinished      = "seen finished"             // a decision was found applied everywhere
	ActionDamage        = "damage found"              // a node contradicts the decision
	ActionLeftAlone     = "unknown epoch, left alone" // nothing may be done about it
)

// actionOf is what recovery does to a prepared branch by the decision.
func actionOf(d Decision) string {
	if d == Commit {
		return ActionCommitted
	}
	return ActionRolledBack
}

// settledAs is what recovery has found, or made, a decision to be.
func settledAs(d Decision) string {
	if d == Commit {
		return ActionSettledCommit
	}
	return ActionSettledAbort
}

// noObserver is there when nobody wants to know.
type noObserver struct{}

func (noObserver) TransactionEnded(Kind, Outcome, time.Duration) {}
func (noObserver) PhaseDone(Phase, string, time.Duration)        {}
func (noObserver) DecisionsWritten(int)                          {}
func (noObserver) SlotWaited(time.Duration, bool)                {}
func (noObserver) NodeSwept(string, Swept)                       {}
func (noObserver) Recovered(RecoveryAction)                      {}

// Timing is how long the parts of a commit took.
type Timing struct {
	Total, Prepare, Decide, CommitPrepared time.Duration
	// Slowest is the node that took longest in Prepare or CommitPrepared, "" when
	// neither was needed.
	Slowest     string
	slowestTook time.Duration
}

// phaseDone tells the observer, and notes it for the result.
func (t *Transaction) phaseDone(phase Phase, node string, began time.Time) {
	took := time.Since(began)
	t.c.cfg.Observer.PhaseDone(phase, node, took)
	if t.onPhase != nil {
		t.onPhase(phase, node, began)
	}
	switch phase {
	case PhasePrepare:
		t.timing.Prepare = max(t.timing.Prepare, took)
	case PhaseDecide:
		t.timing.Decide = took
		return
	case PhaseCommitPrepared:
		t.timing.CommitPrepared = max(t.timing.CommitPrepared, took)
	case PhaseCommit:
	}
	if took > t.timing.slowestTook {
		t.timing.Slowest, t.timing.slowestTook = node, took
	}
}

// kind is the transaction's kind, with these branches writing.
func (t *Transaction) kind(writing int) Kind {
	switch {
	case t.tracked || writing > 1:
		return KindTwoPhase
	case writing == 1:
		return KindOnePhase
	}
	return KindRead
}

// writingBranches counts the branches that have, or may have, written.
func (t *Transaction) writingBranches() (n int) {
	for _, b := range t.branches {
		if b.Open() && b.Writes() {
			n++
		}
	}
	return n
}

// sweptOf is what a sweep tells of a node: mine are the branches that are nobody's
// work in progress here.
func (r *recoverer) sweptOf(prepared int, mine []participant.PreparedBranch, looked map[participant.ID]known) Swept {
	found := Swept{Prepared: prepared}
	for _, p := range mine {
		k := looked[p.ID]
		if k.decision == NoDecision && !r.ownersTurn(p, k) {
			found.InDoubt++
			found.Oldest = max(found.Oldest, p.Age)
		}
	}
	return found
}

// Standing is the state of the coordinator at a moment.
type Standing struct {
	SlotsInUse, Slots int
	// EpochHeld: the decision database has answered within the last seconds, and the
	// lock by which others see that this gateway lives is held.
	EpochHeld bool
	Damaged   int // contradictions found by this gateway's recovery
}

// Standing tells it. It asks nobody, so it may be called at any time.
func (c *Coordinator) Standing() Standing {
	c.recover.mu.Lock()
	damaged := len(c.recover.damage)
	c.recover.mu.Unlock()
	return Standing{SlotsInUse: len(c.slots), Slots: c.cfg.Slots, EpochHeld: c.epochHeld.Load(), Damaged: damaged}
}

// Ping asks the decision database for a sign of life.
func (c *Coordinator) Ping(ctx context.Context) error {
	_, err := c.log.query(ctx, "SELECT 1")
	return err
}

// CountForced counts the heuristic outcomes on record: what persons have forced.
func (c *Coordinator) CountForced(ctx context.Context) (int, error) {
	rows, err := c.log.query(ctx, "SELECT count(*)::text FROM pgpact.transactions t WHERE "+whereForced)
	if err != nil {
		return 0, err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return 0, fmt.Errorf("a count was answered with %d rows", len(rows))
	}
	return strconv.Atoi(rows[0][0])
}
