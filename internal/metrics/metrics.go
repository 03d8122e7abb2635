package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/sqlparse"
)

// Metrics is an observer of one coordinator and one gateway.
type Metrics struct {
	registry *prometheus.Registry
	events   events
	samples  samples
	swept    sweeps

	statements   [256]prometheus.Observer // by sqlparse.Kind
	statementOf  map[string]prometheus.Histogram
	transactions [coordinator.KindCount][3]prometheus.Counter // by outcome
	commits      [coordinator.KindCount]prometheus.Histogram
	phases       [coordinator.PhaseCount]map[string]prometheus.Observer // by node

	batches      prometheus.Histogram
	slotWaits    prometheus.Histogram
	slotTimeouts prometheus.Counter

	failed            *prometheus.CounterVec // by class of SQLSTATE
	refused           *prometheus.CounterVec // by SQLSTATE and reason
	refusedConnection *prometheus.CounterVec // by SQLSTATE
	authFailures      prometheus.Counter
	recovered         *prometheus.CounterVec // by action
	forced            prometheus.Gauge
}

var (
	_ coordinator.Observer = (*Metrics)(nil)
	_ gateway.Observer     = (*Metrics)(nil)
)

// latency are the bounds of all histograms of time, in seconds: from a statement
// on this machine to the longest of the default timeouts.
var latency = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// New makes metrics for a cluster of these nodes. version and commit are the
// program's.
func New(nodes []string, version, commit string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), statementOf: map[string]prometheus.Histogram{}}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pgpact_build_info", Help: "1, for the version that runs."}, []string{"version", "commit"})
	build.WithLabelValues(version, commit).Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.makeStatements()
	m.makeTransactions(nodes)
	m.makeErrors()
	m.recovered = m.counters("pgpact_recovery_actions_total", "What recovery has done, or found and left.", "action")
	for _, action := range []string{coordinator.ActionCommitted, coordinator.ActionRolledBack, coordinator.ActionSettledCommit,
		coordinator.ActionSettledAbort, coordinator.ActionFinished, coordinator.ActionDamage, coordinator.ActionLeftAlone} {
		m.recovered.WithLabelValues(action) // a rate needs the zero before the first
	}
	m.forced = prometheus.NewGauge(prometheus.GaugeOpts{Name: "pgpact_heuristic_outcomes",
		Help: "Transactions on record whose outcome a person has forced (pgpact resolve --force)."})
	m.registry.MustRegister(m.forced)
	return m
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histograms(name, help string, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: latency}, labels)
	m.registry.MustRegister(h)
	return h
}

// verbOf groups the kinds of statements: a series for each of the fifty would
// say no more.
func verbOf(kind sqlparse.Kind) string {
	switch kind {
	case sqlparse.Select, sqlparse.Insert, sqlparse.Update, sqlparse.Delete, sqlparse.Begin, sqlparse.Commit, sqlparse.Rollback, sqlparse.CopyData:
		return kind.String()
	case sqlparse.Fetch, sqlparse.DeclareCursor:
		return "cursor"
	case sqlparse.Create, sqlparse.Alter, sqlparse.Drop, sqlparse.Truncate:
		return "schema change"
	}
	return "other"
}

func (m *Metrics) makeStatements() {
	vec := m.histograms("pgpact_statement_duration_seconds", "Time from a statement's arrival to the end of its answer, with its client's reading of the rows.", "statement")
	for kind := range m.statements {
		verb := verbOf(sqlparse.Kind(kind))
		if m.statementOf[verb] == nil {
			m.statementOf[verb] = vec.WithLabelValues(verb).(prometheus.Histogram)
		}
		m.statements[kind] = m.statementOf[verb]
	}
}

