package gateway

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/sqlparse"
)

// refusal is one reason why a statement is not run. The texts take arguments
// by number (%[1]s), the same ones in all three.
type refusal struct {
	code    string
	message string
	detail  string
	hint    string
}

// notSupported is SQLSTATE 0A000, feature_not_supported.
const notSupported = "0A000"

// Every refusal of the router, so that they can be read, and kept alike, in
// one place (DESIGN section 1, promise 4: what and why, with a hint).
var (
	// A relation that cannot be used at all: %[1]s is the relation.
	refusedNoPrimaryKey = refusal{notSupported,
		"table %[1]s has no primary key", "A table is sharded by the first column of its primary key.",
		"Give the table a primary key on every node."}
	refusedKeyType = refusal{notSupported,
		"table %[1]s cannot be sharded by its primary key column \"%[2]s\" of type %[3]s",
		"A table is sharded by the first column of its primary key, which must be of type smallint, integer, bigint, text, varchar or uuid.",
		"Put a column of such a type first in the primary key."}
	refusedKeyCollation = refusal{notSupported,
		"table %[1]s cannot be sharded by its primary key column \"%[2]s\" with the nondeterministic collation \"%[3]s\"",
		"Texts that differ could be equal keys, and belong to different nodes.",
		"Use a deterministic collation for the column."}
	refusedGeneratedKey = refusal{notSupported,
		"table %[1]s cannot be sharded by its generated column \"%[2]s\"",
		"A table is sharded by the first column of its primary key, whose value must be in the statement.",
		"Put a column that is not generated first in the primary key."}
	refusedInheritance = refusal{notSupported,
		"table %[1]s cannot be used through the gateway because other tables inherit from it", "", "Name the inheriting tables."}
	refusedDifference = refusal{notSupported,
		"table %[1]s is not the same on all nodes", "", "Make the tables alike; \"pgpact check\" lists the differences."}
	refusedOwn = refusal{"42501", "permission denied for relation %[1]s.%[2]s", "The schema pgpact on the nodes belongs to the gateway.", ""}
	// pg_settings takes UPDATE as set_config, which nobody would track.
	refusedSystemWrite = refusal{"42501", "permission denied: system relation \"%[1]s\" cannot be changed through the gateway", "",
		"Use SET to change a parameter."}

	// A statement that cannot be placed on one node, nor split.
	refusedNoSingleKey = refusal{notSupported,
		"%[1]s over rows of several nodes is not supported",
		"Table %[2]s is not held to one value of its shard key \"%[3]s\".",
		"Hold every table to the same shard key value, with %[3]s = ... in WHERE or by joining on the shard keys."}
	refusedDifferentKeys = refusal{notSupported,
		"a statement with several tables must hold them all to the same shard key value",
		"Table %[1]s is held to %[2]s = %[3]s, table %[4]s to %[5]s = %[6]s.",
		"Use one statement for each key, in one transaction."}
	refusedCombination = refusal{notSupported,
		"%[1]s over several nodes is not supported", "%[2]s", "%[3]s"}
	refusedKeyValue = refusal{notSupported,
		"the shard key \"%[2]s\" of table %[1]s must be a constant or a parameter",
		"The gateway must know the value to find the row's node.", "Compute the value in the client."}
	refusedParameterType = refusal{notSupported,
		"parameter $%[1]d of type %[2]s cannot be compared with the shard key \"%[4]s\" of table %[3]s",
		"", "Declare the parameter as %[5]s."}

	// Statements that would move a row, or put it where nobody looks for it.
	refusedKeyChange = refusal{notSupported,
		"shard key column \"%[2]s\" of table %[1]s cannot be changed",
		"The row could belong to another node then.", "Delete the row and insert it again, in one transaction."}
	refusedKeySequence = refusal{notSupported,
		"the shard key \"%[2]s\" of table %[1]s must be given, for its default is a sequence of each node's own",
		"Two nodes would give the same value.", "Give the value in the statement, or use a uuid made by the client."}
	refusedKeyDefault = refusal{notSupported,
		"the shard key \"%[2]s\" of table %[1]s must be given, for its default is computed by the node",
		"The gateway must know the value to find the row's node.", "Give the value in the statement, for instance a uuid made by the client."}
	refusedOverriding = refusal{notSupported,
		"OVERRIDING USER VALUE is not supported for the shard key \"%[2]s\" of table %[1]s",
		"The node's own sequence would replace the value.", "Leave the clause out, or use OVERRIDING SYSTEM VALUE."}
	refusedTruncatedKey = refusal{notSupported,
		"value for the shard key \"%[2]s\" of table %[1]s is longer than %[3]s",
		"Its trailing spaces would be dropped when it is stored.", "Drop the trailing spaces."}
	refusedInsertShape = refusal{notSupported,
		"INSERT of rows that belong to several nodes is not supported in this form",
		"The gateway must tell the rows apart in the text.",
		"Write the rows as a plain VALUES list, without parentheses around it."}
	refusedSetInValues  = refusal{notSupported, "set-returning functions are not allowed in VALUES", "", ""}
	refusedInsertSelect = refusal{notSupported,
		"INSERT ... SELECT into table %[1]s is supported only if each row stays on its node",
		"The shard key \"%[2]s\" must be given as a constant or a parameter, or be copied from the shard key of the table that is read.",
		"Insert VALUES, in one transaction with the SELECT."}
	refusedConflictTarget = refusal{notSupported,
		"the conflict target of ON CONFLICT must contain the shard key \"%[2]s\" of table %[1]s",
		"Without it the conflicting row could be on another node.",
		"Use ON CONFLICT (%[2]s), or ON CONFLICT DO NOTHING without a target."}
	refusedMerge = refusal{notSupported, "MERGE is not supported", "",
		"Use INSERT ... ON CONFLICT, or UPDATE and INSERT in one transaction."}

	// Reference tables: %[1]s is the table.
	refusedReferenceKey   = refusal{notSupported, "reference table %[1]s has no shard key", "It has the same rows on every node.", ""}
	refusedReferenceAlone = refusal{notSupported, "a statement that changes reference table %[1]s must not change anything else", "",
		"Use statements of their own, in one transaction."}
	refusedReferenceSource = refusal{notSupported, "reference table %[1]s cannot be changed by what is in table %[2]s",
		"Each node has other rows there.", "Read them with SELECT, and give the values as constants or parameters, in one transaction."}
	refusedReferenceTriggers = refusal{notSupported, "reference table %[1]s cannot be changed because it has triggers or rules",
		"What they do might not be the same on every node.", "Drop them, or do their work in the client."}
	refusedReferenceValue = refusal{notSupported, "%[2]s is not supported in a statement that changes reference table %[1]s",
		"Each node would compute another value.", "Compute the value in the client, or with a SELECT before."}
	refusedReferenceDefault = refusal{notSupported, "column \"%[2]s\" of reference table %[1]s must be given, for its default is computed by the node",
		"Each node would make another value with %[3]s.", "Give the value in the statement."}
	refusedReferenceChoice = refusal{notSupported, "%[2]s is not supported in a statement that changes reference table %[1]s",
		"Each node might choose other rows.", "Choose the rows by their values in WHERE."}
	refusedReferenceLock = refusal{notSupported, "locking rows of reference table %[1]s together with rows of other tables is not supported",
		"They are locked on one node, which is the same for everybody.", "Use FOR UPDATE OF the other table, and lock the reference table's rows with a SELECT of its own."}
	refusedConversion = refusal{notSupported, "table %[1]s cannot be made a reference table, nor an ordinary one of it",
		"Other gateways go by what it is until they have noticed, and rows may be where they could not be found.",
		"Make a new table and copy the rows through the client."}
	refusedReferenceOption = refusal{"22023", "pgpact.reference cannot be used so: %[1]s", "",
		"Use CREATE TABLE t (...) WITH (pgpact.reference)."}

	// Functions: %[1]s is the function.
	refusedUserFunction = refusal{notSupported,
		"function %[1]s cannot be called in a statement that is not held to one shard key value",
		"The function may read or write rows, and would see those of one node only.",
		"Hold the statement to one shard key value, or declare the function IMMUTABLE if it reads no table."}
	refusedSequence = refusal{notSupported,
		"%[1]s is not supported in a statement that is not held to one shard key value",
		"Each node has sequences of its own.", "Use a uuid, or a number made by the client."}
	refusedOwnFunction = refusal{"42501", "permission denied for function %[1]s", "", ""}
	refusedSetConfig   = refusal{notSupported, "%[1]s is not supported through the gateway",
		"The gateway must know the session's parameters to give them to every node.",
		"Use SET or SET LOCAL, or SELECT set_config(...) by itself, with constants or parameters."}
	refusedSettingOfItsOwn = refusal{notSupported, "set_config of \"%[1]s\" together with other settings is not supported through the gateway",
		"", "Use a statement of its own."}
	refusedMixedSettings = refusal{notSupported, "set_config with different values of is_local in one statement is not supported through the gateway",
		"", "Use two statements."}
	refusedExecuteSetting = refusal{notSupported, "EXECUTE of set_config with arguments is not supported through the gateway",
		"", "Use SET, or the parameters of the extended protocol."}
	refusedAdvisory = refusal{notSupported, "advisory locks (%[1]s) are not supported through the gateway",
		"The lock would be held on one node only, and other sessions may use another.", "Lock a row with SELECT ... FOR UPDATE."}
	refusedLargeObject = refusal{notSupported, "large objects (%[1]s) are not supported through the gateway",
		"Each node has large objects of its own.", "Use a bytea column."}
	refusedBackend = refusal{notSupported, "%[1]s is not supported through the gateway",
		"A node's sessions belong to the gateway and serve many clients.", "Send a cancel request over the wire, or connect to the node itself."}
	refusedNotifyFunction = refusal{notSupported, "%[1]s is not supported through the gateway",
		"A transaction over several nodes cannot notify.", ""}
	refusedSnapshot = refusal{notSupported, "%[1]s is not supported through the gateway",
		"A transaction over several nodes cannot export its snapshot.", ""}
	refusedHiddenSQL = refusal{notSupported, "%[1]s is not supported through the gateway",
		"It runs SQL that the gateway cannot see and place.", "Run the query as a statement of its own."}
	refusedMaintenance = refusal{notSupported, "%[1]s is not supported through the gateway", "", "Connect to the node itself."}

	// Kinds of statements: %[1]s is the command.
	refusedSchemaObject = refusal{notSupported, "%[1]s is not supported through the gateway",
		"It belongs to a whole server, cannot be part of a transaction over several nodes, or hides SQL that the gateway could not place.",
		"Run the statement on every node; the gateway notices by itself."}
	refusedTableAs = refusal{notSupported, "%[1]s is not supported through the gateway",
		"A table is sharded by the first column of its primary key, and this one would have none.",
		"Use CREATE TABLE t (id text PRIMARY KEY, ...) and INSERT ... SELECT."}
	refusedUnique = refusal{notSupported, "%[1]s does not contain the shard key",
		"Each node would hold it true for its own rows only.", "Put the first column of the primary key into it."}
	refusedUniqueConcurrently = refusal{notSupported, "CREATE UNIQUE INDEX CONCURRENTLY is not supported through the gateway",
		"Whether it contains the shard key can be seen only when it is there.", "Leave CONCURRENTLY out."}
	refusedForeignKey = refusal{notSupported, "%[1]s does not pair the shard keys of both tables",
		"The row that it refers to could be on another node.",
		"Let the first column of the primary key refer to the first column of the other table's primary key."}
	refusedResharding = refusal{notSupported, "this would change how table %[1]s is sharded",
		"Its rows are where the values of \"%[2]s\" have put them. Name, type and place of this column must stay.",
		"Make a new table and copy the rows."}
	refusedNameReused = refusal{"55006", "table name %[1]s was in use a moment ago, with another shard key",
		"Other gateways may not have noticed yet that it is gone.", "Try again in some seconds."}
	refusedTemporary = refusal{notSupported, "temporary tables are not supported through the gateway",
		"A transaction that has used one cannot be committed on several nodes.", "Use an ordinary table."}
	refusedUtility = refusal{notSupported, "%[1]s is not supported through the gateway", "", "Run it on the nodes themselves."}
	refusedLock    = refusal{notSupported, "LOCK TABLE is not supported through the gateway", "", "Lock rows with SELECT ... FOR UPDATE."}
	refusedListen  = refusal{notSupported, "%[1]s is not supported through the gateway",
		"A transaction over several nodes cannot listen or notify.", ""}
	refusedDo = refusal{notSupported, "%[1]s is not supported through the gateway",
		"The gateway cannot see which rows the code reads and writes.", "Use statements of their own, in one transaction."}
	refusedTwoPhase = refusal{notSupported, "%[1]s is not supported through the gateway",
		"The gateway itself commits with two phases when it is needed.", "Use COMMIT and ROLLBACK."}
	refusedHold = refusal{notSupported, "WITH HOLD cursors are not supported through the gateway",
		"A transaction that has opened one cannot be committed on several nodes.", "Use a cursor without HOLD, inside the transaction."}
	refusedExplainFormat = refusal{notSupported, "EXPLAIN with FORMAT %[1]s of a statement over several nodes is not supported",
		"Several plans would have to become one document.", "Use FORMAT JSON or TEXT."}
	refusedExplainOff = refusal{notSupported, "EXPLAIN of a statement over several nodes is not supported while pgpact.explain is off",
		"There is more than one node's plan.", "SET pgpact.explain = on."}
	refusedExplainOf = refusal{notSupported, "EXPLAIN of %[1]s is not supported through the gateway yet", "", ""}
	refusedCursor    = refusal{notSupported, "a cursor of this statement over several nodes is not supported", "",
		"Hold the query to one shard key value, or fetch the rows without a cursor."}
	refusedScroll = refusal{notSupported, "a SCROLL cursor over several nodes is not supported",
		"The rows are merged as they come; there is no way back.", "Leave SCROLL out, or hold the query to one shard key value."}
	refusedBackward = refusal{notSupported, "going backward in a cursor over several nodes is not supported",
		"The rows are merged as they come; there is no way back.", "Declare the cursor again, or hold its query to one shard key value."}
	refusedFormat = refusal{notSupported, "a cursor over several nodes with columns of user-defined types gives all rows in the formats of its first FETCH",
		"Rows have been read ahead in those formats.", "Ask for the same formats with every FETCH."}
	refusedNoCursor = refusal{notSupported, "portal \"%[1]s\" cannot be used by SQL through the gateway",
		"Its rows come from several nodes, or from the gateway itself.", "Execute it by the protocol, or hold its query to one shard key value."}
	refusedCopyFile = refusal{"42501", "permission denied to COPY %[1]s", "Files and programs are the nodes' own.",
		"Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone."}
	refusedCopyFreeze = refusal{notSupported, "COPY FREEZE is not supported through the gateway",
		"The table would have to be created or truncated in the same transaction.", "Leave the option out."}
	refusedCopyEncoding = refusal{notSupported, "COPY with encoding \"%[1]s\" is not supported through the gateway",
		"The gateway must read the shard key as the nodes do.", "Use UTF8."}
	refusedCopyOnError = refusal{notSupported, "COPY with ON_ERROR is not supported through the gateway", "",
		"Load into a staging table, or check the data first."}
	refusedCopyOption = refusal{notSupported, "COPY with option \"%[1]s\" is not supported through the gateway", "", ""}
	refusedOther      = refusal{notSupported, "this statement is not supported through the gateway", "", ""}
)

