package integration

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// The failure cases of the papers are TestCases and its subtests, each named after its case: `make integration RUN='TestCases/C/C5'`. A
// family shares one cluster, because its cases leave nothing behind; that they do not is part of every case. Each case is tried in one of several
// shapes, and in all of them sixteen clients work on other keys meanwhile and must not notice.

// shape is how many nodes the transactions of a case write on, and how many key groups there are: transactions with keys of their own that
// are under way when the fault strikes.
type shape struct{ nodes, groups int }

func (s shape) String() string { return fmt.Sprintf("%d-nodes-%d-groups", s.nodes, s.groups) }

// shapes are those of a case that costs little; few are those of one that kills servers; few2 of one that needs two nodes.
var (
	shapes = []shape{{1, 1}, {2, 2}, {3, 4}, {4, 8}}
	few    = []shape{{1, 1}, {2, 3}, {4, 8}}
	few2   = []shape{{2, 1}, {4, 8}}
)

// caseRig is four nodes and two gateways. The first has the case's transactions and the faults; the second serves the bystanders.
type caseRig struct {
	t        *testing.T // the family's
	d        *deployment
	fleet    *harness.Fleet
	one, two *harness.Site
	books    *books
	serial   int
}

// patience is the configuration of gateways that are to give up soon, with some slack for a busy machine.
var patience = []string{"prepare_timeout: 3s", "decision_timeout: 2s", "finish_timeout: 2s", "in_doubt_timeout: 20s", "sweep_interval: 200ms",
	"connect_timeout: 2s"}

func newCaseRig(t *testing.T) *caseRig { t.Helper(); return newCaseRigOn(t, harness.Options{}) }

func newCaseRigOn(t *testing.T, options harness.Options, lines ...string) *caseRig {
	t.Helper()
	options.Nodes = []string{"a", "b", "c", "d"}
	d := deploy(t, options)
	fleet := harness.NewFleet(t, d.cluster, 2, append(slices.Clone(patience), lines...)...)
	return &caseRig{t: t, d: d, fleet: fleet, one: fleet.Sites[0], two: fleet.Sites[1], books: newBooks(t, d)}
}

// oneCase is a row of the table.
type oneCase struct {
	name string
	run  func(t *testing.T, r *caseRig)
}

// family runs cases on one cluster and looks at the end whether everything is still as it was found to be right.
func family(t *testing.T, cases ...oneCase) { newCaseRig(t).family(t, cases...) }

func (r *caseRig) family(t *testing.T, cases ...oneCase) {
	for _, c := range cases {
		if !t.Run(c.name, func(t *testing.T) { c.run(t, r) }) {
			t.Fatal("the rest of the family is left out: the cluster may not be whole")
		}
	}
	must(t, r.d.nothingPrepared())
	harness.Eventually(t, 40*time.Second, "decisions and branch records", r.d.recordsAgree)
	for _, command := range []string{"check", "transactions"} {
		if result := harness.Run(t, command, "--config", r.d.config); result.Code != 0 {
			t.Errorf("pgpact %s: exit status %d\n%s%s", command, result.Code, result.Stdout, result.Stderr)
		}
	}
}

// each runs a case in one of the shapes, which the seed draws, with fullVariable in all of them; after a failure the rest is left out.
func (r *caseRig) each(t *testing.T, all []shape, do func(t *testing.T, s shape)) {
	t.Helper()
	if os.Getenv(fullVariable) == "" {
		name := fnv.New64a()
		_, _ = name.Write([]byte(t.Name()))
		drawn := rand.New(rand.NewPCG(harness.Seed(t), name.Sum64())).IntN(len(all))
		all = all[drawn : drawn+1]
	}
	for _, s := range all {
		if !t.Run(s.String(), func(t *testing.T) { do(t, s) }) {
			return
		}
	}
}

