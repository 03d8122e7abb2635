package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed coordinator/*.sql participant/*.sql
var files embed.FS

const (
	coordinatorSet = "coordinator"
	participantSet = "participant"

	// versionPrefix and the set's name make goose's version table. It lives with the rest, so that an
	// application that uses goose itself in the same database is not disturbed; one for each set, so that the
	// decision log may share a database with a node.
	versionPrefix = "pgpact.goose_"

	// lockID keeps migrators apart: "pgpact" in ASCII. Not goose's default, for the same reason.
	lockID = 0x706770616374
)

// Options bound what a migration may wait for. The zero value is right for almost everybody.
type Options struct {
	// LockTimeout bounds the wait for each table lock (default 3 s).
	LockTimeout time.Duration
	// MigratorTimeout bounds the wait for another migrator to finish (default 1 min; whole seconds).
	MigratorTimeout time.Duration
	// Logger hears of every applied migration; nil: nobody.
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	if o.LockTimeout <= 0 {
		o.LockTimeout = 3 * time.Second
	}
	if o.MigratorTimeout <= 0 {
		o.MigratorTimeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Report says what was done.
type Report struct {
	From, To int64    // versions before and after
	Applied  []string // file names, in order; empty if there was nothing to do
}

// Coordinator migrates the coordinator's database. The first time it also makes the cluster's id.
func Coordinator(ctx context.Context, url string, opts Options) (Report, error) {
	m, err := open(url, coordinatorSet, opts)
	if err != nil {
		return Report{}, err
	}
	defer m.close()
	return m.up(ctx)
}

// Participant migrates a node's database and then writes down who the node is, or verifies it if it was
// written before: another identity is an *IdentityError.
func Participant(ctx context.Context, url string, node NodeIdentity, opts Options) (Report, error) {
	if err := node.validate(); err != nil {
		return Report{}, err
	}
	m, err := open(url, participantSet, opts)
	if err != nil {
		return Report{}, err
	}
	defer m.close()
	// Before anything is changed: a database that belongs to another cluster is left as it is.
	if err := m.verifyIdentity(ctx, node); err != nil {
		return Report{}, err
	}
	report, err := m.up(ctx)
	if err != nil {
		return report, err
	}
	return report, m.writeIdentity(ctx, node)
}

// CoordinatorPending tells the version of the coordinator's database and the one this program wants, without
// changing anything. Version 0 is a database that was never migrated.
func CoordinatorPending(ctx context.Context, url string) (current, target int64, err error) {
	return pending(ctx, url, coordinatorSet)
}

// ParticipantPending is the same for a node.
func ParticipantPending(ctx context.Context, url string) (current, target int64, err error) {
	return pending(ctx, url, participantSet)
}

func pending(ctx context.Context, url, set string) (current, target int64, err error) {
	m, err := open(url, set, Options{})
	if err != nil {
		return 0, 0, err
	}
	defer m.close()
	current, err = m.version(ctx)
	return current, m.target(), err
}

// migrator is one set of migrations and one database.
type migrator struct {
	opts         Options
	db           *sql.DB
	provider     *goose.Provider
	versionTable string
}

func open(url, set string, opts Options) (*migrator, error) {
	sub, err := fs.Sub(files, set)
	if err != nil {
		return nil, err
	}
	return openFS(url, set, sub, opts)
}

func openFS(url, set string, files fs.FS, opts Options) (*migrator, error) {
	opts.setDefaults()
	db, err := openDB(url, opts.LockTimeout)
	if err != nil {
		return nil, err
	}
	// One try a second: goose's locker counts in those.
	tries := max(1, uint64(opts.MigratorTimeout/time.Second))
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID), lock.WithLockTimeout(1, tries))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	m := &migrator{opts: opts, db: db, versionTable: versionPrefix + set}
	m.provider, err = goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(m.versionTable), goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(opts.Logger))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return m, nil
}

// openDB opens connections on which no lock is waited for long, and on which the client's search_path plays
// no role: all our SQL names its schemas.
func openDB(url string, lockTimeout time.Duration) (*sql.DB, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err // pgx leaves the password out of its message
	}
	config.RuntimeParams["lock_timeout"] = strconv.FormatInt(lockTimeout.Milliseconds(), 10)
	config.RuntimeParams["search_path"] = "pg_catalog"
	config.RuntimeParams["synchronous_commit"] = "on"
	config.RuntimeParams["application_name"] = "pgpact migrate"
	if len(config.Fallbacks) > 0 && config.ValidateConnect == nil { // several hosts: only one can be written to
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	return stdlib.OpenDB(*config), nil
}

func (m *migrator) close() { _ = m.db.Close() }

// target is the newest version this program knows.
func (m *migrator) target() int64 {
	sources := m.provider.ListSources()
	return sources[len(sources)-1].Version
}

// version reads the newest applied version. goose's own functions would make its table first, which a mere
// question must not do.
func (m *migrator) version(ctx context.Context) (int64, error) {
	var exists bool
	err := m.db.QueryRowContext(ctx, "SELECT pg_catalog.to_regclass($1) IS NOT NULL", m.versionTable).Scan(&exists)
	if err != nil || !exists {
		return 0, err
	}
	var version int64
	err = m.db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM "+m.versionTable).Scan(&version)
	return version, err
}

// up applies what is pending.
func (m *migrator) up(ctx context.Context) (Report, error) {
	from, err := m.version(ctx)
	if err != nil {
		return Report{}, m.explain(ctx, err)
	}
	report := Report{From: from, To: from}
	if from > m.target() {
		return report, fmt.Errorf("the database is at version %d and this program knows only %d: it was migrated by a newer pgpact; use that one", from, m.target())
	}
	if err := m.ensureSchema(ctx); err != nil {
		return report, m.explain(ctx, err)
	}
	results, err := m.provider.Up(ctx)
	// What was applied before a failure stays applied, and is reported.
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		results = partial.Applied
	}
	for _, r := range results {
		report.Applied = append(report.Applied, path.Base(r.Source.Path))
		report.To = r.Source.Version
		m.opts.Logger.Info("migration applied", "file", path.Base(r.Source.Path), "duration", r.Duration)
	}
	if err != nil {
		return report, m.explain(ctx, err)
	}
	// Another migrator may have done all of it while we waited.
	report.To, err = m.version(ctx)
	return report, err
}

// ensureSchema makes schema pgpact. An administrator may have made it for a role that may make none, so it is
// looked for first: IF NOT EXISTS alone asks for the privilege all the same.
func (m *migrator) ensureSchema(ctx context.Context) error {
	for {
		var exists bool
		err := m.db.QueryRowContext(ctx, "SELECT pg_catalog.to_regnamespace('pgpact') IS NOT NULL").Scan(&exists)
		if err != nil || exists {
			return err
		}
		_, err = m.db.ExecContext(ctx, "CREATE SCHEMA pgpact")
		// Another migrator was quicker; these are the two ways Postgres tells, depending on how much.
		if code := sqlState(err); code != pgerrcode.DuplicateSchema && code != pgerrcode.UniqueViolation {
			return err
		}
	}
}

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
