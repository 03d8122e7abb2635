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
	answer, err := b.ReceiveCommit(time.Now().Add(t.c.cfg.PrepareTimeout))
	if err != nil {
		return Result{Outcome: Unknown, Err: err}
	}
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

	decided := t.decide(names)
	switch {
	case decided.decision == Commit:
		t.c.pass(pointDecided)
		return Result{Outcome: Committed, Notices: notices, Unfinished: t.finish(writing)}
	case decided.decision == Abort:
		t.rollbackPrepared(writing, votes)
		return Result{Outcome: Aborted, Err: decided.err, Notices: notices}
	case decided.unsent:
		// Nothing was handed over after all: giving up is ours to do (I4).
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
		if err := b.SendPrepare(t.gid(b), names); err != nil {
			missing(i, err)
		}
		if i == 0 {
			t.c.pass(pointFirstPrepareSent)
		}
	}
	t.c.pass(pointPrepareSent)
	var notices []*pgconn.PgError
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
	if !t.rollbackPrepared(writing, votes) || t.tracked {
		t.c.settleLater(t.id, names)
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
	if !certain {
		t.c.handOver(t.id)
	}
	return certain
}

// finish is phase two: COMMIT PREPARED on all in parallel, on the connections
// that prepared. It returns the nodes that have not confirmed; recovery sees to
// them. The transaction is committed whatever happens here.
//
// Branches that have only locked rows come last, in a round of their own: who
// gets such a lock next must see, on every other node, what it protected. All in
// one round, 400 of 2,000 increments under FOR UPDATE were lost.
func (t *Transaction) finish(writing []*participant.Branch) (unfinished []string) {
	deadline := time.Now().Add(t.c.cfg.FinishTimeout)
	errs := make([]error, len(writing))
	var changing, locking []int
	for i, b := range writing {
		if b.OnlyLocks() {
			locking = append(locking, i)
		} else {
			changing = append(changing, i)
		}
	}
	t.commitPrepared(writing, changing, errs, deadline)
	t.commitPrepared(writing, locking, errs, deadline)
	t.c.pass(pointCommitted)
	for i, b := range writing {
		if errs[i] == nil || t.confirmedElsewhere(b, errs[i], deadline) {
			continue
		}
		t.c.cfg.Logger.Warn("commit not finished, left to recovery",
			"transaction", t.id.String(), "node", b.Node().Name(), "error", errs[i])
		unfinished = append(unfinished, b.Node().Name())
	}
	if len(unfinished) == 0 {
		t.c.finishLater(t.id)
	} else {
		t.c.handOver(t.id)
	}
	return unfinished
}

// commitPrepared is one round of phase two, on the branches with these indexes.
func (t *Transaction) commitPrepared(writing []*participant.Branch, round []int, errs []error, deadline time.Time) {
	if len(round) == 0 {
		return
	}
	for n, i := range round {
		errs[i] = writing[i].SendCommitPrepared(t.gid(writing[i]))
		if n == 0 {
			t.c.pass(pointFirstCommitSent)
		}
	}
	t.c.pass(pointCommitSent)
	for n, i := range round {
		if errs[i] == nil {
			errs[i] = writing[i].ReceiveFinish(true, deadline)
		}
		if n == 0 {
			t.c.pass(pointFirstCommitted)
		}
	}
}

// confirmedElsewhere: somebody else (another gateway's recovery) finished the
// branch before us. Only its visible branch record proves that (I8).
func (t *Transaction) confirmedElsewhere(b *participant.Branch, err error, deadline time.Time) bool {
	if !errors.Is(err, participant.ErrGIDUnknown) {
		return false
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	records, err := b.Node().BranchRecords(ctx, []participant.ID{t.id})
	return err == nil && records[t.id]
}

// gid is the transaction's name at the branch's node.
func (t *Transaction) gid(b *participant.Branch) participant.GID {
	return participant.GID{Cluster: t.c.cfg.ClusterID, ID: t.id, Node: b.Node().Name()}
}
