package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// inDoubt is how many transactions a dead gateway leaves in doubt in TestThousandInDoubt, and inDoubtBound how long another may take to
// finish them all. Half of them have their commit decided.
const (
	inDoubt      = 1000
	inDoubtBound = 3 * time.Second
)

// TestThousandInDoubt measures the time from a gateway's kill -9, with 1,000 transactions over two nodes in doubt, to none in doubt, with
// another gateway running. A gateway would need 1,000 connections per node to be caught with so many at once; so they are prepared here
// by hand, exactly as it prepares them, under the epoch of a gateway that lives until it is killed.
func TestThousandInDoubt(t *testing.T) {
	d := deploy(t, harness.Options{Settings: map[string]string{"max_prepared_transactions": "1200"}})
	// While its gateway lives, nobody may touch what is prepared here: neither for its age, nor the gateway itself, which knows nothing of it.
	d.configured(t, []string{"name: survivor", "finish_timeout: 1m", "in_doubt_timeout: 10m"})
	victim, _ := d.another(t, "victim")
	epoch := d.epochs(t, "victim")[0]
	victim.Freeze(t)
	for _, node := range d.cluster.Nodes() {
		prepareMany(t, d, node, epoch, inDoubt)
	}
	// Every second one was decided: a row of the decision log, as the decider writes it.
	must(t, run(d.cluster.Coordinator().URL(), `insert into pgpact.transactions(epoch, sequence, outcome, participants, role)
		select $1::text::bigint, 1000000 + 2 * n, 'committed', '{a,b}', 'pgpact' from generate_series(1, $2::int / 2) n`, epoch, inDoubt))
	if left, err := d.preparedOf(epoch); err != nil || len(left) != 2*inDoubt {
		t.Fatalf("%d branches are prepared (%v), want %d: nobody may touch what belongs to a living gateway", len(left), err, 2*inDoubt)
	}

	victim.Kill9(t)
	died := time.Now()
	harness.Eventually(t, 20*inDoubtBound, "what the killed gateway left", d.noneOf(epoch))
	took := time.Since(died)
	t.Logf("MEASURED: %d transactions (%d branches) in doubt, none %v after kill -9 of their gateway (aim: %v)",
		inDoubt, 2*inDoubt, took.Round(10*time.Millisecond), inDoubtBound)
	if took > inDoubtBound {
		t.Errorf("%v is more than %v", took, inDoubtBound)
	}
	for _, node := range d.cluster.Nodes() {
		if n := mustColumn[int](t, node.URL(), "select count(*) from accounts where id like 'doubt-%'")[0]; n != inDoubt/2 {
			t.Errorf("node %s has %d accounts of the transactions, want those of the %d that were decided", node.Name(), n, inDoubt/2)
		}
	}
	harness.Eventually(t, settleBound, "decisions and branch records", d.recordsAgree)
}

// prepareMany prepares n branches on a node, numbered from 1,000,001 on, each with a row of its own and its branch record.
func prepareMany(t *testing.T, d *deployment, node *harness.Server, epoch string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, node.URL())
	must(t, err)
	defer conn.Close(ctx)
	for i := 1; i <= n; i++ {
		text := fmt.Sprintf(`begin; insert into accounts values ('doubt-%s-%d', 1);
			insert into pgpact.branches(epoch, sequence, participants) values (%s, %d, '{a,b}');
			prepare transaction 'pgpact/%s/%s/%d/%s'`, node.Name(), i, epoch, 1000000+i, d.id, epoch, 1000000+i, node.Name())
		if tag, err := simple(ctx, conn, text); err != nil || tag != "PREPARE TRANSACTION" {
			t.Fatalf("node %s: %q, %v", node.Name(), tag, err)
		}
	}
}
