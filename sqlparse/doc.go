// Package sqlparse turns SQL text into the facts that routing needs: which
// tables a statement names, to which key values its rows are held, whether it
// writes, what it does to the transaction or the session, and which shapes it
// has that matter when rows of several nodes would have to be combined.
//
// The text is read by the real Postgres grammar (pg_query_go, PostgreSQL 17),
// so a statement Postgres would refuse as a syntax error is refused here with
// the same message, SQLSTATE and position, before any node is asked. The parse
// tree never leaves the package.
//
// The package is pure: no I/O, no knowledge of nodes, buckets or catalogs. It
// imports nothing of ours.
//
// # Facts are claims about every row
//
// A Condition or a ColumnPair claims that it holds for every row which the
// statement reads from or writes to that table. Leaving one out costs a
// refused or slower statement; inventing one would run a statement on the
// wrong node. Whatever is not plainly a conjunct is therefore left out.
//
// # Caching
//
// Moving a parse tree through protobuf costs 13 to 20 microseconds, so facts
// are kept in two bounded caches. The first is keyed by the exact text and
// serves statements with parameters. The second serves statements with
// constants: its key is the text with every constant replaced by a mark of its
// token kind, made by a small scanner (scan.go) that declines whatever is
// unusual. See cache.go for why such facts may be shared.
package sqlparse
