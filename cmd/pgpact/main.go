// Pgpact is a Postgres-wire gateway that makes transactions over several
// Postgres nodes atomic. This package is its program: every file named after a
// command reads that command's flags and wires the packages that do the work.
//
//	pgpact demo            everything on this machine, ready for psql
//	pgpact serve           a gateway for the servers of a configuration
//	pgpact migrate         bring those servers to the schema pgpact needs
//	pgpact check           say what is wrong with them
//	pgpact transactions    list what is in doubt, unfinished, damaged or forced
//	pgpact resolve         finish one of them by hand
//	pgpact fault-points    list the moments at which a crash is tested
//	pgpact config          show and check configurations
//	pgpact man             write the manual pages
//	pgpact user            make a user's password for the configuration
//	pgpact transfer, credit, debit, balance, buy, load
//	                       ordinary clients of gateways (client*.go)
//
// It holds no logic of the product (DESIGN section 2): what a transaction does
// is decided in coordinator, what a statement means in gateway and sqlparse.
package main

// Life of an UPDATE, step 1: serve.go and demo.go wire what the rest of its way
// runs through.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes, beside 0.
const (
	exitFailure = 1 // what was wanted did not work, or check found something
	exitUsage   = 2 // the command line could not be understood
)

// version and commit are set by the Makefile.
var version, commit = "unreleased", "unknown"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, errFound) { // the findings have been printed
		return exitFailure
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "pgpact: %s\n", strings.TrimSuffix(line, "\n"))
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "pgpact: run `%s --help` to see what there is\n", usage.command)
		return exitUsage
	}
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code
	}
	return exitFailure
}

// usageError is a command line that could not be understood.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pgpact",
		Short: "Transactions over several Postgres nodes, through one Postgres port",
		Long: "pgpact is a gateway that speaks the Postgres protocol. Clients see one database;\n" +
			"the rows live on several Postgres nodes. A transaction that writes on several of\n" +
			"them commits on all or on none, whatever crashes.\n\n" +
			"To try it: pgpact demo",
		Version:       version,
		Args:          cobra.NoArgs,
		RunE:          needsSubcommand,
		SilenceErrors: true, // run prints them, once
		SilenceUsage:  true,
	}
	root.SetVersionTemplate(versionText())
	root.AddCommand(newDemoCommand(), newServeCommand(), newMigrateCommand(), newCheckCommand(),
		newTransactionsCommand(), newResolveCommand(), newFaultPointsCommand(), newConfigCommand(), newUserCommand(), newVersionCommand(),
		newTransferCommand(), newCreditCommand(), newDebitCommand(), newBalanceCommand(), newBuyCommand(), newLoadCommand(), newManCommand())
	markUsageErrors(root)
	return root
}

// markUsageErrors makes wrong flags and arguments of every command usage errors.
func markUsageErrors(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{command: cmd.CommandPath(), err: err}
	})
	if args := cmd.Args; args != nil {
		cmd.Args = func(cmd *cobra.Command, given []string) error {
			if err := args(cmd, given); err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markUsageErrors(sub)
	}
}

// needsSubcommand is for commands that only group others.
func needsSubcommand(cmd *cobra.Command, _ []string) error {
	if err := cmd.Help(); err != nil {
		return err
	}
	return &usageError{command: cmd.CommandPath(), err: errors.New("a command is needed")}
}

// configFlag adds --config. It is checked by readConfig rather than by cobra,
// so that its absence is a usage error like the others.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", "", "configuration `FILE` (pgpact config example prints one; pgpact demo writes one)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that does not exist
}

// readConfig reads what --config names, and the environment.
func readConfig(cmd *cobra.Command, path string) (*Config, error) {
	if path == "" {
		return nil, &usageError{command: cmd.CommandPath(), err: errors.New("--config FILE is needed")}
	}
	return loadConfig(path, os.Environ())
}
