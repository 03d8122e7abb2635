package participant

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// An address may name several hosts: a primary and those that may be promoted in
// its place. Which of them is the primary now is found out whenever a connection
// is made, in the order in which they are named.

// errInRecovery: the host is a standby.
var errInRecovery = errors.New("is a standby (in recovery)")

// Primary tells the primary among the hosts of one address, and among all that
// were one: the address itself, a name, or a proxy may lead to a server that was
// one before a failover and was started again, which must never be believed. It
// is not known after a restart of the gateway: who promotes a standby has to
// keep the former primary away (docs/operations.md).
type Primary struct {
	mu       sync.Mutex
	system   string
	timeline int64
}

// Believe takes notice of what a server says of itself, the timeline in decimal.
// The error is that it was the primary before a failover that has been seen.
func (p *Primary) Believe(system, timeline string) error {
	number, err := strconv.ParseInt(timeline, 10, 64)
	if err != nil {
		return fmt.Errorf("timeline %q: %w", timeline, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.system == system && number < p.timeline {
		return fmt.Errorf("is a former primary: it is on timeline %d, and timeline %d has been seen", number, p.timeline)
	}
	p.system, p.timeline = system, number
	return nil
}

// Among makes conf look for the primary if it names several hosts, whatever its
// target_session_attrs says, and gives each its share of the time to connect
// (the last would never be reached if the first could use all of it).
func (p *Primary) Among(conf *pgconn.Config, timeout time.Duration) {
	conf.ConnectTimeout = timeout
	hosts := map[string]bool{net.JoinHostPort(conf.Host, strconv.Itoa(int(conf.Port))): true}
	for _, f := range conf.Fallbacks {
		hosts[net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))] = true
	}
	if len(hosts) == 1 {
		return
	}
	conf.ConnectTimeout = timeout / time.Duration(len(hosts))
	chosen := conf.ValidateConnect
	conf.ValidateConnect = func(ctx context.Context, pg *pgconn.PgConn) error {
		if chosen != nil {
			if err := chosen(ctx, pg); err != nil {
				return err
			}
		}
		return p.validate(ctx, pg)
	}
}

// validate makes pgconn go on to the next host unless this one is the primary.
func (p *Primary) validate(ctx context.Context, pg *pgconn.PgConn) error {
	results, err := pg.Exec(ctx, `SELECT s.system_identifier, CASE WHEN pg_catalog.pg_is_in_recovery() THEN ''
 ELSE ('x'||pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()),1,8))::bit(32)::int::text END
 FROM pg_catalog.pg_control_system() s`).ReadAll()
	switch {
	case err != nil:
		return err
	case len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2:
		return errors.New("does not say who it is")
	}
	row := results[0].Rows[0]
	if len(row[1]) == 0 {
		return errInRecovery
	}
	return p.Believe(string(row[0]), string(row[1]))
}
