package coordinator

// Life of an UPDATE, step 9. This file tells the whole story of a commit.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
)

// ErrAbortDecided is the reason when an abort was recorded before the commit
// could be: a recoverer presumed this gateway dead or the transaction lost. To
// the client: 40001, certainly not done, safe to repeat.
var ErrAbortDecided = errors.New("the transaction was presumed aborted before it could be decided")

// ErrDecisionUnreachable is the reason when the decision database could not be
// asked to record the commit, and certainly was not.
var ErrDecisionUnreachable = errors.New("the decision database cannot be reached")

// errFailedAfterVote is how a connection was lost whose vote cannot count.
var errFailedAfterVote = errors.New("the connection failed after the vote")

// ErrShuttingDown is why, beside ErrDecisionUnreachable, a stopping gateway
// decides nothing any more.
var ErrShuttingDown = errors.New("the gateway is shutting down")

// errRolledBackAtCommit: a plain COMMIT was answered with the tag ROLLBACK.
var errRolledBackAtCommit = errors.New("the node rolled the transaction back at COMMIT")

// ErrOutcomeUnknown is the reason of an Unknown result.
var ErrOutcomeUnknown = errors.New("the outcome of the commit is not known")

// Commit commits the transaction on every node or on none, and ends it. It
// does not follow the client: every wait has a bound of its own, and what is
// not finished at the bound is handed to recovery.
func (t *Transaction) Commit() Result {
	began, kind := time.Now(), t.kind(t.writingBranches())
	result := t.commit()
	t.timing.Total = time.Since(began)
	t.c.cfg.Observer.TransactionEnded(kind, result.Outcome, t.timing.Total)
	result.Timing = t.timing
	return result
}

// commit is Commit but for what is told of it.
func (t *Transaction) commit() Result {
	defer t.End()
	t.c.pass(pointCommitStart)
	var writing, reading []*participant.Branch
	for _, b := range t.branches {
		switch {
		case !b.Open():
			// Nothing has run there: its first statement, or the BEGIN before it, was
			// refused or never sent. (A lost branch is unfit, below.)
		case b.Writes():
			writing = append(writing, b)
		default:
			reading = append(reading, b)
		}
	}
	// A branch that is lost, or whose block has failed, cannot vote. Nothing has
	// been prepared: rolling the others back is safe (I4).
	if err := t.unfit(); err != nil {
		t.rollbackBranches(t.branches)
		t.settleIfTracked(writing)
		return Result{Outcome: Aborted, ID: t.id, Err: err}
	}
	var result Result
	switch {
	case t.tracked || len(writing) > 1:
		t.ensureID()
		result = t.commitTwoPhase(writing)
	case len(writing) == 1:
		result = t.commitOnePhase(writing[0])
	default:
		result = Result{Outcome: Committed}
	}
	// Read-only branches are released only now: their locks and snapshots belong
	// to the transaction until it has committed everywhere.
	t.release(reading, result.Outcome)
	t.c.pass(pointReleased)
	result.ID = t.id
	return result
}

// unfit tells why the transaction cannot be committed, nil if it can.
func (t *Transaction) unfit() error {
	for _, b := range t.branches {
		if err := b.Lost(); err != nil {
			return err
		}
		if b.Failed() {
			return fmt.Errorf("the transaction has failed at node %q", b.Node().Name())
		}
	}
	return nil
}

// settleIfTracked records the abort of a transaction whose outcome may be asked
// for. Nobody needs to wait for it: without the record an abort is presumed.
func (t *Transaction) settleIfTracked(writing []*participant.Branch) {
	if t.tracked {
		t.c.settleLater(t.id, t.participants(writing))
	}
}

// release ends the read-only branches. Their answers change nothing.
func (t *Transaction) release(reading []*participant.Branch, outcome Outcome) {
	if outcome != Committed {
		t.rollbackBranches(reading)
		return
	}
	deadline := time.Now().Add(t.c.cfg.FinishTimeout)
	var sent []*participant.Branch
	for _, b := range reading {
		if b.Open() && b.SendCommit() == nil {
			sent = append(sent, b)
		}
	}
	for _, b := range sent {
		_, _ = b.ReceiveCommit(deadline)
	}
}

// commitOnePhase commits the only branch that wrote. There is no record: if the
// answer is lost, nobody will ever know (I5: 08007 without an id).
func (t *Transaction) commitOnePhase(b *participant.Branch) Result {
	if err := b.SendCommit(); err != nil {
		return Result{Outcome: Unknown, Err: err}
	}
	t.c.pass(pointOnePhaseSent)
	began := time.Now()
	answer, err := b.ReceiveCommit(time.Now().Add(t.c.cfg.PrepareTimeout))
	if err != nil {
		return Result{Outcome: Unknown, Err: err}
	}
	t.phaseDone(PhaseCommit, b.Node().Name(), began)
	t.c.pass(pointOnePhaseDone)
	if !answer.Committed {
		reason := errRolledBackAtCommit
		if answer.Err != nil {
			reason = answer.Err
		}
		return Result{Outcome: Aborted, Err: reason, Notices: answer.Notices}
	}
	return Result{Outcome: Committed, Notices: answer.Notices}
}

