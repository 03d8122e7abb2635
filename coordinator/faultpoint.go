package coordinator

// FaultPoint is a named moment of the commit protocol, right before or after a
// step that writes or sends. A process that dies there must leave a state from
// which recovery reaches Expect.
type FaultPoint struct {
	Name string
	// Expect is the outcome after a crash here and recovery; Unknown means that
	// either may come out (a message was on its way), but the same everywhere.
	Expect Outcome
	// Scenario says which kind of transaction passes the point.
	Scenario Scenario
}

// Scenario is what has to happen for a fault point to be passed.
type Scenario string

// The scenarios.
const (
	// TwoPhase: a transaction that wrote on two nodes commits.
	TwoPhase Scenario = "two-phase commit"
	// LockOnly: a transaction that wrote on two nodes, and has only locked a row
	// on a third, commits.
	LockOnly Scenario = "two-phase commit with a lock-only branch"
	// OnePhase: a transaction that wrote on one node, in a block, commits.
	OnePhase Scenario = "one-phase commit"
	// VotedNo: a transaction over two nodes is refused by the second at PREPARE.
	VotedNo Scenario = "a node votes no"
	// RecoverCommit: recovery finds prepared branches whose commit is decided.
	RecoverCommit Scenario = "recovery of a decided transaction"
	// Reading: a SELECT reads several nodes at one instant.
	Reading Scenario = "a read of several nodes"
	// Helping: such a read meets a branch whose commit is decided.
	Helping Scenario = "a read that meets a decided transaction"
	// RecoverAbort: recovery finds prepared branches without a decision.
	RecoverAbort Scenario = "recovery of an undecided transaction"
)

// Names of the fault points, in protocol order.
const (
	pointCommitStart        = "commit-start"
	pointOnePhaseSent       = "one-phase-sent"
	pointOnePhaseDone       = "one-phase-done"
	pointFirstPrepareSent   = "first-prepare-sent"
	pointPrepareSent        = "prepare-sent"
	pointFirstVote          = "first-vote"
	pointVoted              = "voted"
	pointVotedNo            = "voted-no"
	pointRollbackSent       = "rollback-prepared-sent"
	pointRolledBack         = "rolled-back"
	pointDecisionHandedOver = "decision-handed-over"
	pointDecisionWriting    = "decision-writing"
	pointDecisionWritten    = "decision-written"
	pointDecided            = "decided"
	pointFirstCommitSent    = "first-commit-prepared-sent"
	pointCommitSent         = "commit-prepared-sent"
	pointFirstCommitted     = "first-commit-prepared-answered"
	pointLockOnly           = "lock-only-round"
	pointFirstLockOnlySent  = "first-lock-only-commit-prepared-sent"
	pointLockOnlySent       = "lock-only-commit-prepared-sent"
	pointFirstLockOnlyDone  = "first-lock-only-commit-prepared-answered"
	pointCommitted          = "committed"
	pointReleased           = "read-only-released"
	pointFinishing          = "finishing"
	pointFinished           = "finished"
	pointRecoverCommit      = "recovery-before-commit-prepared"
	pointRecoverCommitted   = "recovery-after-commit-prepared"
	pointRecoverFinish      = "recovery-before-finish"
	pointRecoverSettle      = "recovery-before-settle"
	pointRecoverSettled     = "recovery-after-settle"
	pointRecoverRollback    = "recovery-before-rollback-prepared"
	pointRecoverRolledBack  = "recovery-after-rollback-prepared"
	pointWindowLocked       = "window-locked"
	pointWindowServed       = "window-served"
	pointWindowReleased     = "window-released"
	pointHelpCommit         = "reader-before-commit-prepared"
	pointHelpCommitted      = "reader-after-commit-prepared"
)

// FaultPoints lists every fault point in protocol order. A test visits each
// with a real process kill; passing a point that is not listed panics, so a new
// one cannot be forgotten here.
func FaultPoints() []FaultPoint {
	return []FaultPoint{
		{pointCommitStart, Aborted, TwoPhase},
		{pointOnePhaseSent, Unknown, OnePhase},
		{pointOnePhaseDone, Committed, OnePhase},
		{pointFirstPrepareSent, Aborted, TwoPhase},
		{pointPrepareSent, Aborted, TwoPhase},
		{pointFirstVote, Aborted, TwoPhase},
		{pointVoted, Aborted, TwoPhase},
		{pointVotedNo, Aborted, VotedNo},
		{pointRollbackSent, Aborted, VotedNo},
		{pointRolledBack, Aborted, VotedNo},
		{pointDecisionHandedOver, Aborted, TwoPhase},
		{pointDecisionWriting, Aborted, TwoPhase},
		{pointDecisionWritten, Committed, TwoPhase},
		{pointDecided, Committed, TwoPhase},
		{pointFirstCommitSent, Committed, TwoPhase},
		{pointCommitSent, Committed, TwoPhase},
		{pointFirstCommitted, Committed, TwoPhase},
		{pointLockOnly, Committed, LockOnly},
		{pointFirstLockOnlySent, Committed, LockOnly},
		{pointLockOnlySent, Committed, LockOnly},
		{pointFirstLockOnlyDone, Committed, LockOnly},
		{pointCommitted, Committed, TwoPhase},
		{pointReleased, Committed, TwoPhase},
		{pointFinishing, Committed, TwoPhase},
		{pointFinished, Committed, TwoPhase},
		{pointRecoverCommit, Committed, RecoverCommit},
		{pointRecoverCommitted, Committed, RecoverCommit},
		{pointRecoverFinish, Committed, RecoverCommit},
		{pointRecoverSettle, Aborted, RecoverAbort},
		{pointRecoverSettled, Aborted, RecoverAbort},
		{pointRecoverRollback, Aborted, RecoverAbort},
		{pointRecoverRolledBack, Aborted, RecoverAbort},
		{pointWindowLocked, Committed, Reading},
		{pointWindowServed, Committed, Reading},
		{pointWindowReleased, Committed, Reading},
		{pointHelpCommit, Committed, Helping},
		{pointHelpCommitted, Committed, Helping},
	}
}

var knownPoints = func() map[string]bool {
	known := map[string]bool{}
	for _, p := range FaultPoints() {
		known[p.Name] = true
	}
	return known
}()

// pass marks that a fault point has been reached.
func (c *Coordinator) pass(point string) {
	if c.cfg.FaultPoint == nil {
		return
	}
	if !knownPoints[point] {
		panic("fault point " + point + " has no expectation")
	}
	c.cfg.FaultPoint(point)
}
