// Package coordinator is the transaction manager: it enlists nodes, decides,
// remembers, and finishes what was left unfinished. It moves transactions, not
// statements, and needs no client and no wire.
//
// # The story of a commit
//
// commit.go tells it in one file. A transaction that wrote on one node commits
// there in one phase. One that wrote on several, or that somebody may ask about
// later (tracked), takes two:
//
//  1. PREPARE TRANSACTION on every writing branch, in parallel. Each branch
//     carries its branch record.
//  2. The decision: one row in pgpact.transactions on the decision database,
//     written by the decider (decision.go) in batches. The clean end of that
//     message is the commit point.
//  3. COMMIT PREPARED on every writing branch, in parallel, those that have only
//     locked rows after the others; then the read-only branches are released;
//     then the record is marked finished, off the client's path.
//
// Whatever stops in between is finished by any gateway's recovery (recover.go)
// from what is on disk: prepared branches, branch records and decisions.
//
// # Invariants
//
//	I1  The commit decision is durable before the first COMMIT PREPARED.
//	I2  One decision per transaction, settled by the primary key of
//	    pgpact.transactions, not by time and not by locks.
//	I3  No decision means abort (presumed abort), and whoever acts on that first
//	    writes the abort, after looking for branch records.
//	I4  A yes-voter is rolled back only when an abort is recorded, or when the
//	    live coordinator gave up before anything was sent to the decision
//	    database, or after this has refused everything that was.
//	I5  Honest answers: COMMIT only when durable, ERROR only when surely
//	    aborted, 08007 when not known.
//	I6  A record is forgotten only when all participants have applied it, its
//	    retention has passed and the horizon has moved.
//	I7  Recovery touches only our cluster's known epochs.
//	I8  A branch record is visible on a node exactly when that branch is
//	    committed there.
//	I9  A branch that has only locked rows is committed when all branches of its
//	    transaction that changed rows are seen to have committed, not before.
//	I10 Nobody commits under an idempotency key that a branch record proves to be
//	    used: that a key is free counts only in the life of the decision log in
//	    which it was found, and where keys may have been lost, by every node's word.
//
// A person may force a heuristic outcome (resolve.go) where these forbid one.
// It is recorded beside the decision before it is done, is never purged, and is
// named by `pgpact check` and `pgpact transactions` from then on: who breaks I1 to I4
// by hand shall at least not do so unnoticed.
//
// # Sources
//
// Presumed abort: Mohan, Lindsay, Obermarck, "Transaction Management in the R*
// Distributed Database Management System" (1986). Postgres documentation,
// "PREPARE TRANSACTION", "COMMIT PREPARED", "pg_prepared_xacts". What was
// learned by trial is in the repository's docs/adr.
package coordinator
