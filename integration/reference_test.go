package integration

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestReferenceTableAfterKills changes a reference table, the gateway dies between PREPARE and COMMIT PREPARED, and all nodes hold the same
// rows afterwards: those of before when nothing was decided, the new ones when it was.
func TestReferenceTableAfterKills(t *testing.T) {
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	gateway, url := harness.Serve(t, d.config)
	if told, err := transact(harness.Open(t, url), "create table currencies (code text, rate int) with (pgpact.reference)",
		"insert into currencies values ('EUR', 0), ('USD', 0)"); told != knowsCommitted {
		t.Fatalf("%s, %v", told, err)
	}
	gateway.Stop(t)
	rate := 0
	for _, point := range []struct {
		name      string
		committed bool
	}{{"first-vote", false}, {"voted", false}, {"decided", true}, {"first-commit-prepared-answered", true}} {
		t.Run(point.name, func(t *testing.T) {
			dying, url := harness.Serve(t, d.config, "--crash-at", point.name)
			told, err := transact(harness.Open(t, url), "update currencies set rate = rate + 1")
			dies(t, dying)
			if told.contradicts(point.committed) {
				t.Errorf("the client was told %s, %v", told, err)
			}
			if point.committed {
				rate++
			}
			again, _ := harness.Serve(t, d.config)
			harness.Eventually(t, settleBound, "after the restart", d.nothingPrepared)
			want := []string{fmt.Sprintf("EUR %d", rate), fmt.Sprintf("USD %d", rate)}
			for _, node := range d.cluster.Nodes() {
				if got := mustColumn[string](t, node.URL(), "select code || ' ' || rate from public.currencies order by code"); !slices.Equal(got, want) {
					t.Errorf("node %s has %q, want %q", node.Name(), got, want)
				}
			}
			again.Stop(t)
		})
	}
}
