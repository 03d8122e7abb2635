package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
)

func newServeCommand() *cobra.Command {
	var path, profile string
	var inject faults
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve clients: one gateway for the servers of a configuration",
		Long: "Serves clients until SIGINT or SIGTERM; then sessions may finish what they are\n" +
			"doing, for drain_timeout, or until a second signal. SIGHUP has the configuration\n" +
			"read again, and the log says what of it needs a restart. Any number of gateways can\n" +
			"serve the same servers. It refuses to start on what `pgpact check` calls an error.\n\n" +
			"When clients can connect it prints one line, ready: postgres://..., on standard\n" +
			"output. The log goes to standard error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hook, err := inject.hook(cmd)
			if err != nil {
				return err
			}
			cfg, err := readConfig(cmd, path)
			if err != nil {
				return err
			}
			again := func() (*Config, error) { return readConfig(cmd, path) }
			return profiled(profile, func() error { return serve(cmd, cfg, again, hook) })
		},
	}
	configFlag(cmd, &path)
	inject.flags(cmd)
	profileFlag(cmd, &profile)
	return cmd
}

func serve(cmd *cobra.Command, cfg *Config, again func() (*Config, error), crash func(string)) error {
	asked, hurried, stop := untilSignal(cmd.Context())
	defer stop()
	level := levelOf(cfg)
	logger := newLeveledLogger(cmd.ErrOrStderr(), cfg, level)
	s, err := startService(asked, cfg, logger, crash)
	if err != nil {
		return interrupted(asked, err)
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		s.stop(hurried)
		return fmt.Errorf("listen: %w", err)
	}
	running := *cfg // what is in force is the reloader's own: others read cfg meanwhile
	reloads := &reloader{running: &running, read: again, logger: logger, hooks: s.reloadHooks(level)}
	defer reloads.run(asked)()
	defer context.AfterFunc(asked, func() { notify(logger, notifyStopping) })()
	notify(logger, notifyReady)
	fmt.Fprintf(cmd.OutOrStdout(), "ready: %s\n", clientURL(cfg, ln.Addr().String()))
	return s.serve(asked, hurried, ln)
}

// reloadHooks are what SIGHUP can change. Whoever adds a key that can be changed
// while the gateway runs adds it here.
func (s *service) reloadHooks(level *slog.LevelVar) []reloadHook {
	return []reloadHook{
		{keys: []string{"log.level"}, apply: func(next *Config) error {
			level.Set(levelOf(next).Level())
			return nil
		}},
		{keys: []string{"log.slow_statement", "log.slow_commit", "log.statements"}, apply: func(next *Config) error {
			s.gateway.SetLogging(loggingOf(next))
			return nil
		}},
		// The files are followed without it: this is for who does not want to wait.
		{always: true, apply: func(*Config) error {
			if s.certificates == nil {
				return nil
			}
			return s.certificates.Reload()
		}},
	}
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
