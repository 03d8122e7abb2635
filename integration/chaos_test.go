package integration

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
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

// chaosVariable is for how many seconds faults are made. `make chaos SECONDS=300 SEED=...` sets it; a run of the default length is part of
// make test.
const chaosVariable = "PGPACT_TEST_CHAOS_SECONDS"

// chaosFaults is a regular expression for the kinds of faults that a run makes; without it all.
const chaosFaults = "PGPACT_TEST_CHAOS_FAULTS"

const (
	chaosGateways  = 3
	chaosBankers   = 24 // clients that transfer
	chaosCounters  = 8  // clients that count: single-row statements, whose stalls are measured
	chaosSlots     = 40
	chaosAtOnce    = 4               // faults at a time, at most
	chaosGrace     = 4 * time.Second // after a fault during which what it has touched may still be slow
	chaosQuiet     = 40 * time.Second
	chaosStallMost = 15 * time.Second // of a client that no fault touches, on a machine that is shared
)

// TestChaos: three gateways, three nodes, 32 clients, and every one to three seconds a random fault out of all kinds that there are, so
// that they overlap. When all is over, the checkers judge what the clients have been told and what the servers show.
func TestChaos(t *testing.T) {
	seconds := 60
	if text := os.Getenv(chaosVariable); text != "" {
		var err error
		seconds, err = strconv.Atoi(text)
		must(t, err)
	}
	c := newChaos(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var clients, watch sync.WaitGroup
	for n := range chaosBankers + chaosCounters {
		client := &chaosClient{c: c, n: n, choose: rand.New(rand.NewPCG(c.seed, uint64(n)))}
		clients.Go(func() { client.run(ctx) })
	}
	watch.Go(func() { c.watchDoubt(ctx) })
	c.makeFaults(t, time.Duration(seconds)*time.Second)
	must(t, c.fleet.Heal())
	for _, site := range c.fleet.Sites {
		select {
		case <-site.Gateway().Exited():
			t.Errorf("%s has ended by itself", site.Name())
		default:
		}
	}
	// Everything is whole again: work goes on on every gateway before it ends.
	for _, site := range c.fleet.Sites {
		harness.Eventually(t, chaosQuiet, site.Name()+" works again", func() error { return c.touchAll(site) })
	}
	cancel()
	clients.Wait()
	watch.Wait()
	c.figures(t, seconds)
	c.judge(t)
}

type chaos struct {
	d        *deployment
	fleet    *harness.Fleet
	seed     uint64
	choose   *rand.Rand // of faults
	accounts []string
	counters map[string]*counterKeys // by node

	mu         sync.Mutex
	next       int
	transfers  []checker.Transfer
	operations []checker.Operation
	sites      []string // of operations
	faults     []*chaosFault
	oldest     time.Duration // in doubt
}

// chaosFault is a fault that has been made.
type chaosFault struct {
	harness.Fault
	began, ended time.Time // ended: zero while it lasts
}

func newChaos(t *testing.T) *chaos {
	t.Helper()
	disks := harness.DisksWhy()
	if disks != nil {
		t.Logf("NO FULL DISKS IN THIS RUN: %v", disks)
	}
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}, Settings: checker.LogSettings(), SmallDisks: disks == nil})
	c := &chaos{d: d, seed: harness.Seed(t), counters: map[string]*counterKeys{}}
	c.choose = rand.New(rand.NewPCG(c.seed, 1<<40))
	for _, node := range d.cluster.Nodes() {
		c.accounts = append(c.accounts, d.open(t, node.Name(), "l-"+node.Name(), 20)...)
		c.counters[node.Name()] = newCounterKeys(t, d, node)
	}
	slices.Sort(c.accounts) // the order in which locks are taken
	c.fleet = harness.NewFleet(t, d.cluster, chaosGateways, fmt.Sprintf("slots: %d", chaosSlots),
		"connect_timeout: 2s", "prepare_timeout: 3s", "decision_timeout: 3s", "finish_timeout: 2s", "in_doubt_timeout: 7s", "drain_timeout: 2s", "sweep_interval: 500ms")
	c.fleet.Evidence.Keep("seed", func() string { return fmt.Sprintf("%s=%d\n", harness.SeedVariable, c.seed) })
	c.fleet.Evidence.Keep("transfers.jsonl", func() string { return jsonLines(c, &c.transfers) })
	c.fleet.Evidence.Keep("operations.jsonl", func() string { return jsonLines(c, &c.operations) })
	c.fleet.Evidence.Keep("faults", c.faultLines)
	return c
}

