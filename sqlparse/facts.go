package sqlparse

// Facts is what one statement's text says, whatever its constants are. Facts
// are shared between executions and must not be changed.
type Facts struct {
	Kind Kind

	// Tables holds every relation the statement names, at any depth and once
	// per mention. References to CTEs and functions in FROM are not relations.
	Tables []Table
	// Target is the index in Tables of the relation an INSERT, UPDATE, DELETE,
	// MERGE or COPY is aimed at, else -1. Only the statement's own target: a
	// data-modifying CTE marks its table by Table.Target.
	Target int

	// Conditions are equalities that every row of their table which the
	// statement reads or writes must fulfil.
	Conditions []Condition
	// Joins are equalities between columns of two relations that hold for
	// every row taken from either: what holds one side's column to a value
	// holds the other's.
	Joins []ColumnPair
	// OneWay are equalities that work from left to right only: rows of the
	// right table matter only if they equal a row of the left one, but not the
	// reverse. They come from outer joins and from correlated or LATERAL
	// subqueries. Using one from right to left loses rows.
	OneWay []ColumnPair

	// Changes are all the INSERTs, UPDATEs, DELETEs and MERGEs, in CTEs too.
	// The fields below describe the statement's own, that is those of the
	// Change whose Table is Target.
	Changes       []Change
	Assigned      []string  // columns SET by UPDATE, ON CONFLICT DO UPDATE or MERGE's UPDATE, of the target
	InsertColumns []string  // nil: all columns in the table's order
	InsertRows    [][]Value // the VALUES rows; nil for SELECT or DEFAULT VALUES
	InsertSelect  bool      // INSERT ... SELECT (or VALUES with a shape that InsertRows cannot tell)
	DefaultValues bool      // INSERT ... DEFAULT VALUES
	OnConflict    bool
	Returning     bool // of the statement itself
	// CurrentOf is the cursor of WHERE CURRENT OF.
	CurrentOf string

	// Functions are the functions called anywhere, as written after folding.
	// Special expression forms (COALESCE, CURRENT_DATE, EXTRACT, ...) are not
	// among them, unless the grammar turns them into calls in pg_catalog.
	Functions []Function

	// Call is set when the statement is a SELECT of one function call only.
	Call *FunctionCall
	// SettingCalls is set when the statement is a SELECT of nothing but calls of
	// set_config and current_setting with plain arguments.
	SettingCalls []SettingCall

	Locking bool // FOR UPDATE ... FOR KEY SHARE anywhere
	Locks   []RowLock
	// Writes: INSERT, UPDATE, DELETE or MERGE anywhere (also in a CTE), SELECT
	// INTO, CREATE TABLE AS, COPY FROM. Other utility statements are known by
	// Kind.
	Writes bool

	// Shapes, anywhere in the statement, that matter when rows of several
	// nodes would have to be combined.
	Subquery     bool // a subquery in an expression or in FROM
	CTE          bool
	Join         bool // several relations in one FROM, UPDATE ... FROM, DELETE ... USING
	SetOperation bool
	GroupBy      bool
	Having       bool
	Distinct     bool
	OrderBy      bool // ORDER BY of a query (not of an aggregate's arguments)
	Limit        bool // LIMIT, OFFSET or FETCH FIRST
	Window       bool // OVER (...) or WINDOW
	// Chooses: some rows are taken by their order: LIMIT, OFFSET, DISTINCT ON or a
	// window function; ChoosesInside: by a query within the statement's own.
	Chooses, ChoosesInside bool
	// SessionValue is one of CURRENT_TIMESTAMP, CURRENT_USER and their kin, "" if
	// there is none.
	SessionValue string

	Params  int  // highest $n
	Returns bool // rows come back

	Transaction *TransactionControl // for the transaction control kinds
	Setting     *Setting            // for Set, SetConstraints, Show, Reset

	// Prepared is the name for Prepare, Execute, Deallocate ("" with All), and
	// the cursor's for DeclareCursor, Fetch, Move, CloseCursor ("" with All).
	// For Listen, Notify and Unlisten it is the channel.
	Prepared    string
	All         bool       // DEALLOCATE ALL, CLOSE ALL, UNLISTEN *
	Inner       *Statement // of Prepare, DeclareCursor, Explain, CREATE TABLE AS
	ExecuteArgs []Value
	Cursor      Cursor // of DECLARE
	// Direction and Count of FETCH and MOVE: "forward", "backward",
	// "absolute", "relative"; FETCH ALL has Count FetchAll.
	Direction string
	Count     int64
	Analyze   bool // EXPLAIN ANALYZE: Inner is really run
	// ExplainFormat is the value of EXPLAIN's option FORMAT, "" when it is not given.
	ExplainFormat string

	Copy *Copy

	// Object is, for DDL, the object's kind as the command tag says it: "TABLE"
	// of CREATE TABLE, "" where it is not known.
	Object       string
	Concurrently bool // CREATE/DROP/REINDEX INDEX CONCURRENTLY
	Unique       bool // CREATE UNIQUE INDEX
	Temp         bool // creates or names a temporary object
	Unlogged     bool

	// Reference is set for CREATE TABLE and ALTER TABLE with pgpact.reference.
	Reference *ReferenceOption
}

