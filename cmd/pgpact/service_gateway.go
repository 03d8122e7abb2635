package main

import (
	"context"
	"net"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/gateway"
)

// newGateway makes the clients' side.
func (s *service) newGateway(ctx context.Context) (*gateway.Gateway, error) {
	return gateway.New(ctx, gateway.Config{
		Front: gateway.FrontConfig{
			StartupTimeout: s.cfg.StartupTimeout, MaxConnections: s.cfg.MaxConnections,
			MaxUnauthenticated: s.cfg.MaxUnauthenticated, MaxMessageSize: s.cfg.MaxMessageSize,
			WriteTimeout: s.cfg.WriteTimeout, DrainTimeout: s.cfg.DrainTimeout,
			Authenticate: authenticator(s.cfg), Logger: s.logger,
		},
		Coordinator: s.coordinator, Logger: s.logger,
	})
}

// authenticator lets in whom the configuration names, in Postgres's words.
func authenticator(cfg *Config) func(context.Context, map[string]string, net.Addr) error {
	return func(_ context.Context, startup map[string]string, _ net.Addr) error {
		user, database := startup["user"], startup["database"]
		if len(cfg.Users) > 0 && !slices.Contains(cfg.Users, user) {
			return &pgconn.PgError{Severity: "FATAL", Code: pgerrcode.InvalidAuthorizationSpecification,
				Message: `role "` + user + `" is not permitted to log in`}
		}
		if cfg.Database != "" && database != cfg.Database {
			return &pgconn.PgError{Severity: "FATAL", Code: pgerrcode.InvalidCatalogName,
				Message: `database "` + database + `" does not exist`}
		}
		return nil
	}
}
