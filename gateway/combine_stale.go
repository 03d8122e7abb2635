package gateway

import (
	"errors"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
)

// verify sees that a node returns the columns that the plan was made for: the
// tables may have been changed since.
func (plan *combinePlan) verify(frame pgwire.Frame) error {
	var msg pgproto3.RowDescription
	if err := msg.Decode(frame.Body()); err != nil {
		return err
	}
	if len(msg.Fields) != len(plan.columns) {
		return errStalePlan
	}
	for i := range msg.Fields {
		if msg.Fields[i].DataTypeOID != plan.columns[i] {
			return errStalePlan
		}
	}
	return nil
}

// isFormatCount recognises a node's complaint about the number of result
// formats in Bind.
func isFormatCount(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == pgerrcode.ProtocolViolation && strings.HasPrefix(pgErr.Message, "bind message has") &&
		strings.Contains(pgErr.Message, "result formats")
}

// forgetPlan drops a plan that the tables have left behind, with the
// description that it was made of.
func (s *session) forgetPlan(plan *combinePlan) {
	s.gw.plans.Remove(plan.key)
	s.gw.descriptions.remove(strings.TrimPrefix(plan.key, planPrefix))
}
