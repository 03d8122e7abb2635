package gateway

// A session's transaction state as a table, after CockroachDB's conn_fsm. It
// says what Postgres's xact.c says (TBLOCK_*): what each kind of statement does
// in each state. What has to be done about it (committing on several nodes,
// for instance) is elsewhere: block.go, commit.go.

import "github.com/jackc/pgx/v5/pgconn"

// txState is the state of a session's transaction.
type txState uint8

const (
	// idle: no transaction. A statement that is alone is a transaction of its
	// own at its node.
	idle txState = iota
	// implicit: a transaction that nobody asked for, around the statements of
	// one query string or of one pipeline. It ends with them. (PostgreSQL
	// documentation, "Multiple Statements in a Simple Query" and "Pipelining".)
	implicit
	// inBlock: between BEGIN and COMMIT or ROLLBACK.
	inBlock
	// failed: in a block, after an error. Only its end and ROLLBACK TO are
	// accepted.
	failed

	stateCount
)

// ready is what ReadyForQuery says in the state. An implicit transaction never
// lasts until ReadyForQuery.
func (s txState) ready() byte { return [stateCount]byte{'I', 'I', 'T', 'E'}[s] }

// txEvent is what happens to a transaction.
type txEvent uint8

const (
	// onStatement: an ordinary statement is about to run.
	onStatement txEvent = iota
	// onSeveral: a statement that may not be alone is about to run.
	onSeveral
	onBegin
	onCommit
	onCommitChain
	onRollback
	onRollbackChain
	onSavepoint // also RELEASE
	onRollbackTo
	// onError: the statement, or the message, failed.
	onError
	// onFinish: the query string or the pipeline is at its end.
	onFinish

	eventCount
)

// ending says what becomes of the transaction's work.
type ending uint8

const (
	goesOn ending = iota
	commits
	rollsBack
)

// transition is what an event leads to in a state.
type transition struct {
	next    txState
	ending  ending
	chain   bool            // a new block with the same characteristics begins
	warning *pgconn.PgError // sent as a notice
	refusal *pgconn.PgError // the statement is refused with it; nothing changes
}

var (
	errAborted = sqlError("25P02", "current transaction is aborted, commands ignored until end of transaction block")
	// errNoBlock is completed with the statement's name: see inBlockOnly.
	errNoBlock     = sqlError("25P01", "there is no transaction block")
	warnNoBlock    = sqlError("25P01", "there is no transaction in progress")
	warnBlockBegun = sqlError("25001", "there is already a transaction in progress")
)

// transitions is the table. What is not in it stays as it is.
var transitions = [stateCount][eventCount]transition{
	idle: {
		onStatement:     {next: idle},
		onSeveral:       {next: implicit},
		onBegin:         {next: inBlock},
		onCommit:        {next: idle, warning: warnNoBlock},
		onRollback:      {next: idle, warning: warnNoBlock},
		onCommitChain:   {refusal: errNoBlock},
		onRollbackChain: {refusal: errNoBlock},
		onSavepoint:     {refusal: errNoBlock},
		onRollbackTo:    {refusal: errNoBlock},
		onError:         {next: idle},
		onFinish:        {next: idle},
	},
	implicit: {
		onStatement:     {next: implicit},
		onSeveral:       {next: implicit},
		onBegin:         {next: inBlock}, // what has run so far becomes part of the block
		onCommit:        {next: idle, ending: commits, warning: warnNoBlock},
		onRollback:      {next: idle, ending: rollsBack, warning: warnNoBlock},
		onCommitChain:   {refusal: errNoBlock},
		onRollbackChain: {refusal: errNoBlock},
		onSavepoint:     {refusal: errNoBlock},
		onRollbackTo:    {refusal: errNoBlock},
		onError:         {next: idle, ending: rollsBack},
		onFinish:        {next: idle, ending: commits},
	},
	inBlock: {
		onStatement:     {next: inBlock},
		onSeveral:       {next: inBlock},
		onBegin:         {next: inBlock, warning: warnBlockBegun},
		onCommit:        {next: idle, ending: commits},
		onRollback:      {next: idle, ending: rollsBack},
		onCommitChain:   {next: inBlock, ending: commits, chain: true},
		onRollbackChain: {next: inBlock, ending: rollsBack, chain: true},
		onSavepoint:     {next: inBlock},
		onRollbackTo:    {next: inBlock},
		onError:         {next: failed},
		onFinish:        {next: inBlock},
	},
	failed: {
		onStatement:     {refusal: errAborted},
		onSeveral:       {next: failed},
		onBegin:         {refusal: errAborted},
		onCommit:        {next: idle, ending: rollsBack},
		onRollback:      {next: idle, ending: rollsBack},
		onCommitChain:   {next: inBlock, ending: rollsBack, chain: true},
		onRollbackChain: {next: inBlock, ending: rollsBack, chain: true},
		onSavepoint:     {refusal: errAborted},
		onRollbackTo:    {next: inBlock},
		onError:         {next: failed},
		onFinish:        {next: failed},
	},
}
