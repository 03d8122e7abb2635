package gateway

// Life of an UPDATE, step 8: COMMIT, as the session sees it. How it is done is
// the coordinator's affair (coordinator/commit.go); what the client hears of it
// is decided here.

import (
	"errors"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// endTransaction runs COMMIT and ROLLBACK, with or without AND CHAIN. A COMMIT
// in a failed block rolls back, and says so in its tag.
func (s *session) endTransaction(st *sqlparse.Statement) error {
	event, tag := onCommit, "COMMIT"
	if st.Kind == sqlparse.Rollback {
		event, tag = onRollback, "ROLLBACK"
	}
	if st.Transaction != nil && st.Transaction.Chain {
		event++ // onCommitChain, onRollbackChain
		if err := s.inBlockOnly(event, tag+" AND CHAIN"); err != nil {
			return err
		}
	}
	if transitions[s.state][event].ending == rollsBack {
		tag = "ROLLBACK"
	}
	if err := s.advance(event); err != nil {
		return err
	}
	s.complete(tag)
	return nil
}

// commit commits the block on all its nodes or on none.
func (s *session) commit() error {
	b := s.leaveBlock()
	if b.t == nil {
		s.traceBlockDone(coordinator.Result{Outcome: coordinator.Committed})
		s.adopt(b)
		return nil
	}
	result := b.t.Commit()
	s.logSlowCommit(result)
	s.traceBlockDone(result)
	if result.Outcome == coordinator.Committed {
		s.stopClock()
	}
	if b.schema > 0 {
		// The session's next statement is to find what this one has made.
		s.gw.catalogs.Renew(s.interrupt.context())
	}
	for _, notice := range result.Notices {
		s.client.send(noticeResponse(notice))
	}
	if result.Outcome == coordinator.Committed {
		s.adopt(b)
		if len(result.Unfinished) > 0 {
			s.warn(unfinished(result))
		}
		return nil
	}
	s.restoreParameters(b)
	return commitError(result)
}

// commitError is why a transaction has not, or not certainly, committed.
func commitError(result coordinator.Result) error {
	if result.Outcome == coordinator.Unknown {
		return &unknownOutcome{id: result.ID, err: result.Err}
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](result.Err); ok && strings.HasPrefix(pgErr.Code, "53") && pgErr.Detail == "" {
		told := *pgErr // slots, connections, memory or disk used up: it passes
		told.Detail = "The transaction has been rolled back on every node, and can be repeated."
		return &told
	}
	if hasSQLState(result.Err) {
		return result.Err
	}
	return &rolledBack{result.Err}
}

// hasSQLState tells whether err is worded in errors.go or by a node. A warning
// taken for a refusal (a cancelled standby wait) is no error for a client.
func hasSQLState(err error) bool {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		class := pgErr.Code[:min(2, len(pgErr.Code))]
		return class != "00" && class != "01"
	}
	return nodeError(err) != nil || coordinatorError(err) != nil
}

// unfinished is the warning that a committed transaction is not visible
// everywhere yet.
func unfinished(result coordinator.Result) *pgconn.PgError {
	nodes := strings.Join(result.Unfinished, `", "`)
	warning := sqlErrorf(pgerrcode.Warning, `the transaction has committed, but node "%s" has not confirmed its part yet`, nodes)
	warning.Detail = "Transaction " + result.ID.String() + " is finished there as soon as all its nodes answer."
	return warning
}

// rollback undoes the block everywhere. It cannot fail.
func (s *session) rollback() {
	b := s.leaveBlock()
	rolledBack := coordinator.Result{Outcome: coordinator.Aborted}
	if b.t != nil {
		b.t.Rollback()
		rolledBack.ID = b.t.ID()
	}
	s.traceBlockDone(rolledBack)
	s.stopClock()
	s.restoreParameters(b)
}

// leaveBlock takes the block away from the session, and with it all that lives
// in it only.
func (s *session) leaveBlock() *block {
	b := s.block
	s.block = nil
	s.routing.catalog = nil
	s.portals.clear()
	return b
}

// adopt makes the settings of a committed block the session's, and takes back
// what SET LOCAL has made the client believe.
func (s *session) adopt(b *block) {
	s.settings = b.settings
	s.settingsChanged()
	for name, value := range b.kept {
		b.before[name] = value
	}
	s.restoreParameters(b)
}

// branchOf is a branch of the block on which reported parameters can be read,
// nil if there is none.
func (b *block) branchOf() *participant.Branch {
	if b.t != nil {
		for _, branch := range b.t.Branches() {
			if branch.Open() && branch.Lost() == nil {
				return branch
			}
		}
	}
	return nil
}
