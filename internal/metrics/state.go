package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/participant"
)

// Sources are asked for their state when somebody wants to see it. None of these
// waits.
type Sources struct {
	Clients     func() gateway.Standing
	Coordinator func() coordinator.Standing
	Connections func(node string) participant.Stats
	Nodes       []string
}

// Watch adds what is a state to what is counted.
func (m *Metrics) Watch(s Sources) { m.registry.MustRegister(&state{sources: s, swept: &m.swept}) }

// sweeps remembers the last look at each node.
type sweeps struct {
	mu   sync.Mutex
	last map[string]sweep
}

type sweep struct {
	coordinator.Swept
	at time.Time
}

func (s *sweeps) set(node string, found coordinator.Swept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[string]sweep{}
	}
	if found.Err != nil { // what was known before is still the best there is
		found.Prepared, found.InDoubt, found.Oldest = s.last[node].Prepared, s.last[node].InDoubt, s.last[node].age(time.Now())
	}
	s.last[node] = sweep{found, time.Now()}
}

// of is the last look at a node; known is false before the first.
func (s *sweeps) of(node string) (last sweep, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known = s.last[node]
	return last, known
}

// age of the oldest branch in doubt: it has grown since somebody looked.
func (s sweep) age(now time.Time) time.Duration {
	if s.InDoubt == 0 {
		return 0
	}
	return s.Oldest + now.Sub(s.at)
}

// NodeState is what recovery has last seen of a node.
type NodeState struct {
	Known    bool          // it has been looked at
	Err      error         // the last look failed
	Prepared int           // prepared branches of the cluster
	InDoubt  int           // of those, in doubt
	Oldest   time.Duration // age of the oldest in doubt
}

// Node tells what recovery has last seen of a node.
func (m *Metrics) Node(name string) NodeState {
	last, known := m.swept.of(name)
	return NodeState{Known: known, Err: last.Err, Prepared: last.Prepared, InDoubt: last.InDoubt, Oldest: last.age(time.Now())}
}

// state is a Prometheus collector of everything that is read when it is wanted.
type state struct {
	sources Sources
	swept   *sweeps
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descConnections = desc("pgpact_connections", "Clients' connections by state, in the words of pg_stat_activity.", "state")
	descAccepted    = desc("pgpact_connections_accepted_total", "Connections that clients have made.")
	descBytes       = desc("pgpact_client_bytes_total", "Bytes exchanged with clients, as seen by the gateway, direction received or sent.", "direction")
	descDraining    = desc("pgpact_draining", "1 while the gateway is stopping: it accepts nobody and ends sessions as they become idle.")
	descSlots       = desc("pgpact_slots", "Transactions that may be under way at a time.")
	descSlotsInUse  = desc("pgpact_slots_in_use", "Transactions under way.")
	descEpoch       = desc("pgpact_epoch_held", "1 while the decision database answers and shows others that this gateway lives.")
	descDamaged     = desc("pgpact_damaged_transactions", "Transactions whose decision a node contradicts, found by this gateway's recovery since it began.")
	descNodeUp      = desc("pgpact_node_up", "1 if recovery's last look at the node was answered.", "node")
	descPrepared    = desc("pgpact_node_prepared", "Prepared branches on the node, those just being committed included.", "node")
	descInDoubt     = desc("pgpact_node_in_doubt", "Prepared branches on the node whose decision is not known and that nobody is at work on.", "node")
	descOldest      = desc("pgpact_node_in_doubt_oldest_seconds", "Age of the oldest of them, 0 if there is none.", "node")
	descNodeConns   = desc("pgpact_node_connections", "Connections to the node, in use or idle.", "node", "state")
)

// Describe implements prometheus.Collector.
func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descConnections, descAccepted, descBytes, descDraining, descSlots, descSlotsInUse, descEpoch,
		descDamaged, descNodeUp, descPrepared, descInDoubt, descOldest, descNodeConns} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	clients := s.sources.Clients()
	gauge(descConnections, float64(clients.Active), "active")
	gauge(descConnections, float64(clients.Idle), "idle")
	gauge(descConnections, float64(clients.InTransaction), "idle in transaction")
	gauge(descConnections, float64(clients.InFailedTransaction), "idle in transaction (aborted)")
	gauge(descConnections, float64(clients.Connecting), "connecting")
	count(descAccepted, clients.Accepted)
	count(descBytes, clients.BytesReceived, "received")
	count(descBytes, clients.BytesSent, "sent")
	gauge(descDraining, truth(clients.Draining))
	own := s.sources.Coordinator()
	gauge(descSlots, float64(own.Slots))
	gauge(descSlotsInUse, float64(own.SlotsInUse))
	gauge(descEpoch, truth(own.EpochHeld))
	gauge(descDamaged, float64(own.Damaged))
	now := time.Now()
	for _, node := range s.sources.Nodes {
		connections := s.sources.Connections(node)
		gauge(descNodeConns, float64(connections.InUse), node, "in use")
		gauge(descNodeConns, float64(connections.Idle), node, "idle")
		last, known := s.swept.of(node)
		if !known {
			continue
		}
		gauge(descNodeUp, truth(last.Err == nil), node)
		gauge(descPrepared, float64(last.Prepared), node)
		gauge(descInDoubt, float64(last.InDoubt), node)
		gauge(descOldest, last.age(now).Seconds(), node)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
