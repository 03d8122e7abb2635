package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgpact/pgpact/coordinator"
)

func newTransactionsCommand() *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "transactions --config FILE",
		Short: "List transactions that are in doubt, unfinished, damaged or forced, over all nodes",
		Long: "Lists, the oldest first, the transactions that are prepared on some node (in\n" +
			"doubt until their decision is known), those that are decided and not applied\n" +
			"everywhere yet (unfinished), those that a node contradicts (damaged: a failover\n" +
			"lost something, or a person forced something) and those whose outcome was forced,\n" +
			"with their age, what each participant shows, the decision, and the gateway that\n" +
			"began them and whether it lives. Transactions that are just committing are among\n" +
			"them. Nothing is changed: gateways finish these by themselves, and `pgpact resolve`\n" +
			"does where they cannot. The exit code is 1 if not every node could be asked.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := readConfig(cmd, path)
			if err != nil {
				return err
			}
			c, err := readCluster(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			list, err := listTransactions(cmd.Context(), cfg, c.id)
			if list == nil && err != nil {
				return err
			}
			write := writeTransactions
			if asJSON {
				write = writeTransactionsJSON
			}
			if writeErr := write(cmd.OutOrStdout(), list); writeErr != nil {
				return writeErr
			}
			return err // the nodes that could not be asked
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array, one object for each transaction")
	return cmd
}

// withCoordinator hands out a coordinator that is never started: it looks, and
// does only what it is told to.
func withCoordinator(cfg *Config, clusterID string, logger *slog.Logger, do func(*coordinator.Coordinator) error) error {
	nodes, err := openNodes(cfg, clusterID, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer closeNodes(nodes)
	config := coordinatorConfig(cfg, clusterID, nodes)
	config.Logger = logger
	c, err := coordinator.New(config)
	if err != nil {
		return err
	}
	defer c.Stop(context.Background())
	return do(c)
}

func writeTransactionsJSON(w io.Writer, list []coordinator.TransactionInfo) error {
	if list == nil {
		list = []coordinator.TransactionInfo{} // an array in any case
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(list)
}

func writeTransactions(w io.Writer, list []coordinator.TransactionInfo) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "nothing is in doubt or unfinished")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "TRANSACTION\tSTATE\tDECISION\tAGE\tNODES\tGATEWAY")
	for _, t := range list {
		gateway := t.Gateway + " (alive)"
		switch {
		case t.Gateway == "":
			gateway = "unknown"
		case !t.Alive:
			gateway = t.Gateway + " (gone)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.State, t.Decision, t.Age.Round(time.Millisecond), nodesOf(t), gateway)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, t := range list {
		var err error
		if t.Forced != "" {
			_, err = fmt.Fprintf(w, "%s was forced: %s\n", t.ID, t.Forced)
		}
		if t.KeyAgain != "" {
			_, err = fmt.Fprintf(w, "%s: %s\n", t.ID, t.KeyAgain)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nodesOf is what each participant shows, like "a: prepared, b: committed".
func nodesOf(t coordinator.TransactionInfo) string {
	parts := make([]string, 0, len(t.Nodes))
	for name, state := range t.Nodes {
		parts = append(parts, name+": "+state)
	}
	if len(parts) == 0 {
		return "-"
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
