package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/gateway"
)

// authentication is how this configuration has clients prove who they are.
func (s *service) authentication() gateway.Authentication {
	a := gateway.Authentication{
		Rules: s.cfg.rules(), Verifiers: s.cfg.Verifiers, MockSecret: s.cluster.loginSecret, FailedLogins: s.cfg.FailedLogins,
	}
	if s.cfg.AuthQuery != "" {
		s.users = newUserLookup(s.cfg.Coordinator.URL, s.cfg.AuthQuery, s.cfg.ConnectTimeout)
		a.Lookup = s.users.verifier
	}
	return a
}

// lookups is how many logins may ask the coordinator's database at a time. An
// answer takes a fraction of a millisecond; a flood of wrong logins must not take
// that database's connections.
const lookups = 4

// userLookup runs auth_query.
type userLookup struct {
	url, query string
	timeout    time.Duration
	conns      chan *pgx.Conn // nil: to be made
}

func newUserLookup(url, query string, timeout time.Duration) *userLookup {
	u := &userLookup{url: url, query: query, timeout: timeout, conns: make(chan *pgx.Conn, lookups)}
	for range lookups {
		u.conns <- nil
	}
	return u
}

// verifier is what the query says of the user, "" for nothing.
func (u *userLookup) verifier(ctx context.Context, user string) (string, error) {
	var conn *pgx.Conn
	select {
	case conn = <-u.conns:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() {
		if conn != nil && conn.IsClosed() {
			conn = nil
		}
		u.conns <- conn
	}()
	for {
		kept := conn != nil
		if !kept {
			var err error
			if conn, err = connectDirect(ctx, u.url, u.timeout); err != nil {
				return "", fmt.Errorf("auth_query: %w", err)
			}
		}
		verifier, err := u.ask(ctx, conn, user)
		if kept && err != nil && conn.IsClosed() && ctx.Err() == nil {
			conn = nil // it was lost while it was idle
			continue
		}
		return verifier, err
	}
}

func (u *userLookup) ask(ctx context.Context, conn *pgx.Conn, user string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	var verifier *string
	err := conn.QueryRow(ctx, u.query, user).Scan(&verifier)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && verifier == nil:
		return "", nil
	case err != nil:
		return "", fmt.Errorf("auth_query: %w", err)
	}
	return *verifier, nil
}

func (u *userLookup) close() {
	for range lookups {
		if conn := <-u.conns; conn != nil {
			closeConn(conn)
		}
	}
}

// inspectAuthQuery tries auth_query with a name that nobody has.
func (in *inspection) inspectAuthQuery(ctx context.Context, s *server) {
	if in.cfg.AuthQuery == "" || s.conn == nil {
		return
	}
	u := newUserLookup(in.cfg.Coordinator.URL, in.cfg.AuthQuery, in.cfg.ConnectTimeout)
	if _, err := u.ask(ctx, s.conn, "pgpact check: nobody"); err != nil {
		s.add(danger, "%v", err)
	}
}
