package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpact/pgpact/internal/pgserver"
)

// The demo's role and database, on every server.
const (
	demoRole        = "pgpact"
	demoDatabase    = "pgpact"
	demoCoordinator = "coordinator" // the name of the decision database's server
)

const (
	maxDemoNodes    = 16
	maxDemoAccounts = 1_000_000
	// demoStopTimeout bounds an orderly stop of the demo's servers.
	demoStopTimeout = 20 * time.Second
)

// demoOptions are the flags of demo.
type demoOptions struct {
	listen      string
	nodes       int
	gateways    int
	data        string
	accounts    int
	postgresBin string
	logLevel    string
	inject      faults
	profile     string

	nodesGiven bool // --nodes was written, not defaulted
	progress   io.Writer
	out        io.Writer
}

const demoLong = `Makes a coordinator's database and N nodes on this machine, each a Postgres server
of its own on a free port of 127.0.0.1, fills them with sample data, and serves
them as one database. No Postgres needs to run; its server programs must be
installed (Debian, Ubuntu: apt-get install postgresql; macOS: brew install
postgresql@17).

Everything lives in one directory, ./pgpact-data unless --data names another. With
a directory that is there already the demo goes on with what is in it, whatever
happened to the last one. To start afresh, stop the demo and remove the directory.

Postgres refuses to run as root. Root's demo runs it as the user postgres (or
nobody), who must be able to pass every directory above; where he cannot pass the
current one, /var/lib/pgpact-demo takes the place of ./pgpact-data.

With --gateways N it is served by N gateways, each a process of its own, on the port
of --listen and those behind it. All are equal: what one leaves unfinished when it is
killed, the others finish.

DIR/pgpact.yaml is a complete configuration for the other commands, with the
address of every server; DIR/NAME.log is what server NAME has to say. PGPACT_
variables are not looked at.

Ctrl-C or SIGTERM stops everything that was started; a second one hurries.
Whoever can run processes on this machine can do everything in these servers: it is
a demo.`

