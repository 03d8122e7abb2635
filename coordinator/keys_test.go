package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// loseDecisions is what a restore of the decision database from an older dump does, as far as can be seen: another
// table, which knows the epochs and not their decisions.
func loseDecisions(cluster *clustertest.Cluster) {
	cluster.Exec(clustertest.CoordinatorServer, `BEGIN; CREATE TABLE pgpact.restored(LIKE pgpact.transactions INCLUDING ALL);
		DROP TABLE pgpact.transactions; ALTER TABLE pgpact.restored RENAME TO transactions; COMMIT`)
}

const keyOfTests = `order's "42" \`

// keyed is a transfer of 10 under the key.
func (g *gateway) keyed() *Transaction {
	g.t.Helper()
	tx := g.transfer(10)
	g.setKey(tx, keyOfTests)
	return tx
}

// waitWhole waits until the keys are whole in the decision log's present life.
func (g *gateway) waitWhole() {
	g.t.Helper()
	clustertest.WaitFor(g.t, "the keys are whole", 20*time.Second, func() bool {
		_, whole, err := g.log.keysWhole(g.t.Context())
		return whole && err == nil
	})
}

// keyOf is the key in the transaction's decision record.
func (g *gateway) keyOf(id participant.ID) string {
	g.t.Helper()
	return g.cluster.Value(clustertest.CoordinatorServer, fmt.Sprintf("SELECT coalesce(role||'|'||idempotency_key,'') FROM pgpact.transactions WHERE (epoch,sequence)=(%d,%d)", id.Epoch, id.Sequence))
}

// wantTaken fails the test unless a repetition under the key is refused, and names that transaction.
func (g *gateway) wantTaken(winner participant.ID) {
	g.t.Helper()
	tx := g.transfer(10)
	defer tx.Rollback()
	err := tx.SetIdempotencyKey(g.t.Context(), "role", keyOfTests)
	if taken, ok := errors.AsType[*KeyTakenError](err); !ok || taken.Winner != winner {
		g.t.Errorf("a repetition: %v, want that %v has the key", err, winner)
	}
}

// wantUnsure fails the test unless nobody can tell about the key, for this reason.
func (g *gateway) wantUnsure(why string) {
	g.t.Helper()
	_, _, err := g.AskKey(g.t.Context(), "role", keyOfTests)
	if unsure, ok := errors.AsType[*KeyUnsureError](err); !ok || !strings.Contains(unsure.Reason, why) {
		g.t.Errorf("%v, want that it cannot be told because of %q", err, why)
	}
}

// The decision of a keyed transaction is lost, wherever its commit had got to: a repetition under the key does not do
// it again if it was done, and does it if it was not.
func TestLostDecisionDoesNotLoseItsKey(t *testing.T) {
	for _, test := range []struct {
		point     string
		committed int // branches
	}{{pointVoted, 0}, {pointDecided, 0}, {pointFirstCommitSent, 1}, {pointCommitted, 2}} {
		t.Run(test.point, func(t *testing.T) {
			cluster := newCluster(t, 2)
			first, proxy := mortal(t, cluster)
			s := first.stopCommit(first.keyed(), test.point)
			clustertest.WaitFor(t, "it has got so far", 10*time.Second, func() bool { return len(cluster.Prepared()) == 2-test.committed })
			proxy.Cut()
			loseDecisions(cluster)
			g := other(t, cluster, nil)
			if test.committed > 0 {
				g.wantTaken(s.id)
				g.waitWhole()
				g.wantTaken(s.id)
				if got := g.record(s.id); !strings.HasPrefix(got, "committed|{a,b}") || g.keyOf(s.id) != "role|"+keyOfTests {
					t.Errorf("record %q, key %q", got, g.keyOf(s.id))
				}
			} else {
				again := g.keyed().Commit() // waits until nobody can commit the first attempt any more
				wantOutcome(t, again, Committed)
				g.wantTaken(again.ID)
				if got := g.record(s.id); !strings.HasPrefix(got, "aborted|") {
					t.Errorf("record of the first attempt %q", got)
				}
				g.waitWhole()
			}
			clustertest.WaitFor(t, "nothing is prepared", 20*time.Second, func() bool { return len(cluster.Prepared()) == 0 })
			_ = s.end()
			g.wantBalances(990, 1010)
		})
	}
}

// Only in a life of the log that is not whole does a question about a key need the nodes: then all of them.
func TestKeyQuestionNeedsNodesOnlyAfterALoss(t *testing.T) {
	cluster := newCluster(t, 2)
	g := startGateway(t, cluster, func(c *Config) { c.ConnectTimeout = 2 * time.Second })
	g.waitWhole()
	cluster.Kill("b")
	defer cluster.StartServer("b")
	if _, found, err := g.AskKey(t.Context(), "role", keyOfTests); found || err != nil {
		t.Errorf("whole: %v, %v", found, err)
	}
	loseDecisions(cluster)
	g.wantUnsure("node b")
	tx := g.begin()
	defer tx.Rollback()
	var unsure *KeyUnsureError
	if err := tx.SetIdempotencyKey(t.Context(), "role", keyOfTests); !errors.As(err, &unsure) {
		t.Errorf("SET: %v", err)
	}
	cluster.StartServer("b")
	g.waitWhole()
	if _, found, err := g.AskKey(t.Context(), "role", keyOfTests); found || err != nil {
		t.Errorf("whole again: %v, %v", found, err)
	}
}

// An epoch that the restored log does not know is not touched (I7). What its branch records prove is known all the
// same; what is prepared of it leaves its key, and no other, open until a person has resolved it.
func TestKeysOfAnUnknownEpoch(t *testing.T) {
	const epoch = 4711
	insert := func(sequence int, key string) string {
		return fmt.Sprintf(`INSERT INTO pgpact.branches VALUES(%d,%d,'{a}','role',%s)`, epoch, sequence, participant.QuoteLiteral(key))
	}
	cluster := newCluster(t, 2)
	cluster.Exec("a", insert(1, "done"))
	gid := participant.GID{Cluster: cluster.ClusterID, ID: participant.ID{Epoch: epoch, Sequence: 2}, Node: "a", KeyTag: participant.KeyTag("role", keyOfTests)}
	cluster.Exec("a", "BEGIN; UPDATE accounts SET balance=balance-1;"+insert(2, keyOfTests)+"; PREPARE TRANSACTION '"+gid.String()+"'")
	g := startGateway(t, cluster, nil)
	winner, found, err := g.AskKey(t.Context(), "role", "done")
	if !found || err != nil || winner.String() != "4711/1" {
		t.Errorf("a proven one: %v, %v, %v", winner, found, err)
	}
	g.wantUnsure("4711/2")
	if _, found, err := g.AskKey(t.Context(), "role", "another"); found || err != nil {
		t.Errorf("another: %v, %v", found, err)
	}
	g.sweeps(3)
	if _, whole, err := g.log.keysWhole(t.Context()); whole || err != nil {
		t.Errorf("whole is %v (%v), and a key cannot be read", whole, err)
	}
	if len(cluster.Prepared()) != 1 || g.record(gid.ID) != "" {
		t.Errorf("prepared %v, record %q", cluster.Prepared(), g.record(gid.ID))
	}
	done, err := g.Resolve(t.Context(), Resolution{ID: gid.ID, Wish: Commit, Force: true, By: "test"})
	if err != nil || done.Decision != Commit {
		t.Fatalf("%+v, %v", done, err)
	}
	g.waitWhole()
	g.wantTaken(gid.ID)
	if winner, found, err := g.AskKey(t.Context(), "role", "done"); !found || err != nil || winner.String() != "4711/1" {
		t.Errorf("a proven one, when all is whole: %v, %v, %v", winner, found, err)
	}
}

// A key was lost and has been used again before anybody looked: both transactions stand, and that is named.
func TestKeyUsedAgainIsDamage(t *testing.T) {
	cluster := newCluster(t, 2)
	first := startGateway(t, cluster, func(c *Config) { c.Name = "first" })
	lost := first.keyed().Commit()
	wantOutcome(t, lost, Committed)
	first.waitFinished(lost.ID)
	first.close()
	loseDecisions(cluster)
	cluster.Exec(clustertest.CoordinatorServer, fmt.Sprintf(`INSERT INTO pgpact.gateways(epoch,name) VALUES(7,'careless');
		INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role,idempotency_key,finished_at)
		VALUES(7,1,'committed','{}','role',%s,now())`, participant.QuoteLiteral(keyOfTests)))
	g := startGateway(t, cluster, nil)
	g.waitWhole()
	g.waitFinished(lost.ID)
	g.wantTaken(participant.ID{Epoch: 7, Sequence: 1})
	g.wantAnswer(lost.ID, Commit)
	list, err := g.Transactions(t.Context())
	if err != nil || len(list) != 1 || list[0].State != StateDamaged || list[0].ID != lost.ID.String() || !strings.Contains(list[0].KeyAgain, "7/1") {
		t.Errorf("%+v, %v", list, err)
	}
	// It is damage of its own kind: what is only proven is forgotten in time, this never.
	if err := g.log.forgetProvenKeys(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if list, err := g.Transactions(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A node has committed what is decided aborted, under a key: whether the key is used has no true answer.
func TestKeyOfAContradictedAbort(t *testing.T) {
	cluster := newCluster(t, 2)
	cluster.Exec(clustertest.CoordinatorServer, `INSERT INTO pgpact.gateways(epoch,name) VALUES(7,'gone');
		INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role) VALUES(7,1,'aborted','{a}','')`)
	cluster.Exec("a", "INSERT INTO pgpact.branches VALUES(7,1,'{a}','role',"+participant.QuoteLiteral(keyOfTests)+")")
	g := startGateway(t, cluster, nil)
	g.wantUnsure("7/1")
	g.waitWhole()
	g.wantUnsure("7/1")
}

// The decision database fails over between the SET of a key and its commit. That the key was free in the life before
// is worth nothing then.
func TestKeyIsAskedForAgainInAnotherLife(t *testing.T) {
	for _, used := range []bool{false, true} {
		t.Run(fmt.Sprintf("used is %t", used), func(t *testing.T) {
			cluster := newCluster(t, 2)
			first := startGateway(t, cluster, func(c *Config) { c.Name = "first" })
			first.waitWhole()
			tx := first.keyed()
			var winner participant.ID
			if used { // by another attempt, whose decision is lost with that life
				second := other(t, cluster, nil)
				attempt := second.begin()
				second.must(attempt, "a", "INSERT INTO accounts VALUES('other',1)")
				second.setKey(attempt, keyOfTests)
				result := attempt.Commit()
				wantOutcome(t, result, Committed)
				winner = result.ID
			}
			loseDecisions(cluster)
			result := tx.Commit()
			if !used {
				wantOutcome(t, result, Committed)
				first.wantTaken(result.ID)
				first.wantBalances(990, 1010)
				return
			}
			wantOutcome(t, result, Aborted)
			if taken, ok := errors.AsType[*KeyTakenError](result.Err); !ok || taken.Winner != winner {
				t.Errorf("%v, want that %v has the key", result.Err, winner)
			}
			first.wantBalances(1000, 1000)
		})
	}
}

// The connection is lost over a keyed decision, and then the life of the log in which it may have been written: the
// truth is found.
func TestKeyedDecisionIsLostWithItsAnswer(t *testing.T) {
	for _, used := range []bool{false, true} {
		t.Run(fmt.Sprintf("used is %t", used), func(t *testing.T) {
			cluster := newCluster(t, 2)
			decisionTrigger(cluster, "PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(1);")
			g := startGateway(t, cluster, func(c *Config) { c.SweepInterval = time.Hour })
			g.waitWhole()
			tx := g.keyed()
			sent := make(chan struct{})
			g.at(pointDecisionWriting, sync.OnceFunc(func() { close(sent) }))
			result := make(chan Result, 1)
			go func() { result <- tx.Commit() }()
			<-sent
			clustertest.WaitFor(t, "the connection is lost over it", 10*time.Second, func() bool {
				return cluster.Value(clustertest.CoordinatorServer, "SELECT sessions_killed FROM pg_stat_database WHERE datname=current_database()") != "0"
			})
			if used {
				cluster.Exec(clustertest.CoordinatorServer, "INSERT INTO pgpact.gateways(epoch,name) VALUES(7,'gone')")
				cluster.Exec("a", "INSERT INTO pgpact.branches VALUES(7,1,'{a}','role',"+participant.QuoteLiteral(keyOfTests)+")")
			}
			loseDecisions(cluster)
			r := <-result
			if !used {
				wantOutcome(t, r, Committed)
				g.wantTaken(r.ID)
				g.wantBalances(990, 1010)
				return
			}
			wantOutcome(t, r, Aborted)
			if taken, ok := errors.AsType[*KeyTakenError](r.Err); !ok || taken.Winner.String() != "7/1" {
				t.Errorf("%v, want that 7/1 has the key", r.Err)
			}
			if got := g.record(r.ID); !strings.HasPrefix(got, "aborted|") {
				t.Errorf("record %q: a decision may have been sent, and only a recorded abort ends that", got)
			}
			g.wantBalances(1000, 1000)
		})
	}
}

// A restored dump has another table of decisions: what it lacks may have been lost, although the server is the same.
func TestRestoredDumpIsAnotherLog(t *testing.T) {
	cluster := newCluster(t, 1)
	g := startGateway(t, cluster, nil)
	id := participant.ID{Epoch: g.epoch.Load().number, Sequence: 99}
	same := func() bool {
		looked, err := g.log.look(t.Context(), []participant.ID{id}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return looked[id].sameLog
	}
	if !same() {
		t.Error("it counts as another log")
	}
	loseDecisions(cluster)
	if same() {
		t.Error("it counts as the same log")
	}
	cluster.Exec(clustertest.CoordinatorServer, "UPDATE pgpact.gateways SET decision_table=NULL") // of before
	if !same() {
		t.Error("an epoch of before counts as one of another log")
	}
}

// More keyed branch records than a page, some of whose decisions are lost: all are found.
func TestKeysAreRestoredInPages(t *testing.T) {
	cluster := newCluster(t, 2)
	cluster.Exec(clustertest.CoordinatorServer, "INSERT INTO pgpact.gateways(epoch,name) VALUES(7,'gone')")
	const n = 2*keyPage + 10
	for _, node := range []string{"a", "b"} {
		cluster.Exec(node, fmt.Sprintf("INSERT INTO pgpact.branches SELECT 7,i,'{a,b}','role',CASE WHEN i%%2=0 THEN 'k'||i END FROM generate_series(1,%d) i", 2*n))
	}
	cluster.Exec(clustertest.CoordinatorServer, fmt.Sprintf(`INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role,idempotency_key,finished_at)
		SELECT 7,i,'committed','{a,b}','role','k'||i,now() FROM generate_series(1,%d) i WHERE i%%2=0 AND i%%400<>0`, 2*n))
	g := startGateway(t, cluster, nil)
	g.waitWhole()
	if got := cluster.Value(clustertest.CoordinatorServer, "SELECT count(*) FROM pgpact.transactions WHERE idempotency_key='k'||sequence"); got != fmt.Sprint(n) {
		t.Errorf("%s keys, want %d", got, n)
	}
}

// A caller of the shared connection waits as long as it wants to, not for all who wait before it: the database hangs.
func TestHangingDecisionDatabaseHoldsNobodyTooLong(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // which accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	log, err := openDecisionLog("postgres://nobody@"+listener.Addr().String()+"/none?sslmode=disable", "c", 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	patient, give := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := log.query(patient, "SELECT 1"); done <- err }()
	clustertest.WaitFor(t, "the first has the connection", 10*time.Second, func() bool { return len(log.busy) == 1 })
	began := time.Now()
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := log.query(impatient, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("who wanted to wait 50 ms waited %v", took)
	}
	give()
	if err := <-done; err == nil {
		t.Error("a hanging database has answered")
	}
}
