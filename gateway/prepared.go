package gateway

import (
	"strconv"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// PREPARE and EXECUTE as SQL. As in Postgres they know the same statements as
// the protocol's Parse and Bind: what one has prepared the other runs.
//
// No node is asked to keep such a statement. It is the session's, and goes to
// its nodes as any other does, by Parse and Bind, so that it is routed by the
// values it is run with.

// prepare runs PREPARE. A node reads it, because only a node knows its types;
// what is wrong with it is then told in the node's own words and places.
func (s *session) prepare(x *execution) error {
	inner := x.st.Inner
	st := &statement{name: x.st.Prepared, sql: inner.SQL, parsed: inner}
	types, err := s.preparedTypes(x, st)
	if err != nil {
		return err
	}
	for _, word := range strings.Fields(types) {
		oid, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return err
		}
		st.oids = append(st.oids, uint32(oid))
	}
	s.giveKey(st)
	// The columns too are settled now: whoever changes the table later makes the
	// statement fail, as in Postgres.
	if err := s.describeStatement(st); err != nil {
		return err
	}
	if err := s.keepStatement(st); err != nil {
		return err
	}
	s.complete("PREPARE")
	return nil
}

// preparedTypes has a node prepare the statement as it stands, asks for the
// parameters' types, and has it forget the statement again.
func (s *session) preparedTypes(x *execution, st *statement) (string, error) {
	b, done, err := s.branchToAsk(st)
	if err != nil {
		return "", err
	}
	defer done()
	name := x.st.Prepared
	types, err := s.ask(b, statementText(x)+
		"\n;SELECT pg_catalog.array_to_string(parameter_types::oid[], ' ') FROM pg_catalog.pg_prepared_statements WHERE name = "+
		participant.QuoteLiteral(name)+";DEALLOCATE "+participant.QuoteIdentifier(name))
	if err != nil {
		b.Conn().Taint() // it may have kept the statement
	}
	return types, err
}

// keepStatement adds a statement to the session's.
func (s *session) keepStatement(st *statement) error {
	if st.name != "" && s.statements.get(st.name) != nil {
		return sqlErrorf(pgerrcode.DuplicatePreparedStatement, "prepared statement %q already exists", st.name)
	}
	limits := &s.gw.cfg
	if len(s.statements.byName) >= limits.MaxStatements {
		return sqlErrorf(pgerrcode.ProgramLimitExceeded, "too many prepared statements (limit %d)", limits.MaxStatements)
	}
	if s.statements.bytes+st.size() > limits.MaxStatementBytes {
		return sqlErrorf(pgerrcode.ProgramLimitExceeded, "prepared statements too large together (limit %d bytes)", limits.MaxStatementBytes)
	}
	s.statements.add(st)
	return nil
}

// executed is the statement that an EXECUTE names.
func (s *session) executed(st *sqlparse.Statement) (*statement, error) {
	target := s.statements.get(st.Prepared)
	if target == nil || st.Prepared == "" {
		return nil, noStatement(st.Prepared)
	}
	return target, nil
}

// execute runs EXECUTE: as a Bind of its arguments, as text, and an Execute.
func (s *session) execute(x *execution) error {
	st, err := s.executed(x.st)
	if err != nil {
		return err
	}
	switch {
	case st.parsed == nil:
		s.client.send(&pgproto3.EmptyQueryResponse{})
		return nil
	case controlsTransaction(st.parsed), st.parsed.Kind == sqlparse.Execute, st.parsed.Kind == sqlparse.Prepare:
		return sqlErrorf(pgerrcode.FeatureNotSupported, "EXECUTE of %s is not supported through the gateway",
			strings.ToUpper(st.parsed.Kind.String()))
	}
	if err := s.describeStatement(st); err != nil {
		return err
	}
	values, err := s.arguments(x, st)
	if err != nil {
		return err
	}
	p := &portal{statement: st}
	p.bind.Parameters = values
	if x.portal != nil {
		p.bind.ResultFormatCodes = x.portal.bind.ResultFormatCodes
	}
	switch {
	case len(values) > 0 && setsByCall(st.parsed):
		return refuse(refusedExecuteSetting)
	case st.runsHere():
		x.st, x.sql, x.portal = st.parsed, st.sql, nil
		return s.perform(x)
	case !st.routedLate():
		if err := s.routePortal(p); err != nil {
			return err
		}
	}
	// In the simple protocol rows are announced; in the extended one Describe of
	// the portal of EXECUTE has done that.
	x.describe = x.portal == nil && st.description.returnsRows()
	x.st, x.portal = st.parsed, p
	return s.perform(x)
}

// arguments are the values of EXECUTE's arguments as text.
func (s *session) arguments(x *execution, st *statement) ([][]byte, error) {
	types := st.description.params
	if values, ok := plainArguments(x.st, types); ok {
		return values, nil
	}
	// What the functions in them do must be nothing; that is known of those in
	// a SELECT.
	facts := *x.st.Facts
	facts.Kind = sqlparse.Select
	r, err := s.gw.router.route(s.interrupt.context(),
		&sqlparse.Statement{SQL: x.st.SQL, Facts: &facts, Literals: x.st.Literals}, nil, &s.routing)
	if err != nil {
		return nil, err
	}
	if r.writes {
		return nil, sqlError(pgerrcode.FeatureNotSupported, "arguments of EXECUTE that write are not supported through the gateway")
	}
	b, done, err := s.branchToAsk(st)
	if err != nil {
		return nil, err
	}
	defer done()
	values, err := s.askArguments(b, x, types)
	if err != nil || r.taints {
		b.Conn().Taint()
	}
	return values, err
}

// plainArguments reads arguments that every server reads alike. All others, and
// wrong ones, are for a node.
func plainArguments(st *sqlparse.Statement, types []uint32) ([][]byte, bool) {
	if len(st.ExecuteArgs) != len(types) {
		return nil, false
	}
	values := make([][]byte, len(types))
	for i := range st.ExecuteArgs {
		v := &st.ExecuteArgs[i]
		switch {
		case v.Cast != "" || v.Array:
			return nil, false
		case v.Kind == sqlparse.ValueNull:
		case v.Kind != sqlparse.ValueLiteral:
			return nil, false
		default:
			text := st.Text(*v)
			class := classOf(types[i])
			if v.Numeric {
				_, err := strconv.ParseInt(text, 10, 32)
				if err != nil || types[i] != oidInt4 && types[i] != oidInt8 {
					return nil, false
				}
			} else if _, ok := canonical(class, text); !ok || class == integerKey {
				return nil, false
			}
			values[i] = []byte(text)
		}
	}
	return values, true
}

// askArguments has a node compute the arguments, and convert them as it does
// for EXECUTE: the text of the statement runs there as it is, but for a
// statement of that name which only returns its parameters.
func (s *session) askArguments(b *participant.Branch, x *execution, types []uint32) ([][]byte, error) {
	columns := make([]string, len(types))
	for i := range types {
		columns[i] = "$" + strconv.Itoa(i+1)
	}
	name := x.st.Prepared
	b.StartSeries()
	b.Parse(&pgproto3.Parse{Name: name, Query: "SELECT " + strings.Join(columns, ","), ParameterOIDs: types})
	b.Parse(&pgproto3.Parse{Query: statementText(x)})
	b.Bind(&pgproto3.Bind{})
	b.Execute(&pgproto3.Execute{})
	b.Close(&pgproto3.Close{ObjectType: 'S', Name: name})
	b.Sync()
	if err := b.Send(); err != nil {
		return nil, err
	}
	return s.readRow(b)
}
