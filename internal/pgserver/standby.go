//go:build unix

package pgserver

import (
	"context"
	"fmt"
	"net/url"
)

// AddStandby makes a server that follows another of the set, by pg_basebackup, and starts it. upstream is the
// host:port it follows the primary at, "" for the primary's own: a test puts something in between. It belongs
// to the set from then on; not to be called while other goroutines use Servers.
func (s *Set) AddStandby(ctx context.Context, primary *Server, name, upstream string) (*Server, error) {
	if !serverName.MatchString(name) || reservedTop[name] || s.Server(name) != nil {
		return nil, fmt.Errorf("pgserver: %q cannot name a standby", name)
	}
	if upstream == "" {
		upstream = primary.Addr()
	}
	standby := newServer(s, name)
	if err := freshDir(standby.data, s.account); err != nil {
		return nil, err
	}
	source := fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable&application_name=%s", Superuser, upstream, url.QueryEscape(name))
	cmd := command(ctx, s.config.Binaries, s.account, standby.data, "pg_basebackup",
		"--pgdata="+standby.data, "--dbname="+source, "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pg_basebackup of %s: %w: %s", primary.name, err, tail(string(out)))
	}
	if err := standby.Start(ctx); err != nil {
		return nil, err
	}
	s.servers = append(s.servers, standby)
	return standby, nil
}

// Promote makes a standby a primary, and returns when it can be written to. What it has not received of its
// former primary is lost.
func (s *Server) Promote(ctx context.Context) error {
	conn, err := connect(ctx, s.SuperURL("postgres"))
	if err != nil {
		return fmt.Errorf("server %s: %w", s.name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var promoted bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote(true, 60)").Scan(&promoted); err != nil {
		return fmt.Errorf("server %s: %w", s.name, err)
	}
	if !promoted {
		return fmt.Errorf("server %s was not promoted within a minute", s.name)
	}
	return nil
}
