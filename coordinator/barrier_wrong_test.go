//go:build unix

package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// Sums of all balances, read on two nodes while transfers run between them: by the barrier as it is, and by each simpler form
// that gave wrong sums when the protocol was tried (FACTS section 7). The right form must see none, a wrong one must see one:
// a form that has lost what makes it wrong shows that the test would not find it either.

const (
	bankAccounts = 4 // on each node: few, so that transfers meet
	bankWriters  = 6
	bankSum      = 2 * bankAccounts * 1000
)

// bank is a cluster with transfers under way, by two gateways.
type bank struct {
	*gateway // who reads
	writer   *gateway
	stop     chan struct{}
	running  sync.WaitGroup
	moved    atomic.Int64
}

func newBank(t *testing.T, change func(*bank)) *bank {
	t.Helper()
	cluster := newCluster(t, 2)
	for _, node := range cluster.Names() {
		cluster.Exec(node, fmt.Sprintf("DELETE FROM accounts; INSERT INTO accounts SELECT 'x'||i,1000 FROM generate_series(1,%d) i", bankAccounts))
	}
	b := &bank{gateway: startGateway(t, cluster, nil), writer: other(t, cluster, nil), stop: make(chan struct{})}
	if change != nil {
		change(b)
	}
	for i := range bankWriters {
		g := []*gateway{b.gateway, b.writer}[i%2]
		b.running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for {
				select {
				case <-b.stop:
					return
				default:
					b.transfer(g, random)
				}
			}
		})
	}
	t.Cleanup(b.end)
	return b
}

func (b *bank) end() {
	select {
	case <-b.stop:
	default:
		close(b.stop)
	}
	b.running.Wait()
}

// transfer moves money from one node to the other. One that is not committed is no harm.
func (b *bank) transfer(g *gateway, random *rand.Rand) {
	tx, err := g.Begin(context.Background())
	if err != nil {
		return
	}
	amount := random.IntN(21) - 10
	for _, node := range []string{"a", "b"} { // in this order: no deadlock over two nodes
		sql := fmt.Sprintf("UPDATE accounts SET balance=balance+%d WHERE id='x%d'", amount, 1+random.IntN(bankAccounts))
		if _, err := run(tx, g.node(node), sql); err != nil {
			tx.Rollback()
			return
		}
		amount = -amount
	}
	if tx.Commit().Outcome == Committed {
		b.moved.Add(1)
	}
}

// sum reads all balances in a transaction at REPEATABLE READ whose snapshots instant opens. It is not told what instant
// answers with errRead.
func (b *bank) sum(instant func(tx *Transaction) error) (int, error) {
	tx := b.begin()
	defer tx.Rollback()
	for _, node := range b.cluster.Nodes {
		if _, err := tx.Enlist(context.Background(), node, participant.Settings{}, []string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}); err != nil {
			return 0, err
		}
	}
	if err := instant(tx); err != nil {
		return 0, err
	}
	total := 0
	for _, node := range b.cluster.Nodes {
		rows, err := run(tx, node, "SELECT sum(balance) FROM accounts")
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(rows[0])
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// restart makes the branches new ones, of which nothing has been asked yet.
func restart(tx *Transaction) error {
	for _, b := range tx.Branches() {
		if err := b.Restart([]string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}); err != nil {
			return err
		}
	}
	return nil
}

// onBoth runs a statement on all branches, one after the other.
func onBoth(tx *Transaction, sql string) (rows []string, err error) {
	for _, b := range tx.Branches() {
		found, err := run(tx, b.Node(), sql)
		if err != nil {
			return nil, err
		}
		rows = append(rows, found...)
	}
	return rows, nil
}

// through opens the snapshots in a window, with a statement that each node runs.
func (b *bank) through(sql string) func(tx *Transaction) error {
	return func(tx *Transaction) error {
		return b.OpenSnapshots(context.Background(), b.cluster.Nodes, func() error {
			if err := restart(tx); err != nil {
				return err
			}
			_, err := onBoth(tx, sql)
			return err
		})
	}
}

// read reads until it is enough, at most for 90 s and as long as 200 ms for each sum of the long form.
func (b *bank) read(instant func(tx *Transaction) error, enough func(reads, wrong int) bool) (reads, wrong int) {
	b.t.Helper()
	bound := max(90*time.Second, time.Duration(barrierReads(b.t))*200*time.Millisecond)
	for began := time.Now(); !enough(reads, wrong) && time.Since(began) < bound; {
		total, err := b.sum(instant)
		if errors.Is(err, errMeetsDecided) {
			continue
		}
		if err != nil {
			b.t.Fatal(err)
		}
		if reads++; total != bankSum {
			wrong++
		}
	}
	return reads, wrong
}

