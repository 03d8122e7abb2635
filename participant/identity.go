package participant

import (
	"fmt"
	"strconv"
)

// Identity is what a server says of itself when a connection is made.
type Identity struct {
	SystemIdentifier string // made by initdb, shared by its physical standbys
	Timeline         string // decimal; a promotion begins a new one
	MaxPrepared      int    // max_prepared_transactions
	Version          int    // server_version_num
}

// SameServer tells whether nothing can have been lost between the two: a failover
// or a restore makes another timeline or another server.
func (i Identity) SameServer(other Identity) bool {
	return i.SystemIdentifier == other.SystemIdentifier && i.Timeline == other.Timeline
}

// identitySQL is asked on every new physical connection. A standby or a
// database without our tables fails it in its own words.
const identitySQL = `SELECT n.cluster_id, n.name, pg_catalog.pg_is_in_recovery(), s.system_identifier,
 CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE ('x'||pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()),1,8))::bit(32)::int::text END,
 pg_catalog.current_setting('max_prepared_transactions'), pg_catalog.current_setting('server_version_num'),
 pg_catalog.current_setting('server_encoding'), pg_catalog.current_setting('fsync'), pg_catalog.current_setting('full_page_writes')
 FROM pgpact.node n, pg_catalog.pg_control_system() s`

// verify checks, on a new connection, that the server is the node it is taken
// for, and remembers its system identifier and timeline.
func (n *Node) verify(c *Conn) error {
	a, err := c.exchange(identitySQL)
	if err != nil {
		return &ConnectError{Node: n.cfg.Name, Err: err}
	}
	refuse := func(format string, args ...any) error {
		return &IdentityError{Node: n.cfg.Name, Reason: fmt.Sprintf(format, args...)}
	}
	if a.err != nil {
		if a.err.Code == "42P01" || a.err.Code == "3F000" {
			return refuse("has no table pgpact.node: run pgpact migrate")
		}
		return &ConnectError{Node: n.cfg.Name, Err: a.err}
	}
	if len(a.rows) != 1 || len(a.rows[0]) != 10 {
		return refuse("pgpact.node holds %d rows, want 1: run pgpact migrate", len(a.rows))
	}
	row := a.rows[0]
	switch {
	case n.cfg.ClusterID != "" && row[0] != n.cfg.ClusterID:
		return refuse("belongs to cluster %q, not to %q", row[0], n.cfg.ClusterID)
	case row[1] != n.cfg.Name:
		return refuse("the server calls itself node %q", row[1])
	case row[2] != "f":
		return refuse("is a standby (in recovery)")
	case row[7] != "UTF8":
		return refuse("database encoding is %s, not UTF8", row[7])
	case row[8] != "on":
		return refuse("runs with fsync=off: what it says it has prepared would not survive a crash")
	}
	if err := n.primary.Believe(row[3], row[4]); err != nil {
		return refuse("%s", err)
	}
	maxPrepared, _ := strconv.Atoi(row[5])
	version, _ := strconv.Atoi(row[6])
	if maxPrepared == 0 {
		return refuse("max_prepared_transactions is 0: PREPARE TRANSACTION is disabled; set it and restart the server")
	}
	c.identity = &Identity{SystemIdentifier: row[3], Timeline: row[4], MaxPrepared: maxPrepared, Version: version}
	n.identity.Store(c.identity)
	return nil
}

// Identity is what the server said on the newest connection, nil before the
// first.
func (n *Node) Identity() *Identity { return n.identity.Load() }
