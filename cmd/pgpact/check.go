package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// errFound makes the exit code of a check that found something.
var errFound = errors.New("something is wrong")

func newCheckCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Say what is wrong with the servers of a configuration",
		Long: "Connects to the coordinator's database and to every node and says in plain lines\n" +
			"what is wrong: settings under which a promise could not be kept, servers that are\n" +
			"not who they should be, missing privileges, tables that differ, rows on the wrong\n" +
			"node, transactions that stay in doubt. It reads every table once and changes\n" +
			"nothing.\n\n" +
			"Each line names the server and is an error (serve refuses to start), a warning,\n" +
			"or a note (nothing is wrong). The exit code is 1 if there is an error or a warning.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := readConfig(cmd, path)
			if err != nil {
				return err
			}
			all := inspect(cmd.Context(), cfg, true)
			for _, f := range all {
				fmt.Fprintln(cmd.OutOrStdout(), f)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d nodes and the coordinator's database: %s\n", len(cfg.Nodes), summary(all))
			if worst(all) > note {
				return errFound
			}
			return nil
		},
	}
	configFlag(cmd, &path)
	return cmd
}
