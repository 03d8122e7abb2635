package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/migrations"
)

// loggedInAs is the configuration with another role in all addresses, whose
// password is found where libpq looks for one.
func (cfg *Config) loggedInAs(role string) *Config {
	other := *cfg
	other.Coordinator.URL = asRole(cfg.Coordinator.URL, role)
	other.Nodes = slices.Clone(cfg.Nodes)
	for i := range other.Nodes {
		other.Nodes[i].URL = asRole(other.Nodes[i].URL, role)
	}
	return &other
}

// asRole is an address that validURL has accepted, with another role.
func asRole(address, role string) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return address
	}
	parsed.User = url.User(role)
	return parsed.String()
}

// grantAll gives the roles in cfg's addresses what a gateway needs, as the role
// in by's. The clients' roles are those of the users that cfg names.
func grantAll(ctx context.Context, by, cfg *Config, say func(string)) error {
	role := roleOf(cfg.Coordinator.URL)
	if err := migrations.GrantCoordinator(ctx, by.Coordinator.URL, role); err != nil {
		return fmt.Errorf("coordinator database %s: %w", addressOf(by.Coordinator.URL), err)
	}
	say("coordinator database: role " + role + " has what a gateway needs")
	clients := slices.Compact(slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(cfg.Verifiers)), cfg.Users...))))
	for i, node := range cfg.Nodes {
		role := roleOf(node.URL)
		if err := migrations.GrantParticipant(ctx, by.Nodes[i].URL, role, clients); err != nil {
			return fmt.Errorf("node %s (%s): %w", node.Name, addressOf(by.Nodes[i].URL), err)
		}
		say(fmt.Sprintf("node %s: role %s has what a gateway needs", node.Name, role))
	}
	return nil
}

func roleOf(address string) string {
	conf, err := pgconn.ParseConfig(address)
	if err != nil {
		return ""
	}
	return conf.User
}
