package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// insertDecision writes a decision as somebody else would who was faster.
func (g *gateway) insertDecision(id participant.ID, outcome string) {
	g.cluster.Exec(clustertest.CoordinatorServer, fmt.Sprintf(
		"INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role) VALUES(%d,%d,'%s','{a,b}','')", id.Epoch, id.Sequence, outcome))
}

// A decision asked again after a lost answer finds its own row and commits. (With ON CONFLICT DO NOTHING
// alone, a committed transaction was taken for aborted: FACTS section 7.)
func TestDecisionAskedAgainFindsItsOwnRow(t *testing.T) {
	t.Run("row there already", func(t *testing.T) {
		cluster := newCluster(t, 2)
		g := startGateway(t, cluster, nil)
		tx := g.transfer(10)
		id := tx.Track()
		g.at(pointDecisionHandedOver, func() { g.insertDecision(id, "committed") })
		wantOutcome(t, tx.Commit(), Committed)
		g.wantBalances(990, 1010)
		g.waitFinished(id)
	})
	for name, key := range map[string]string{"answer lost": "", "answer to a keyed one lost": "order-1"} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, 2)
			proxy := clustertest.NewProxy(t, cluster.Address(clustertest.CoordinatorServer))
			g := startGateway(t, cluster, func(c *Config) { c.DecisionURL = proxy.Through(c.DecisionURL) })
			tx := g.transfer(10)
			var lost <-chan struct{}
			request := "pgpact_1" // the batch's prepared statement
			if key != "" {
				if err := tx.SetIdempotencyKey(t.Context(), "role", key); err != nil {
					t.Fatal(err)
				}
				request = key
			}
			var once sync.Once
			g.at(pointDecisionWriting, func() { once.Do(func() { lost = proxy.LoseAnswer(request) }) })
			result := tx.Commit()
			wantOutcome(t, result, Committed)
			select {
			case <-lost:
			default:
				t.Error("no answer was lost")
			}
			g.wantBalances(990, 1010)
			g.waitFinished(result.ID)
		})
	}
}

// One that meets a recovery's abort rolls back, with ErrAbortDecided.
func TestDecisionThatMeetsAnAbortRollsBack(t *testing.T) {
	bothKeyedAndNot(t, func(t *testing.T, key string) {
		cluster := newCluster(t, 2)
		g := startGateway(t, cluster, nil)
		tx := g.transfer(10)
		id := tx.Track()
		g.setKey(tx, key)
		g.at(pointDecisionHandedOver, func() { g.insertDecision(id, "aborted") })
		result := tx.Commit()
		wantOutcome(t, result, Aborted)
		if !errors.Is(result.Err, ErrAbortDecided) {
			t.Errorf("%v", result.Err)
		}
		if left := cluster.Prepared(); len(left) != 0 {
			t.Errorf("prepared: %v", left)
		}
		g.wantBalances(1000, 1000)
	})
}

// bothKeyedAndNot runs a test for a transaction without an idempotency key, and for one with.
func bothKeyedAndNot(t *testing.T, test func(t *testing.T, key string)) {
	t.Run("without key", func(t *testing.T) { test(t, "") })
	t.Run("with key", func(t *testing.T) { test(t, "order-1") })
}

// setKey gives the transaction a key, unless it is "".
func (g *gateway) setKey(tx *Transaction, key string) {
	g.t.Helper()
	if key == "" {
		return
	}
	if err := tx.SetIdempotencyKey(context.Background(), "role", key); err != nil {
		g.t.Fatal(err)
	}
}

// Nothing was sent: the live gateway may give up, and says so (I4, I5).
func TestDecisionDatabaseDownAborts(t *testing.T) {
	bothKeyedAndNot(t, func(t *testing.T, key string) {
		cluster := newCluster(t, 2)
		proxy := clustertest.NewProxy(t, cluster.Address(clustertest.CoordinatorServer))
		g := startGateway(t, cluster, func(c *Config) {
			c.DecisionURL = proxy.Through(c.DecisionURL)
			c.DecisionTimeout = time.Second
		})
		wantOutcome(t, g.transfer(10).Commit(), Committed)
		tx := g.transfer(10)
		g.setKey(tx, key)
		g.at(pointVoted, func() {
			proxy.Cut()
			// The decider's idle connection is seen to have ended before anything is sent on it.
			clustertest.WaitFor(t, "the end of the connection arrives", 10*time.Second, func() bool {
				return !participant.Alive(g.decider.conn.pg.Conn())
			})
		})
		result := tx.Commit()
		wantOutcome(t, result, Aborted)
		if !errors.Is(result.Err, ErrDecisionUnreachable) {
			t.Errorf("%v", result.Err)
		}
		if left := cluster.Prepared(); len(left) != 0 {
			t.Errorf("prepared: %v", left)
		}
		g.wantBalances(990, 1010)
		// When it is back, so are commits.
		g.at(pointVoted, nil)
		proxy.Mend()
		// The time for a decision is short here, and a busy machine may need more for the new connection.
		clustertest.WaitFor(t, "a commit", time.Minute, func() bool {
			result := g.transfer(10).Commit()
			if result.Outcome != Committed {
				wantOutcome(t, result, Aborted)
			}
			return result.Outcome == Committed
		})
		g.wantBalances(980, 1020)
	})
}

