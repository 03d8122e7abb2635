package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/checker"
	"github.com/pgpact/pgpact/integration/harness"
)

// listsVariable is how many transactions TestLists runs; 100,000 is the long form.
const listsVariable = "PGPACT_TEST_LISTS"

const (
	listClients = 12
	listKeys    = 12 // in use at a time, on all nodes together
	listLength  = 60 // about how long a list becomes before its key is left
)

// TestLists: clients of three gateways append to lists on three nodes and read them, at READ COMMITTED and at REPEATABLE READ. What they have
// read shows none of the anomalies that docs/guarantees.md forbids.
func TestLists(t *testing.T) {
	transactions := 1500
	if text := os.Getenv(listsVariable); text != "" {
		var err error
		transactions, err = strconv.Atoi(text)
		must(t, err)
	}
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	run := &listRun{seed: harness.Seed(t), left: transactions}
	for n := range listKeys * max(2, 2*transactions/(listLength*listKeys)) {
		node := d.cluster.Nodes()[n%3].Name()
		run.keys = append(run.keys, d.keyOn(node, fmt.Sprintf("list%d", n)))
	}
	for _, node := range d.cluster.Nodes() {
		must(t, runAll(node.URL(), run.keys, d.owner, node.Name()))
	}
	var urls []string
	for range 3 {
		_, url := d.configured(t, nil)
		urls = append(urls, url)
	}
	began := time.Now()
	var clients sync.WaitGroup
	for n := range listClients {
		c := &listClient{run: run, conn: harness.Open(t, urls[n%3]), choose: rand.New(rand.NewPCG(run.seed, uint64(n)))}
		clients.Go(c.work)
	}
	clients.Wait()
	ran := time.Since(began)
	told := map[checker.Told]int{}
	reads := 0
	for _, tx := range run.history {
		told[tx.Told]++
		for _, step := range tx.Steps {
			for _, list := range step.Read {
				reads += len(list)
			}
		}
	}
	began = time.Now()
	errs := checker.Lists(run.history)
	t.Logf("%d transactions in %v: %v, %d values read; judged in %v", len(run.history), ran.Round(time.Millisecond), told, reads, time.Since(began).Round(time.Millisecond))
	for i, err := range errs {
		if i == findingsShown {
			t.Errorf("and %d more", len(errs)-i)
			break
		}
		t.Error(err)
	}
	if told[checker.Committed] < transactions/2 || reads == 0 {
		t.Errorf("%v of %d transactions, %d values read: too little to find anything in", told, transactions, reads)
	}
}

// runAll makes the node's table and its lists.
func runAll(url string, keys []string, owner func(string) string, node string) error {
	if err := run(url, "create table public.lists(id text primary key, items bigint[] not null default '{}')"); err != nil {
		return err
	}
	mine := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return owner(key) != node })
	return run(url, "insert into public.lists select unnest($1::text[])", mine)
}

type listRun struct {
	seed uint64
	keys []string

	mu      sync.Mutex
	left    int
	next    int64
	history []checker.ListTransaction
}

type listClient struct {
	run    *listRun
	conn   *pgx.Conn
	choose *rand.Rand
}

// take is the next transaction: some of the keys that are in use now, in the order in which locks are taken, and its values.
func (c *listClient) take() (tx checker.ListTransaction, keys []string, value int64, ok bool) {
	r := c.run
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == 0 {
		return tx, nil, 0, false
	}
	r.left--
	r.next += 10
	from := int(r.next/10) / (listKeys * listLength / 2) * listKeys % (len(r.keys) - listKeys + 1)
	for _, n := range c.choose.Perm(listKeys)[:3] {
		keys = append(keys, r.keys[from+n])
	}
	slices.Sort(keys)
	return checker.ListTransaction{Name: fmt.Sprint("t", r.next/10)}, keys, r.next, true
}

func (c *listClient) work() {
	for {
		tx, keys, value, ok := c.take()
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
		switch c.choose.IntN(4) {
		case 0: // one statement reads all three
			c.transact(ctx, &tx, "begin", func() error { return c.read(ctx, &tx, keys) })
		case 1: // three statements read one each, of one instant
			tx.Repeatable = true
			c.transact(ctx, &tx, "begin isolation level repeatable read", func() error { return c.readEach(ctx, &tx, keys) })
		case 2: // reads, and appends to what it has read, of one instant
			tx.Repeatable = true
			c.transact(ctx, &tx, "begin isolation level repeatable read", func() error {
				if err := c.readEach(ctx, &tx, keys[:2]); err != nil {
					return err
				}
				return c.append(ctx, &tx, keys[:2], value)
			})
		default:
			c.transact(ctx, &tx, "begin", func() error {
				if err := c.append(ctx, &tx, keys, value); err != nil {
					return err
				}
				return c.read(ctx, &tx, keys)
			})
		}
		cancel()
		c.run.mu.Lock()
		c.run.history = append(c.run.history, tx)
		c.run.mu.Unlock()
	}
}

func (c *listClient) transact(ctx context.Context, tx *checker.ListTransaction, begin string, do func() error) {
	_, err := simple(ctx, c.conn, begin)
	if err == nil {
		err = do()
	}
	if err != nil {
		tx.Told = checker.Aborted
		_, _ = simple(ctx, c.conn, "rollback") // nothing was committed
		return
	}
	told, _ := end(simple(ctx, c.conn, "commit"))
	tx.Told = checker.Told(told)
}

func (c *listClient) append(ctx context.Context, tx *checker.ListTransaction, keys []string, value int64) error {
	for n, key := range keys {
		tx.Steps = append(tx.Steps, checker.ListStep{Append: map[string]int64{key: value + int64(n)}})
		if _, err := simple(ctx, c.conn, fmt.Sprintf("update lists set items = items || %d::bigint where id = '%s'", value+int64(n), key)); err != nil {
			return err
		}
	}
	return nil
}

func (c *listClient) readEach(ctx context.Context, tx *checker.ListTransaction, keys []string) error {
	for _, key := range keys {
		if err := c.read(ctx, tx, []string{key}); err != nil {
			return err
		}
	}
	return nil
}

func (c *listClient) read(ctx context.Context, tx *checker.ListTransaction, keys []string) error {
	rows, err := c.conn.Query(ctx, "select id, items from lists where id in ('"+strings.Join(keys, "', '")+"')", pgx.QueryExecModeExec)
	if err != nil {
		return err
	}
	step := checker.ListStep{Read: map[string][]int64{}}
	var key string
	var items []int64
	if _, err := pgx.ForEachRow(rows, []any{&key, &items}, func() error { step.Read[key] = slices.Clone(items); return nil }); err != nil {
		return err
	}
	tx.Steps = append(tx.Steps, step)
	return nil
}