// commitTwoPhase is the protocol of doc.go. A crash before decide leaves
// prepared branches and no decision: presumed abort. A crash after it leaves a
// decision and perhaps prepared branches: recovery commits them.
func (t *Transaction) commitTwoPhase(writing []*participant.Branch) Result {
	t.changing = changingFirst(writing) // in phase two (I9); gids and branch records tell of it
	names := t.participants(writing)
	votes, notices := t.prepare(writing, names)
	for i, b := range writing {
		b.ForbidCancel()
		// The connection that voted must still be whole when we decide: one that
		// has failed since may tell of a node that has lost the vote.
		if votes[i].Yes && !b.StillWhole() {
			votes[i].Yes = false
			votes[i].Err = &participant.LostError{Node: b.Node().Name(), Err: errFailedAfterVote}
		}
	}
	if err := firstNo(votes); err != nil {
		t.giveUp(writing, names, votes)
		return Result{Outcome: Aborted, Err: err, Notices: notices}
	}
	t.c.pass(pointVoted)

	began := time.Now()
	decided := t.decide(names)
	t.phaseDone(PhaseDecide, "", began)
	switch {
	case decided.decision == Commit:
		t.c.pass(pointDecided)
		return Result{Outcome: Committed, Notices: notices, Unfinished: t.finish(writing)}
	case decided.decision == Abort:
		if !t.rollbackPrepared(writing, votes) {
			t.c.handOver(t.id)
		}
		return Result{Outcome: Aborted, Err: decided.err, Notices: notices}
	case decided.undecided:
		// There is, and will be, no decision: giving up is ours to do (I4).
		t.giveUp(writing, names, votes)
		return Result{Outcome: Aborted, Err: decided.err, Notices: notices}
	}
	t.c.handOver(t.id)
	return Result{Outcome: Unknown, Err: decided.err, Notices: notices}
}

// prepare runs phase one on all writing branches in parallel: everything is
// sent before the first answer is read.
func (t *Transaction) prepare(writing []*participant.Branch, names []string) ([]participant.Vote, []*pgconn.PgError) {
	votes := make([]participant.Vote, len(writing))
	missing := func(i int, err error) {
		votes[i] = participant.Vote{Prepared: true, Err: err}
	}
	for i, b := range writing {
		if err := b.SendPrepare(t.gid(b), participant.BranchRecord{Participants: names, Role: t.role, Key: t.key}); err != nil {
			missing(i, err)
		}
		if i == 0 {
			t.c.pass(pointFirstPrepareSent)
		}
	}
	t.c.pass(pointPrepareSent)
	var notices []*pgconn.PgError
	began := time.Now()
	deadline := time.Now().Add(t.c.cfg.PrepareTimeout)
	for i, b := range writing {
		if votes[i].Err != nil {
			continue
		}
		vote, err := b.ReceiveVote(deadline)
		if err != nil {
			missing(i, err)
			continue
		}
		t.phaseDone(PhasePrepare, b.Node().Name(), began)
		votes[i] = vote
		notices = append(notices, vote.Notices...)
		if i == 0 {
			t.c.pass(pointFirstVote)
		}
	}
	return votes, notices
}

// firstNo is the reason of the first vote that is not yes, nil if all are. A
// node's own refusal is preferred to a lost connection: it says more.
func firstNo(votes []participant.Vote) error {
	var reason error
	for _, v := range votes {
		if v.Yes {
			continue
		}
		if participant.SQLState(v.Err) != "" {
			return v.Err
		}
		if reason == nil {
			reason = v.Err
		}
	}
	return reason
}

// giveUp aborts before anything was handed over to the decider. Nobody else can
// decide commit, so the prepared branches may be rolled back at once (I4). If an
// answer is missing, a PREPARE may still land: the abort is recorded so that a
// later sweep finds it (off the client's path; until then it is presumed).
func (t *Transaction) giveUp(writing []*participant.Branch, names []string, votes []participant.Vote) {
	t.c.pass(pointVotedNo)
	certain := t.rollbackPrepared(writing, votes)
	if !certain || t.tracked {
		t.c.settleLater(t.id, names)
	}
	if !certain { // after the abort is on its way: it knows the participants, recovery would not
		t.c.handOver(t.id)
	}
}

