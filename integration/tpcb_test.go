package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// tpcbTables are those of pgbench -i with keys to shard by, made through the gateway as everything here is. pgbench's history has no primary key; here it begins with the account, so that
// its row lives where the account's is, and the script need not change: the rest of the key is a default.
const tpcbTables = `
	create table public.pgbench_branches(bid int primary key, bbalance int not null default 0, filler char(88));
	create table public.pgbench_tellers(tid int primary key, bid int not null, tbalance int not null default 0, filler char(84));
	create table public.pgbench_accounts(aid int primary key, bid int not null, abalance int not null default 0, filler char(84) default '');
	create table public.pgbench_history(tid int not null, bid int not null, aid int not null, delta int not null, mtime timestamp not null,
		filler char(22), hid uuid not null default gen_random_uuid(), primary key (aid, hid))`

// tpcbSizes are each table's rows for each unit of scale, as pgbench -i makes them, and what its balances are called.
var tpcbSizes = []struct {
	table, key, balance, columns string
	rows                         int
}{
	{"pgbench_branches", "bid", "bbalance", "bid", 1},
	{"pgbench_tellers", "tid", "tbalance", "tid, bid", 10},
	{"pgbench_accounts", "aid", "abalance", "aid, bid", 100_000},
}

// TestTPCB: CREATE TABLE and psql's \copy through the gateway, then pgbench's own TPC-B-like script, word for word, by 16 clients in all
// three modes: not one error, not even one that a client could try again after, and the books agree to the row. PGPACT_TEST_TPCB_SECONDS is how long each mode takes; 5 s by default.
//
// One plain Postgres gives no error here, because the script cannot deadlock: everybody locks an account, then a teller, then a branch, so
// whoever is waited for waits, if at all, for a row of a later table. That holds for rows on different nodes too. What the gateway adds
// closes no circle either: who has a slot has a connection on every node, prepared branches wait for nobody's rows, and the keys of
// history and of the branch records are nobody else's.
func TestTPCB(t *testing.T) {
	seconds, scale := 5, 2
	if text := os.Getenv("PGPACT_TEST_TPCB_SECONDS"); text != "" {
		var err error
		seconds, err = strconv.Atoi(text)
		must(t, err)
	}
	if seconds >= 30 {
		scale = 16 // as many branches as clients, as pgbench recommends
	}
	pgbench, err := exec.LookPath("pgbench")
	if err != nil {
		t.Skipf("SKIPPED: %v (Debian: postgresql-client and postgresql)", err)
	}
	d := deploy(t, harness.Options{})
	_, url := harness.Serve(t, d.config)
	d.fillTPCB(t, url, scale)

	script := tpcbScript(t, pgbench)
	var transactions int64
	for _, mode := range []string{"simple", "extended", "prepared"} {
		t.Run(mode, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second+time.Minute)
			defer cancel()
			command := exec.CommandContext(ctx, pgbench, "--no-vacuum", "--protocol", mode, "--client", "16", "--jobs", "2", "--time", strconv.Itoa(seconds),
				"--define", "scale="+strconv.Itoa(scale), "--file", script, url)
			output, err := command.CombinedOutput()
			t.Logf("scale %d:\n%s", scale, output)
			processed, outputErr := tpcbProcessed(string(output))
			must(t, errors.Join(err, outputErr))
			transactions += processed
		})
	}
	harness.Eventually(t, settleBound, "in doubt", d.nothingPrepared)
	d.tpcbAgrees(t, scale, transactions)
}

// tpcbScript has pgbench write down its built-in script. Run as a built-in it would count the branches first, for a scale that we know.
func tpcbScript(t testing.TB, pgbench string) string {
	t.Helper()
	var script bytes.Buffer
	command := exec.Command(pgbench, "--show-script=tpcb-like")
	command.Stderr = &script // that is where it prints it
	must(t, command.Run())
	if !strings.Contains(script.String(), "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)") {
		t.Fatalf("pgbench's script is not the one we know:\n%s", script.String())
	}
	path := filepath.Join(t.TempDir(), "tpcb-like")
	must(t, os.WriteFile(path, script.Bytes(), 0o600))
	return path
}