// refusedRelationKinds are the relations that are no plain tables, by relkind.
var refusedRelationKinds = map[byte]refusal{
	'p': {notSupported, "partitioned table %[1]s cannot be used through the gateway", "", "Name the partition."},
	'v': {notSupported, "view %[1]s cannot be used through the gateway",
		"Each node's view shows that node's rows only.", "Use the tables."},
	'm': {notSupported, "materialized view %[1]s cannot be used through the gateway",
		"Each node's view shows that node's rows only.", "Use the tables."},
	'f': {notSupported, "foreign table %[1]s cannot be used through the gateway",
		"A foreign server takes no part in two-phase commit.", ""},
	'S': {notSupported, "sequence %[1]s cannot be used through the gateway", "Each node has sequences of its own.", ""},
}

// refusedKinds are the kinds of statements that are never run.
var refusedKinds = map[sqlparse.Kind]refusal{
	sqlparse.Merge:              refusedMerge,
	sqlparse.PrepareTransaction: refusedTwoPhase,
	sqlparse.CommitPrepared:     refusedTwoPhase,
	sqlparse.RollbackPrepared:   refusedTwoPhase,
	sqlparse.Lock:               refusedLock,
	sqlparse.Listen:             refusedListen,
	sqlparse.Notify:             refusedListen,
	sqlparse.Unlisten:           refusedListen,
	sqlparse.Do:                 refusedDo,
	sqlparse.Call:               refusedDo,
	sqlparse.Checkpoint:         refusedUtility,
	sqlparse.Vacuum:             refusedUtility,
	sqlparse.Analyze:            refusedUtility,
	sqlparse.Cluster:            refusedUtility,
	sqlparse.Reindex:            refusedUtility,
	sqlparse.Load:               refusedUtility,
	sqlparse.RefreshView:        refusedUtility,
}

// refuse makes the error that a client gets.
func refuse(why refusal, args ...any) *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: why.code, Routine: refusalNames[why],
		Message: fill(why.message, args), Detail: fill(why.detail, args), Hint: fill(why.hint, args),
	}
}

// fill leaves a text without arguments as it is: Sprintf would complain of
// what it does not use.
func fill(format string, args []any) string {
	if !strings.Contains(format, "%[") {
		return format
	}
	return fmt.Sprintf(format, args...)
}