// RowLock is one FOR UPDATE ... FOR KEY SHARE clause.
type RowLock struct {
	Share bool     // FOR SHARE, FOR KEY SHARE
	Waits bool     // neither NOWAIT nor SKIP LOCKED
	Of    []string // the names in OF; nil: all relations of the query
}

// Cursor are the options of DECLARE.
type Cursor struct {
	Hold, Binary, Scroll, NoScroll, Insensitive bool
}

// FetchAll is the Count of FETCH ALL.
const FetchAll = int64(^uint64(0) >> 1)

// Table is one mention of a relation.
type Table struct {
	Schema string // "" when not given
	Name   string
	Alias  string // "" for none
	Target bool   // written to by this statement, also in a CTE
	// Level is where a SELECT mentions it.
	Level Level
	// Nullable: it stands on a side of an outer join whose rows may be missing.
	Nullable bool
}

// Level is where in a SELECT a relation is mentioned.
type Level uint8

// The levels.
const (
	LevelOther  Level = iota // in a subquery of FROM, a CTE, an arm of a set operation
	LevelTop                 // in the query's own FROM
	LevelPerRow              // in a subquery of an expression, or behind LATERAL: computed for each row of the query
)

// Function is a function by the name it is called by.
type Function struct{ Schema, Name string }

// Change is one INSERT, UPDATE, DELETE or MERGE. Its fields mean what their
// namesakes in Facts do.
type Change struct {
	Kind          Kind
	Table         int // index into Facts.Tables
	Assigned      []string
	InsertColumns []string
	InsertRows    [][]Value
	InsertSelect  bool
	DefaultValues bool
	OnConflict    bool
	// Conflict is set with OnConflict.
	Conflict *Conflict
	// Source are the columns of a plain INSERT ... SELECT; nil when they cannot
	// be told (a set operation, WITH, a star over several relations).
	Source []SourceColumn
}

// Conflict is what ON CONFLICT says of the rows it is about.
type Conflict struct {
	// Columns are the plain columns of the conflict target; with Expressions
	// they are not all of it. Without columns, expressions and a constraint
	// every conflict is meant.
	Columns     []string
	Expressions bool
	Constraint  string // ON CONSTRAINT
	Update      bool   // DO UPDATE
}

// SourceColumn is where a column of an INSERT ... SELECT comes from: a value, a
// column of a relation, or something else (Value.Kind is ValueOther and Column
// is empty).
type SourceColumn struct {
	Value Value
	// Table is an index into Facts.Tables, or -1 when Candidates tells.
	Table      int
	Candidates []int
	Column     string
	// Star stands for all columns of the table.
	Star bool
}

// Condition says: for every row of the table that the statement reads or
// writes, Column equals one of Values (or, with Value.Array, an element of
// that array). Values are constants and parameters only, NULL among the items
// of an IN list.
//
// The claim is about the table only if the table has such a column: an
// unqualified name may belong to something else in scope.
type Condition struct {
	Table int // index into Facts.Tables, or -1 when Candidates tells
	// Candidates are the tables an unqualified column may belong to. The claim
	// holds for each of them that has the column.
	Candidates []int
	Column     string
	Values     []Value
}

// ColumnPair says: the two columns are equal in every row. As with Condition,
// a table of -1 means that the candidates tell.
type ColumnPair struct {
	LeftTable, RightTable           int
	LeftColumn, RightColumn         string
	LeftCandidates, RightCandidates []int
}

// TransactionControl describes BEGIN, COMMIT, SAVEPOINT and their kin, and the
// modes of SET TRANSACTION and SET SESSION CHARACTERISTICS.
type TransactionControl struct {
	Isolation  string // "read uncommitted", "read committed", "repeatable read", "serializable" or ""
	ReadOnly   *bool
	Deferrable *bool
	Chain      bool   // AND CHAIN
	Savepoint  string // of SAVEPOINT, RELEASE, ROLLBACK TO
	GID        string // of PREPARE TRANSACTION and its kin
	Snapshot   string // SET TRANSACTION SNAPSHOT
	// Start: START TRANSACTION, not BEGIN (the command tags differ).
	Start bool
}

// Setting describes SET, RESET and SHOW.
type Setting struct {
	Name  string // folded; SET TIME ZONE is "timezone"
	Local bool
	// Value are the arguments; a word without quotes is a string constant too.
	Value []Value
	// ValueText is the text after = or TO, as it stands in the statement.
	ValueText string
	Default   bool // SET ... TO DEFAULT
	All       bool // RESET ALL, SHOW ALL
	Current   bool // FROM CURRENT
	// Transaction: SET TRANSACTION; Characteristics: SET SESSION
	// CHARACTERISTICS AS TRANSACTION. The modes are in Facts.Transaction.
	Transaction     bool
	Characteristics bool
	Deferred        bool     // SET CONSTRAINTS ... DEFERRED
	Constraints     []string // SET CONSTRAINTS a, b; nil with All
}

// Copy describes COPY.
type Copy struct {
	From    bool // COPY ... FROM
	Stdio   bool // FROM STDIN, TO STDOUT
	Program bool
	File    string
	Columns []string          // nil: all
	Options map[string]string // folded names; "true" for an option without a value
	Query   *Statement        // COPY (query) TO
	Where   bool
}
