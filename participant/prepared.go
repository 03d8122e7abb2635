package participant

// Life of an UPDATE, step 12: COMMIT PREPARED.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// What a node can say to COMMIT PREPARED or ROLLBACK PREPARED other than that
// it is done.
var (
	// ErrGIDUnknown: nothing is prepared under the gid (42704). It may have been
	// finished by somebody else, never have been prepared, or have been lost by
	// a failover: the branch record tells, not this.
	ErrGIDUnknown = errors.New("no prepared transaction with this gid")
	// ErrBusy: another session is finishing it, or it is in a standby wait
	// (55000). To be retried.
	ErrBusy = errors.New("the prepared transaction is busy")
	// ErrUnconfirmed: done locally, but with a warning (a cancelled standby
	// wait): not to be counted as finished without another look.
	ErrUnconfirmed = errors.New("finished with a warning")
)

// SendCommitPrepared sends COMMIT PREPARED, alone in its message as Postgres
// demands, on the connection that prepared.
func (b *Branch) SendCommitPrepared(gid GID) error { return b.sendFinish("COMMIT PREPARED", gid) }

// SendRollbackPrepared sends ROLLBACK PREPARED.
func (b *Branch) SendRollbackPrepared(gid GID) error { return b.sendFinish("ROLLBACK PREPARED", gid) }

func (b *Branch) sendFinish(verb string, gid GID) error {
	b.begin()
	b.conn.append(&pgproto3.Query{String: verb + " '" + gid.String() + "'"})
	if b.leftRole != "" {
		// The role that the connection had, for whoever has it next: so it costs no
		// round trip. A message of its own, since COMMIT PREPARED must have one.
		b.conn.append(&pgproto3.Query{String: "SELECT pg_catalog.set_config('role'," + QuoteLiteral(b.leftRole) + ",false)"})
	}
	return b.conn.Send()
}

// ReceiveFinish reads the answer to SendCommitPrepared (commit) or
// SendRollbackPrepared. nil means done, first-hand.
func (b *Branch) ReceiveFinish(commit bool, deadline time.Time) error {
	b.conn.SetDeadline(deadline)
	defer b.conn.SetDeadline(time.Time{})
	a, err := b.conn.collect()
	if err != nil {
		return err
	}
	b.returnToRole()
	return judgeFinish(a, commit)
}

// returnToRole reads the answer to what sendFinish has sent behind its
// statement. Whatever it is, the transaction is not concerned.
func (b *Branch) returnToRole() {
	if b.leftRole == "" {
		return
	}
	// An error of the server's: the role is gone, or no longer ours to take. Release
	// then sees that the connection has not returned to it.
	if a, err := b.conn.collect(); err == nil && a.err == nil {
		b.leftRole = ""
	}
}

func judgeFinish(a answer, commit bool) error {
	tag := tagRollbackPrepared
	if commit {
		tag = tagCommitPrepared
	}
	done := a.lastTag() == tag // whatever error comes after it: see ReceiveCommit
	switch {
	case done && len(a.warnings) == 0:
		return nil
	case done:
		return fmt.Errorf("%w: %s", ErrUnconfirmed, a.warnings[0].notice.Message)
	case a.err != nil && a.err.Code == "42704":
		return ErrGIDUnknown
	case a.err != nil && a.err.Code == "55000":
		return ErrBusy
	case a.err != nil:
		return a.err
	}
	return fmt.Errorf("%s was answered %q", tag, a.lastTag())
}

// PreparedBranch is one prepared transaction found on a node.
type PreparedBranch struct {
	GID
	Prepared time.Time // by the node's clock, for people
	Age      time.Duration
	Owner    string
}

// adminConn is a connection of the node's own, apart from the branches' pool so
// that a full one never delays who uses it: one for recovery and checks, one for
// looks at lock waits, which a recovery that hangs must not hold up, and one for
// the barrier.
type adminConn struct {
	name string        // for people, as application_name
	busy chan struct{} // a lock, of which a context can stop the wait: a node may hang
	conn *Conn
}

func newAdminConn(name string) adminConn { return adminConn{name: name, busy: make(chan struct{}, 1)} }

func (a *adminConn) close() {
	a.busy <- struct{}{}
	defer func() { <-a.busy }()
	if a.conn != nil {
		a.conn.Abandon(errors.New("closed"))
		a.conn = nil
	}
}

// take has the connection for the caller alone until free is called, bounded by
// ctx.
func (a *adminConn) take(ctx context.Context, n *Node) (free func(), err error) {
	select {
	case a.busy <- struct{}{}:
		return func() { <-a.busy }, nil
	case <-ctx.Done():
		return nil, &ConnectError{Node: n.cfg.Name, Err: context.Cause(ctx)}
	}
}

// connected makes the connection if there is none that is fit.
func (a *adminConn) connected(ctx context.Context, n *Node, deadline time.Time) error {
	if a.conn != nil && !Alive(a.conn.nc) {
		a.conn.Abandon(errors.New("closed by the server"))
	}
	if a.conn != nil && a.conn.Whole() {
		return nil
	}
	c, err := n.connect(ctx)
	if err != nil {
		return err
	}
	c.SetDeadline(deadline)
	// A look must never wait behind somebody's lock, and what it reads must
	// not depend on the role's settings.
	if r, err := c.exchange("SET lock_timeout='2s';SET statement_timeout='10s';SET synchronous_commit=on;" +
		"SET client_min_messages=warning;SET default_transaction_isolation='read committed';SET application_name='" + a.name + "'"); err != nil {
		return err
	} else if r.err != nil {
		c.Abandon(r.err)
		return r.err
	}
	a.conn = c
	return nil
}

// exchange runs one statement on the connection, which is there, bounded by
// deadline and ctx.
func (a *adminConn) exchange(ctx context.Context, sql string, deadline time.Time) (answer, error) {
	c := a.conn
	c.SetDeadline(deadline)
	// A shutdown must not wait for a node that hangs.
	stop := context.AfterFunc(ctx, func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) })
	r, err := c.exchange(sql)
	if !stop() {
		c.Abandon(context.Cause(ctx)) // its deadline is nobody's any more
	}
	if err != nil {
		return r, err
	}
	c.SetDeadline(time.Time{})
	r.from = c.identity
	return r, nil
}

// adminExchange runs one statement of ours on the connection for recovery and
// checks, bounded by ctx. A refused statement is a *pgconn.PgError, as an error.
func (n *Node) adminExchange(ctx context.Context, sql string) (answer, error) {
	return n.exchangeOn(ctx, &n.admin, sql)
}

func (n *Node) exchangeOn(ctx context.Context, admin *adminConn, sql string) (answer, error) {
	free, err := admin.take(ctx, n)
	if err != nil {
		return answer{}, err
	}
	defer free()
	deadline := n.deadline(ctx)
	if err := admin.connected(ctx, n, deadline); err != nil {
		return answer{}, err
	}
	return admin.exchange(ctx, sql, deadline)
}

// deadline is ctx's, or that of one attempt to connect.
func (n *Node) deadline(ctx context.Context) time.Time {
	if deadline, ok := ctx.Deadline(); ok {
		return deadline
	}
	return time.Now().Add(n.cfg.ConnectTimeout)
}

// query is adminExchange for a statement that returns rows; a refusal is the
// error.
func (n *Node) query(ctx context.Context, sql string) ([][]string, error) {
	a, err := n.adminExchange(ctx, sql)
	if err != nil {
		return nil, err
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.rows, nil
}

// Query runs one statement of ours that returns rows (as text, null as "") on
// the node's own connection. It is for catalogs and checks, not for clients.
func (n *Node) Query(ctx context.Context, sql string) ([][]string, error) { return n.query(ctx, sql) }

// ListPrepared lists the prepared transactions of our cluster that belong to
// this node, oldest first. Others' are not even looked at (invariant I7).
func (n *Node) ListPrepared(ctx context.Context) ([]PreparedBranch, error) {
	rows, err := n.query(ctx, "SELECT gid, (extract(epoch from prepared)*1000000)::bigint::text,"+
		" (extract(epoch from pg_catalog.clock_timestamp()-prepared)*1000000)::bigint::text, owner"+
		" FROM pg_catalog.pg_prepared_xacts WHERE database=pg_catalog.current_database()"+
		" AND pg_catalog.left(gid,7)="+QuoteLiteral(gidPrefix)+" ORDER BY prepared")
	if err != nil {
		return nil, err
	}
	var found []PreparedBranch
	for _, row := range rows {
		gid, ok := ParseGID(row[0])
		if !ok || gid.Cluster != n.cfg.ClusterID || gid.Node != n.cfg.Name {
			continue
		}
		var prepared, age int64
		if _, err := fmt.Sscan(row[1]+" "+row[2], &prepared, &age); err != nil {
			return nil, fmt.Errorf("pg_prepared_xacts: %w", err)
		}
		found = append(found, PreparedBranch{GID: gid, Prepared: time.UnixMicro(prepared), Age: time.Duration(age) * time.Microsecond, Owner: row[3]})
	}
	return found, nil
}

// DeleteBranchRecords forgets the records of ids (invariant I6 is the
// caller's: only of finished transactions past their retention).
func (n *Node) DeleteBranchRecords(ctx context.Context, ids []ID) error {
	if len(ids) == 0 {
		return nil
	}
	a, err := n.adminExchange(ctx, "DELETE FROM pgpact.branches WHERE (epoch,sequence) IN ("+idList(ids)+")")
	if err != nil {
		return err
	}
	if a.err != nil {
		return a.err
	}
	if len(a.warnings) > 0 {
		return fmt.Errorf("%w: %s", ErrUnconfirmed, a.warnings[0].notice.Message)
	}
	return nil
}

// idList spells ids as SQL rows: numbers only.
func idList(ids []ID) string {
	list := make([]byte, 0, 48*len(ids))
	for i, id := range ids {
		if i > 0 {
			list = append(list, ',')
		}
		list = fmt.Appendf(list, "(%d,%d)", id.Epoch, id.Sequence)
	}
	return string(list)
}

// CommitPrepared commits a prepared branch on the node's own connection.
func (n *Node) CommitPrepared(ctx context.Context, gid GID) error { return n.finish(ctx, gid, true) }

// RollbackPrepared rolls a prepared branch back on the node's own connection.
func (n *Node) RollbackPrepared(ctx context.Context, gid GID) error { return n.finish(ctx, gid, false) }

func (n *Node) finish(ctx context.Context, gid GID, commit bool) error {
	verb := "ROLLBACK PREPARED '"
	if commit {
		verb = "COMMIT PREPARED '"
	}
	a, err := n.adminExchange(ctx, verb+gid.String()+"'")
	if err != nil {
		return err
	}
	return judgeFinish(a, commit)
}
