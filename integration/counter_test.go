package integration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestForUpdateCounterAcrossNodes: a row lock on one node protects what is read and written on two others. Not one of 2,000 increments may
// be lost, although the branch that holds the lock changes nothing.
func TestForUpdateCounterAcrossNodes(t *testing.T) {
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	_, url := harness.Serve(t, d.config)
	increments := func(t *testing.T, prefix, lock string, n int) int64 {
		guard := d.open(t, "c", prefix+"-guard", 1)[0]
		counters := []string{d.open(t, "a", prefix+"-count", 1)[0], d.open(t, "b", prefix+"-count", 1)[0]}
		increase(t, url, guard, lock, counters, n)
		first, err := d.balance(counters[0])
		must(t, err)
		second, err := d.balance(counters[1])
		must(t, err)
		t.Logf("of %d increments, %d and %d have stayed", n, first-startBalance, second-startBalance)
		return min(first, second) - startBalance
	}
	t.Run("protected", func(t *testing.T) {
		const n = 2000
		if kept := increments(t, "p", " for update", n); kept != n {
			t.Errorf("%d increments were lost", n-kept)
		}
	})
	// The same without the lock loses some; otherwise the test above would show nothing.
	t.Run("not protected", func(t *testing.T) {
		const n = 400
		if kept := increments(t, "u", "", n); kept == n {
			t.Error("no increment was lost without FOR UPDATE: the clients never met")
		}
	})
	harness.Eventually(t, settleBound, "in doubt", d.nothingPrepared)
}

// increase has 8 clients add n times one to each counter: read, count, write.
func increase(t *testing.T, url, guard, lock string, counters []string, n int) {
	const clients = 8
	errs := make([]error, clients)
	var group sync.WaitGroup
	for client := range clients {
		conn := harness.Open(t, url)
		group.Go(func() {
			for range n / clients {
				if errs[client] = increaseOnce(conn, guard, lock, counters); errs[client] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	must(t, errors.Join(errs...))
}

func increaseOnce(conn *pgx.Conn, guard, lock string, counters []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	if _, err := simple(ctx, conn, "begin"); err != nil {
		return err
	}
	if _, err := ask(conn, fmt.Sprintf("select balance from accounts where id = '%s'%s", guard, lock)); err != nil {
		return err
	}
	for _, counter := range counters {
		text, err := ask(conn, fmt.Sprintf("select balance from accounts where id = '%s'", counter))
		if err != nil {
			return err
		}
		value, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		if _, err := simple(ctx, conn, fmt.Sprintf("update accounts set balance = %d where id = '%s'", value+1, counter)); err != nil {
			return err
		}
	}
	if told, err := end(simple(ctx, conn, "commit")); told != knowsCommitted {
		return fmt.Errorf("COMMIT: %s, %w", told, err)
	}
	return nil
}