// restart ends the first gateway, whatever it is doing, and starts it with these arguments.
func (r *caseRig) restart(t *testing.T, args ...string) {
	t.Helper()
	r.one.Kill9(t)
	r.start(t, args...)
}

// start starts the first gateway for all cases that follow, and not only until this one ends.
func (r *caseRig) start(t *testing.T, args ...string) {
	t.Helper()
	r.one.Start(lasting{t, r.t}, args...)
}

// lasting is a test whose processes and files are removed at the end of another.
type lasting struct {
	testing.TB
	owner testing.TB
}

func (l lasting) Cleanup(do func()) { l.owner.Cleanup(do) }
func (l lasting) TempDir() string   { return l.owner.TempDir() }

// freeze has the first gateway stop at a point (SIGSTOP), which one of the transactions reaches first. It goes on with r.one.Unpause; the
// function that it returns waits for the clients' answers.
func (r *caseRig) freeze(t *testing.T, s shape, point string, also ...func(g *group)) (all groups, answered func()) {
	t.Helper()
	r.restart(t, "--stop-at", point)
	all = r.crowdOf(t, s)
	for _, do := range also {
		for _, g := range all {
			do(g)
		}
	}
	answered = all.commit()
	r.one.Gateway().WaitFrozen(t, 20*time.Second)
	return all, answered
}

// victim is the node that dies in a shape: the last one that the transactions write on.
func (r *caseRig) victim(s shape) *harness.Server { return r.d.cluster.Nodes()[s.nodes-1] }

// others are the names of all nodes but this one.
func (r *caseRig) others(victim *harness.Server) (names []string) {
	for _, node := range r.d.cluster.Nodes() {
		if node != victim {
			names = append(names, node.Name())
		}
	}
	return names
}

// settled waits until nothing of the first gateway's lives is prepared.
func (r *caseRig) settled(t *testing.T, within time.Duration) {
	t.Helper()
	began := time.Now()
	harness.Eventually(t, within, "what the first gateway left", r.nothingOfOne)
	t.Logf("nothing in doubt after %v", time.Since(began).Round(time.Millisecond))
}

// nothingOfOne is nil when nothing of the first gateway's is prepared on any node.
func (r *caseRig) nothingOfOne() error {
	left, err := r.preparedOfOne()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("prepared: %v", left)
	}
	return err
}

// preparedOfOne are the prepared branches of the first gateway, of all its lives.
func (r *caseRig) preparedOfOne() ([]string, error) {
	epochs, err := read[string](r.books, harness.CoordinatorName, "select epoch::text from pgpact.gateways where name = $1", r.one.Name())
	if err != nil {
		return nil, err
	}
	return r.preparedBy(epochs)
}

// preparedBy are the prepared branches of some epochs.
func (r *caseRig) preparedBy(epochs []string) ([]string, error) {
	var all []string
	for _, node := range r.d.cluster.Nodes() {
		gids, err := read[string](r.books, node.Name(), "select gid from pg_prepared_xacts where gid like $1", "pgpact/"+r.d.id+"/%")
		if err != nil {
			return nil, err
		}
		all = append(all, gids...)
	}
	return slices.DeleteFunc(all, func(gid string) bool { return !slices.Contains(epochs, strings.Split(gid, "/")[2]) }), nil
}

// preparedOn waits until so many branches of the first gateway are prepared on a node.
func (r *caseRig) preparedOn(t *testing.T, node *harness.Server, n int) {
	t.Helper()
	harness.Eventually(t, settleBound, "prepared on node "+node.Name(), func() error {
		left, err := read[string](r.books, node.Name(), `select gid from pg_prepared_xacts where gid like $1`, "pgpact/"+r.d.id+"/%")
		if err == nil && len(left) != n { // the bystanders keep off this node
			err = fmt.Errorf("%v, want %d", left, n)
		}
		return err
	})
}

// crowdOf opens the keys of a shape's groups and runs their statements through the first gateway, as far as to the COMMIT.
func (r *caseRig) crowdOf(t *testing.T, s shape) groups {
	t.Helper()
	return r.crowdAt(t, s, r.one.URL())
}

