package coordinator

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pgpact/pgpact/participant"
)

// Coordinator is one gateway's transaction manager. It holds no durable state:
// any other can finish its work.
type Coordinator struct {
	cfg   Config
	log   *decisionLog
	nodes map[string]*participant.Node
	slots chan struct{}

	epoch     atomic.Pointer[epoch]
	epochHeld atomic.Bool // the epoch's lock was seen held a moment ago
	active    activeSet
	running   idSet // ids of transactions this process is still working on
	decider   *decider
	later     *laterQueue
	recover   *recoverer
	detect    *detector
	barrier   *barrier

	stop     context.CancelFunc
	stopOnce sync.Once
	wg       sync.WaitGroup
}

// New checks cfg; nothing is connected before Start.
func New(cfg Config) (*Coordinator, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	log, err := openDecisionLog(cfg.DecisionURL, cfg.ClusterID, cfg.ConnectTimeout)
	if err != nil {
		return nil, err
	}
	c := &Coordinator{cfg: cfg, log: log, nodes: map[string]*participant.Node{}, slots: make(chan struct{}, cfg.Slots)}
	for _, node := range cfg.Nodes {
		if c.nodes[node.Name()] != nil {
			return nil, fmt.Errorf("node %q is configured twice", node.Name())
		}
		c.nodes[node.Name()] = node
	}
	c.decider = newDecider(c)
	c.later = newLaterQueue(c)
	c.recover = newRecoverer(c)
	c.detect = newDetector(c)
	c.barrier = newBarrier(c)
	return c, nil
}

// Start takes an epoch and starts the decider, the recovery loop and the
// others. It fails when the decision database cannot be used; a node that is
// down does not matter.
func (c *Coordinator) Start(ctx context.Context) error {
	conn, err := c.beginEpoch(ctx)
	if err != nil {
		return err
	}
	background, stop := context.WithCancel(context.Background())
	c.stop = stop
	go c.decider.run() // waited for by its own channel: see Stop
	c.wg.Go(func() { c.holdEpoch(background, conn) })
	c.wg.Go(func() { c.later.run(background) })
	c.wg.Go(func() { c.barrier.run(background) })
	c.recover.start(background, &c.wg)
	c.wg.Go(func() { c.detect.run(background) })
	return nil
}

// Stop ends the background work, after what has been handed to the decider is
// decided and what can be marked is marked. Transactions must have ended; ctx
// bounds the last writes. A second call does nothing more.
func (c *Coordinator) Stop(ctx context.Context) {
	if c.stop == nil { // never started: only questions were asked
		c.log.close()
		return
	}
	c.stopOnce.Do(func() {
		close(c.decider.stop)
		<-c.decider.stopped
		c.later.flush(ctx)
		c.stop()
		c.wg.Wait()
		c.log.close()
	})
}

// Nodes are the cluster's nodes, in configured order.
func (c *Coordinator) Nodes() []*participant.Node { return c.cfg.Nodes }

// SlotsInUse counts the transactions under way.
func (c *Coordinator) SlotsInUse() int { return len(c.slots) }

// idSet is a set of transaction ids for many goroutines.
type idSet struct {
	mu  sync.Mutex
	ids map[participant.ID]struct{}
}

func (s *idSet) add(id participant.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = map[participant.ID]struct{}{}
	}
	s.ids[id] = struct{}{}
}

func (s *idSet) remove(id participant.ID) {
	s.mu.Lock()
	delete(s.ids, id)
	s.mu.Unlock()
}

func (s *idSet) has(id participant.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ids[id]
	return ok
}

// lowest is the lowest sequence of the epoch in the set, 0 for none.
func (s *idSet) lowest(epoch int64) (sequence int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.ids {
		if id.Epoch == epoch && (sequence == 0 || id.Sequence < sequence) {
			sequence = id.Sequence
		}
	}
	return sequence
}