var tpcbResult = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)$`)

// tpcbProcessed reads what pgbench printed. It goes on when clients are thrown out, so its exit says too little.
func tpcbProcessed(output string) (int64, error) {
	for _, word := range []string{"ERROR", "FATAL", "WARNING", "pgbench: error", "aborted"} {
		if strings.Contains(output, word) {
			return 0, fmt.Errorf("pgbench has met an error (%q)", word)
		}
	}
	if !strings.Contains(output, "\nnumber of failed transactions: 0 (") {
		return 0, errors.New("pgbench does not say that no transaction failed")
	}
	found := tpcbResult.FindStringSubmatch(output)
	if found == nil {
		return 0, errors.New("pgbench printed no result")
	}
	processed, err := strconv.ParseInt(found[1], 10, 64)
	if err == nil && processed == 0 {
		err = errors.New("not one transaction in all that time")
	}
	return processed, err
}

// fillTPCB makes the tables and their rows through the gateway, and sees that the rows are where they belong.
func (d *deployment) fillTPCB(t testing.TB, url string, scale int) {
	t.Helper()
	must(t, run(url, tpcbTables))
	for _, size := range tpcbSizes {
		var rows strings.Builder
		for n := 1; n <= size.rows*scale; n++ {
			if fmt.Fprint(&rows, n); size.table != "pgbench_branches" {
				fmt.Fprintf(&rows, "\t%d", (n-1)/size.rows+1)
			}
			rows.WriteByte('\n')
		}
		command := exec.Command("psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url,
			"--command", fmt.Sprintf(`\copy public.%s(%s) from stdin`, size.table, size.columns))
		command.Stdin = strings.NewReader(rows.String())
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("\\copy of %s: %v\n%s", size.table, err, output)
		}
	}
	for _, node := range d.cluster.Nodes() {
		must(t, run(node.URL(), "analyze"))
		for _, size := range tpcbSizes {
			for _, key := range mustColumn[int32](t, node.URL(), "select "+size.key+" from public."+size.table) {
				if d.owner(strconv.Itoa(int(key))) != node.Name() {
					t.Fatalf("%s %d is on node %s", size.table, key, node.Name())
				}
			}
		}
	}
}

// tpcbAgrees holds the balances against the history, both read on the nodes: of every single account, teller and branch, not only their
// sums. So it sees a change that is on one node only whichever way it has gone wrong.
func (d *deployment) tpcbAgrees(t testing.TB, scale int, transactions int64) {
	t.Helper()
	written := d.tpcbSum(t, "select 0, count(*) from public.pgbench_history group by 1")[0]
	if written != transactions {
		t.Errorf("history has %d rows, pgbench has seen %d transactions", written, transactions)
	}
	harness.Eventually(t, settleBound, "records", d.recordsAgree)
	several := mustColumn[int64](t, d.cluster.Coordinator().URL(), "select count(*) from pgpact.transactions where outcome = 'committed'")[0]
	if t.Logf("%d transactions, %d of them on both nodes", transactions, several); several < transactions/4 {
		t.Error("hardly a transaction was on both nodes")
	}
	for _, size := range tpcbSizes {
		if rows := d.tpcbSum(t, "select 0, count(*) from public."+size.table+" group by 1")[0]; rows != int64(scale*size.rows) {
			t.Errorf("%s has %d rows, not %d", size.table, rows, scale*size.rows)
		}
		balances := d.tpcbSum(t, fmt.Sprintf("select %s, %s from public.%s where %[2]s <> 0", size.key, size.balance, size.table))
		// Changes may have added up to nothing.
		history := d.tpcbSum(t, fmt.Sprintf("select %s, sum(delta) from public.pgbench_history group by 1", size.key))
		maps.DeleteFunc(history, func(_, delta int64) bool { return delta == 0 })
		wrong := 0
		for key := range history {
			if balances[key] != history[key] {
				wrong++
			}
		}
		for key := range balances {
			if _, has := history[key]; !has {
				wrong++
			}
		}
		if wrong > 0 || len(history) == 0 {
			t.Errorf("%s: %d of %d balances are not what the history says", size.table, wrong, len(history))
		}
		var total int64
		for _, balance := range balances {
			total += balance
		}
		t.Logf("%s: %d balances, sum %d, as the history says", size.table, len(balances), total)
	}
	for _, node := range d.cluster.Nodes() {
		for _, aid := range mustColumn[int32](t, node.URL(), "select distinct aid from public.pgbench_history") {
			if d.owner(strconv.Itoa(int(aid))) != node.Name() {
				t.Fatalf("history of account %d is on node %s", aid, node.Name())
			}
		}
	}
}

// tpcbSum adds up what the nodes say: a query of keys and numbers.
func (d *deployment) tpcbSum(t testing.TB, query string) map[int64]int64 {
	t.Helper()
	sums := map[int64]int64{}
	for _, node := range d.cluster.Nodes() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		rows, err := node.Open(t).Query(ctx, query)
		must(t, err)
		var key, number int64
		_, err = pgx.ForEachRow(rows, []any{&key, &number}, func() error {
			sums[key] += number
			return nil
		})
		must(t, err)
	}
	return sums
}