// rollbackPrepared rolls every writing branch back, whatever its state. False
// means that one of them may still be, or become, prepared.
func (t *Transaction) rollbackPrepared(writing []*participant.Branch, votes []participant.Vote) (certain bool) {
	deadline := time.Now().Add(t.c.cfg.FinishTimeout)
	certain = true
	var prepared, open []*participant.Branch
	for i, b := range writing {
		switch {
		case b.Lost() != nil:
			certain = certain && !votes[i].Prepared
		case votes[i].Prepared:
			if b.SendRollbackPrepared(t.gid(b)) != nil {
				certain = false
				continue
			}
			prepared = append(prepared, b)
		default:
			open = append(open, b)
		}
	}
	t.c.pass(pointRollbackSent)
	t.rollbackBranches(open)
	for _, b := range prepared {
		err := b.ReceiveFinish(false, deadline)
		certain = certain && (err == nil || errors.Is(err, participant.ErrGIDUnknown))
	}
	t.c.pass(pointRolledBack)
	return certain
}

// finish is phase two: COMMIT PREPARED on all in parallel, on the connections
// that prepared. It returns the nodes that have not confirmed; recovery sees to
// them. The transaction is committed whatever happens here.
//
// Branches that have only locked rows come last, in a round of their own (I9).
// All in one round, 400 of 2,000 increments under FOR UPDATE were lost. If a
// changing branch is not known to have committed, there is no second round: the
// locks stay, and recovery, which can wait, lets them go in order.
func (t *Transaction) finish(writing []*participant.Branch) (unfinished []string) {
	deadline := time.Now().Add(t.c.cfg.FinishTimeout)
	changing, locking := writing[:t.changing], writing[t.changing:]
	if len(changing) == 0 { // all have only locked: there is no order to keep
		changing, locking = locking, nil
	}
	unfinished = t.commitPrepared(changing, roundOfChanges, deadline)
	switch {
	case len(locking) == 0:
	case len(unfinished) == 0:
		t.c.pass(pointLockOnly)
		unfinished = t.commitPrepared(locking, roundOfLocks, deadline)
	default:
		for _, b := range locking {
			unfinished = append(unfinished, t.leave(b, errLocksHeld))
		}
	}
	t.c.pass(pointCommitted)
	if len(unfinished) == 0 {
		t.c.finishLater(finishedMark{id: t.id, servers: finishedBy(writing)})
	} else {
		t.c.handOver(t.id)
	}
	return unfinished
}

// round names the fault points of one round of phase two.
type round struct{ firstSent, sent, firstAnswered string }

var (
	roundOfChanges = round{pointFirstCommitSent, pointCommitSent, pointFirstCommitted}
	roundOfLocks   = round{pointFirstLockOnlySent, pointLockOnlySent, pointFirstLockOnlyDone}
)

// commitPrepared is one round of phase two. It returns the nodes that have not
// confirmed.
func (t *Transaction) commitPrepared(branches []*participant.Branch, points round, deadline time.Time) (unfinished []string) {
	errs, began := make([]error, len(branches)), time.Now()
	for i, b := range branches {
		errs[i] = b.SendCommitPrepared(t.gid(b))
		if i == 0 {
			t.c.pass(points.firstSent)
		}
	}
	t.c.pass(points.sent)
	for i, b := range branches {
		if errs[i] == nil {
			errs[i] = b.ReceiveFinish(true, deadline)
			t.phaseDone(PhaseCommitPrepared, b.Node().Name(), began)
		}
		if i == 0 {
			t.c.pass(points.firstAnswered)
		}
	}
	for i, b := range branches {
		if errs[i] != nil && !t.confirmedElsewhere(b, errs[i], deadline) {
			unfinished = append(unfinished, t.leave(b, errs[i]))
		}
	}
	return unfinished
}

// leave leaves a branch whose commit is decided to recovery.
func (t *Transaction) leave(b *participant.Branch, why error) (node string) {
	t.c.cfg.Logger.Warn("commit not finished, left to recovery",
		"transaction", t.id.String(), "node", b.Node().Name(), "error", why)
	return b.Node().Name()
}

// confirmedElsewhere: somebody else (another gateway's recovery, or a reader that
// waits for the branch) finished it before us, or is at it now. Only its visible
// branch record proves that (I8).
func (t *Transaction) confirmedElsewhere(b *participant.Branch, err error, deadline time.Time) bool {
	for errors.Is(err, participant.ErrBusy) && time.Until(deadline) > busyPause {
		time.Sleep(busyPause)
		if err = b.SendCommitPrepared(t.gid(b)); err == nil {
			err = b.ReceiveFinish(true, deadline)
		}
	}
	if err == nil {
		return true
	}
	if !errors.Is(err, participant.ErrGIDUnknown) {
		return false
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	records, err := b.Node().BranchRecords(ctx, []participant.ID{t.id})
	_, committed := records[t.id]
	return err == nil && committed
}

// busyPause is the rest before a branch that somebody else is finishing is tried
// again.
const busyPause = 2 * time.Millisecond

// gid is the transaction's name at the branch's node.
func (t *Transaction) gid(b *participant.Branch) participant.GID {
	return participant.GID{Cluster: t.c.cfg.ClusterID, ID: t.id, Node: b.Node().Name(), After: t.after(b), KeyTag: t.keyTag}
}