func newDemoCommand() *cobra.Command {
	var opts demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything on this machine: Postgres nodes, sample data, and a gateway to try with psql",
		Long:  demoLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.nodesGiven = cmd.Flags().Changed("nodes")
			opts.progress, opts.out = cmd.ErrOrStderr(), cmd.OutOrStdout()
			if err := opts.validate(); err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
			hook, err := opts.inject.hook(cmd)
			if err != nil {
				return err
			}
			return profiled(opts.profile, func() error { return opts.run(cmd.Context(), hook) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:6432", "`ADDRESS` to serve clients on")
	flags.IntVar(&opts.nodes, "nodes", 2, fmt.Sprintf("number of nodes, 1 to %d; fixed once the data directory is made", maxDemoNodes))
	flags.IntVar(&opts.gateways, "gateways", 1, fmt.Sprintf("number of gateways, 1 to %d; several are processes of their own, on consecutive ports", maxDemoGateways))
	flags.StringVar(&opts.data, "data", "", "`DIR`ectory for everything (default ./pgpact-data; see above for root)")
	flags.IntVar(&opts.accounts, "accounts", 1000, "number of sample accounts beside the named ones, in a new directory")
	flags.StringVar(&opts.postgresBin, "postgres-bin", "", "`DIR`ectory of the Postgres server programs (default: the newest found)")
	flags.StringVar(&opts.logLevel, "log-level", "warn", "log from debug, info, warn or error on")
	opts.inject.flags(cmd)
	profileFlag(cmd, &opts.profile)
	return cmd
}

func (o *demoOptions) validate() error {
	if err := validListen(o.listen); err != nil {
		return fmt.Errorf("--listen %w", err)
	}
	switch {
	case !isLoopback(o.listen):
		return fmt.Errorf("--listen %s: the demo lets in everybody, so it serves on a loopback address only; "+
			"`pgpact serve` with DIR/pgpact.yaml can do otherwise", o.listen)
	case o.nodes < 1 || o.nodes > maxDemoNodes:
		return fmt.Errorf("--nodes must be 1 to %d, not %d", maxDemoNodes, o.nodes)
	case o.gateways < 1 || o.gateways > maxDemoGateways:
		return fmt.Errorf("--gateways must be 1 to %d, not %d", maxDemoGateways, o.gateways)
	case o.accounts < 0 || o.accounts > maxDemoAccounts:
		return fmt.Errorf("--accounts must be 0 to %d, not %d", maxDemoAccounts, o.accounts)
	}
	return oneOf(&o.logLevel, "debug", "info", "warn", "error")(o.logLevel)
}

func (o *demoOptions) say(format string, args ...any) {
	fmt.Fprintf(o.progress, format+"\n", args...)
}

// run is the demo from its start to its end.
func (o *demoOptions) run(ctx context.Context, hook func(string)) (err error) {
	asked, hurried, stopSignals := untilSignal(ctx)
	defer stopSignals()

	binaries, err := pgserver.Find(o.postgresBin)
	if err != nil {
		return fmt.Errorf("%w with --postgres-bin", err)
	}
	// First the port: who cannot have it need not wait for servers to start.
	addresses, ln, err := o.claimAddresses()
	if err != nil {
		return err
	}
	if ln != nil {
		defer ln.Close()
	}
	if o.data == "" {
		o.data = defaultDemoDir()
	}
	state, err := o.prepareDir()
	if err != nil {
		return err
	}
	set, err := pgserver.OpenSet(asked, pgserver.SetConfig{
		Dir: o.data, Binaries: binaries, Names: append([]string{demoCoordinator}, state.nodeNames()...),
		Settings: demoServerSettings, Progress: func(line string) { o.say("%s", line) },
	})
	if err != nil {
		return interrupted(asked, err)
	}
	defer func() {
		o.say("stopping the servers")
		ctx, cancel := context.WithTimeout(hurried, demoStopTimeout)
		defer cancel()
		err = errors.Join(err, set.Stop(ctx))
	}()
	o.say("starting %d servers with Postgres %s in %s", len(set.Servers()), binaries.Version, set.Dir())
	if err := set.Start(asked); err != nil {
		return interrupted(asked, err)
	}
	cfg, err := o.writeConfig(asked, set, addresses[0])
	if err != nil {
		return interrupted(asked, err)
	}
	if err := o.fill(asked, cfg, set.Dir(), state); err != nil {
		return interrupted(asked, err)
	}
	o.watch(asked, set)
	if ln == nil {
		return interrupted(asked, o.serveFleet(asked, hurried, cfg, set.Dir(), addresses))
	}
	s, err := startService(asked, cfg, newLogger(o.progress, cfg), hook)
	if err != nil {
		return interrupted(asked, err)
	}
	o.welcome(set.Dir(), addresses[0], s.cluster.owners)
	return s.serve(asked, hurried, ln)
}

// interrupted makes of an error that a signal caused no error: stopping was
// what was asked for.
func interrupted(asked context.Context, err error) error {
	if asked.Err() != nil {
		return nil //nolint:nilerr // that error is how the work was stopped
	}
	return err
}

// watch says when a server ends that nobody asked to: a demo invites people to
// kill things, and they want to know how to bring them back.
func (o *demoOptions) watch(asked context.Context, set *pgserver.Set) {
	for _, server := range set.Servers() {
		go func() {
			select {
			case <-asked.Done():
			case <-server.Done():
				if asked.Err() == nil {
					o.say("server %s has ended (its log: %s); stop the demo and start it again to bring it back", server.Name(), server.LogFile())
				}
			}
		}()
	}
}

// welcome says how to connect and what to try.
func (o *demoOptions) welcome(dir, address string, owners []string) {
	url := fmt.Sprintf("postgres://%s@%s/%s", demoRole, address, demoDatabase)
	fmt.Fprintf(o.out, "ready: %s\n", url)
	o.suggest(url, dir, owners)
}

func (o *demoOptions) suggest(url, dir string, owners []string) {
	fmt.Fprintf(o.out, `
Connect, in another terminal:

  psql %s

and try, statement by statement:

  SELECT * FROM accounts WHERE id IN ('alice', 'bob');
  BEGIN; UPDATE accounts SET balance = balance - 100 WHERE id = 'alice'; UPDATE accounts SET balance = balance + 100 WHERE id = 'bob'; COMMIT;
  UPDATE accounts SET balance = balance - 5000 WHERE id = 'alice';

%s
The nodes' own addresses are in %s. Ctrl-C stops everything.
`, url, whereabouts(owners), filepath.Join(dir, demoConfigName))
}

// defaultDemoDir is ./pgpact-data, unless we are root and the account that
// Postgres will run as could not pass the way there.
func defaultDemoDir() string {
	const name = "pgpact-data"
	here, err := os.Getwd()
	if os.Geteuid() != 0 || err != nil || passable(here) {
		return name
	}
	return "/var/lib/pgpact-demo"
}

// passable tells whether everybody may pass the directory and all above it.
func passable(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		above := filepath.Dir(dir)
		if above == dir {
			return true
		}
		dir = above
	}
}
