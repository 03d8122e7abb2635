package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/pgserver"
)

// server is one server under inspection.
type server struct {
	findings
	name    string // of the node; empty for the coordinator's
	url     string
	address string
	conn    *pgx.Conn // nil: err says why
	err     error
	facts   *serverFacts
	behind  bool // its schema lacks migrations
}

// serverFacts is what a server says of itself.
type serverFacts struct {
	version, maxPrepared, connections        int
	versionText, encoding                    string
	fsync, fullPageWrites, synchronousCommit string
	standby, readOnly                        bool
	systemIdentifier, databaseOID            string
}

// gatewayReserve is how many connections a gateway may hold at a node beside
// those of its slots: recovery's, the catalog's, and some to come and go.
const gatewayReserve = 5

func (in *inspection) newServer(label, name, url string) *server {
	return &server{findings: findings{server: label}, name: name, url: url, address: addressOf(url)}
}

// connectAll connects to all at once: several that do not answer take no
// longer than one.
func (in *inspection) connectAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range in.servers {
		wg.Go(func() {
			s.conn, s.err = connectDirect(ctx, s.url, in.cfg.ConnectTimeout)
			if s.err != nil {
				s.err = plainConnectError(s.err)
				return
			}
			if s.facts, s.err = readFacts(ctx, s.conn); s.err != nil {
				closeConn(s.conn)
				s.conn = nil
			}
		})
	}
	wg.Wait()
}

func (in *inspection) close() {
	for _, s := range in.servers {
		if s.conn != nil {
			closeConn(s.conn)
		}
	}
}

// plainConnectError leaves out what the finding says already, and the repeated
// attempts (without and with TLS) that fail in the same way.
func plainConnectError(err error) error {
	lines := strings.Split(err.Error(), "\n")
	return errors.New(strings.TrimSpace(lines[len(lines)-1]))
}

// factsSQL must be understood by servers that are too old for the rest.
const factsSQL = `SELECT current_setting('server_version_num')::int, current_setting('server_version'),
 current_setting('max_prepared_transactions')::int,
 least(CASE WHEN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN current_setting('max_connections')::int
       ELSE current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int END,
       (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
       (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())),
 current_setting('server_encoding'), current_setting('fsync'), current_setting('full_page_writes'),
 current_setting('synchronous_commit'),
 pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',
 (SELECT system_identifier::text FROM pg_control_system()),
 (SELECT oid::text FROM pg_database WHERE datname = current_database())`

func readFacts(ctx context.Context, conn *pgx.Conn) (*serverFacts, error) {
	f := &serverFacts{}
	err := conn.QueryRow(ctx, factsSQL).Scan(&f.version, &f.versionText, &f.maxPrepared, &f.connections, &f.encoding,
		&f.fsync, &f.fullPageWrites, &f.synchronousCommit, &f.standby, &f.readOnly,
		&f.systemIdentifier, &f.databaseOID)
	return f, err
}

// inspectFacts judges what holds for every server, the coordinator's included.
func (s *server) inspectFacts(cfg *Config) {
	f := s.facts
	if f.version < pgserver.OldestMajor*10000 {
		s.add(danger, "PostgreSQL %s is too old: %d is the oldest that works", f.versionText, pgserver.OldestMajor)
	}
	if f.encoding != "UTF8" {
		s.add(danger, "the database's encoding is %s, and must be UTF8", f.encoding)
	}
	if f.standby {
		s.add(danger, "it is a standby (in recovery): give the address of the primary")
	}
	if f.fsync != "on" {
		s.add(danger, "fsync is off: what it has promised would not survive a crash; set fsync = on")
	}
	if f.fullPageWrites != "on" {
		s.add(warning, "full_page_writes is off: a crash of the machine can destroy pages, unless the file system rules that out; set full_page_writes = on")
	}
	if f.synchronousCommit == "off" {
		s.add(note, "synchronous_commit is off: a crash of the server can take back the last commits of transactions on this node alone (those over several nodes set it themselves)")
	}
	if f.readOnly {
		s.add(warning, "default_transaction_read_only is on for this role or database: clients' writes would be refused")
	}
	needed := gatewayReserve
	if s.name != "" {
		needed += cfg.Slots
	}
	if f.connections < needed {
		s.add(warning, "it lets this role have %d connections, and this gateway may need %d (slots plus %d): raise max_connections or the role's limit, or lower slots",
			f.connections, needed, gatewayReserve)
	}
}

