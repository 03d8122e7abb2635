package admin

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/internal/metrics"
)

// Status is what the page shows.
type Status struct {
	Name         string              `json:"name"`
	Version      string              `json:"version"`
	Now          int64               `json:"now"` // milliseconds since 1970
	Uptime       float64             `json:"uptime"`
	Health       Health              `json:"health"`
	Draining     bool                `json:"draining"`
	Connections  map[string]int      `json:"connections"`
	Slots        int                 `json:"slots"`
	SlotsInUse   int                 `json:"slots_in_use"`
	Nodes        []NodeStatus        `json:"nodes"`
	Samples      []metrics.Sample    `json:"samples"`
	Transactions []TransactionStatus `json:"transactions"`
	More         int                 `json:"more"`       // transactions beyond those listed
	ListError    string              `json:"list_error"` // why the list is not, or not all, there
	Recovery     []metrics.Event     `json:"recovery"`
}

// NodeStatus is one node.
type NodeStatus struct {
	Name     string  `json:"name"`
	Address  string  `json:"address"`
	Up       bool    `json:"up"`
	Reason   string  `json:"reason,omitempty"`
	Millis   float64 `json:"ms"` // of the last sign of life
	Version  int     `json:"version"`
	Timeline string  `json:"timeline"`
	Buckets  int     `json:"buckets"`
	InUse    int     `json:"in_use"`
	Idle     int     `json:"idle"`
	Prepared int     `json:"prepared"`
	InDoubt  int     `json:"in_doubt"`
	Oldest   float64 `json:"oldest"` // seconds
}

// TransactionStatus is one transaction that is not finished, or that needs a
// person.
type TransactionStatus struct {
	ID       string            `json:"id"`
	State    string            `json:"state"`
	Decision string            `json:"decision"`
	Age      float64           `json:"age"` // seconds
	Gateway  string            `json:"gateway"`
	Alive    bool              `json:"alive"`
	Nodes    map[string]string `json:"nodes"`
}

const (
	// listedFrom is the age from which a transaction is listed: those that are just
	// being committed would come and go.
	listedFrom = time.Second
	maxListed  = 50
)

// listing is what is read of transactions for the page.
type listing struct {
	list []TransactionStatus
	more int
	err  string
}

// readListing asks the decision log and every node.
func (s *Server) readListing(ctx context.Context) (l listing) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	all, err := s.cfg.Coordinator.Transactions(ctx)
	if err != nil {
		l.err = err.Error()
	}
	for _, info := range all { // the oldest first
		if info.Age < listedFrom && info.State != coordinator.StateDamaged {
			continue
		}
		if len(l.list) == maxListed {
			l.more++
			continue
		}
		l.list = append(l.list, TransactionStatus{
			ID: info.ID, State: info.State, Decision: info.Decision, Age: info.Age.Seconds(), Gateway: info.Gateway, Alive: info.Alive, Nodes: info.Nodes,
		})
	}
	return l
}

// status answers the page. since=MS leaves out the samples it has.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	since, _ := strconv.ParseInt(r.URL.Query().Get("since"), 10, 64) // 0: all
	clients, own := s.cfg.Gateway.Standing(), s.cfg.Coordinator.Standing()
	listed := s.listing.get(r.Context())
	st := Status{
		Name: s.cfg.Name, Version: s.cfg.Version, Now: time.Now().UnixMilli(), Uptime: time.Since(s.started).Seconds(),
		Health: s.health.get(r.Context()), Draining: clients.Draining, Slots: own.Slots, SlotsInUse: own.SlotsInUse,
		Connections: map[string]int{
			"active": clients.Active, "idle": clients.Idle, "in transaction": clients.InTransaction,
			"in failed transaction": clients.InFailedTransaction, "connecting": clients.Connecting,
		},
		Samples: s.cfg.Metrics.Samples(since), Transactions: listed.list, More: listed.more, ListError: listed.err,
		Recovery: s.cfg.Metrics.Events(),
	}
	for i, node := range s.cfg.Nodes {
		found, connections, answer := s.cfg.Metrics.Node(node.Name()), node.Stats(), st.Health.Checks[2+i]
		ns := NodeStatus{
			Name: node.Name(), Address: node.Address(), Up: answer.OK, Reason: answer.Reason, Millis: answer.Millis,
			Buckets: s.cfg.Buckets[node.Name()], InUse: connections.InUse, Idle: connections.Idle,
			Prepared: found.Prepared, InDoubt: found.InDoubt, Oldest: found.Oldest.Seconds(),
		}
		if id := node.Identity(); id != nil {
			ns.Version, ns.Timeline = id.Version, id.Timeline
		}
		st.Nodes = append(st.Nodes, ns)
	}
	writeJSON(w, http.StatusOK, st)
}
