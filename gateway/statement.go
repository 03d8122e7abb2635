package gateway

import (
	"strconv"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

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
	generation  uint64              // of the catalogs that key was made of, or the description last held against
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

// verifies tells whether a connection that parses the statement anew is asked for
// its columns, because the client may have been told which ones it returns; if
// they are others now, the client gets the error that Postgres gives. An unnamed
// statement is parsed each time and mostly runs at once: it is looked at when the
// catalogs have changed since. FETCH returns what the cursor of that name has at
// the time.
func (s *session) verifies(st *statement) bool {
	return st.description != nil && st.description.returnsRows() && st.parsed.Kind != sqlparse.Fetch &&
		(st.name != "" || st.generation != s.gw.descriptions.refresh())
}

// learns tells whether the connection that parses a named statement first is to
// describe it as well: the client has not asked, or only for a portal's columns,
// but the statement goes on returning those.
func (s *session) learns(st *statement) bool {
	if st.description != nil || st.name == "" || !st.parsed.Returns || st.parsed.Kind == sqlparse.Fetch {
		return false
	}
	st.description = s.gw.descriptions.get(st.key)
	return true
}

// learn takes a node's description of a statement that has none: first the
// parameters, then the columns.
func (s *session) learn(x *execution, frame pgwire.Frame) error {
	if frame.Type() == 't' {
		var msg pgproto3.ParameterDescription
		if err := msg.Decode(frame.Body()); err != nil {
			return err
		}
		x.learnt = &description{params: msg.ParameterOIDs}
		return nil
	}
	d := x.learnt
	if err := d.take(frame); err != nil {
		return err
	}
	st := x.portal.statement
	st.description, x.learnt = d, nil
	if st.generation == s.gw.descriptions.refresh() {
		s.gw.descriptions.add(st.key, d)
	}
	return nil
}

// verify compares a node's fresh description with what the client was told. A
// connection that has parsed another statement than the client knows forgets it:
// it must be found out each time, by every session.
func (st *statement) verify(b *participant.Branch, frame pgwire.Frame) error {
	told := st.description.frame
	if sameShape(told[pgwire.HeaderLen:], frame.Body(), told[0], frame.Type()) {
		return nil
	}
	b.ForgetStatement(st.key)
	return errStalePlan
}

// settingsOfNoPlan do not change what a statement means or returns. All others
// may: a constant such as '01/02/2020'::date is read when it is parsed.
var settingsOfNoPlan = []string{
	"application_name", "client_min_messages", "extra_float_digits", "statement_timeout", "lock_timeout",
	"idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout", "synchronous_commit",
	isolationDefault, explainName, retryName, consistencyName,
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
	st.generation = s.gw.descriptions.refresh()
	key := strconv.AppendUint(nil, st.generation, 10)
	if s.block != nil && s.block.schema > 0 {
		key = append(key, '+')
		key = strconv.AppendUint(key, s.block.schema, 10)
	}
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
		sqlparse.Prepare, sqlparse.Execute, sqlparse.CopyData, sqlparse.Explain:
		return true
	case sqlparse.Show:
		return isOwnSetting(st.parsed.Setting.Name) || isHeld(st.parsed.Setting.Name)
	case sqlparse.Select:
		return isOwnCall(st.parsed) || setsByCall(st.parsed)
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
func (s *session) dropUnnamed() { s.statements.remove("") }

// dropStatements drops all prepared statements.
func (s *session) dropStatements() { s.statements = statementSet{} }

// statementSet are a session's prepared statements by the client's name; "" is
// the unnamed one.
type statementSet struct {
	byName map[string]*statement
	bytes  int // of their names and texts
}

func (set *statementSet) get(name string) *statement { return set.byName[name] }

func (set *statementSet) add(st *statement) {
	if set.byName == nil {
		set.byName = map[string]*statement{}
	}
	set.remove(st.name)
	set.byName[st.name] = st
	set.bytes += st.size()
}

func (set *statementSet) remove(name string) {
	if st := set.byName[name]; st != nil {
		set.bytes -= st.size()
		delete(set.byName, name)
	}
}

// size is what the statement counts for in MaxStatementBytes.
func (st *statement) size() int { return len(st.name) + len(st.sql) + 4*len(st.oids) }
