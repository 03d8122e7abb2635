package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgpact/pgpact/participant"
)

const (
	// catalogReloadPause is the least time between two readings of the nodes'
	// catalogs: a client that asks for a table that does not exist, again and
	// again, must not keep the nodes busy.
	catalogReloadPause = 200 * time.Millisecond
	// catalogReadTimeout bounds one reading. A node that takes longer counts
	// as unreachable.
	catalogReadTimeout = 3 * time.Second
	// defaultCatalogPeriod is how often the background looks for a change. The
	// catalog follows a change made elsewhere within it.
	defaultCatalogPeriod = 800 * time.Millisecond
)

// catalogHolder keeps the current catalog and renews it: when a statement
// names something unknown, and in the background when a node's fingerprint
// has changed.
type catalogHolder struct {
	nodes   []*participant.Node
	logger  *slog.Logger
	period  time.Duration
	current atomic.Pointer[Catalog]

	// reading is held while the nodes are read; whoever waits for it takes the
	// result of the one who read.
	reading sync.Mutex
	read    []*nodeCatalog // as last read, nil for a node that has never answered
	began   time.Time      // the last reading
	// verified is when the last reading began that succeeded, in nanoseconds of
	// Unix time.
	verified atomic.Int64
	// gone are tables that were there until a moment ago.
	gone map[relationKey]goneTable

	stop chan struct{}
	done chan struct{}
}

// catalogLease is for how long a catalog is believed without having been read
// again: a gateway that cannot read the nodes does not go by what it once knew.
// With a node that does not answer a reading takes catalogReadTimeout, and the
// newest that has ended began up to two readings ago: the lease is more than that,
// so that such a node costs nobody anything.
const catalogLease = 2*catalogReadTimeout + 2*time.Second

// catalogStartTries is how often the catalogs are read at the start when no node
// answers in time.
const catalogStartTries = 4

// goneTable is a table that has vanished, and when that was seen.
type goneTable struct {
	table *Table
	seen  time.Time
}

// noteGone remembers the tables of the old catalog that the new one does not
// have. reading is held.
func (h *catalogHolder) noteGone(old, current *Catalog) {
	now := time.Now()
	for name, entry := range h.gone {
		if now.Sub(entry.seen) > catalogLease {
			delete(h.gone, name)
		}
	}
	if old == nil {
		return
	}
	for name, r := range old.relations {
		if r.table != nil && current.relations[name].table == nil {
			if h.gone == nil {
				h.gone = map[relationKey]goneTable{}
			}
			gone := *r.table
			if gone.differs { // on its way out, node by node
				gone.unusable = judge(&gone)
			}
			h.gone[name] = goneTable{&gone, now}
		}
	}
}

// vanished is a table of that name which other gateways may still believe in,
// nil if there was none lately.
func (h *catalogHolder) vanished(name relationKey) *Table {
	h.reading.Lock()
	defer h.reading.Unlock()
	if entry, ok := h.gone[name]; ok && time.Since(entry.seen) < catalogLease {
		return entry.table
	}
	return nil
}

// Renew reads the nodes at once: for a session that has just changed, or is
// about to change, what they have.
func (h *catalogHolder) Renew(ctx context.Context) *Catalog {
	h.reading.Lock()
	defer h.reading.Unlock()
	if err := h.readAll(ctx, true); err != nil {
		h.logger.Warn("reading the nodes' catalogs", "error", err)
	}
	return h.current.Load()
}

// Fresh is the newest catalog, read again if that is too long ago.
func (h *catalogHolder) Fresh(ctx context.Context) *Catalog {
	if verified := h.verified.Load(); verified != 0 && time.Since(time.Unix(0, verified)) > catalogLease {
		return h.Reload(ctx)
	}
	return h.current.Load()
}

