package coordinator

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgpact/pgpact/participant"
)

// The barrier's part of the decision log: the lock on pgpact.gate, and the one
// question that is asked under it.

var errGateLost = errors.New("the transaction that held the gate's lock has been ended")

// lockGate begins a transaction that keeps decisions to commit from being made.
// Each of its statements sees what was committed before it. The server ends it
// when the window stands still for longer than it may last: a gateway that is
// frozen, or whose machine is gone, holds decisions up no longer.
func (c *logConn) lockGate(ctx context.Context, times barrierTimes) error {
	err := c.simple(ctx, fmt.Sprintf("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout='%dms'; SET LOCAL statement_timeout='%dms';"+
		" SET LOCAL idle_in_transaction_session_timeout='%[2]dms'; LOCK TABLE pgpact.gate IN SHARE MODE",
		times.lock.Milliseconds(), times.whole.Milliseconds()), "LOCK TABLE", 'T')
	if err != nil && !c.pg.IsClosed() {
		_ = c.simple(ctx, "ROLLBACK", "ROLLBACK", 'I')
	}
	return err
}

// releaseGate ends the transaction. nil: the lock was held until now.
func (c *logConn) releaseGate(ctx context.Context) error {
	if c.pg.IsClosed() {
		return errGateLost
	}
	return c.simple(ctx, "COMMIT", "COMMIT", 'I')
}

// simple runs one simple message. Its last tag, and the status afterwards, must
// be these: COMMIT of a transaction that has failed is answered ROLLBACK, and is
// no error.
func (c *logConn) simple(ctx context.Context, sql, tag string, status byte) error {
	results, err := c.pg.Exec(ctx, sql).ReadAll()
	switch {
	case err != nil && participant.SQLState(err) != "" && !c.pg.IsClosed():
		return err
	case err != nil:
		c.close()
		return err
	case len(results) == 0 || results[len(results)-1].CommandTag.String() != tag || c.pg.TxStatus() != status:
		c.close()
		return errGateLost
	}
	return nil
}

const committedOfSQL = `SELECT t.epoch::text||'/'||t.sequence::text FROM pgpact.transactions t
 JOIN unnest($1::bigint[],$2::bigint[]) u(e,s) ON t.epoch=u.e AND t.sequence=u.s WHERE t.outcome='committed'`

// committedOf tells which of ids are committed, in the transaction that holds
// the gate.
func (c *logConn) committedOf(ctx context.Context, ids []participant.ID) (map[participant.ID]bool, error) {
	committed := map[participant.ID]bool{}
	if len(ids) == 0 {
		return committed, nil
	}
	epochs, sequences := idArrays(ids)
	result := c.pg.ExecParams(ctx, committedOfSQL, [][]byte{[]byte(epochs), []byte(sequences)}, nil, nil, nil).Read()
	if result.Err == nil && (c.pg.IsClosed() || c.pg.TxStatus() != 'T') {
		result.Err = errGateLost
	}
	if result.Err != nil {
		return nil, result.Err
	}
	for _, row := range result.Rows {
		id, err := participant.ParseID(string(row[0]))
		if err != nil {
			return nil, err
		}
		committed[id] = true
	}
	return committed, nil
}
