package gateway

// Life of an UPDATE, step 4: a query string of the simple protocol. An UPDATE
// that is alone goes from here to its node and back without anything of a
// transaction around it.

import (
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/sqlparse"
)

// queryMessage serves one Query message: everything from its text to
// ReadyForQuery.
func (s *session) queryMessage(body []byte) {
	sql, err := cString(body)
	if err == nil {
		s.dropUnnamed()
		err = s.queryString(sql)
	}
	if err != nil {
		s.report(err)
	}
	if s.block == nil {
		s.portals.clear()
	}
	s.inSeries = false
	s.readyForQuery()
}

// queryString runs the statements of one string. PostgreSQL documentation,
// "Multiple Statements in a Simple Query": without BEGIN and COMMIT in it the
// whole string is one transaction.
func (s *session) queryString(sql string) error {
	statements, err := s.gw.parser.Parse(sql)
	if err != nil {
		return err // Postgres too reads all of the string before it runs any of it
	}
	if len(statements) == 0 {
		s.client.send(&pgproto3.EmptyQueryResponse{})
		return s.advance(onFinish)
	}
	s.portals.remove("") // Postgres runs a query string in that portal
	if len(statements) == 1 {
		// The text goes on as it came, so that positions in errors, and the nodes'
		// logs, agree with what the client knows.
		run := func() error {
			if err := s.runSimple(&statements[0], sql, true); err != nil {
				return err
			}
			return s.finish()
		}
		if s.retries(&statements[0]) {
			return s.retrying(run)
		}
		return run()
	}
	for i := range statements {
		st := &statements[i]
		if err := s.advance(onSeveral); err != nil {
			return err
		}
		if err := s.runSimple(st, st.SQL, i == len(statements)-1); err != nil {
			return shifted(err, sql[:st.Start])
		}
	}
	return s.finish()
}

// runSimple runs one statement. The tag of the last is kept back while its
// commit is still to come: Postgres sends an error instead of it if that fails.
func (s *session) runSimple(st *sqlparse.Statement, sql string, last bool) error {
	if st.Reference != nil && st.Reference.SQL != "" {
		sql = st.Reference.SQL
	}
	s.hold = last && s.state == implicit
	return s.observed(s.x.simple(st, sql))
}

// finish ends the implicit transaction, if there is one, and completes the last
// statement.
func (s *session) finish() error {
	if err := s.advance(onFinish); err != nil {
		return err
	}
	s.sendHeld()
	return nil
}