// The decision database is killed while the decision is written: whatever is settled when it is back is what
// the client hears.
func TestDecisionDatabaseKilledWhileWriting(t *testing.T) {
	for _, point := range []string{pointDecisionWriting, pointDecisionWritten} {
		t.Run(point, func(t *testing.T) {
			cluster := newCluster(t, 2)
			g := startGateway(t, cluster, func(c *Config) { c.DecisionTimeout, c.InDoubtTimeout = 30*time.Second, 2*time.Minute })
			tx := g.transfer(10)
			var once sync.Once
			started := make(chan struct{})
			g.at(point, func() {
				once.Do(func() {
					cluster.Kill(clustertest.CoordinatorServer)
					go func() {
						defer close(started)
						cluster.StartServer(clustertest.CoordinatorServer)
					}()
				})
			})
			result := tx.Commit()
			<-started
			wantOutcome(t, result, Committed)
			g.wantBalances(990, 1010)
			clustertest.WaitFor(t, "the decision is finished", 20*time.Second, func() bool {
				return g.record(result.ID) == "committed|{a,b}|finished"
			})
		})
	}
}

// If the answer does not come within the bound, the client hears that the outcome is not known, and recovery
// sees to it.
func TestDecisionNotLearnedInTimeIsUnknown(t *testing.T) {
	cluster := newCluster(t, 2)
	proxy := clustertest.NewProxy(t, cluster.Address(clustertest.CoordinatorServer))
	g := startGateway(t, cluster, func(c *Config) {
		c.DecisionURL, c.DecisionTimeout, c.ConnectTimeout = proxy.Through(c.DecisionURL), time.Second, time.Second
	})
	tx := g.transfer(10)
	g.at(pointDecisionWriting, func() {
		lost := proxy.LoseAnswer("pgpact_1")
		go func() { // what was sent is done, and then nothing can be asked
			<-lost
			proxy.Cut()
		}()
	})
	result := tx.Commit()
	g.at(pointDecisionWriting, nil)
	switch result.Outcome {
	case Unknown:
		if !errors.Is(result.Err, ErrOutcomeUnknown) || result.ID.IsZero() {
			t.Errorf("%+v", result)
		}
	case Committed: // a connection was faster than the cut
		t.Log("the answer was learned all the same")
	default:
		t.Fatalf("outcome %v (%v)", result.Outcome, result.Err)
	}
	proxy.Mend()
	clustertest.WaitFor(t, "recovery commits it", 20*time.Second, func() bool {
		return len(cluster.Prepared()) == 0 && g.record(result.ID) == "committed|{a,b}|finished"
	})
	g.wantBalances(990, 1010)
}

