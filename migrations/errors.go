package migrations

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
)

// LockedError says that a lock was not granted in time. Nothing is half done: the migration that met it was
// rolled back, and Run again is the remedy once the holder is gone.
type LockedError struct {
	Timeout time.Duration
	// Prepared are gids of prepared transactions in this database, the oldest first, which keep their locks
	// until somebody finishes them.
	Prepared []string
	Err      error
}

// Error implements error.
func (e *LockedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "a lock was not granted within %v: %v; ", e.Timeout, e.Err)
	if len(e.Prepared) == 0 {
		b.WriteString("another session holds it; when that is done, migrate again")
	} else {
		fmt.Fprintf(&b, "transactions in doubt hold theirs until they are finished (%s); when recovery has finished them, migrate again",
			strings.Join(e.Prepared, ", "))
	}
	return b.String()
}

// Unwrap gives the server's error.
func (e *LockedError) Unwrap() error { return e.Err }

// explain turns a server's error into what a person can do about it.
func (m *migrator) explain(ctx context.Context, err error) error {
	switch sqlState(err) {
	case pgerrcode.LockNotAvailable:
		return &LockedError{Timeout: m.opts.LockTimeout, Prepared: m.prepared(ctx), Err: err}
	case pgerrcode.InsufficientPrivilege:
		return fmt.Errorf("%w; the migrating role needs CREATE on the database and on schema public, as the database's owner has", err)
	case pgerrcode.ReadOnlySQLTransaction:
		return fmt.Errorf("%w; this is a standby, or the role is read-only: migrate on the primary", err)
	}
	return err
}

// prepared lists a few prepared transactions of this database. It only adds to a message, so failing to
// read them is no error of its own.
func (m *migrator) prepared(ctx context.Context) []string {
	rows, err := m.db.QueryContext(ctx, `SELECT gid FROM pg_catalog.pg_prepared_xacts
		WHERE database = pg_catalog.current_database() ORDER BY prepared LIMIT 5`)
	if err != nil {
		return nil
	}
	defer rows.Close()
	var gids []string
	for rows.Next() {
		var gid string
		if rows.Scan(&gid) != nil {
			return gids
		}
		gids = append(gids, gid)
	}
	if rows.Err() != nil {
		return nil
	}
	return gids
}