// inspectPreparing judges what a node needs for two-phase commit.
func (s *server) inspectPreparing(cfg *Config) {
	switch have := s.facts.maxPrepared; {
	case have == 0:
		s.add(danger, "max_prepared_transactions is 0, so nothing can be prepared: set it to %d or more and restart the server", cfg.Slots)
	case have < cfg.Slots:
		s.add(warning, "max_prepared_transactions is %d, below the %d slots of this gateway: raise it and restart the server, or lower slots", have, cfg.Slots)
	}
}

// inspectVersion compares the schema's version; false when nothing in the
// schema can be relied upon.
func (s *server) inspectVersion(ctx context.Context, pending func(context.Context, string) (int64, int64, error)) bool {
	current, target, err := pending(ctx, s.url)
	switch {
	case err != nil:
		s.add(danger, "the version of its schema cannot be read: %v", err)
		return false
	case current == 0:
		s.add(danger, "it was never migrated: run pgpact migrate")
		return false
	case current < target:
		s.behind = true
		s.add(danger, "its schema is at version %d, and this program needs %d: run pgpact migrate", current, target)
	case current > target:
		s.add(danger, "its schema is at version %d, and this program knows only %d: it was migrated by a newer pgpact; use that one", current, target)
	}
	return true
}

// privilege is what the role must be allowed, as has_table_privilege counts;
// every one of the words is needed.
type privilege struct{ table, words string }

// inspectPrivileges looks for privileges that the role lacks.
func (s *server) inspectPrivileges(ctx context.Context, worth severity, needed []privilege) {
	for _, p := range needed {
		var missing []string
		for word := range strings.SplitSeq(p.words, ", ") {
			var has bool
			err := s.conn.QueryRow(ctx, "SELECT has_table_privilege($1::text, $2::text)", p.table, word).Scan(&has)
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && s.behind && pgErr.Code == "42P01" {
				missing = nil
				break // migrate makes the table, as has been said
			}
			if err != nil {
				s.add(worth, "privileges on %s cannot be read: %s", p.table, serverMessage(err))
				missing = nil
				break
			}
			if !has {
				missing = append(missing, word)
			}
		}
		if len(missing) > 0 {
			words, user := strings.Join(missing, ", "), s.conn.Config().User
			s.add(worth, "role %s lacks %s on %s: GRANT %s ON %s TO %s", user, words, p.table, words, p.table,
				pgx.Identifier{user}.Sanitize())
		}
	}
}

// serverMessage is a server's error without its code and severity.
func serverMessage(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Message
	}
	return err.Error()
}

// inspectPrepared looks for prepared transactions that have stayed.
func (s *server) inspectPrepared(ctx context.Context, c *cluster, age time.Duration) {
	rows, err := s.conn.Query(ctx, `SELECT gid, (clock_timestamp() - prepared)::interval(0)::text FROM pg_prepared_xacts
		WHERE database = current_database() AND prepared < clock_timestamp() - $1::interval ORDER BY prepared`, age)
	if err != nil {
		s.add(warning, "pg_prepared_xacts cannot be read: %v", err)
		return
	}
	var gid, old string
	_, err = pgx.ForEachRow(rows, []any{&gid, &old}, func() error {
		if c != nil && strings.HasPrefix(gid, "pgpact/"+c.id+"/") {
			s.add(warning, "transaction %s has been in doubt for %s: no gateway could finish it; pgpact transactions says more", gid, old)
		} else {
			s.add(note, "prepared transaction %q is not of this cluster and is %s old: it keeps its locks, and nobody here will touch it", gid, old)
		}
		return nil
	})
	if err != nil {
		s.add(warning, "pg_prepared_xacts cannot be read: %v", err)
	}
}
