package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// probeTimeout bounds one question to a server: a probe that has to wait for more
// has its answer already.
const probeTimeout = 2 * time.Second

// Health is what /livez and /readyz answer.
type Health struct {
	OK     bool    `json:"ok"`
	Reason string  `json:"reason,omitempty"` // why not, in a sentence
	Checks []Check `json:"checks,omitempty"`
}

// Check is one thing that was looked at.
type Check struct {
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	Needed bool    `json:"needed"` // without it the gateway is not ready; of nodes a majority is
	Reason string  `json:"reason,omitempty"`
	Millis float64 `json:"ms"`
}

// livez answers as long as the process can answer anything: a gateway whose
// servers are down is not helped by being started again.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, Health{OK: true})
}

// readyz answers whether clients should be sent here.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	health, code := s.health.get(r.Context()), http.StatusOK
	if s.cfg.Gateway.Standing().Draining { // at once, whatever was read a moment ago
		health.OK, health.Reason = false, "the gateway is stopping"
	}
	if !health.OK {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, health)
}

// readHealth asks the decision database and every node, at the same time. Without
// the former nothing can be decided; of the latter a majority must answer: one
// that is down takes its rows with it, and no other gateway would have them.
func (s *Server) readHealth(ctx context.Context) Health {
	checks := make([]Check, 2+len(s.cfg.Nodes))
	held := s.cfg.Coordinator.Standing().EpochHeld
	checks[1] = Check{Name: "epoch", OK: held, Needed: true}
	if !held {
		checks[1].Reason = "the lock that shows others that this gateway lives is lost; it takes a new epoch as soon as the decision database answers"
	}
	var wg sync.WaitGroup
	wg.Go(func() { checks[0] = check(ctx, "decision database", true, s.cfg.Coordinator.Ping) })
	for i, node := range s.cfg.Nodes {
		wg.Go(func() { checks[2+i] = check(ctx, "node "+node.Name(), false, pinger(node)) })
	}
	wg.Wait()
	return judge(checks)
}

// judge says what the checks mean together.
func judge(checks []Check) Health {
	health := Health{OK: true, Checks: checks}
	nodes, answering := 0, 0
	for _, c := range checks {
		switch {
		case !c.Needed:
			nodes++
			if c.OK {
				answering++
			}
		case !c.OK && health.OK:
			health.OK, health.Reason = false, c.Name+": "+strings.TrimPrefix(c.Reason, c.Name+": ")
		}
	}
	if quorum := nodes/2 + 1; answering < quorum && health.OK {
		health.OK = false
		health.Reason = fmt.Sprintf("%d of %d nodes answer, and a majority (%d) is needed", answering, nodes, quorum)
	}
	return health
}

func pinger(node *participant.Node) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := node.Query(ctx, "SELECT 1")
		return err
	}
}

func check(ctx context.Context, name string, needed bool, ask func(context.Context) error) Check {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	began := time.Now()
	err := ask(ctx)
	c := Check{Name: name, OK: err == nil, Needed: needed, Millis: float64(time.Since(began).Microseconds()) / 1000}
	if err != nil {
		c.Reason = err.Error()
	}
	return c
}