// newCatalogHolder reads the catalogs of the nodes, of which at least one must
// answer. period 0 takes the default.
func newCatalogHolder(ctx context.Context, nodes []*participant.Node, period time.Duration, logger *slog.Logger) (*catalogHolder, error) {
	if period == 0 {
		period = defaultCatalogPeriod
	}
	h := &catalogHolder{nodes: nodes, logger: logger, period: period, read: make([]*nodeCatalog, len(nodes))}
	err := h.readAll(ctx, false)
	// A machine on which everything starts at once may be too slow for it: what is
	// late is asked again, what is refused is not.
	for try := 1; try < catalogStartTries && errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil; try++ {
		logger.Warn("reading the nodes' catalogs", "error", err)
		err = h.readAll(ctx, false)
	}
	if err != nil {
		return nil, err
	}
	for _, difference := range h.current.Load().Differences() {
		logger.Warn("the nodes' catalogs differ", "difference", difference)
	}
	return h, nil
}

// Current is the newest catalog.
func (h *catalogHolder) Current() *Catalog { return h.current.Load() }

// Reload returns a catalog that was read after Reload was called: what a client
// made a moment ago on the nodes must be found, for a new table that is taken
// for an unknown one would be read on one node only. Readings are
// catalogReloadPause apart; whoever comes meanwhile waits and shares the next.
// When nothing can be read, or ctx ends, the old catalog is returned.
func (h *catalogHolder) Reload(ctx context.Context) *Catalog {
	asked := time.Now()
	h.reading.Lock()
	defer h.reading.Unlock()
	if h.began.After(asked) {
		return h.current.Load()
	}
	pause := time.NewTimer(time.Until(h.began.Add(catalogReloadPause)))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return h.current.Load()
	}
	if err := h.readAll(ctx, true); err != nil {
		h.logger.Warn("reading the nodes' catalogs", "error", err)
	}
	return h.current.Load()
}

// Start begins the background renewal, Stop ends it and waits for its end.
func (h *catalogHolder) Start() {
	h.stop, h.done = make(chan struct{}), make(chan struct{})
	go h.renew(h.stop, h.done)
}

// Stop ends what Start began. It may be called without Start.
func (h *catalogHolder) Stop() {
	if h.stop == nil {
		return
	}
	close(h.stop)
	<-h.done
	h.stop = nil
}

func (h *catalogHolder) renew(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	ticker := time.NewTicker(h.period)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		h.reading.Lock()
		err := h.readAll(ctx, true)
		h.reading.Unlock()
		if err != nil && !failing && ctx.Err() == nil {
			h.logger.Warn("reading the nodes' catalogs", "error", err)
		}
		failing = err != nil
	}
}

// readAll reads every node, in parallel, and publishes what came of it. With
// onlyChanged a node whose fingerprint is the one known is not read again. A
// node that does not answer keeps what it last said: it will be compared again
// when it is back. The error says that no node answered.
func (h *catalogHolder) readAll(ctx context.Context, onlyChanged bool) error {
	ctx, cancel := context.WithTimeout(ctx, catalogReadTimeout)
	defer cancel()
	h.began = time.Now()
	results := make([]*nodeCatalog, len(h.nodes))
	errs := make([]error, len(h.nodes))
	var wg sync.WaitGroup
	for i, node := range h.nodes {
		var known *nodeCatalog
		if onlyChanged {
			known = h.read[i]
		}
		wg.Go(func() { results[i], errs[i] = readNodeCatalog(ctx, node, known) })
	}
	wg.Wait()

	changed, answered := h.current.Load() == nil, false
	for i, result := range results {
		if errs[i] != nil {
			continue
		}
		answered = true
		if result != h.read[i] {
			h.read[i], changed = result, true
		}
	}
	if !answered {
		return fmt.Errorf("no node's catalog could be read: %w", errors.Join(errs...))
	}
	if changed {
		merged := mergeCatalogs(h.nodes, h.read)
		h.noteGone(h.current.Load(), merged)
		h.current.Store(merged)
	}
	h.verified.Store(h.began.UnixNano())
	return nil
}
