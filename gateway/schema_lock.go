package gateway

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// A schema change needs its tables' locks on all nodes. An UPDATE that holds one
// node and waits for the change on another, while the change waits for it there,
// is no deadlock to either node. So the locks are asked for on all nodes at
// once, each with a short timeout; if one is not to be had, those that were are
// let go, and after a random pause all is tried again.
//
// Tables' locks are not enough: DROP TABLE IF EXISTS of a table that is not there
// locks nothing, and a CREATE TABLE of another gateway's that commits on one node
// after the other would be passed by on the first and undone on the second. So
// every schema change holds one more lock on every node, from before its first
// statement until its branch there has committed.

// oneAtATime is that lock: transaction-level, so PREPARE TRANSACTION keeps it.
// The first number spells "pgpa".
const oneAtATime = "SELECT pg_catalog.pg_advisory_xact_lock(1885827169, 1)"

const (
	// schemaLockPatience bounds all tries together, unless the client has set
	// lock_timeout.
	schemaLockPatience = 10 * time.Second
	schemaLockTry      = "250ms"
	schemaLockPause    = 50 * time.Millisecond
)

// lockMode is the lock that a schema change takes, or one that is a little
// stronger; "" when none needs to be held on all nodes at once.
func lockMode(st *sqlparse.Statement) string {
	switch st.Kind {
	case sqlparse.Create:
		if st.Object == "TABLE" || st.Object == "INDEX" || st.Object == "TRIGGER" {
			return "SHARE ROW EXCLUSIVE"
		}
	case sqlparse.Alter, sqlparse.Drop, sqlparse.Truncate:
		return "ACCESS EXCLUSIVE"
	}
	return ""
}

// lockSQL locks the tables of the statement that there are, behind a
// semicolon; "" if there are none.
func (s *session) lockSQL(st *sqlparse.Statement) string {
	mode := lockMode(st)
	if mode == "" {
		return ""
	}
	catalog := s.routing.catalog
	if catalog == nil {
		catalog = s.gw.catalogs.Current()
	}
	var names []string
	for i := range st.Tables {
		t := catalog.lookup(st.Tables[i].Schema, st.Tables[i].Name, &s.routing).table
		if t != nil && (t.Kind == 'r' || t.Kind == 'p') {
			names = append(names, participant.QuoteIdentifier(t.Schema)+"."+participant.QuoteIdentifier(t.Name))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ";LOCK TABLE " + strings.Join(names, ", ") + " IN " + mode + " MODE"
}

// lockSchema takes the locks on all of s.branches. It returns the lock_timeout
// that is to be set again afterwards.
func (s *session) lockSchema(st *sqlparse.Statement) (previous string, err error) {
	if previous, err = s.askQuietly(s.branches[0], "SELECT pg_catalog.current_setting('lock_timeout')"); err != nil {
		return "", err
	}
	patience := timeoutSetting(previous, true)
	if patience == 0 {
		patience = schemaLockPatience
	}
	bounded := "SET LOCAL lock_timeout = " + strconv.FormatInt(patience.Milliseconds(), 10)
	if len(s.branches) == 1 {
		return previous, s.askAll(bounded)
	}
	lock := oneAtATime + s.lockSQL(st)
	deadline := time.Now().Add(patience)
	for {
		failure := s.askAll("SAVEPOINT pgpact_schema;SET LOCAL lock_timeout = '" + schemaLockTry + "';" + lock)
		if failure == nil {
			return previous, s.askAll("RELEASE SAVEPOINT pgpact_schema;" + bounded)
		}
		if !isLockFailure(failure) || time.Now().After(deadline) {
			return "", failure
		}
		if err := s.askAll("ROLLBACK TO SAVEPOINT pgpact_schema;RELEASE SAVEPOINT pgpact_schema"); err != nil {
			return "", err
		}
		pause := time.NewTimer(rand.N(schemaLockPause))
		select {
		case <-pause.C:
		case <-s.interrupt.context().Done():
			pause.Stop()
			return "", s.interrupt.context().Err()
		}
	}
}

func isLockFailure(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == pgerrcode.LockNotAvailable || pgErr.Code == pgerrcode.DeadlockDetected)
}

// askAll runs sql on all of s.branches at the same time. All answers are read;
// an error that is no matter of locks goes first.
func (s *session) askAll(sql string) error { return s.askThese(s.branches, sql) }

// askThese is askAll for some branches.
func (s *session) askThese(branches []*participant.Branch, sql string) error {
	var first error
	sent := 0
	for _, b := range branches {
		b.Query(sql)
		if first = b.Send(); first != nil {
			break
		}
		sent++
	}
	for _, b := range branches[:sent] {
		_, err := s.readFirst(b, true)
		if err != nil && (first == nil || isLockFailure(first)) {
			first = err
		}
	}
	return first
}
