package integration

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/checker"
	"github.com/pgpact/pgpact/integration/harness"
)

const (
	// lossTime is how long messages are lost in P1.
	lossTime = 8 * time.Second
	// lossOneIn is the probability of a message's loss, and of a new connection's.
	lossOneIn = 300
)

// TestCaseP1: "(from the lab) each message lost, each operation refused with a given probability | log checker agrees with the nodes". Two
// gateways reach all servers over a network that breaks one connection in lossOneIn messages, before or after the server has acted; the
// bystanders' gateway has a whole one.
func TestCaseP1(t *testing.T) {
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c", "d"}, Settings: checker.LogSettings()})
	fleet := harness.NewFleet(t, d.cluster, 2, patience...)
	r := &caseRig{t: t, d: d, fleet: fleet, one: fleet.Sites[0], two: fleet.Sites[1], books: newBooks(t, d)}
	l := newLedger(t, d, 8)
	var fuses []*fuse
	for _, server := range d.cluster.Servers() {
		fuses = append(fuses, newFuse(t, server.URL()))
	}
	var urls []string
	for range 2 {
		_, url := harness.Serve(t, d.proxied(t, fuses...))
		urls = append(urls, url)
	}
	by := r.bystand(t)

	var choosing sync.Mutex
	choose := rand.New(rand.NewPCG(l.seed, 4711))
	var lost atomic.Int64
	loses := func() bool {
		choosing.Lock()
		defer choosing.Unlock()
		if choose.IntN(lossOneIn) > 0 {
			return false
		}
		lost.Add(1)
		return true
	}
	for _, f := range fuses {
		f.loses.Store(&loses)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lossTime)
	defer cancel()
	var clients sync.WaitGroup
	for worker := range 8 {
		clients.Go(func() { l.work(ctx, urls[worker%len(urls)], worker) })
	}
	clients.Wait()
	for _, f := range fuses {
		f.loses.Store(nil)
	}
	if lost.Load() == 0 {
		t.Error("nothing was lost")
	}
	t.Logf("%d messages and connections lost", lost.Load())
	by.wellServed(t)
	for _, c := range by.clients { // the ledger knows every account by its journal
		must(t, run(d.cluster.Node(d.owner(c.from)).URL(), "delete from accounts where id = $1", c.from))
		must(t, run(d.cluster.Node(d.owner(c.to)).URL(), "delete from accounts where id = $1", c.to))
	}
	l.audit(t, urls[0])
	for _, line := range l.errorsTold() {
		t.Log(line)
	}
	for _, err := range checker.Log(readRecords(t, d)) {
		t.Error(err)
	}
}
