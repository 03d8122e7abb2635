package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestNodeKilledBetweenPrepareAndCommitPrepared kills a node's servers with SIGKILL while it holds a prepared branch: with a gateway that
// died in the same moment, with one that lives and decides while the node is gone, and again and again at random moments.
func TestNodeKilledBetweenPrepareAndCommitPrepared(t *testing.T) {
	d := deploy(t, harness.Options{})
	t.Run("gateway dies undecided", func(t *testing.T) { nodeAndGatewayDie(t, d, "voted", false) })
	t.Run("gateway dies decided", func(t *testing.T) { nodeAndGatewayDie(t, d, "decided", true) })
	t.Run("gateway lives", func(t *testing.T) { nodeDiesWhileDeciding(t, d) })
}

// halves are two accounts on two nodes.
func halves(t *testing.T, d *deployment, prefix string) (from, to string) {
	t.Helper()
	return d.open(t, "a", prefix+"-a", 1)[0], d.open(t, "b", prefix+"-b", 1)[0]
}

// moved is nil when both halves of a transfer of visitAmount are as they must be.
func moved(d *deployment, from, to string, committed bool) error {
	found, err := (&visit{d: d, from: from, to: to}).committed()
	if err == nil && found != committed {
		err = fmt.Errorf("committed is %t, want %t", found, committed)
	}
	return err
}

// nodeAndGatewayDie: the gateway comes back first, and must serve the other node and leave what it cannot reach alone.
func nodeAndGatewayDie(t *testing.T, d *deployment, point string, committed bool) {
	from, to := halves(t, d, point)
	gateway, url := harness.Serve(t, d.config, "--crash-at", point)
	told, _ := transact(harness.Open(t, url), move(from, -visitAmount), move(to, visitAmount)) // the error is the crash
	dies(t, gateway)
	d.cluster.Node("b").Kill9(t)

	gateway, url = harness.Serve(t, d.config)
	// Recovery of the node that is up does not wait for the other.
	balance := int64(startBalance)
	if committed {
		balance -= visitAmount
	}
	harness.Eventually(t, settleBound, "node a while node b is down", func() error {
		if gids := mustColumn[string](t, d.cluster.Node("a").URL(), "select gid from pg_prepared_xacts"); len(gids) > 0 {
			return fmt.Errorf("prepared: %v", gids)
		}
		if got, err := d.balance(from); err != nil || got != balance {
			return fmt.Errorf("%s has %d, want %d (%v)", from, got, balance, err)
		}
		return nil
	})
	if told, err := transact(harness.Open(t, url), move(from, 0)); told != knowsCommitted {
		t.Errorf("a transaction on node a while node b is down: %s, %v", told, err)
	}
	d.cluster.Node("b").Start(t)
	harness.Eventually(t, settleBound, "after the node's restart", d.nothingPrepared)
	must(t, moved(d, from, to, committed))
	if told.contradicts(committed) {
		t.Errorf("the client was told %s", told)
	}
	gateway.Stop(t)
}

// nodeDiesWhileDeciding holds the decision up with the lock that readers of several nodes take (DESIGN section 7b), for as long as it
// takes to kill a node that has voted yes. The decision falls all the same: the vote is on the node's disk.
func nodeDiesWhileDeciding(t *testing.T, d *deployment) {
	from, to := halves(t, d, "deciding")
	_, url := harness.Serve(t, d.config)
	config, err := pgx.ParseConfig(url)
	must(t, err)
	var warnings []string
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { warnings = append(warnings, notice.Message) }
	client, err := pgx.ConnectConfig(t.Context(), config)
	must(t, err)
	defer client.Close(context.Background())

	barrier := d.cluster.Coordinator().Open(t)
	exec1(t, barrier, "begin")
	exec1(t, barrier, "lock table pgpact.gate in share mode")
	var told knowledge
	var toldErr error
	var committing sync.WaitGroup
	committing.Go(func() { told, toldErr = transact(client, move(from, -visitAmount), move(to, visitAmount)) })
	harness.Eventually(t, settleBound, "both nodes have voted", func() error {
		gids, err := d.prepared()
		if err == nil && len(gids) != 2 {
			err = fmt.Errorf("prepared: %v", gids)
		}
		return err
	})
	d.cluster.Node("b").Kill9(t)
	exec1(t, barrier, "commit")
	committing.Wait()

	// If the node was dead before the decision was handed over, the gateway may have seen it and given up: certainly, and saying so.
	t.Logf("the client: %s, %v, warned: %q", told, toldErr, warnings)
	if told == knowsNothing {
		t.Error("the decision database was there all the time, and the client was left without an answer")
	}
	committed := told == knowsCommitted
	if committed && !strings.Contains(strings.Join(warnings, " "), `node "b"`) {
		t.Errorf("COMMIT without a warning that names node b: %q", warnings)
	}
	d.cluster.Node("b").Start(t)
	harness.Eventually(t, settleBound, "after the node's restart", d.nothingPrepared)
	must(t, moved(d, from, to, committed))
	if told, err := transact(harness.Open(t, url), move(from, 0), move(to, 0)); told != knowsCommitted {
		t.Errorf("a transaction on the same accounts afterwards: %s, %v", told, err)
	}
	// While the gateway lives: somebody has to mark as finished what the subtests before have left, too.
	harness.Eventually(t, 40*time.Second, "decisions and branch records", d.recordsAgree)
}