func (m *Metrics) makeTransactions(nodes []string) {
	ended := m.counters("pgpact_transactions_total", "Transactions by kind (read, one-phase, two-phase) and outcome, statements in autocommit included.", "kind", "outcome")
	took := m.histograms("pgpact_commit_duration_seconds", "Time a COMMIT took that succeeded, by kind of transaction, autocommit excluded.", "kind")
	for kind := range coordinator.KindCount {
		for _, outcome := range []coordinator.Outcome{coordinator.Unknown, coordinator.Committed, coordinator.Aborted} {
			m.transactions[kind][outcome] = ended.WithLabelValues(kind.String(), outcome.String())
		}
		m.commits[kind] = took.WithLabelValues(kind.String()).(prometheus.Histogram)
	}
	phases := m.histograms("pgpact_phase_duration_seconds",
		"Time until a node had answered in a phase of a commit; phase decide is the decision database. Nodes work in parallel and are read in turn, "+
			"so a node is never shown quicker than those read before it.", "phase", "node")
	for phase := range coordinator.PhaseCount {
		m.phases[phase] = map[string]prometheus.Observer{}
		names := nodes
		if phase == coordinator.PhaseDecide {
			names = []string{""}
		}
		for _, node := range names {
			m.phases[phase][node] = phases.WithLabelValues(phase.String(), node)
		}
	}
	m.batches = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pgpact_decision_batch_size",
		Help: "Commit decisions written by one statement.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}})
	m.slotWaits = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pgpact_slot_wait_seconds",
		Help: "Time transactions waited for a slot, of those that had to.", Buckets: latency})
	m.registry.MustRegister(m.batches, m.slotWaits)
	m.slotTimeouts = m.counter("pgpact_slot_wait_failures_total", "Transactions that waited for a slot and got none: the time was up, or the client gave up.")
}

func (m *Metrics) makeErrors() {
	m.failed = m.counters("pgpact_statement_errors_total", "Errors of nodes that clients were told, by class of SQLSTATE (its first two characters).", "class")
	m.refused = m.counters("pgpact_statements_refused_total", "Errors of the gateway itself that clients were told.", "sqlstate", "reason")
	m.refusedConnection = m.counters("pgpact_connections_refused_total", "Clients turned away before they had a session.", "sqlstate")
	m.authFailures = m.counter("pgpact_auth_failures_total", "Clients turned away because of who they said they were (SQLSTATE class 28).")
}

// StatementDone implements gateway.Observer.
func (m *Metrics) StatementDone(kind sqlparse.Kind, took time.Duration) {
	m.statements[kind].Observe(took.Seconds())
}

// AutocommitEnded implements gateway.Observer.
func (m *Metrics) AutocommitEnded(kind coordinator.Kind, outcome coordinator.Outcome) {
	m.transactions[kind][outcome].Inc()
}

// StatementFailed implements gateway.Observer.
func (m *Metrics) StatementFailed(sqlstate string) {
	class := "other" // a function may RAISE what it likes
	if len(sqlstate) == 5 && classes[sqlstate[:2]] {
		class = sqlstate[:2]
	}
	m.failed.WithLabelValues(class).Inc()
}

// classes are Postgres's classes of SQLSTATEs (its documentation, appendix A).
var classes = func() map[string]bool {
	set := map[string]bool{}
	for _, class := range []string{"00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26",
		"27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX"} {
		set[class] = true
	}
	return set
}()

// StatementRefused implements gateway.Observer.
func (m *Metrics) StatementRefused(sqlstate, reason string) {
	m.refused.WithLabelValues(sqlstate, reason).Inc()
}

// ConnectionRefused implements gateway.Observer.
func (m *Metrics) ConnectionRefused(sqlstate string) {
	m.refusedConnection.WithLabelValues(sqlstate).Inc()
	if len(sqlstate) == 5 && sqlstate[:2] == "28" {
		m.authFailures.Inc()
	}
}

// TransactionEnded implements coordinator.Observer.
func (m *Metrics) TransactionEnded(kind coordinator.Kind, outcome coordinator.Outcome, took time.Duration) {
	m.transactions[kind][outcome].Inc()
	if outcome == coordinator.Committed {
		m.commits[kind].Observe(took.Seconds())
	}
}

// PhaseDone implements coordinator.Observer.
func (m *Metrics) PhaseDone(phase coordinator.Phase, node string, took time.Duration) {
	if series := m.phases[phase][node]; series != nil {
		series.Observe(took.Seconds())
	}
}

// DecisionsWritten implements coordinator.Observer.
func (m *Metrics) DecisionsWritten(count int) { m.batches.Observe(float64(count)) }

// SlotWaited implements coordinator.Observer.
func (m *Metrics) SlotWaited(took time.Duration, got bool) {
	m.slotWaits.Observe(took.Seconds())
	if !got {
		m.slotTimeouts.Inc()
	}
}

// NodeSwept implements coordinator.Observer.
func (m *Metrics) NodeSwept(node string, found coordinator.Swept) { m.swept.set(node, found) }

// Recovered implements coordinator.Observer.
func (m *Metrics) Recovered(action coordinator.RecoveryAction) {
	m.recovered.WithLabelValues(action.What).Add(float64(action.Count))
	m.events.add(action)
}

// SetForced sets the number of heuristic outcomes on record.
func (m *Metrics) SetForced(count int) { m.forced.Set(float64(count)) }

// Gatherer is where Prometheus's handler finds everything.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }
