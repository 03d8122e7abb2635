package participant

import (
	"context"
	"errors"
)

// errNoConnection: the barrier's connection was lost since it was made.
var errNoConnection = errors.New("the connection was lost")

// What the barrier (coordinator/barrier.go) asks of a node. It has a connection
// of its own: while it asks, nobody can commit on several nodes, so it must not
// wait for recovery's statements.

// ReadyToList makes the connection that ListGIDs asks on, if there is none.
func (n *Node) ReadyToList(ctx context.Context) error {
	free, err := n.barrier.take(ctx, n)
	if err != nil {
		return err
	}
	defer free()
	return n.barrier.connected(ctx, n, n.deadline(ctx))
}

// ListGIDs lists what is prepared at the node of our cluster. It asks on the
// connection that ReadyToList has made, and makes none. The function is asked,
// not the view over it: joining owners and databases takes three times as long.
func (n *Node) ListGIDs(ctx context.Context) ([]GID, error) {
	free, err := n.barrier.take(ctx, n)
	if err != nil {
		return nil, err
	}
	defer free()
	if n.barrier.conn == nil || n.barrier.conn.err != nil {
		return nil, &ConnectError{Node: n.cfg.Name, Err: errNoConnection}
	}
	a, err := n.barrier.exchange(ctx, "SELECT gid FROM pg_catalog.pg_prepared_xact() AS p(xid,gid,prepared,owner,database)"+
		" WHERE pg_catalog.left(gid,7)="+QuoteLiteral(gidPrefix), n.deadline(ctx))
	if err != nil {
		return nil, err
	}
	if a.err != nil {
		return nil, a.err
	}
	var found []GID
	for _, row := range a.rows {
		if gid, ok := ParseGID(row[0]); ok && gid.Cluster == n.cfg.ClusterID && gid.Node == n.cfg.Name {
			found = append(found, gid)
		}
	}
	return found, nil
}
