package coordinator

import (
	"testing"

	"github.com/pgpact/pgpact/internal/clustertest"
)

func TestTwoPhaseCommitLeavesRecordAndBranchRecords(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.transfer(10)
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	if result.ID.IsZero() || len(result.Unfinished) != 0 || result.Err != nil {
		t.Errorf("result %+v", result)
	}
	g.wantBalances(990, 1010)
	g.waitFinished(result.ID)
	if got := g.record(result.ID); got != "committed|{a,b}|finished" {
		t.Errorf("record %q", got)
	}
	for _, node := range cluster.Names() {
		if !g.branchRecord(node, result.ID) {
			t.Errorf("no branch record on %s", node)
		}
	}
}

func TestOnePhaseCommitLeavesNoRecord(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, nil)
	tx := g.begin()
	g.must(tx, "a", "UPDATE accounts SET balance=7 WHERE id='a'")
	g.must(tx, "b", "SELECT balance FROM accounts")
	result := tx.Commit()
	wantOutcome(t, result, Committed)
	if !result.ID.IsZero() {
		t.Errorf("it has an id: %v", result.ID)
	}
	g.wantBalances(7, 1000)
	if n := cluster.Value(clustertest.CoordinatorServer, "SELECT count(*) FROM pgpact.transactions"); n != "0" {
		t.Errorf("%s decision records", n)
	}
	if n := cluster.Value("a", "SELECT count(*) FROM pgpact.branches"); n != "0" {
		t.Errorf("%s branch records", n)
	}
}