// barrierReads is how many sums the right form has to read: PGPACT_TEST_BARRIER_READS.
func barrierReads(t testing.TB) int {
	t.Helper()
	text := os.Getenv("PGPACT_TEST_BARRIER_READS")
	if text == "" {
		return 150
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestReadersSeeTransfersWhollyOrNotAtAll(t *testing.T) {
	right := func(t *testing.T, b *bank, want int) {
		reads, wrong := b.read(b.through("SELECT 1"), func(reads, _ int) bool { return reads >= want })
		t.Logf("%d of %d sums wrong, %d transfers", wrong, reads, b.moved.Load())
		if wrong > 0 || reads < want || b.moved.Load() == 0 {
			t.Errorf("%d of %d sums are wrong, after %d transfers", wrong, reads, b.moved.Load())
		}
	}
	t.Run("as it is", func(t *testing.T) { right(t, newBank(t, nil), barrierReads(t)) })
	t.Run("as it is, while the server ends windows", func(t *testing.T) {
		b := newBank(t, func(b *bank) { b.barrier.hooks.opening = b.endsWindow(5) })
		right(t, b, barrierReads(t)/5)
	})
	for _, form := range wrongForms {
		t.Run(form.name, func(t *testing.T) {
			b := newBank(t, form.change)
			reads, wrong := b.read(form.instant(b), func(_, wrong int) bool { return wrong > 0 })
			t.Logf("wrong after %d sums, %d transfers", reads, b.moved.Load())
			if wrong == 0 {
				t.Errorf("no wrong sum among %d, with %d transfers: the form is not wrong enough, or nothing would be found", reads, b.moved.Load())
			}
		})
	}
}

// endsWindow has the server end every nth window, as a gateway that is frozen in it finds it ended, and lets decisions be made.
func (b *bank) endsWindow(nth int) func() {
	windows := 0
	return func() {
		if windows++; windows%nth != 0 {
			return
		}
		b.cluster.SuperExec(clustertest.CoordinatorServer, `SELECT pg_terminate_backend(pid, 1000) FROM pg_locks
			WHERE database=(SELECT oid FROM pg_database WHERE datname=current_database()) AND relation='pgpact.gate'::regclass AND mode='ShareLock'`)
		before := b.moved.Load()
		for began := time.Now(); b.moved.Load() < before+3 && time.Since(began) < time.Second; {
			pause(context.Background(), time.Millisecond)
		}
	}
}

// errMeetsDecided: a snapshot was opened that lacks what has been decided.
var errMeetsDecided = errors.New("a decided transaction is still prepared")

var wrongForms = []struct {
	name    string
	change  func(*bank)
	instant func(*bank) func(*Transaction) error
}{
	{name: "no barrier", instant: func(*bank) func(*Transaction) error {
		return func(tx *Transaction) error {
			_, err := onBoth(tx, "SELECT 1")
			return err
		}
	}},
	{name: "BEGIN REPEATABLE READ without a statement", instant: func(b *bank) func(*Transaction) error {
		return b.through("SET LOCAL lock_timeout=0") // which opens no snapshot
	}},
	{
		name:    "list inside the snapshot's statement",
		change:  func(b *bank) { b.barrier.hooks.listed = func([]participant.GID) []participant.GID { return nil } },
		instant: (*bank).listingLate,
	},
	{
		name: "release unchecked",
		change: func(b *bank) {
			b.barrier.hooks.opening = b.endsWindow(1)
			b.barrier.hooks.release = func(error) error { return nil }
		},
		instant: func(b *bank) func(*Transaction) error { return b.slowly },
	},
	{
		name: "a writer without the lock",
		change: func(b *bank) {
			b.writer.log.commitsSQL = strings.Replace(insertCommitsSQL, "DELETE FROM pgpact.gate", "SELECT", 1)
		},
		instant: func(b *bank) func(*Transaction) error { return b.slowly },
	},
}

// listingLate lists what is prepared in the very statement that opens the snapshot, and asks for the decisions then: what was
// committed at the node between the snapshot and the list is in neither. (The rest, which is taken before the list, is what a
// busy machine does by itself.)
func (b *bank) listingLate() func(*Transaction) error {
	return func(tx *Transaction) error {
		return b.OpenSnapshots(context.Background(), b.cluster.Nodes, func() error {
			if err := restart(tx); err != nil {
				return err
			}
			gids, err := onBoth(tx, "SELECT gid FROM pg_prepared_xacts WHERE (SELECT pg_sleep(0.005)) IS NOT NULL")
			if err != nil {
				return err
			}
			var ids []participant.ID
			for _, text := range gids {
				if gid, ok := participant.ParseGID(text); ok {
					ids = append(ids, gid.ID)
				}
			}
			looked, err := b.log.look(context.Background(), ids, 0)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(ids, func(id participant.ID) bool { return looked[id].decision == Commit }) {
				return errMeetsDecided
			}
			return nil
		})
	}
}

// slowly opens the snapshots one after the other, with a rest between them, as a busy machine does.
func (b *bank) slowly(tx *Transaction) error {
	return b.OpenSnapshots(context.Background(), b.cluster.Nodes, func() error {
		if err := restart(tx); err != nil {
			return err
		}
		for _, branch := range tx.Branches() {
			if _, err := run(tx, branch.Node(), "SELECT 1"); err != nil {
				return err
			}
			pause(context.Background(), 20*time.Millisecond)
		}
		return nil
	})
}
