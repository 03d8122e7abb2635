// Package gateway is the client's side: it accepts connections, holds one wire
// session at a time, finds out where a statement belongs, sends it there and
// tells the client the truth about what became of it.
//
//   - Connections: server.go accepts, listener.go and negotiate.go deal with
//     everything before the startup packet, frontend.go is the only file that
//     knows psql-wire, client.go is the wire to one authenticated client.
//   - Sessions: session.go reads messages; state.go is the transaction's state
//     as a table; query.go and extended.go are the two protocols; execution.go
//     and relay.go run one statement on its nodes and pass the answers on.
//   - Transactions: block.go and savepoint.go are what a node that is enlisted
//     in the middle must be told; commit.go is COMMIT as the client hears it.
//   - Settings: settings.go is SET, set_config.go the same as a SELECT,
//     settings_change.go does it; held.go has those that the gateway itself holds
//     the session to, and the clock of transaction_timeout.
//   - Cursors: portal.go is what Bind makes and DECLARE makes, cursor.go what SQL
//     does with both.
//   - COPY: copy_in.go places the rows of a COPY FROM STDIN, copy_split*.go cuts
//     them out of the data, copy_format.go reads their keys, copy_lines.go turns
//     a node's line numbers into the client's, copy_wrong.go finds a node to refuse
//     what is wrong; copy_out.go joins what nodes send.
//   - Routing: catalog*.go is what the nodes' tables are, placement.go and
//     keys.go where a key lives, route*.go where a statement runs; refusals.go
//     holds the words of all refusals.
//   - SELECT over several nodes: combine_plan.go decides what each node is asked
//     (sqlparse.Combine rewrites the statement), merge_rows.go and merge_send.go
//     merge sorted rows as a stream, merge_order.go holds the orders of types,
//     merge_aggregate.go has one node combine the others' partial results.
//   - errors.go is the only place where Go errors become SQLSTATEs.
//
// Two rules stand above the rest: a statement that cannot be placed correctly is
// refused, never run on the wrong node; and COMMIT is said only when it is
// durable (invariant I5).
package gateway
