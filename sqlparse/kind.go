package sqlparse

// Kind is the kind of a statement.
type Kind uint8

// The kinds of statements. A query written as VALUES or TABLE is a Select.
const (
	Other Kind = iota
	Select
	Insert
	Update
	Delete
	Merge

	Begin // BEGIN and START TRANSACTION
	Commit
	Rollback
	Savepoint
	RollbackTo
	Release
	PrepareTransaction
	CommitPrepared
	RollbackPrepared

	Set // also SET TRANSACTION and SET SESSION CHARACTERISTICS: see Setting
	SetConstraints
	Show
	Reset
	Discard

	Prepare
	Execute
	Deallocate
	DeclareCursor
	Fetch
	Move
	CloseCursor

	CopyData // COPY
	Explain
	Lock
	Listen
	Notify
	Unlisten
	Do
	Call
	Checkpoint
	Vacuum
	Analyze
	Cluster
	Reindex
	Load

	Create // also CREATE TABLE AS and SELECT INTO
	Alter
	Drop
	Truncate
	Comment
	Grant
	Revoke
	RefreshView

	kindCount
)

var kindNames = [kindCount]string{
	Other: "other", Select: "select", Insert: "insert", Update: "update", Delete: "delete", Merge: "merge",
	Begin: "begin", Commit: "commit", Rollback: "rollback", Savepoint: "savepoint", RollbackTo: "rollback to",
	Release: "release", PrepareTransaction: "prepare transaction", CommitPrepared: "commit prepared",
	RollbackPrepared: "rollback prepared",
	Set:              "set", SetConstraints: "set constraints", Show: "show", Reset: "reset", Discard: "discard",
	Prepare: "prepare", Execute: "execute", Deallocate: "deallocate", DeclareCursor: "declare cursor",
	Fetch: "fetch", Move: "move", CloseCursor: "close cursor",
	CopyData: "copy", Explain: "explain", Lock: "lock", Listen: "listen", Notify: "notify", Unlisten: "unlisten",
	Do: "do", Call: "call", Checkpoint: "checkpoint", Vacuum: "vacuum", Analyze: "analyze", Cluster: "cluster",
	Reindex: "reindex", Load: "load",
	Create: "create", Alter: "alter", Drop: "drop", Truncate: "truncate", Comment: "comment", Grant: "grant",
	Revoke: "revoke", RefreshView: "refresh materialized view",
}

func (k Kind) String() string {
	if k < kindCount {
		return kindNames[k]
	}
	return "unknown"
}
