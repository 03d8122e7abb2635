package checker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Told is what a client knows of its transaction once the answer, or the end of the connection, has come.
type Told string

// What clients can be told. Unknown is 08007, or a connection lost at COMMIT.
const (
	Committed Told = "committed"
	Aborted   Told = "aborted"
	Unknown   Told = "unknown"
)

// Transfer is one attempt to move money, as its client remembers it. It writes a journal row beside each account, in the same transaction.
type Transfer struct {
	Name    string    `json:"name"`          // of the attempt, in its journal rows
	Key     string    `json:"key,omitempty"` // idempotency key: at most one of its attempts may commit
	ID      string    `json:"id,omitempty"`  // of the transaction, where it was asked for
	Gateway string    `json:"gateway"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Told    Told      `json:"told"`
	Error   string    `json:"error,omitempty"`
	// KeyTaken: it was refused because its key has been committed.
	KeyTaken bool `json:"key_taken,omitempty"`
	// Asked is what a later question said of it, "" if there was none.
	Asked Told `json:"asked,omitempty"`
	Legs  []Leg
}

// Leg is one half of a transfer.
type Leg struct {
	Node, Account string
	Delta         int64
}

// Book is what a node shows of the bank when all is over.
type Book struct {
	Balances map[string]int64
	Journal  []Entry
}

// Entry is a journal row.
type Entry struct {
	Transfer, Account string
	Delta             int64
}

// ReadBook reads tables accounts(id, balance) and journal(transfer, account, delta) of one node.
func ReadBook(ctx context.Context, conn *pgx.Conn) (*Book, error) {
	book := &Book{Balances: map[string]int64{}}
	rows, err := conn.Query(ctx, "select id, balance from public.accounts")
	if err != nil {
		return nil, err
	}
	var id string
	var balance int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &balance}, func() error { book.Balances[id] = balance; return nil }); err != nil {
		return nil, err
	}
	if rows, err = conn.Query(ctx, "select transfer, account, delta from public.journal"); err != nil {
		return nil, err
	}
	book.Journal, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Entry])
	return book, err
}

// Bank checks transfers against the books of all nodes. start is what every account began with.
func Bank(history []Transfer, books map[string]*Book, start int64) []error {
	var errs []error
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf("bank: "+format, args...)) }

	type place struct{ node, account string }
	found := map[string]map[place][]int64{} // transfer -> where -> deltas
	var sum, want int64
	for node, book := range books {
		byJournal := map[string]int64{}
		for _, e := range book.Journal {
			byJournal[e.Account] += e.Delta
			if found[e.Transfer] == nil {
				found[e.Transfer] = map[place][]int64{}
			}
			at := place{node, e.Account}
			found[e.Transfer][at] = append(found[e.Transfer][at], e.Delta)
		}
		for account, balance := range book.Balances {
			sum, want = sum+balance, want+start
			if balance != start+byJournal[account] {
				report("account %s on node %s has %d, by its journal %d", account, node, balance, start+byJournal[account])
			}
		}
	}
	if sum != want {
		report("the sum of all balances is %d, and was %d", sum, want)
	}

	committed := map[string][]string{} // key -> attempts
	for i := range history {
		t := &history[i]
		there, wrong := 0, false
		for _, leg := range t.Legs {
			switch deltas := found[t.Name][place{leg.Node, leg.Account}]; {
			case len(deltas) == 0:
			case len(deltas) == 1 && deltas[0] == leg.Delta:
				there++
			default:
				wrong = true
				report("%s: account %s was changed by %v, and was to be changed by %d, once", t.Name, leg.Account, deltas, leg.Delta)
			}
		}
		whole := there == len(t.Legs)
		switch {
		case wrong:
		case there > 0 && !whole:
			report("%s is torn: %d of its %d halves are there; the client was told %s (%s)", t.Name, there, len(t.Legs), t.Told, t.Error)
		case t.Told == Committed && !whole:
			report("%s is lost: the client was told committed", t.Name)
		case t.Told == Aborted && whole:
			report("%s is there, and the client was told aborted (%s)", t.Name, t.Error)
		case t.Asked == Committed && !whole, t.Asked == Aborted && whole:
			report("%s: its outcome was said to be %s, and committed is %t", t.Name, t.Asked, whole)
		}
		if whole && t.Key != "" {
			committed[t.Key] = append(committed[t.Key], t.Name)
		}
		delete(found, t.Name)
	}
	for name := range found {
		report("%s is in the journal, and nobody made it", name)
	}
	for _, t := range history {
		if t.KeyTaken && len(committed[t.Key]) == 0 {
			report("%s was refused because its key %s had been committed, and it has not", t.Name, t.Key)
		}
	}
	for key, names := range committed {
		if len(names) > 1 {
			report("key %s has committed %d times: %v", key, len(names), names)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errs
}
