package coordinator

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// fillDecisions has the decision database refuse every decision, as with a full disk, until the space returns.
func fillDecisions(cluster *clustertest.Cluster) (space func()) {
	cluster.Exec(clustertest.CoordinatorServer, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE 'could not extend file' USING ERRCODE='53100'; END$$;
		CREATE TRIGGER full_disk BEFORE INSERT ON pgpact.transactions FOR EACH ROW EXECUTE FUNCTION full_disk()`)
	return func() { cluster.Exec(clustertest.CoordinatorServer, "DROP FUNCTION full_disk() CASCADE") }
}

// Neither decision can be written, and the database says so: the transaction has aborted for certain, and is told and rolled back so at
// once. That of a tracked one is recorded when there is space again (I4, I5).
func TestDecisionDatabaseFull(t *testing.T) {
	bothKeyedAndNot(t, func(t *testing.T, key string) {
		cluster := newCluster(t, 2)
		space := fillDecisions(cluster)
		g := startGateway(t, cluster, nil)
		tx := g.transfer(10)
		id := tx.Track()
		g.setKey(tx, key)
		result := tx.Commit()
		wantOutcome(t, result, Aborted)
		if participant.SQLState(result.Err) != "53100" {
			t.Errorf("%v", result.Err)
		}
		if left := cluster.Prepared(); len(left) > 0 {
			t.Errorf("prepared: %v", left)
		}
		g.wantBalances(1000, 1000)
		space()
		clustertest.WaitFor(t, "the abort is recorded", 10*time.Second, func() bool { return strings.HasPrefix(g.record(id), "aborted|{a,b}|") })
		wantOutcome(t, g.transfer(10).Commit(), Committed)
		g.wantBalances(990, 1010)
	})
}

// One answer was lost before the refusals began: what was sent may be written, and nobody may act before that is known (I5).
func TestDecisionDatabaseFullAfterALostAnswer(t *testing.T) {
	cluster := newCluster(t, 2)
	proxy := clustertest.NewProxy(t, cluster.Address(clustertest.CoordinatorServer))
	g := startGateway(t, cluster, func(c *Config) {
		c.DecisionURL = proxy.Through(c.DecisionURL)
		c.PrepareTimeout, c.DecisionTimeout, c.InDoubtTimeout = 2*time.Second, 2*time.Second, 5*time.Second
	})
	space := fillDecisions(cluster)
	tx := g.transfer(10)
	g.at(pointDecisionWriting, func() { proxy.LoseAnswer("pgpact_1") })
	result := tx.Commit()
	wantOutcome(t, result, Unknown)
	if !errors.Is(result.Err, ErrOutcomeUnknown) {
		t.Errorf("%v", result.Err)
	}
	if left := cluster.Prepared(); len(left) != 2 {
		t.Errorf("prepared: %v", left)
	}
	space()
	clustertest.WaitFor(t, "recovery settles it", 20*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
	g.wantBalances(1000, 1000)
}
