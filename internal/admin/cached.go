package admin

import (
	"context"
	"sync"
	"time"
)

// cached is a value that costs the servers something to read: whoever asks
// within keep gets what was read last, and those who ask at the same time wait
// for one reading.
type cached[T any] struct {
	keep time.Duration
	read func(context.Context) T

	mu    sync.Mutex
	value T
	at    time.Time
}

// get does not follow the asker: what it reads is for others too.
func (c *cached[T]) get(ctx context.Context) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || time.Since(c.at) > c.keep {
		c.value = c.read(context.WithoutCancel(ctx))
		c.at = time.Now()
	}
	return c.value
}
