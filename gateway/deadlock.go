package gateway

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
)

// What a session does about deadlocks. The coordinator finds those that span
// nodes and cancels the victim's statement, which then fails with 40P01 like one
// that its node has found (docs/adr/0014).

// freeLocks lets go what a deadlock's victim has locked on its other nodes at
// once, as Postgres does: the others wait for that, and the client may take its
// time to say ROLLBACK. A savepoint keeps what was locked before it; only its own
// part is undone.
func (s *session) freeLocks() {
	b := s.block
	if b == nil || b.t == nil || s.state != failed {
		return
	}
	if n := len(b.savepoints); n > 0 {
		// A branch that cannot do it is lost, and that is found out later.
		_ = b.broadcast("ROLLBACK TO " + participant.QuoteIdentifier(b.savepoints[n-1].name))
		return
	}
	s.portals.letGo()
	b.t.Rollback()
}

// letGo forgets where portals are open: the transaction is over at its nodes. The
// client may still close them.
func (ps *portalSet) letGo() {
	for _, p := range ps.byName {
		p.at, p.merge = nil, nil
	}
	ps.abandoned = nil
}

const lockWaitsName = ownPrefix + "lock_waits"

// lockWaitsColumns are the columns of SHOW pgpact.lock_waits.
var lockWaitsColumns = []string{"node", "pid", "transaction", "gateway", "mode", "lock", "waited", "blocked_by", "blocker", "deadlock"}

// showLockWaits runs SHOW pgpact.lock_waits: who waits for whom on all nodes now.
// A node that cannot be asked is a warning.
func (s *session) showLockWaits(x *execution) error {
	ctx, cancel := context.WithTimeout(s.interrupt.context(), askTimeout)
	defer cancel()
	waits, err := s.gw.coordinator.LockWaits(ctx)
	if err != nil {
		if waits == nil {
			return err
		}
		s.warn(sqlError(pgerrcode.Warning, err.Error()))
	}
	if x.portal == nil {
		s.client.send(textDescription(lockWaitsColumns).rowDescription(nil))
	}
	for _, w := range waits {
		s.client.send(textRow(w.Node, strconv.FormatUint(uint64(w.PID), 10), w.Transaction, w.Gateway, w.Mode, w.Lock,
			w.Waited.Round(time.Millisecond).String(), w.BlockedBy, w.Blocker, strconv.FormatBool(w.Deadlock)))
	}
	s.complete("SHOW")
	return nil
}

// textDescription describes rows of texts.
func textDescription(columns []string) *description {
	d := &description{}
	for _, name := range columns {
		d.fields = append(d.fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: oidText, DataTypeSize: -1, TypeModifier: -1})
	}
	d.frame, _ = d.rowDescription(nil).Encode(nil) // far from 1 GiB
	return d
}