// makeFaults makes faults until the time is over, and returns when the last has ended.
func (c *chaos) makeFaults(t *testing.T, within time.Duration) {
	t.Helper()
	var points []string
	for _, p := range faultPoints(t) {
		points = append(points, p.name)
	}
	byKind := map[string][]harness.Fault{}
	only := regexp.MustCompile(os.Getenv(chaosFaults))
	for _, f := range c.fleet.Faults(c.choose, points) {
		if only.MatchString(f.Kind) {
			byKind[f.Kind] = append(byKind[f.Kind], f)
		}
	}
	kinds := slices.Sorted(maps.Keys(byKind))
	var ends sync.WaitGroup
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		<-time.After(time.Second + time.Duration(c.choose.Int64N(int64(2*time.Second)))) // the rhythm of the faults, nothing is waited for
		var f *chaosFault
		for f == nil { // some target is free: there are many more than chaosAtOnce
			of := byKind[kinds[c.choose.IntN(len(kinds))]]
			f = c.admit(of[c.choose.IntN(len(of))])
		}
		longest := 4 * time.Second
		if c.choose.IntN(8) == 0 {
			longest = 12 * time.Second // past in_doubt_timeout
		}
		lasts := 200*time.Millisecond + time.Duration(c.choose.Int64N(int64(longest)))
		if err := harness.Try(t, f.Begin); err != nil {
			t.Errorf("begin of %s: %v", f, err)
		}
		ends.Go(func() {
			<-time.After(lasts)
			if err := harness.Try(t, f.End); err != nil {
				t.Errorf("end of %s: %v", f, err)
			}
			c.mu.Lock()
			f.ended = time.Now()
			c.mu.Unlock()
		})
	}
	ends.Wait()
}

// admit notes a fault that is about to begin; nil if its target has one. When there are enough at a time it waits for an end.
func (c *chaos) admit(fault harness.Fault) *chaosFault {
	for {
		c.mu.Lock()
		active := 0
		for _, other := range c.faults {
			if other.ended.IsZero() {
				if active++; other.Target == fault.Target {
					c.mu.Unlock()
					return nil
				}
			}
		}
		if active < chaosAtOnce {
			f := &chaosFault{Fault: fault, began: time.Now()}
			c.faults = append(c.faults, f)
			c.mu.Unlock()
			return f
		}
		c.mu.Unlock()
		<-time.After(20 * time.Millisecond)
	}
}

// touchAll commits one transaction over all nodes.
func (c *chaos) touchAll(site *harness.Site) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, site.URL())
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	var moves []string
	for _, account := range c.accounts {
		moves = append(moves, move(account, 0))
	}
	_, err = simple(ctx, conn, "begin;"+strings.Join(moves, ";")+";commit")
	return err
}

// watchDoubt notes the greatest age of anything prepared.
func (c *chaos) watchDoubt(ctx context.Context) {
	var nodes sync.WaitGroup
	for _, node := range c.d.cluster.Nodes() {
		nodes.Go(func() {
			for ctx.Err() == nil {
				ages := func() []float64 {
					ctx, cancel := context.WithTimeout(ctx, time.Second)
					defer cancel()
					conn, err := pgx.Connect(ctx, node.URL())
					if err != nil {
						return nil // down: seen again when it is up
					}
					defer conn.Close(ctx)
					rows, err := conn.Query(ctx, "select coalesce(max(extract(epoch from clock_timestamp() - prepared)), 0)::float8 from pg_prepared_xacts")
					if err != nil {
						return nil
					}
					found, _ := pgx.CollectRows(rows, pgx.RowTo[float64]) // nothing found is nothing seen
					return found
				}()
				c.mu.Lock()
				for _, age := range ages {
					c.oldest = max(c.oldest, time.Duration(age*float64(time.Second)))
				}
				c.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(300 * time.Millisecond):
				}
			}
		})
	}
	nodes.Wait()
}
