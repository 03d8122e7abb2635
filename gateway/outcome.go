package gateway

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// Questions about transactions, which the gateway answers itself:
//
//	SELECT pgpact.outcome('<id>')           committed, aborted or in progress
//	SELECT pgpact.outcome_of_key('<key>')   committed <id>, or not committed so far
//	SHOW pgpact.in_doubt                    what is in doubt, unfinished or damaged, on all nodes

const (
	outcomeFunction      = "outcome"
	outcomeOfKeyFunction = "outcome_of_key"
	inDoubtName          = ownPrefix + "in_doubt"
)

// askTimeout bounds a question. An answer may have to wait until the living have
// taken their locks again, or for a node that may hold a proof.
const askTimeout = 10 * time.Second

// isOwnCall tells whether the statement is a question to the gateway.
func isOwnCall(st *sqlparse.Statement) bool {
	return st.Call != nil && st.Call.Schema == "pgpact" &&
		(st.Call.Name == outcomeFunction || st.Call.Name == outcomeOfKeyFunction) && len(st.Call.Args) == 1
}

// callDescription describes a question: one text parameter at most, one column.
func callDescription(st *sqlparse.Statement) *description {
	d := showDescription(st.Call.Column)
	for range st.Params {
		d.params = append(d.params, oidText)
	}
	return d
}

// callOwn answers a question.
func (s *session) callOwn(x *execution) error {
	argument, null, err := x.argument(x.st.Call.Args[0])
	if err != nil {
		return err
	}
	var answer []byte // NULL for NULL, as a strict function
	if !null {
		ctx, cancel := context.WithTimeout(s.interrupt.context(), askTimeout)
		defer cancel()
		text, err := s.answer(ctx, x.st.Call.Name, argument)
		if err != nil {
			return err
		}
		answer = []byte(text)
	}
	if x.portal == nil {
		s.client.send(showDescription(x.st.Call.Column).rowDescription(nil))
	}
	s.client.send(&pgproto3.DataRow{Values: [][]byte{answer}})
	s.complete("SELECT 1")
	return nil
}

func (s *session) answer(ctx context.Context, function, argument string) (string, error) {
	if function == outcomeOfKeyFunction {
		winner, found, err := s.gw.coordinator.AskKey(ctx, s.user(), argument)
		if err != nil {
			return "", err
		}
		if found {
			return "committed " + winner.String(), nil
		}
		return "not committed so far", nil
	}
	id, err := participant.ParseID(argument)
	if err != nil {
		return "", sqlError(pgerrcode.InvalidTextRepresentation, err.Error())
	}
	decision, err := s.gw.coordinator.AskOutcome(ctx, id)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "", withHint(sqlErrorf(pgerrcode.ObjectNotInPrerequisiteState, "the outcome of transaction %s cannot be told yet", id),
			"Ask again: the answer may depend on a node or database that cannot be reached now.")
	case err != nil:
		return "", err
	case decision == coordinator.NoDecision:
		return "in progress", nil
	}
	return decision.String(), nil
}

// argument is the text of a call's argument.
func (x *execution) argument(v sqlparse.Value) (text string, null bool, err error) {
	switch v.Kind {
	case sqlparse.ValueNull:
		return "", true, nil
	case sqlparse.ValueLiteral:
		return x.st.Text(v), false, nil
	case sqlparse.ValueParam:
		if x.portal == nil {
			return "", false, sqlErrorf(pgerrcode.UndefinedParameter, "there is no parameter $%d", v.Param)
		}
		data := x.portal.bind.Parameters[v.Param-1]
		return string(data), data == nil, nil
	}
	return "", false, sqlError(pgerrcode.FeatureNotSupported, "the argument must be a constant or a parameter")
}

// inDoubtColumns are the columns of SHOW pgpact.in_doubt.
var inDoubtColumns = []string{"id", "state", "decision", "prepared_on", "participants", "age", "gateway", "gateway_alive"}

func inDoubtDescription() *description { return textDescription(inDoubtColumns) }

// showInDoubt runs SHOW pgpact.in_doubt. A node that cannot be asked is a
// warning: what the others show is worth knowing meanwhile.
func (s *session) showInDoubt(x *execution) error {
	ctx, cancel := context.WithTimeout(s.interrupt.context(), askTimeout)
	defer cancel()
	list, err := s.gw.coordinator.Transactions(ctx)
	if err != nil {
		if list == nil {
			return err
		}
		s.warn(sqlError(pgerrcode.Warning, err.Error()))
	}
	if x.portal == nil {
		s.client.send(inDoubtDescription().rowDescription(nil))
	}
	for _, info := range list {
		if info.State == coordinator.StateForced {
			continue // in doubt no longer, to nobody but the person who forced it
		}
		s.client.send(textRow(info.ID, info.State, info.Decision, strings.Join(info.Prepared, ","), strings.Join(info.Expected, ","),
			info.Age.Round(time.Millisecond).String(), info.Gateway, strconv.FormatBool(info.Alive)))
	}
	s.complete("SHOW")
	return nil
}

func textRow(values ...string) *pgproto3.DataRow {
	row := &pgproto3.DataRow{}
	for _, v := range values {
		row.Values = append(row.Values, []byte(v))
	}
	return row
}