// crowdAt is crowdOf through any gateway.
func (r *caseRig) crowdAt(t *testing.T, s shape, url string) groups {
	t.Helper()
	var all groups
	var accounts []string
	for i := range s.groups {
		r.serial++
		g := newGroup(r, s.nodes, r.serial, i)
		accounts = append(accounts, g.accounts...)
		all = append(all, g)
	}
	r.books.open(t, accounts)
	for _, g := range all {
		g.begin(t, url)
	}
	return all
}

// bystanders are clients with accounts of their own. Not one of their transactions may fail.
type bystanders struct {
	books   *books
	clients []*bystander
	cancel  context.CancelFunc
	working sync.WaitGroup
}

type bystander struct {
	from, to string
	done     int64
	stall    time.Duration // the longest time between two commits
	err      error
}

// bystanderCount is the number that the table's cases promise.
const bystanderCount = 16

// stallBound is what no bystander may wait for.
const stallBound = 10 * time.Second

// bystand starts the clients through the second gateway. Their transactions are over two of the nodes, or on one when there is only one.
func (r *caseRig) bystand(t *testing.T, nodes ...string) *bystanders {
	t.Helper()
	if len(nodes) == 0 {
		nodes = r.others(nil)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &bystanders{books: r.books, cancel: cancel}
	r.serial++
	var accounts []string
	for i := range bystanderCount {
		prefix := fmt.Sprintf("by-%d-%d", r.serial, i)
		c := &bystander{
			from: r.d.keyOn(nodes[i%len(nodes)], prefix+"-from"),
			to:   r.d.keyOn(nodes[(i+1)%len(nodes)], prefix+"-to"),
		}
		b.clients = append(b.clients, c)
		accounts = append(accounts, c.from, c.to)
	}
	r.books.open(t, accounts)
	// They begin one after another, and the fault comes when all are at work: a burst of new connections is not what the cases are about.
	for _, c := range b.clients {
		conn := harness.Open(t, r.two.URL())
		begun := make(chan struct{})
		b.working.Go(func() { c.work(ctx, conn, begun) })
		<-begun
	}
	t.Cleanup(func() { cancel(); b.working.Wait() })
	return b
}

// work commits until ctx ends, about ten times a second: it is to notice a stall, not to make one.
// begun is closed when the first transaction has ended.
func (c *bystander) work(ctx context.Context, conn *pgx.Conn, begun chan<- struct{}) {
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for last := time.Now(); ; last = time.Now() {
		told, err := transact(conn, move(c.from, -1), move(c.to, 1))
		if begun != nil {
			close(begun)
			begun = nil
		}
		c.stall = max(c.stall, time.Since(last))
		if told != knowsCommitted {
			c.err = fmt.Errorf("%s to %s: %s, %w", c.from, c.to, told, err)
			return
		}
		c.done++
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

// wellServed ends the clients and holds what they have seen against the nodes. The longest stall is logged.
func (b *bystanders) wellServed(t *testing.T) {
	t.Helper()
	b.cancel()
	b.working.Wait()
	var accounts []string
	var want []int64
	var done int64
	var stall time.Duration
	for _, c := range b.clients {
		if c.err != nil {
			t.Errorf("a client on other keys: %v", c.err)
		}
		done, stall = done+c.done, max(stall, c.stall)
		accounts = append(accounts, c.from, c.to)
		want = append(want, startBalance-c.done, startBalance+c.done)
	}
	if got, err := b.books.balances(accounts); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v have %v after %d transfers, want %v (%v)", accounts, got, done, want, err)
	}
	if stall > stallBound {
		t.Errorf("a client on other keys stalled for %v", stall)
	}
	t.Logf("MEASURED: %d clients on other keys committed %d transfers, longest stall %v", len(b.clients), done, stall.Round(time.Millisecond))
}