// TestTransfersWhileServersAreKilled: one gateway lives through ten kills of a node, and then of the decision database, at random moments,
// while money moves at random. Transactions that have nothing to do with the dead server notice nothing.
func TestTransfersWhileServersAreKilled(t *testing.T) {
	d := deploy(t, harness.Options{})
	for _, victim := range []*harness.Server{d.cluster.Node("b"), d.cluster.Coordinator()} {
		t.Run(victim.Name(), func(t *testing.T) { transfersWhileKilled(t, d, victim) })
	}
}

func transfersWhileKilled(t *testing.T, d *deployment, victim *harness.Server) {
	for _, node := range d.cluster.Nodes() {
		must(t, run(node.URL(), "truncate journal, accounts cascade"))
	}
	l := newLedger(t, d, 20)
	bystander := l.accounts[0] // on node a: no transaction there needs the victim
	if d.owner(bystander) != "a" {
		t.Fatalf("%s is on node %s", bystander, d.owner(bystander))
	}
	l.accounts = l.accounts[1:]
	_, url := harness.Serve(t, d.config)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var clients sync.WaitGroup
	for worker := range 8 {
		clients.Go(func() { l.work(ctx, url, worker) })
	}
	choose := rand.New(rand.NewPCG(l.seed, 1000))
	lives := harness.Open(t, url)
	for kill := range 10 {
		within := time.After(time.Duration(200+choose.IntN(1000)) * time.Millisecond)
		alone(t, lives, bystander, within)
		victim.Kill9(t)
		alone(t, lives, bystander, time.After(time.Duration(100+choose.IntN(500))*time.Millisecond))
		victim.Start(t)
		t.Logf("kill %d: %v", kill+1, l.counts())
	}
	// What is still under way when the last kill is over ends as well.
	alone(t, lives, bystander, time.After(2*time.Second))
	cancel()
	clients.Wait()
	exec1(t, lives, fmt.Sprintf("update accounts set balance = %d where id = '%s'", startBalance, bystander))
	l.accounts = append(l.accounts, bystander)
	l.audit(t, url)
	for _, line := range l.errorsTold() {
		t.Log(line)
	}
	l.holdErrors(t, victim.Name())
}

// alone commits on one account until the time is over; not one transaction may fail.
func alone(t *testing.T, conn *pgx.Conn, account string, over <-chan time.Time) {
	t.Helper()
	for done := 0; ; done++ {
		select {
		case <-over:
			if done == 0 {
				t.Errorf("nothing was committed on %s in the whole interval", account)
			}
			return
		default:
		}
		if told, err := transact(conn, move(account, 1)); told != knowsCommitted {
			t.Fatalf("a transaction that has nothing to do with the dead server: %s, %v", told, err)
		}
	}
}

// holdErrors: whoever needed the dead server was told so by its name, and nobody was told anything else.
func (l *ledger) holdErrors(t *testing.T, victim string) {
	t.Helper()
	wrong := 0
	for name, e := range l.entries {
		var pgErr *pgconn.PgError
		switch {
		case e.err == nil:
		case !errors.As(e.err, &pgErr):
			wrong++
			t.Errorf("%s: %v", name, e.err) // the gateway lives: no connection may be lost
		case pgErr.Code == "23514", pgErr.Code == resolutionUnknown, pgErr.Code == "40001":
		case pgErr.Code == "08006" && strings.Contains(pgErr.Message, `node "`+victim+`"`):
		case pgErr.Code == "08006" && victim == harness.CoordinatorName && pgErr.Message == "the decision database cannot be reached":
		default:
			wrong++
			t.Errorf("%s: %v", name, e.err)
		}
		if wrong > 20 {
			t.Fatal("and so on")
		}
	}
}
