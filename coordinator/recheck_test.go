package coordinator

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// A node whose server has changed: all of its decisions finished within retention are looked at again, however many pages they
// are, those of others and older ones are not, and a check that was cut short goes on where it was.
func TestChangedNodeIsCheckedInPages(t *testing.T) {
	cluster := newPressed(t, nil)
	g := startGateway(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
	const pages = 3
	n := pages*recheckPage + 7
	cluster.Exec(clustertest.CoordinatorServer, "INSERT INTO pgpact.gateways(epoch,name) SELECT e,'gone' FROM generate_series(1,5) e")
	cluster.Exec(clustertest.CoordinatorServer, fmt.Sprintf(`INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role,finished_at)
		SELECT 1+i%%5,1+i/5,'committed',CASE i%%3 WHEN 0 THEN '{a,b}' WHEN 1 THEN '{b}' ELSE '{a}' END::text[],'app',
		CASE WHEN i%%7=0 THEN now()-interval '30 days' ELSE now() END FROM generate_series(0,%d) i`, n-1))
	open := func() string {
		return cluster.Value(clustertest.CoordinatorServer, "SELECT count(*) FROM pgpact.transactions WHERE finished_at IS NULL AND epoch<=5")
	}
	expected := 0
	for i := range n {
		if i%3 != 1 && i%7 != 0 {
			expected++
		}
	}
	identity := *g.node("a").Identity()
	log, r := g.log, g.recover
	for range 2 { // the first time, and the same server again
		if unchecked, err := log.noteNode(t.Context(), "a", identity); unchecked || err != nil {
			t.Fatalf("the same server counts as changed: %v, %v", unchecked, err)
		}
	}
	if got := open(); got != "0" {
		t.Fatalf("%s unfinished before", got)
	}

	// As if an earlier sweep had done the first page and then had no time left.
	identity.Timeline = "77"
	last, more, err := log.unfinishPage(t.Context(), "a", participant.ID{}, g.cfg.Retention.Seconds())
	if err != nil || !more {
		t.Fatalf("first page: %v, %v", more, err)
	}
	first := open()
	r.mu.Lock()
	r.rechecks["a"] = recheck{identity: identity, after: last}
	r.mu.Unlock()
	cluster.Exec(clustertest.CoordinatorServer, "UPDATE pgpact.transactions SET finished_at=now() WHERE finished_at IS NULL AND epoch<=5")
	if unchecked, err := log.noteNode(t.Context(), "a", identity); !unchecked || err != nil {
		t.Fatalf("another timeline does not count as changed: %v, %v", unchecked, err)
	}
	if err := r.recheck(t.Context(), "a", identity); err != nil {
		t.Fatal(err)
	}
	if got := open(); got != fmt.Sprint(expected-number(t, first)) {
		t.Errorf("%s unfinished after the rest of %d, of which the first page has %s", got, expected, first)
	}

	// Another change begins from the start.
	identity.Timeline = "78"
	if err := r.recheck(t.Context(), "a", identity); err != nil {
		t.Fatal(err)
	}
	if got := open(); got != fmt.Sprint(expected) {
		t.Errorf("%s unfinished, want %d", got, expected)
	}
	if unchecked, err := log.noteNode(t.Context(), "a", identity); !unchecked || err != nil {
		t.Errorf("a change whose check is not over is unchecked: %v, %v", unchecked, err)
	}
	if err := log.noteChecked(t.Context(), "a", identity); err != nil {
		t.Fatal(err)
	}
	former := identity
	former.Timeline = "77"
	for _, who := range []participant.Identity{identity, former} { // who saw the node before the failover does not bring it back
		if unchecked, err := log.noteNode(t.Context(), "a", who); unchecked || err != nil {
			t.Errorf("timeline %s counts as changed: %v, %v", who.Timeline, unchecked, err)
		}
	}
}

func number(t *testing.T, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
