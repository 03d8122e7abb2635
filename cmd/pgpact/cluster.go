package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/migrations"
	"github.com/pgpact/pgpact/participant"
)

// connectDirect makes a connection of our own to one of the servers, beside
// what the packages keep: for looking at it, and for the demo's sample data.
func connectDirect(ctx context.Context, url string, timeout time.Duration) (*pgx.Conn, error) {
	conf, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err // pgx leaves the password out of its messages
	}
	(&participant.Primary{}).Among(&conf.Config, timeout)
	conf.RuntimeParams["application_name"] = "pgpact operator"
	// What we ask must not depend on a search path or a time limit that belongs
	// to somebody's application.
	conf.RuntimeParams["search_path"] = "pg_catalog"
	conf.RuntimeParams["statement_timeout"] = "0"
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, conf)
}

func closeConn(conn *pgx.Conn) { _ = conn.Close(context.Background()) }

// readPlacement reads pgpact.buckets: element b is the name of bucket b's node.
// It is empty before the first migrate.
func readPlacement(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, "SELECT bucket, node FROM pgpact.buckets ORDER BY bucket")
	if err != nil {
		return nil, err
	}
	var owners []string
	var bucket int
	var node string
	_, err = pgx.ForEachRow(rows, []any{&bucket, &node}, func() error {
		if bucket != len(owners) {
			return fmt.Errorf("pgpact.buckets has no row for bucket %d", len(owners))
		}
		owners = append(owners, node)
		return nil
	})
	return owners, err
}

// openNodes makes the nodes of the configuration; nothing is connected yet.
func openNodes(cfg *Config, clusterID string, logger *slog.Logger) ([]*participant.Node, error) {
	var nodes []*participant.Node
	for _, n := range cfg.Nodes {
		node, err := participant.Open(participant.Config{
			Name: n.Name, URL: n.URL, ClusterID: clusterID, ConnectTimeout: cfg.ConnectTimeout,
			MaxIdle: cfg.Slots, Logger: logger, ClientRoles: cfg.clientRoles(),
		})
		if err != nil {
			closeNodes(nodes)
			return nil, err
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

func closeNodes(nodes []*participant.Node) {
	for _, node := range nodes {
		node.Close()
	}
}

// cluster is what the decision database says about the whole.
type cluster struct {
	id          string
	owners      []string // bucket -> node
	loginSecret []byte   // see gateway.Authentication
}

// readCluster reads it.
func readCluster(ctx context.Context, cfg *Config) (*cluster, error) {
	explain := func(err error) error {
		return fmt.Errorf("coordinator database %s: %w", addressOf(cfg.Coordinator.URL), err)
	}
	bounded, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	id, err := migrations.ClusterID(bounded, cfg.Coordinator.URL)
	if err != nil {
		return nil, explain(err)
	}
	conn, err := connectDirect(ctx, cfg.Coordinator.URL, cfg.ConnectTimeout)
	if err != nil {
		return nil, explain(err)
	}
	defer closeConn(conn)
	owners, err := readPlacement(ctx, conn)
	if err == nil && len(owners) == 0 {
		err = errors.New("no bucket is placed yet: run pgpact migrate")
	}
	var secret []byte
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT secret FROM pgpact.login_secret").Scan(&secret)
	}
	if err != nil {
		return nil, explain(err)
	}
	return &cluster{id: id, owners: owners, loginSecret: secret}, nil
}
