package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgpact/pgpact/migrations"
)

func newMigrateCommand() *cobra.Command {
	var path, admin string
	var grant bool
	cmd := &cobra.Command{
		Use:   "migrate --config FILE [--admin ROLE] [--grant]",
		Short: "Bring the coordinator's database and every node to the schema pgpact needs",
		Long: "Makes and updates the schema pgpact in the coordinator's database and on every\n" +
			"node, and the tables accounts, stock and orders on every node; tells each node\n" +
			"its name; places the buckets on the nodes the first time. Running it again does\n" +
			"nothing. The role in the addresses needs CREATE on its databases (an owner has\n" +
			"it) and is no superuser.\n\n" +
			"With --admin another role does it (its password is taken from PGPASSWORD or the\n" +
			"password file), and with --grant it gives the role in the addresses the least that a\n" +
			"gateway needs: nothing is its own then. --grant also lets it act as the roles of the\n" +
			"users in the configuration, and makes the function for auth_query. The scripts that it\n" +
			"runs are in migrations/grants.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := readConfig(cmd, path)
			if err != nil {
				return err
			}
			if grant && admin == "" {
				return &usageError{command: cmd.CommandPath(), err: errors.New("--grant needs --admin ROLE: a role cannot give itself privileges")}
			}
			say := func(line string) { fmt.Fprintln(cmd.OutOrStdout(), line) }
			by := cfg
			if admin != "" {
				by = cfg.loggedInAs(admin)
			}
			if err := migrate(cmd.Context(), by, newLogger(cmd.ErrOrStderr(), cfg), say); err != nil || !grant {
				return err
			}
			return grantAll(cmd.Context(), by, cfg, say)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&admin, "admin", "", "`ROLE` to log in as, in place of the one in the addresses")
	cmd.Flags().BoolVar(&grant, "grant", false, "give the role in the addresses what a gateway needs, and no more")
	return cmd
}

// migrate brings every database to this program's version. say hears, line by
// line, what was done.
func migrate(ctx context.Context, cfg *Config, logger *slog.Logger, say func(string)) error {
	opts := migrations.Options{Logger: logger}
	if err := migrateCoordinator(ctx, cfg, opts, say); err != nil {
		return err
	}
	return migrateRest(ctx, cfg, opts, say)
}

// migrateRest is what follows the coordinator's database.
func migrateRest(ctx context.Context, cfg *Config, opts migrations.Options, say func(string)) error {
	conn, err := connectDirect(ctx, cfg.Coordinator.URL, cfg.ConnectTimeout)
	if err != nil {
		return err
	}
	owners, err := readPlacement(ctx, conn)
	closeConn(conn)
	if err != nil {
		return fmt.Errorf("coordinator database %s: %w", addressOf(cfg.Coordinator.URL), err)
	}
	// In a cluster that exists the placement judges the configuration before a
	// node is told anything that cannot be taken back. In a new one the placement
	// comes last: until every node has answered, a wrong list can still be mended.
	if len(owners) > 0 {
		if err := placeBuckets(ctx, cfg, say); err != nil {
			return err
		}
	}
	if err := migrateNodes(ctx, cfg, opts, say); err != nil {
		return err
	}
	if len(owners) == 0 {
		return placeBuckets(ctx, cfg, say)
	}
	return nil
}

func migrateCoordinator(ctx context.Context, cfg *Config, opts migrations.Options, say func(string)) error {
	report, err := migrations.Coordinator(ctx, cfg.Coordinator.URL, opts)
	if err != nil {
		return fmt.Errorf("coordinator database %s: %w", addressOf(cfg.Coordinator.URL), err)
	}
	say("coordinator database: " + describe(report))
	return nil
}

func migrateNodes(ctx context.Context, cfg *Config, opts migrations.Options, say func(string)) error {
	clusterID, err := migrations.ClusterID(ctx, cfg.Coordinator.URL)
	if err != nil {
		return fmt.Errorf("coordinator database %s: %w", addressOf(cfg.Coordinator.URL), err)
	}
	for _, node := range cfg.Nodes {
		identity := migrations.NodeIdentity{ClusterID: clusterID, Name: node.Name, BucketCount: cfg.Buckets}
		report, err := migrations.Participant(ctx, node.URL, identity, opts)
		if err != nil {
			return fmt.Errorf("node %s (%s): %w", node.Name, addressOf(node.URL), err)
		}
		say(fmt.Sprintf("node %s: %s", node.Name, describe(report)))
	}
	return nil
}

func placeBuckets(ctx context.Context, cfg *Config, say func(string)) error {
	placed, err := migrations.EnsureBuckets(ctx, cfg.Coordinator.URL, cfg.nodeNames(), cfg.Buckets)
	var without *migrations.WithoutBucketsError
	switch {
	case errors.As(err, &without):
		say("note: " + without.Error())
	case err != nil:
		return fmt.Errorf("coordinator database %s: %w", addressOf(cfg.Coordinator.URL), err)
	}
	if placed {
		say(fmt.Sprintf("placed %d buckets on %s", cfg.Buckets, strings.Join(cfg.nodeNames(), ", ")))
	}
	return nil
}

func describe(r migrations.Report) string {
	if len(r.Applied) == 0 {
		return fmt.Sprintf("up to date (version %d)", r.To)
	}
	return fmt.Sprintf("version %d to %d: applied %s", r.From, r.To, strings.Join(r.Applied, ", "))
}
