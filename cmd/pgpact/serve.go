package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
)

func newServeCommand() *cobra.Command {
	var path, crashAt, profile string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve clients: one gateway for the servers of a configuration",
		Long: "Serves clients until SIGINT or SIGTERM; then sessions may finish what they are\n" +
			"doing, for drain_timeout, or until a second signal. Any number of gateways can\n" +
			"serve the same servers. It refuses to start on what `pgpact check` calls an error.\n\n" +
			"When clients can connect it prints one line, ready: postgres://..., on standard\n" +
			"output. The log goes to standard error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hook, err := crashHook(cmd, crashAt)
			if err != nil {
				return err
			}
			cfg, err := readConfig(cmd, path)
			if err != nil {
				return err
			}
			return profiled(profile, func() error { return serve(cmd, cfg, hook) })
		},
	}
	configFlag(cmd, &path)
	crashFlag(cmd, &crashAt)
	profileFlag(cmd, &profile)
	return cmd
}

func serve(cmd *cobra.Command, cfg *Config, crash func(string)) error {
	asked, hurried, stop := untilSignal(cmd.Context())
	defer stop()
	s, err := startService(asked, cfg, newLogger(cmd.ErrOrStderr(), cfg), crash)
	if err != nil {
		return interrupted(asked, err)
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		s.stop(hurried)
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "ready: %s\n", clientURL(cfg, ln.Addr().String()))
	return s.serve(asked, hurried, ln)
}

// clientURL is an address that a client on this machine can use: of a user and
// a database that exist, without a password.
func clientURL(cfg *Config, address string) string {
	user, database := "pgpact", cfg.Database
	if node, err := pgconn.ParseConfig(cfg.Nodes[0].URL); err == nil {
		user = node.User
		if database == "" {
			database = node.Database
		}
	}
	if len(cfg.Users) > 0 {
		user = cfg.Users[0]
	}
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().IsUnspecified() {
		address = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()).String()
	}
	return fmt.Sprintf("postgres://%s@%s/%s", user, address, database)
}
