package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
)

// accountBalance is a line of `pgpact balance`.
type accountBalance struct {
	Account string `json:"account"`
	Balance int64  `json:"balance"`
}

func newBalanceCommand() *cobra.Command {
	c := &client{}
	cmd := &cobra.Command{
		Use:   "balance [ACCOUNT...]",
		Short: "Print balances, of all accounts if none is named",
		Long: "Prints the balances of the accounts named, in that order, or of all accounts, by name. With\n" +
			"--json, an array of {account, balance}. An account that does not exist is said on stderr, and\n" +
			"the exit code is then 1; 4: no gateway has answered.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.open(cmd); err != nil {
				return err
			}
			defer c.drop()
			found, err := c.balances(cmd.Context(), args)
			if err != nil {
				return err
			}
			return c.writeBalances(cmd, args, found)
		},
	}
	c.flags(cmd, "asking")
	return cmd
}

// balances asks until there is an answer or the time is over.
func (c *client) balances(ctx context.Context, names []string) ([]accountBalance, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		found, err := c.balancesOnce(ctx, names)
		switch {
		case err == nil:
			return found, nil
		case isRefusal(err):
			return nil, &codedError{exitFailure, err}
		case ctx.Err() != nil:
			return nil, &codedError{exitNotDone, err}
		}
		c.drop()
		(&task{}).pause(ctx)
	}
}

func (c *client) balancesOnce(ctx context.Context, names []string) ([]accountBalance, error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	sql, args := `SELECT id, balance FROM accounts ORDER BY id COLLATE "C"`, []any(nil)
	if len(names) > 0 {
		sql, args = "SELECT id, balance FROM accounts WHERE id = ANY($1)", []any{names}
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[accountBalance])
}

func (c *client) writeBalances(cmd *cobra.Command, names []string, found []accountBalance) error {
	var missing error
	if len(names) > 0 {
		byName := map[string]accountBalance{}
		for _, a := range found {
			byName[a.Account] = a
		}
		found = found[:0:0]
		for i, name := range names {
			a, ok := byName[name]
			switch {
			case slices.Contains(names[:i], name): // said already
			case ok:
				found = append(found, a)
			default:
				missing = errors.Join(missing, fmt.Errorf("there is no account %q", name))
			}
		}
	}
	if c.asJSON {
		if found == nil {
			found = []accountBalance{}
		}
		return errors.Join(writeJSON(cmd.OutOrStdout(), found), missing)
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, a := range found {
		fmt.Fprintf(table, "%s\t%d\n", a.Account, a.Balance)
	}
	return errors.Join(table.Flush(), missing)
}
