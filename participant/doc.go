// Package participant is one Postgres node as the transaction manager sees it:
// connections, the branches of transactions that run on them, and the four
// verbs of two-phase commit (PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK
// PREPARED, and the look at what is prepared). It knows no reason why it is
// asked, no other node and no client.
//
//   - [Node] is the address, the identity and the pool of one server.
//   - [Conn] is one physical connection, spoken to in frames (internal/pgwire),
//     so that rows pass through the gateway as bytes.
//   - [Branch] is a transaction's part at the node: BEGIN rides with its first
//     statement, PREPARE TRANSACTION ends it (branch.go, vote.go).
//   - [Node.CommitPrepared], [Node.RollbackPrepared], [Node.ListPrepared] and
//     [Node.BranchRecords] are recovery's verbs, on a connection of their own
//     (prepared.go).
//
// A branch record, a row of pgpact.branches written inside the branch itself,
// becomes visible exactly when the branch commits (invariant I8). It is the
// only evidence of a commit that backup, replication and failover cannot
// separate from the data; that a gid does not exist proves nothing.
package participant
