package drivers

// knownDifference is one that is known and accepted: this section does not print the same through the gateway.
type knownDifference struct {
	driver  string // "" for every driver
	section string // "" for every section
	// reason is for the reader of docs/compatibility.md.
	reason string
	// pending is what is being built: it may be the same by now. Others that are the same are to be taken off the list, and fail the test.
	pending bool
	// readsOnly: the section changes no rows, so those afterwards must be the plain server's all the same.
	readsOnly bool
}

// What several drivers share.
const (
	portals  = "A cursor made by SQL is no portal of the protocol yet, nor the other way round (Describe, MOVE)."
	manyRows = "INSERT of rows of several nodes in one statement is refused (execute_values, flush of several objects, reWriteBatchedInserts, Create of a slice)."
)

// acceptedDifferences is the list; keep it short.
func acceptedDifferences() []knownDifference {
	return []knownDifference{
		{driver: "psqlODBC", section: "cursor with hold", readsOnly: true, reason: "UseDeclareFetch=1 declares its cursors WITH HOLD, which are " +
			"refused (0A000): a transaction that has opened one cannot be prepared. Without that option, and with cursors declared by SQL, it works."},
		{driver: "PDO_pgsql", section: "cursor with hold", readsOnly: true, reason: "PDO::CURSOR_SCROLL declares cursors WITH HOLD, which are " +
			"refused (0A000): a transaction that has opened one cannot be prepared. Cursors declared by SQL work."},

		{section: "copy", pending: true, reason: "COPY has landed since this was recorded; the drivers have not been run against it on their own yet."},
		{driver: "asyncpg", section: "cursor", pending: true, reason: portals},
		{driver: "psycopg 3", section: "cursor", pending: true, reason: portals},
		{driver: "ruby-pg", section: "cursor", pending: true, reason: portals},
		{driver: "psycopg2", section: "batch", pending: true, reason: manyRows},
		{driver: "SQLAlchemy", section: "batch", pending: true, reason: manyRows},
		{driver: "pgjdbc", section: "batch rewritten", pending: true, reason: manyRows},
		{driver: "GORM", section: "batch", pending: true, reason: manyRows},
		{driver: "GORM", section: "introspect", pending: true, readsOnly: true, reason: "LIMIT over several nodes is refused (ColumnTypes)."},
	}
}
