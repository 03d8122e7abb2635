package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/pgpact/pgpact/coordinator"
)

const (
	// maxSamples is how many are kept: five minutes.
	maxSamples     = 300
	sampleInterval = time.Second
)

// Sample is one second of the gateway's life.
type Sample struct {
	At int64 `json:"at"` // its end, in milliseconds since 1970
	// Transactions per second that have committed, by kind, and that have not.
	Read     float64 `json:"read"`
	OnePhase float64 `json:"one_phase"`
	TwoPhase float64 `json:"two_phase"`
	Aborted  float64 `json:"aborted"`
	Unknown  float64 `json:"unknown"`
	// Medians and 99th percentiles in milliseconds, as far as the histograms'
	// buckets tell; -1 when there was nothing to measure.
	StatementP50 float64 `json:"statement_p50"`
	StatementP99 float64 `json:"statement_p99"`
	CommitP50    float64 `json:"commit_p50"` // of two-phase commits
	CommitP99    float64 `json:"commit_p99"`
}

// samples are the last of them, the oldest first.
type samples struct {
	mu  sync.Mutex
	all []Sample
}

// Samples are the last seconds, the oldest first; since leaves out those that
// ended at or before it (milliseconds since 1970).
func (m *Metrics) Samples(since int64) []Sample {
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	from := 0
	for from < len(m.samples.all) && m.samples.all[from].At <= since {
		from++
	}
	return append([]Sample{}, m.samples.all[from:]...)
}

// Run takes a sample each second, until ctx ends.
func (m *Metrics) Run(ctx context.Context) {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	before, last := m.take(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			current := m.take()
			m.samples.add(current.since(&before, now.Sub(last), now))
			before, last = current, now
		}
	}
}

func (s *samples) add(sample Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == maxSamples {
		s.all = append(s.all[:0], s.all[1:]...)
	}
	s.all = append(s.all, sample)
}

// taken are the counters at a moment.
type taken struct {
	transactions [coordinator.KindCount][3]float64
	statements   []uint64 // cumulative, by bucket of latency, and all
	commits      []uint64
}

func (m *Metrics) take() taken {
	t := taken{statements: make([]uint64, len(latency)+1), commits: make([]uint64, len(latency)+1)}
	for kind := range m.transactions {
		for outcome, counter := range m.transactions[kind] {
			t.transactions[kind][outcome] = read(counter).GetCounter().GetValue()
		}
	}
	for _, histogram := range m.statementOf {
		addBuckets(t.statements, histogram)
	}
	addBuckets(t.commits, m.commits[coordinator.KindTwoPhase])
	return t
}

func read(metric prometheus.Metric) *dto.Metric {
	var out dto.Metric
	_ = metric.Write(&out) // fails for descriptions that are wrong, which New would have refused
	return &out
}

func addBuckets(to []uint64, histogram prometheus.Metric) {
	h := read(histogram).GetHistogram()
	for i, bucket := range h.GetBucket() {
		to[i] += bucket.GetCumulativeCount()
	}
	to[len(latency)] += h.GetSampleCount()
}

// since is what has happened between before and t.
func (t *taken) since(before *taken, elapsed time.Duration, now time.Time) Sample {
	rate := func(kind coordinator.Kind, outcome coordinator.Outcome) float64 {
		return (t.transactions[kind][outcome] - before.transactions[kind][outcome]) / elapsed.Seconds()
	}
	all := func(outcome coordinator.Outcome) (sum float64) {
		for kind := range coordinator.KindCount {
			sum += rate(kind, outcome)
		}
		return sum
	}
	return Sample{
		At: now.UnixMilli(), Read: rate(coordinator.KindRead, coordinator.Committed), OnePhase: rate(coordinator.KindOnePhase, coordinator.Committed),
		TwoPhase: rate(coordinator.KindTwoPhase, coordinator.Committed), Aborted: all(coordinator.Aborted), Unknown: all(coordinator.Unknown),
		StatementP50: quantile(0.5, before.statements, t.statements), StatementP99: quantile(0.99, before.statements, t.statements),
		CommitP50: quantile(0.5, before.commits, t.commits), CommitP99: quantile(0.99, before.commits, t.commits),
	}
}

// quantile of what came into cumulative buckets between two looks, in
// milliseconds: as Prometheus does it, a bucket's contents are taken to be spread
// evenly, and what lies beyond the last bound to lie at it. -1: nothing came.
func quantile(q float64, before, after []uint64) float64 {
	total := float64(after[len(latency)] - before[len(latency)])
	if total == 0 {
		return -1
	}
	rank, below, lower := q*total, 0.0, 0.0
	for i, upper := range latency {
		in := float64(after[i]-before[i]) - below
		if below+in >= rank && in > 0 {
			return 1000 * (lower + (upper-lower)*(rank-below)/in)
		}
		below, lower = below+in, upper
	}
	return 1000 * latency[len(latency)-1]
}
