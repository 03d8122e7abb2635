//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SuperURL is a connection URL for the superuser.
func (s *Server) SuperURL(database string) string { return s.URL(Superuser, database) }

// ping makes one connection as the superuser and closes it.
func ping(ctx context.Context, port int) error {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	conn, err := connect(ctx, fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", Superuser, addr))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = 10 * time.Second
	return pgx.ConnectConfig(ctx, config)
}

// CreateRoleAndDatabase makes a login role without any privilege and a database that it owns, unless they
// are there. Nothing else: pgpact needs no superuser and no extension on its nodes.
func (s *Server) CreateRoleAndDatabase(ctx context.Context, role, database string) error {
	conn, err := connect(ctx, s.SuperURL("postgres"))
	if err != nil {
		return fmt.Errorf("server %s: %w", s.name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	quotedRole, quotedDatabase := pgx.Identifier{role}.Sanitize(), pgx.Identifier{database}.Sanitize()
	steps := []struct{ exists, name, create string }{
		{"SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", role,
			"CREATE ROLE " + quotedRole + " LOGIN"},
		{"SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)", database,
			"CREATE DATABASE " + quotedDatabase + " OWNER " + quotedRole},
	}
	for _, step := range steps {
		var exists bool
		if err := conn.QueryRow(ctx, step.exists, step.name).Scan(&exists); err != nil {
			return fmt.Errorf("server %s: %w", s.name, err)
		}
		if exists {
			continue
		}
		if _, err := conn.Exec(ctx, step.create); err != nil && !alreadyThere(err) {
			return fmt.Errorf("server %s: %s: %w", s.name, step.create, err)
		}
	}
	return nil
}

// alreadyThere is what a creator hears who was a moment later than another.
func alreadyThere(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) &&
		(e.Code == pgerrcode.DuplicateObject || e.Code == pgerrcode.DuplicateDatabase || e.Code == pgerrcode.UniqueViolation)
}
