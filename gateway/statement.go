package gateway

import (
	"strconv"

	"github.com/jackc/pgerrcode"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// statement is a prepared statement of the client's.
type statement struct {
	name        string
	sql         string
	parsed      *sqlparse.Statement // nil for an empty text
	oids        []uint32            // as Parse gave them, 0 or missing for the node to infer
	key         string              // in caches; "" for an unnamed one until it is needed
	description *description        // nil while no node was asked
}

// params is the number of parameters Bind must give.
func (st *statement) params() int {
	if st.parsed == nil || st.parsed.Kind == sqlparse.Prepare || st.parsed.Kind == sqlparse.Execute {
		return len(st.oids) // a $1 in PREPARE is of the statement that it makes
	}
	return max(len(st.oids), st.parsed.Params)
}

// nameAt is the name under which the branch's connection holds the statement,
// and whether it already does. The unnamed statement is parsed each time: it is
// mostly used once.
func (st *statement) nameAt(b *participant.Branch) (name string, parsed bool) {
	if st.name == "" {
		return "", false
	}
	return b.StatementName(st.key)
}

// parsedAt records that the connection has parsed the statement.
func (st *statement) parsedAt(b *participant.Branch) {
	if st.name != "" {
		b.ConfirmStatement(st.key)
	}
}

// verifiable tells whether the client has been told which columns the statement
// returns. A connection that parses it anew is then asked whether that is still
// so, and if not the client gets the error that Postgres gives.
func (st *statement) verifiable() bool {
	return st.name != "" && st.description != nil && st.description.returnsRows()
}

// verify compares a node's fresh description with what the client was told.
func (st *statement) verify(frame pgwire.Frame) error {
	told := st.description.frame
	if sameShape(told[pgwire.HeaderLen:], frame.Body(), told[0], frame.Type()) {
		return nil
	}
	return errStalePlan
}

// settingsOfNoPlan do not change what a statement means or returns. All others
// may: a constant such as '01/02/2020'::date is read when it is parsed.
var settingsOfNoPlan = []string{
	"application_name", "client_min_messages", "extra_float_digits", "statement_timeout", "lock_timeout",
	"idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout", "synchronous_commit",
}

func planKey(settings participant.Settings) string {
	for _, name := range settingsOfNoPlan {
		settings = settings.Without(name)
	}
	return settings.Key()
}

// giveKey gives the statement its key, made of everything that its meaning
// depends on.
func (s *session) giveKey(st *statement) {
	key := strconv.AppendUint(nil, s.gw.descriptions.refresh(), 10)
	for _, oid := range st.oids {
		key = append(key, ',')
		key = strconv.AppendUint(key, uint64(oid), 10)
	}
	key = append(key, 0)
	key = append(key, s.planKey...)
	key = append(key, 0)
	st.key = string(append(key, st.sql...))
}

// runsHere tells whether the gateway runs the statement without sending it to a
// node as it is.
func (st *statement) runsHere() bool {
	if st.parsed == nil || controlsTransaction(st.parsed) {
		return true
	}
	switch st.parsed.Kind {
	case sqlparse.Set, sqlparse.SetConstraints, sqlparse.Reset, sqlparse.Discard, sqlparse.Deallocate, sqlparse.Unlisten,
		sqlparse.Prepare, sqlparse.Execute, sqlparse.CopyData:
		return true
	case sqlparse.Show:
		return isOwnSetting(st.parsed.Setting.Name)
	case sqlparse.Select:
		return isOwnCall(st.parsed)
	case sqlparse.CloseCursor:
		return st.parsed.All
	}
	return false
}

// routedLate tells whether the statement's node is known only when it is run,
// and not from the router.
func (st *statement) routedLate() bool {
	switch st.parsed.Kind {
	case sqlparse.Show, sqlparse.Fetch, sqlparse.Move, sqlparse.CloseCursor:
		return true
	}
	return false
}

// controlsTransaction tells whether the statement begins or ends a transaction
// or a part of one.
func controlsTransaction(st *sqlparse.Statement) bool {
	switch st.Kind {
	case sqlparse.Begin, sqlparse.Commit, sqlparse.Rollback, sqlparse.Savepoint, sqlparse.Release, sqlparse.RollbackTo,
		sqlparse.PrepareTransaction, sqlparse.CommitPrepared, sqlparse.RollbackPrepared:
		return true
	}
	return false
}

func noStatement(name string) error {
	if name == "" {
		return sqlError(pgerrcode.InvalidSQLStatementName, "unnamed prepared statement does not exist")
	}
	return sqlErrorf(pgerrcode.InvalidSQLStatementName, "prepared statement %q does not exist", name)
}

// dropUnnamed drops the unnamed statement and portal, as every simple query and
// every Parse without a name does.
func (s *session) dropUnnamed() { delete(s.statements, "") }

// dropStatements drops all prepared statements.
func (s *session) dropStatements() { clear(s.statements) }
