package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
)

// The changes that a command is made of.
const (
	changeBalance  = "UPDATE accounts SET balance = balance + $1 WHERE id = $2 RETURNING balance"
	changeQuantity = "UPDATE stock SET quantity = quantity + $1 WHERE sku = $2 RETURNING quantity"
	insertOrder    = "INSERT INTO orders (customer, order_id, sku, quantity, amount) VALUES ($1, $2, $3, $4, $5)"
)

// change adds delta to what the row has. That nothing falls below zero is held
// by the tables' CHECKs, and here once more, for tables that lack them.
func change(ctx context.Context, tx pgx.Tx, sql, what, name string, delta int64) error {
	var left int64
	err := tx.QueryRow(ctx, sql, delta, name).Scan(&left)
	if errors.Is(err, pgx.ErrNoRows) {
		return refusalf("there is no %s %q", what, name)
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == "23514" && delta < 0 {
		return fmt.Errorf("%s %q has less than %d: %w", what, name, -delta, err)
	}
	if err == nil && left < 0 {
		return refusalf("%s %q has less than %d", what, name, -delta)
	}
	return err
}

// positive parses an argument that must be a whole number above zero.
func positive(cmd *cobra.Command, name, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return 0, usageErrorf(cmd, "%s must be a whole number from 1 to %d, not %q", name, int64(math.MaxInt64), text)
	}
	return n, nil
}

const repeatHelp = "Repeating it with the same --key is safe, whatever has happened to the first run: it is done\n" +
	"once, and a repetition says `already done` with the transaction's id. A key names one operation:\n" +
	"what else is asked for under a key that has been used is not done.\n\n" + exitCodesHelp

func newTransferCommand() *cobra.Command {
	c, key := &client{}, ""
	cmd := &cobra.Command{
		Use:   "transfer FROM TO AMOUNT",
		Short: "Move an amount from one account to another, exactly once",
		Long:  "Moves AMOUNT from account FROM to account TO in one transaction, wherever they live.\n" + repeatHelp,
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to := args[0], args[1]
			amount, err := positive(cmd, "AMOUNT", args[2])
			if err == nil && from == to {
				err = usageErrorf(cmd, "FROM and TO are the same account")
			}
			if err != nil {
				return err
			}
			return c.change(cmd, &key, amount, fmt.Sprintf("%d from %s to %s", amount, from, to), func(ctx context.Context, tx pgx.Tx) error {
				// The lesser account first: transfers in opposite directions must not wait for each other on two nodes.
				names, deltas := [2]string{from, to}, [2]int64{-amount, amount}
				if to < from {
					names, deltas = [2]string{to, from}, [2]int64{amount, -amount}
				}
				for i, name := range names {
					if err := change(ctx, tx, changeBalance, "account", name, deltas[i]); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.flags(cmd, "the whole")
	keyFlag(cmd, &key)
	return cmd
}

func newCreditCommand() *cobra.Command {
	return newOneAccountCommand("credit", "Add an amount to an account, exactly once", "Adds AMOUNT to the account.\n", 1)
}

func newDebitCommand() *cobra.Command {
	return newOneAccountCommand("debit", "Take an amount from an account, exactly once",
		"Takes AMOUNT from the account; more than it has is refused.\n", -1)
}

func newOneAccountCommand(name, short, long string, sign int64) *cobra.Command {
	c, key := &client{}, ""
	cmd := &cobra.Command{
		Use:   name + " ACCOUNT AMOUNT",
		Short: short,
		Long:  long + repeatHelp,
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			amount, err := positive(cmd, "AMOUNT", args[1])
			if err != nil {
				return err
			}
			return c.change(cmd, &key, amount, fmt.Sprintf("%s %s by %d", name, args[0], amount), func(ctx context.Context, tx pgx.Tx) error {
				return change(ctx, tx, changeBalance, "account", args[0], sign*amount)
			})
		},
	}
	c.flags(cmd, "the whole")
	keyFlag(cmd, &key)
	return cmd
}

// change is a command whose result is an amount.
func (c *client) change(cmd *cobra.Command, key *string, amount int64, what string, do func(context.Context, pgx.Tx) error) error {
	if err := c.open(cmd); err != nil {
		return err
	}
	made, err := checkKey(cmd, key)
	if err != nil {
		return err
	}
	return c.perform(cmd, clientResult{Key: *key, Amount: amount}, do, made, what)
}

func newBuyCommand() *cobra.Command {
	c, key, price := &client{}, "", int64(1)
	cmd := &cobra.Command{
		Use:   "buy CUSTOMER SKU QUANTITY",
		Short: "Pay, take from stock and order, all or nothing, exactly once",
		Long: "Buys QUANTITY pieces of article SKU for CUSTOMER, in one transaction over three tables and\n" +
			"up to three nodes: the price is taken from the customer's account, the pieces from stock, and\n" +
			"an order is inserted. If the account or the stock has too little, nothing of it happens.\n" +
			"The tables hold no prices: --price is what one piece costs, 1 if it is not given.\n" + repeatHelp,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			customer, sku := args[0], args[1]
			quantity, err := positive(cmd, "QUANTITY", args[2])
			switch {
			case err != nil:
				return err
			case price < 0:
				return usageErrorf(cmd, "--price must not be negative")
			case price > math.MaxInt64/quantity:
				return usageErrorf(cmd, "%d pieces at %d are too much to be paid", quantity, price)
			}
			if err := c.open(cmd); err != nil {
				return err
			}
			made, err := checkKey(cmd, &key)
			if err != nil {
				return err
			}
			amount, order := price*quantity, orderID(key)
			return c.perform(cmd, clientResult{Key: key, Amount: amount, Order: order}, func(ctx context.Context, tx pgx.Tx) error {
				// Accounts before stock, as every command does: purchases never wait for each other in a circle.
				if err := change(ctx, tx, changeBalance, "account", customer, -amount); err != nil {
					return err
				}
				if err := change(ctx, tx, changeQuantity, "article", sku, -quantity); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, insertOrder, customer, order, sku, quantity, amount)
				return err
			}, made, fmt.Sprintf("order %s, %d of %s for %s, paid %d", order, quantity, sku, customer, amount))
		},
	}
	c.flags(cmd, "the whole")
	keyFlag(cmd, &key)
	cmd.Flags().Int64Var(&price, "price", 1, "what one piece costs")
	return cmd
}

// orderID is the order's id, a UUID (version 8) made of the key: a repetition
// names the same order, and the orders' primary key refuses a second one even
// when the gateways have forgotten the key (key_retention).
func orderID(key string) string {
	digest := sha256.Sum256([]byte("pgpact buy\x00" + key))
	id := digest[:16]
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
