package migrations

import (
	"context"
	"embed"
	"strings"
)

// grants are the scripts of least privilege, which people may run by hand as well.
//
//go:embed grants/*.sql
var grants embed.FS

// GrantCoordinator gives role what a gateway needs in the coordinator's database, and takes the ownership of
// schema pgpact from it. url is that of a superuser.
func GrantCoordinator(ctx context.Context, url, role string) error {
	return grant(ctx, url, "grants/coordinator.sql", role, nil)
}

// GrantParticipant does the same on a node, and lets role act as the clients' roles that there are.
func GrantParticipant(ctx context.Context, url, role string, clients []string) error {
	return grant(ctx, url, "grants/participant.sql", role, clients)
}

func grant(ctx context.Context, url, file, role string, clients []string) error {
	script, err := grants.ReadFile(file)
	if err != nil {
		return err
	}
	var opts Options
	opts.setDefaults()
	db, err := openDB(url, opts.LockTimeout)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for name, value := range map[string]string{"pgpact.role": role, "pgpact.clients": strings.Join(clients, ",")} {
		if _, err := conn.ExecContext(ctx, "SELECT pg_catalog.set_config($1, $2, false)", name, value); err != nil {
			return err
		}
	}
	_, err = conn.ExecContext(ctx, string(script))
	return err
}
