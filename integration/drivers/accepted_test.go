package drivers

// knownDifference is one that is known and accepted: this section does not print the same through the gateway.
type knownDifference struct {
	driver  string // "" for every driver
	section string // "" for every section
	// reason is for the reader of docs/compatibility.md.
	reason string
	// pending is what is being built: it may be the same by now. Others that are the same are to be taken off the list, and fail the test.
	pending bool
}

// acceptedDifferences is the list; keep it short.
func acceptedDifferences() []knownDifference {
	return []knownDifference{
		{driver: "psqlODBC", section: "cursor with hold", reason: "UseDeclareFetch=1 declares its cursors WITH HOLD, which are refused (0A000): a transaction " +
			"that has opened one cannot be prepared. Without that option, and with cursors declared by SQL, it works."},
		{driver: "PDO_pgsql", section: "cursor with hold", reason: "PDO::CURSOR_SCROLL declares cursors WITH HOLD, which are refused (0A000): a transaction " +
			"that has opened one cannot be prepared. Cursors declared by SQL work."},

		{section: "copy", pending: true, reason: "COPY through the gateway is being built"},
		{driver: "asyncpg", pending: true, reason: "cannot connect: client_encoding 'utf-8' is not taken for UTF8"},
		{driver: "psql", section: "prepared", pending: true, reason: "PREPARE and EXECUTE as SQL are being built"},
		{driver: "psycopg2", section: "prepared", pending: true, reason: "PREPARE and EXECUTE as SQL are being built"},
		{driver: "psycopg 3", section: "prepared", pending: true, reason: "PREPARE and EXECUTE as SQL are being built"},
		{driver: "ruby-pg", section: "prepared", pending: true, reason: "PREPARE and EXECUTE as SQL are being built"},
		{driver: "psycopg 3", section: "cursor", pending: true, reason: "an SQL cursor is no portal of the protocol yet"},
		{driver: "ruby-pg", section: "cursor", pending: true, reason: "an SQL cursor is no portal of the protocol yet"},
		{driver: "pgjdbc", section: "cursor", pending: true, reason: "a row limit over several nodes in the series that begins the transaction"},
		{driver: "pgjdbc", section: "cancel", pending: true, reason: "follows from the section cursor"},
		{driver: "psql", section: "reconnect", pending: true, reason: "any database name is accepted"},
		{driver: "psycopg2", section: "batch", pending: true, reason: "INSERT of rows of several nodes in one statement is refused (execute_values)"},
		{driver: "SQLAlchemy", section: "batch", pending: true, reason: "INSERT of rows of several nodes in one statement is refused (flush of several objects)"},
		{driver: "pgjdbc", section: "batch rewritten", pending: true, reason: "INSERT of rows of several nodes in one statement is refused (reWriteBatchedInserts)"},
		{driver: "GORM", section: "batch", pending: true, reason: "INSERT of rows of several nodes in one statement is refused (Create of a slice)"},
		{driver: "GORM", section: "introspect", pending: true, reason: "LIMIT over several nodes is refused (ColumnTypes)"},
	}
}