// Commits that wait at the same time share statements, and each learns its own outcome.
func TestDecisionsShareStatements(t *testing.T) {
	const commits = 64
	cluster := newCluster(t, 2)
	// 128 connections at once: a machine that is busy needs its time.
	nodes := cluster.Open(t, func(c *participant.Config) { c.ConnectTimeout = time.Minute })
	g := startGateway(t, cluster, func(c *Config) { c.Nodes = nodes })
	cluster.Exec("a", "INSERT INTO accounts SELECT 'x'||i, 0 FROM generate_series(1,64) i")
	cluster.Exec("b", "INSERT INTO accounts SELECT 'x'||i, 0 FROM generate_series(1,64) i")
	var statements, waiting atomic.Int64
	all := make(chan struct{})
	g.at(pointDecisionHandedOver, func() {
		if waiting.Add(1) == commits {
			close(all)
		}
	})
	var once sync.Once
	g.at(pointDecisionWriting, func() {
		statements.Add(1)
		once.Do(func() { // the others pile up meanwhile
			select {
			case <-all:
			case <-time.After(5 * time.Second):
			}
		})
	})
	var group errgroup.Group
	ids := make([]participant.ID, commits)
	for i := range commits {
		group.Go(func() error {
			tx, err := g.Begin(t.Context())
			if err != nil {
				return err
			}
			for _, node := range []string{"a", "b"} {
				if _, err := run(tx, g.node(node), fmt.Sprintf("UPDATE accounts SET balance=1 WHERE id='x%d'", i+1)); err != nil {
					tx.Rollback()
					return err
				}
			}
			if i%8 == 0 { // one of eight is aborted by somebody faster
				g.insertDecision(tx.Track(), "aborted")
			}
			result := tx.Commit()
			ids[i] = result.ID
			if want := map[bool]Outcome{true: Aborted, false: Committed}[i%8 == 0]; result.Outcome != want {
				return fmt.Errorf("commit %d: %v (%w)", i, result.Outcome, result.Err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := statements.Load(); n >= commits/2 {
		t.Errorf("%d statements for %d commits", n, commits)
	} else {
		t.Logf("%d statements for %d commits", n, commits)
	}
	for _, node := range []string{"a", "b"} {
		if n := cluster.Value(node, "SELECT count(*) FROM accounts WHERE id LIKE 'x%' AND balance=1"); n != "56" {
			t.Errorf("%s transactions on %s", n, node)
		}
	}
	for i, id := range ids {
		if i%8 != 0 { // an abort that somebody else recorded is looked at later
			g.waitFinished(id)
		}
	}
}

// decisionTrigger has the decision database run a PL/pgSQL body before a committed decision is inserted.
func decisionTrigger(cluster *clustertest.Cluster, body string) {
	cluster.Exec(clustertest.CoordinatorServer, `CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN IF NEW.outcome='committed' THEN `+body+` END IF; RETURN NEW; END$$;
		CREATE TRIGGER meddle BEFORE INSERT ON pgpact.transactions FOR EACH ROW EXECUTE FUNCTION meddle()`)
}

// An error answer is a certain no; the abort is recorded before anything is rolled back (I4).
func TestDecisionRefusedAborts(t *testing.T) {
	bothKeyedAndNot(t, func(t *testing.T, key string) {
		cluster := newCluster(t, 2)
		decisionTrigger(cluster, "RAISE 'no' USING ERRCODE='53100';")
		g := startGateway(t, cluster, nil)
		tx := g.transfer(10)
		g.setKey(tx, key)
		var unrecorded bool
		g.at(pointRollbackSent, func() { unrecorded = !strings.HasPrefix(g.record(tx.ID()), "aborted|") })
		result := tx.Commit()
		wantOutcome(t, result, Aborted)
		if participant.SQLState(result.Err) != "53100" {
			t.Errorf("%v", result.Err)
		}
		if unrecorded {
			t.Error("rolled back before the abort was recorded")
		}
		g.wantBalances(1000, 1000)
	})
}

// An answer with a warning (a cancelled standby wait) does not count: the decision is asked for again.
func TestDecisionWithAWarningIsAskedAgain(t *testing.T) {
	bothKeyedAndNot(t, func(t *testing.T, key string) {
		cluster := newCluster(t, 2)
		decisionTrigger(cluster, "IF NOT EXISTS(SELECT FROM pgpact.transactions WHERE epoch=NEW.epoch AND sequence=NEW.sequence) THEN RAISE WARNING 'not sure'; END IF;")
		g := startGateway(t, cluster, nil)
		tx := g.transfer(10)
		g.setKey(tx, key)
		result := tx.Commit()
		wantOutcome(t, result, Committed)
		g.wantBalances(990, 1010)
		g.waitFinished(result.ID)
	})
}

// As long as every answer comes with a warning, none counts: the client hears that the outcome is not known,
// although the row is there.
func TestDecisionThatStaysDoubtfulIsUnknown(t *testing.T) {
	bothKeyedAndNot(t, func(t *testing.T, key string) {
		cluster := newCluster(t, 2)
		decisionTrigger(cluster, "RAISE WARNING 'not sure';")
		g := startGateway(t, cluster, func(c *Config) { c.DecisionTimeout = 300 * time.Millisecond })
		tx := g.transfer(10)
		g.setKey(tx, key)
		result := tx.Commit()
		wantOutcome(t, result, Unknown)
		if !errors.Is(result.Err, ErrOutcomeUnknown) {
			t.Errorf("%v", result.Err)
		}
		clustertest.WaitFor(t, "recovery applies what is recorded", 10*time.Second, func() bool {
			return len(cluster.Prepared()) == 0 && g.record(result.ID) == "committed|{a,b}|finished"
		})
		g.wantBalances(990, 1010)
	})
}
