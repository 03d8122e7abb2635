package main

import (
	"encoding/json"
	"fmt"
	"io"
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
		Short: "List transactions that are in doubt or unfinished, over all nodes",
		Long: "Lists, the oldest first, the transactions that are prepared on some node (in\n" +
			"doubt until their decision is known) and those that are decided and not applied\n" +
			"everywhere yet (unfinished), with their age, the gateway that began them and\n" +
			"whether it lives, and the decision. Transactions that are just committing are\n" +
			"among them. Nothing is changed: gateways finish these by themselves. The exit\n" +
			"code is 1 if not every node could be asked.",
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
	fmt.Fprintln(table, "TRANSACTION\tSTATE\tDECISION\tAGE\tPREPARED ON\tPARTICIPANTS\tGATEWAY")
	for _, t := range list {
		gateway := t.Gateway
		switch {
		case gateway == "":
			gateway = "unknown"
		case !t.Alive:
			gateway += " (gone)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.State, t.Decision, t.Age.Round(time.Millisecond),
			orDash(t.Prepared), orDash(t.Expected), gateway)
	}
	return table.Flush()
}

func orDash(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ",")
}
