package drivers

// knownDifference is one that is known and accepted: this section does not print the same through the gateway.
type knownDifference struct {
	driver  string // "" for every driver
	section string // "" for every section
	// reason is for the reader of docs/compatibility.md.
	reason string
	// readsOnly: the section changes no rows, so those afterwards must be the plain server's all the same.
	readsOnly bool
}

// acceptedDifferences is the list; keep it short.
func acceptedDifferences() []knownDifference {
	return []knownDifference{
		{driver: "psqlODBC", section: "cursor with hold", readsOnly: true, reason: "UseDeclareFetch=1 declares its cursors WITH HOLD, which are " +
			"refused (0A000): a transaction that has opened one cannot be prepared. Without that option, and with cursors declared by SQL, it works."},
		{driver: "PDO_pgsql", section: "cursor with hold", readsOnly: true, reason: "PDO::CURSOR_SCROLL declares cursors WITH HOLD, which are " +
			"refused (0A000): a transaction that has opened one cannot be prepared. Cursors declared by SQL work."},
	}
}
