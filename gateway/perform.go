package gateway

import (
	"github.com/jackc/pgerrcode"

	"github.com/pgpact/pgpact/sqlparse"
)

// perform runs one statement of either protocol. What concerns the transaction
// or the session is done here, by the gateway; all else goes to the nodes that
// the router names.
func (s *session) perform(x *execution) error {
	if done, err := s.performControl(x.st); done {
		return err
	}
	if refusal := transitions[s.state][onStatement].refusal; refusal != nil {
		return refusal
	}
	switch x.st.Kind {
	case sqlparse.Set, sqlparse.SetConstraints, sqlparse.Reset:
		return s.performSetting(x)
	case sqlparse.Discard:
		return s.discard(x.st)
	case sqlparse.Select:
		if isOwnCall(x.st) {
			return s.callOwn(x)
		}
		if x.st.SettingCalls != nil && setsByCall(x.st) {
			return s.callSettings(x)
		}
	case sqlparse.Show:
		if isOwnSetting(x.st.Setting.Name) {
			return s.showOwn(x)
		}
		if isHeld(x.st.Setting.Name) {
			return s.showHeld(x)
		}
	case sqlparse.Prepare:
		return s.prepare(x)
	case sqlparse.Execute:
		return s.execute(x)
	case sqlparse.Explain:
		return s.explain(x)
	case sqlparse.CopyData:
		return s.copyData(x)
	case sqlparse.Deallocate:
		return s.deallocate(x.st)
	case sqlparse.DeclareCursor:
		return s.declareCursor(x)
	case sqlparse.Fetch, sqlparse.Move:
		return s.fetchCursor(x)
	case sqlparse.CloseCursor:
		return s.closeCursor(x)
	case sqlparse.Unlisten:
		s.complete("UNLISTEN") // nobody listens
		return nil
	}
	r, err := s.route(x)
	if err != nil {
		return err
	}
	if r.combine != nil && x.run && (r.combine.needed || x.maxRows > 0) {
		if err := s.planCombination(x, &r); err != nil {
			return err
		}
	}
	err = s.onNodes(x, &r)
	if x.plan != nil && x.portal == nil && s.state == idle && isStalePlan(err) {
		// Nobody was told the columns yet: with those of now it is run again.
		if err = s.planCombination(x, &r); err == nil {
			err = s.onNodes(x, &r)
		}
	}
	return err
}

// performControl runs transaction control; done is false for other statements.
func (s *session) performControl(st *sqlparse.Statement) (done bool, err error) {
	switch st.Kind {
	case sqlparse.Begin:
		return true, s.begin(st)
	case sqlparse.Commit, sqlparse.Rollback:
		return true, s.endTransaction(st)
	case sqlparse.Savepoint:
		return true, s.setSavepoint(st)
	case sqlparse.Release:
		return true, s.releaseSavepoint(st)
	case sqlparse.RollbackTo:
		return true, s.rollbackTo(st)
	case sqlparse.PrepareTransaction:
		return true, errPrepareTransaction
	case sqlparse.CommitPrepared, sqlparse.RollbackPrepared:
		return true, errPrepareTransaction
	}
	return false, nil
}

var errPrepareTransaction = withHint(
	sqlError(pgerrcode.FeatureNotSupported, "two-phase commit by the client is not supported through the gateway"),
	"COMMIT is atomic over all nodes. SET LOCAL pgpact.idempotency_key makes it safe to repeat.")

// exits tells whether a statement is accepted in a failed block.
func exits(st *sqlparse.Statement) bool {
	switch st.Kind {
	case sqlparse.Commit, sqlparse.Rollback, sqlparse.RollbackTo:
		return true
	}
	return false
}

// begin runs BEGIN and START TRANSACTION. No node hears of it before the first
// statement that needs one.
func (s *session) begin(st *sqlparse.Statement) error {
	modes := modesOf(st.Transaction)
	fresh, before := s.block == nil, s.state
	if err := s.advanceTo(onBegin, modes); err != nil {
		return err
	}
	if !fresh {
		// Postgres runs the options of a superfluous BEGIN as SET TRANSACTION.
		if err := s.setModes(modes); err != nil {
			s.state = before // a BEGIN that fails begins no block (xact.c, TBLOCK_BEGIN)
			return err
		}
	}
	if st.Transaction != nil && st.Transaction.Start {
		s.complete("START TRANSACTION")
	} else {
		s.complete("BEGIN")
	}
	return nil
}

// anyNode is the route of statements that every node answers alike.
var anyNode = route{anyNode: true}

// route says where the statement runs.
func (s *session) route(x *execution) (route, error) {
	switch x.st.Kind {
	case sqlparse.Show:
		return anyNode, nil
	case sqlparse.Fetch, sqlparse.Move, sqlparse.CloseCursor:
		return s.cursorRoute(x.st)
	}
	if x.portal != nil {
		return x.portal.here(), nil
	}
	return s.gw.router.route(s.interrupt.context(), x.st, nil, &s.routing)
}
