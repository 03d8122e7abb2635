package harness

import (
	"context"
	"fmt"
	"testing"
)

// A shadow is a streaming, asynchronous standby of a server: a second Postgres in the same container, which takes the first one's place,
// and so its address, at a failover. Its files are in the server's own data directory, under a name that backups leave out.

const (
	startShadow = `set -e; cd "$PGDATA"; rm -rf pgsql_tmp_shadow pgsql_tmp_lost
pg_basebackup -U postgres -D "$PGDATA/pgsql_tmp_shadow" -R -c fast -X stream
pg_ctl -D "$PGDATA/pgsql_tmp_shadow" -w -l /tmp/shadow.log -o "-p 5433 -c listen_addresses='' -c max_prepared_transactions=200 -c max_connections=300" start >/dev/null`
	cutShadow = `pg_ctl -D "$PGDATA/pgsql_tmp_shadow" -w -m fast stop >/dev/null`
	// The server's processes are stopped where they are, as on a machine that is dead; the kill comes from outside.
	swapShadow = `set -e; kill -STOP -1; cd "$PGDATA"; mkdir pgsql_tmp_lost
for f in *; do case $f in pgsql_tmp_*) ;; *) mv "$f" pgsql_tmp_lost/ ;; esac; done; mv pgsql_tmp_shadow/* .`
)

// Shadow starts a standby that follows the server until CutShadow. It skips the test in Processes mode, loudly.
func (s *Server) Shadow(t testing.TB) {
	t.Helper()
	if CurrentMode() == Processes {
		t.Skip("SKIPPED: a standby needs containers")
	}
	s.exec(t, "postgres", startShadow)
}

// CutShadow ends the replication when the shadow has all that the server has committed or prepared up to now: of what comes after, the
// shadow knows nothing.
func (s *Server) CutShadow(t testing.TB) {
	t.Helper()
	super := s.OpenSuper(t)
	var target string
	check(t, super.QueryRow(t.Context(), "select pg_current_wal_flush_lsn()::text").Scan(&target))
	Eventually(t, bound, "the shadow of "+s.name+" has caught up", func() error {
		var n int
		if err := super.QueryRow(t.Context(), "select count(*) from pg_stat_replication where replay_lsn >= $1::text::pg_lsn", target).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("it has not replayed %s", target)
		}
		return nil
	})
	s.exec(t, "postgres", cutShadow)
}

// FailOver kills the server with SIGKILL and promotes its shadow, which has been cut, in its place: the server's address, data as of the
// cut, a new timeline.
func (s *Server) FailOver(t testing.TB) {
	t.Helper()
	s.exec(t, "root", swapShadow)
	s.Kill9(t)
	s.Start(t)
	super := s.OpenSuper(t)
	var promoted bool
	if err := super.QueryRow(t.Context(), "select pg_promote()").Scan(&promoted); err != nil || !promoted {
		t.Fatalf("promote the shadow of %s: %t, %v\n%s", s.name, promoted, err, s.tail())
	}
}

// exec runs a script in the server's container.
func (s *Server) exec(t testing.TB, user, script string) {
	t.Helper()
	s.fault(t, "exec in", func(ctx context.Context) error { return s.run(ctx, user, script) })
}
