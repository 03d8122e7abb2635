package coordinator

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pgpact/pgpact/participant"
)

const (
	// laterPause is the rest between two batches: finished marks cost the
	// decision database one statement per pause, not one per transaction.
	laterPause = 100 * time.Millisecond
	// laterRetry is the rest after a failure.
	laterRetry = 500 * time.Millisecond
	// laterLimit bounds what is remembered. What is dropped beyond it is done by
	// recovery, which needs no telling, only more time.
	laterLimit = 100_000
)

// laterQueue does what no client waits for: marking decisions as finished, and
// recording the aborts of transactions given up before they were decided.
type laterQueue struct {
	c    *Coordinator
	wake chan struct{}

	working sync.Mutex // one batch at a time: at shutdown flush meets run

	mu       sync.Mutex
	finished []finishedMark
	aborts   []record
}

func newLaterQueue(c *Coordinator) *laterQueue {
	return &laterQueue{c: c, wake: make(chan struct{}, 1)}
}

// finishLater marks a committed transaction, confirmed by all its participants,
// as finished.
func (c *Coordinator) finishLater(mark finishedMark) {
	c.later.add(func(q *laterQueue) {
		if len(q.finished) < laterLimit {
			q.finished = append(q.finished, mark)
		}
	})
}

// settleLater records the abort of a transaction given up before it was
// decided, retrying until there is an answer. Until then it is presumed (I3).
func (c *Coordinator) settleLater(id participant.ID, participants []string) {
	c.later.add(func(q *laterQueue) {
		if len(q.aborts) < laterLimit {
			q.aborts = append(q.aborts, record{id: id, participants: participants})
		}
	})
}

func (q *laterQueue) add(change func(*laterQueue)) {
	q.mu.Lock()
	change(q)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run is the queue's goroutine.
func (q *laterQueue) run(ctx context.Context) {
	for {
		select {
		case <-q.wake:
		case <-ctx.Done():
			return
		}
		for q.waiting() && ctx.Err() == nil {
			rest := laterPause
			if err := q.work(ctx); err != nil {
				rest = laterRetry
				q.c.cfg.Logger.Warn("decisions not marked yet, will be retried", "error", err)
			}
			pause(ctx, rest)
		}
	}
}

func (q *laterQueue) waiting() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.finished)+len(q.aborts) > 0
}

// flush does what is waiting, without retrying: at shutdown.
func (q *laterQueue) flush(ctx context.Context) {
	for q.waiting() {
		if err := q.work(ctx); err != nil {
			q.c.cfg.Logger.Info("left to recovery at shutdown", "error", err)
			return
		}
	}
}

// work writes one batch of each kind. What fails stays queued.
func (q *laterQueue) work(ctx context.Context) error {
	q.working.Lock()
	defer q.working.Unlock()
	ctx, cancel := context.WithTimeout(ctx, q.c.cfg.ConnectTimeout+q.c.cfg.FinishTimeout)
	defer cancel()
	q.mu.Lock()
	finished, by := together(q.finished, 1000)
	aborts := slices.Clone(q.aborts[:min(len(q.aborts), 1000)])
	q.mu.Unlock()
	if len(finished) > 0 {
		q.c.pass(pointFinishing)
		if _, err := q.c.markFinished(ctx, finished, by); err != nil {
			return err
		}
		q.c.pass(pointFinished)
		q.mu.Lock()
		q.finished = q.finished[len(finished):]
		q.mu.Unlock()
	}
	for _, r := range aborts {
		if _, err := q.c.log.settle(ctx, r, Abort); err != nil {
			return err
		}
		q.mu.Lock()
		q.aborts = q.aborts[1:]
		q.mu.Unlock()
	}
	return nil
}
