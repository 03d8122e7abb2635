package metrics

import (
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

func watched(t testing.TB) *Metrics {
	t.Helper()
	m := New([]string{"a", "b"}, "v1", "abc")
	m.Watch(Sources{
		Clients: func() gateway.Standing {
			return gateway.Standing{Active: 1, Idle: 2, InTransaction: 3, InFailedTransaction: 4, Connecting: 5, Accepted: 6, BytesReceived: 7, BytesSent: 8}
		},
		Coordinator: func() coordinator.Standing {
			return coordinator.Standing{SlotsInUse: 9, Slots: 64, EpochHeld: true, Damaged: 1}
		},
		Connections: func(string) participant.Stats { return participant.Stats{Idle: 10, InUse: 11} }, Nodes: []string{"a", "b"},
	})
	return m
}

// everything has every series there can be.
func everything(t testing.TB) *Metrics {
	m := watched(t)
	m.StatementDone(sqlparse.Update, 3*time.Millisecond)
	m.AutocommitEnded(coordinator.KindOnePhase, coordinator.Committed)
	m.TransactionEnded(coordinator.KindTwoPhase, coordinator.Committed, 4*time.Millisecond)
	m.TransactionEnded(coordinator.KindTwoPhase, coordinator.Aborted, time.Millisecond)
	m.PhaseDone(coordinator.PhasePrepare, "a", time.Millisecond)
	m.PhaseDone(coordinator.PhaseDecide, "", time.Millisecond)
	m.PhaseDone(coordinator.PhasePrepare, "nobody", time.Millisecond) // not in the configuration: no new series
	m.DecisionsWritten(3)
	m.SlotWaited(2*time.Millisecond, true)
	m.SlotWaited(time.Second, false)
	m.StatementFailed("23505")
	m.StatementFailed("UH001") // RAISE ... USING ERRCODE
	m.StatementRefused("0A000", "merge")
	m.ConnectionRefused("28P01")
	m.ConnectionRefused("53300")
	m.NodeSwept("a", coordinator.Swept{Prepared: 2, InDoubt: 1, Oldest: time.Hour})
	m.NodeSwept("b", coordinator.Swept{Err: errors.New("down")})
	m.Recovered(coordinator.RecoveryAction{What: coordinator.ActionCommitted, ID: participant.ID{Epoch: 1, Sequence: 2}, Node: "a", Count: 1})
	m.SetForced(2)
	return m
}

// Prometheus's own linter finds nothing to say about names, units and help.
func TestPrometheusFindsNoFault(t *testing.T) {
	problems, err := testutil.GatherAndLint(everything(t).Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "pgpact_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestWhatIsTold(t *testing.T) {
	m := everything(t)
	for _, want := range []string{
		`pgpact_build_info{commit="abc",version="v1"} 1`,
		`pgpact_transactions_total{kind="one-phase",outcome="committed"} 1`,
		`pgpact_transactions_total{kind="two-phase",outcome="committed"} 1`,
		`pgpact_transactions_total{kind="two-phase",outcome="aborted"} 1`,
		`pgpact_transactions_total{kind="read",outcome="unknown"} 0`,
		`pgpact_commit_duration_seconds_count{kind="two-phase"} 1`,
		`pgpact_phase_duration_seconds_count{node="a",phase="prepare"} 1`,
		`pgpact_phase_duration_seconds_count{node="",phase="decide"} 1`,
		`pgpact_statement_duration_seconds_bucket{statement="update",le="0.005"} 1`,
		`pgpact_statement_duration_seconds_bucket{statement="update",le="0.0025"} 0`,
		`pgpact_decision_batch_size_sum 3`,
		`pgpact_slot_wait_seconds_count 2`,
		`pgpact_slot_wait_failures_total 1`,
		`pgpact_statement_errors_total{class="23"} 1`,
		`pgpact_statement_errors_total{class="other"} 1`,
		`pgpact_statements_refused_total{reason="merge",sqlstate="0A000"} 1`,
		`pgpact_connections_refused_total{sqlstate="28P01"} 1`,
		`pgpact_auth_failures_total 1`,
		`pgpact_recovery_actions_total{action="branch committed"} 1`,
		`pgpact_recovery_actions_total{action="damage found"} 0`,
		`pgpact_heuristic_outcomes 2`,
		`pgpact_connections{state="active"} 1`, `pgpact_connections{state="idle"} 2`,
		`pgpact_connections{state="idle in transaction"} 3`, `pgpact_connections{state="idle in transaction (aborted)"} 4`,
		`pgpact_connections{state="connecting"} 5`, `pgpact_connections_accepted_total 6`,
		`pgpact_client_bytes_total{direction="received"} 7`, `pgpact_client_bytes_total{direction="sent"} 8`,
		`pgpact_draining 0`, `pgpact_slots 64`, `pgpact_slots_in_use 9`, `pgpact_epoch_held 1`, `pgpact_damaged_transactions 1`,
		`pgpact_node_up{node="a"} 1`, `pgpact_node_up{node="b"} 0`,
		`pgpact_node_prepared{node="a"} 2`, `pgpact_node_in_doubt{node="a"} 1`,
		`pgpact_node_connections{node="b",state="in use"} 11`,
	} {
		if text := exposed(t, m); !strings.Contains(text, want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	text := exposed(t, m)
	if strings.Contains(text, `node="nobody"`) {
		t.Error("a node that is not configured has a series")
	}
	// The oldest branch in doubt goes on ageing between two looks, and when the node cannot be looked at.
	before := m.Node("a")
	m.NodeSwept("a", coordinator.Swept{Err: errors.New("down")})
	after := m.Node("a")
	if before.Oldest < time.Hour || after.Oldest < before.Oldest || after.InDoubt != 1 || after.Err == nil {
		t.Errorf("before the node went down %+v, after %+v", before, after)
	}
	m.NodeSwept("a", coordinator.Swept{})
	if now := m.Node("a"); now.Oldest != 0 || now.InDoubt != 0 || now.Err != nil {
		t.Errorf("nothing is in doubt any more: %+v", now)
	}
}

func exposed(t testing.TB, m *Metrics) string {
	t.Helper()
	body, err := io.ReadAll(scrape(t, m))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestEventsAreBounded(t *testing.T) {
	m := watched(t)
	for i := range int64(maxEvents + 7) {
		m.Recovered(coordinator.RecoveryAction{What: coordinator.ActionFinished, ID: participant.ID{Epoch: 1, Sequence: i + 1}, Count: 1})
	}
	events := m.Events()
	if len(events) != maxEvents || events[0].Transaction != "1/57" || events[maxEvents-1].Transaction != "1/8" {
		t.Errorf("%d events, from %s to %s", len(events), events[0].Transaction, events[len(events)-1].Transaction)
	}
}

func TestSamples(t *testing.T) {
	m := watched(t)
	before := m.take()
	for range 100 {
		m.StatementDone(sqlparse.Select, 300*time.Microsecond)
		m.AutocommitEnded(coordinator.KindRead, coordinator.Committed)
	}
	m.StatementDone(sqlparse.Select, 8*time.Second)
	m.TransactionEnded(coordinator.KindTwoPhase, coordinator.Committed, 30*time.Millisecond)
	m.TransactionEnded(coordinator.KindTwoPhase, coordinator.Unknown, time.Second)
	after := m.take()
	s := after.since(&before, 2*time.Second, time.UnixMilli(5000))
	if s.At != 5000 || s.Read != 50 || s.TwoPhase != 0.5 || s.Unknown != 0.5 || s.Aborted != 0 {
		t.Errorf("%+v", s)
	}
	if s.StatementP50 < 0.25 || s.StatementP50 > 0.5 || s.StatementP99 > 0.5 || s.CommitP50 < 25 || s.CommitP50 > 50 {
		t.Errorf("quantiles: %+v", s)
	}
	if idle := after.since(&after, time.Second, time.Now()); idle.StatementP50 != -1 || idle.CommitP99 != -1 {
		t.Errorf("of nothing there is no quantile: %+v", idle)
	}
	if got := quantile(0.5, make([]uint64, len(latency)+1), append(make([]uint64, len(latency)), 3)); got != 10_000 {
		t.Errorf("beyond the last bound: %v", got)
	}
	for i := range maxSamples + 3 {
		m.samples.add(Sample{At: int64(i)})
	}
	if all := m.Samples(math.MinInt64); len(all) != maxSamples || all[0].At != 3 {
		t.Errorf("%d samples from %d on", len(all), all[0].At)
	}
	if some := m.Samples(maxSamples); len(some) != 2 || some[0].At != maxSamples+1 {
		t.Errorf("since: %+v", some)
	}
}

// What one statement costs on the client's path: an UPDATE in autocommit, with
// the clock read twice as the session does.
func BenchmarkStatement(b *testing.B) {
	var clients gateway.Observer = New([]string{"a", "b"}, "v1", "abc")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			began := time.Now()
			clients.StatementDone(sqlparse.Update, time.Since(began))
			clients.AutocommitEnded(coordinator.KindOnePhase, coordinator.Committed)
		}
	})
}

// What a two-phase commit over two nodes costs beyond that.
func BenchmarkTwoPhaseCommit(b *testing.B) {
	var told coordinator.Observer = New([]string{"a", "b"}, "v1", "abc")
	for b.Loop() {
		began := time.Now()
		for _, node := range []string{"a", "b"} {
			told.PhaseDone(coordinator.PhasePrepare, node, time.Since(began))
		}
		told.PhaseDone(coordinator.PhaseDecide, "", time.Since(began))
		told.DecisionsWritten(1)
		for _, node := range []string{"a", "b"} {
			told.PhaseDone(coordinator.PhaseCommitPrepared, node, time.Since(began))
		}
		told.TransactionEnded(coordinator.KindTwoPhase, coordinator.Committed, time.Since(began))
	}
}
