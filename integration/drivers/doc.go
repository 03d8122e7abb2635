// Package drivers shows that no Postgres driver can tell the gateway from a Postgres server: each one, as Debian or the Go module proxy ships
// it, runs one common script against a plain server and against a gateway with two nodes, and what it prints must be the same. Afterwards the
// rows must be the same too, and on their nodes nothing may be left prepared.
//
// A script prints "driver: NAME VERSION" and then sections, "== NAME" each. What a section does is the same for all drivers:
//
//	connect     connect in the driver's default way, what it knows of the server
//	parameters  int, bigint, text, uuid, numeric, timestamptz, null, arrays and more, in and out again
//	prepared    one statement prepared once and used with keys of both nodes
//	transfer    a transfer between the nodes, committed
//	check       a transfer that a check constraint refuses (23514), the failed block (25P02), nothing changed
//	savepoint   an error inside a savepoint, and a transfer between the nodes around it
//	batch       many statements at once: pipeline, batch, executemany
//	cursor      a cursor or a fetch size: rows in portions
//	copy        COPY in and out, where the driver has it
//	cancel      pg_sleep cancelled (57014), and the connection goes on
//	errors      the fields of errors and of notices
//	reconnect   a second connection: nothing of the first one's settings, all of its rows
//	introspect  what an ORM asks about tables
//
// Differences that are accepted stand in accepted_test.go, each with its reason. docs/compatibility.md is written by a run over all drivers.
package drivers
