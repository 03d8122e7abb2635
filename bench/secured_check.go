package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/pgserver"
)

// checkSecured looks whether the second pair is what the table will say it is, before anything is measured: a side that let its clients in
// by an easier way would be fast for the wrong reason.
func (b *bench) checkSecured(ctx context.Context) error {
	for _, side := range []struct{ name, url, session string }{
		{"the secured gateway", b.secured.gateway, leastRole},
		{"the plain server", b.secured.plain, clientRole},
	} {
		if err := checkRoles(ctx, side.name, side.url, side.session); err != nil {
			return fmt.Errorf("%s: %w", side.name, err)
		}
		for _, other := range []struct{ key, value, what string }{
			{"sslmode", "disable", "without TLS"}, {"password", "wrong", "with a wrong password"},
		} {
			if err := wantRefused(ctx, side.url, other.key, other.value); err != nil {
				return fmt.Errorf("%s, %s: %w", side.name, other.what, err)
			}
		}
	}
	for _, server := range append([]string{b.coordinator}, b.nodes...) {
		if err := checkLeast(ctx, asRole(server, pgserver.Superuser)); err != nil {
			return err
		}
	}
	return nil
}

// checkRoles wants TLS, statements that run as the client's role, and a session behind them that is somebody's in particular.
func checkRoles(ctx context.Context, name, url, session string) error {
	return query(ctx, url, func(conn *pgx.Conn) error {
		encrypted, ok := conn.PgConn().Conn().(*tls.Conn)
		if !ok {
			return errors.New("the connection is not encrypted")
		}
		var current, behind string
		err := conn.QueryRow(ctx, "select current_user::text, session_user::text from public.bench_accounts where id = 1").Scan(&current, &behind)
		if err != nil {
			return err
		}
		if current != clientRole || behind != session {
			return fmt.Errorf("statements run as %s in a session of %s, want %s and %s", current, behind, clientRole, session)
		}
		state := encrypted.ConnectionState()
		fmt.Fprintf(os.Stderr, "%s: %s with %s; statements of %s in sessions of %s\n", name, tls.VersionName(state.Version),
			tls.CipherSuiteName(state.CipherSuite), current, behind)
		return nil
	})
}

// wantRefused connects with one thing changed.
func wantRefused(ctx context.Context, address, key, value string) error {
	parsed, err := url.Parse(address)
	if err != nil {
		return err
	}
	options := parsed.Query()
	if key == "password" {
		parsed.User = url.UserPassword(parsed.User.Username(), value)
	} else {
		options.Set(key, value)
		options.Del("channel_binding") // without TLS there is none to ask for, and the client would not even try
	}
	parsed.RawQuery = options.Encode()
	err = query(ctx, parsed.String(), func(conn *pgx.Conn) error { return conn.Ping(ctx) })
	var refusal *pgconn.PgError
	switch {
	case err == nil:
		return errors.New("the client was let in")
	case !errors.As(err, &refusal):
		return fmt.Errorf("no refusal, but %w", err)
	}
	return nil
}

// checkLeast wants the secured gateway's role to be nobody in particular.
func checkLeast(ctx context.Context, url string) error {
	return query(ctx, url, func(conn *pgx.Conn) error {
		var mighty bool
		var owned int
		err := conn.QueryRow(ctx, `select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls,
			(select count(*) from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = r.oid and deptype = 'o')
			from pg_roles r where rolname = $1`, leastRole).Scan(&mighty, &owned)
		if err != nil {
			return err
		}
		if mighty || owned > 0 {
			return fmt.Errorf("%s was to have the least privileges, but has attributes (%t) or owns something (%d objects)", leastRole, mighty, owned)
		}
		return nil
	})
}
