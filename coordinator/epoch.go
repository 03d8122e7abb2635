package coordinator

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// epoch is one life of this gateway process, as far as liveness goes: its
// number, and the connection that holds the advisory lock by which others see
// that it lives. There are no heartbeats.
type epoch struct {
	number int64
	next   atomic.Int64
}

// newEpochNumber is random and positive, never from a sequence: a restored dump
// hands sequence values out twice.
func newEpochNumber() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand panics instead
	return int64(binary.BigEndian.Uint64(b[:])>>1) | 1
}

// nextID gives a transaction its id. It costs no round trip.
func (c *Coordinator) nextID() participant.ID {
	e := c.epoch.Load()
	id := participant.ID{Epoch: e.number, Sequence: e.next.Add(1)}
	c.running.add(id)
	return id
}

// beginEpoch connects, takes the lock of a new epoch and then registers it, in
// this order: whoever sees the epoch sees it alive.
func (c *Coordinator) beginEpoch(ctx context.Context) (*logConn, error) {
	conn, err := c.log.connect(ctx, "epoch")
	if err != nil {
		return nil, err
	}
	e := &epoch{number: newEpochNumber()}
	number := strconv.FormatInt(e.number, 10)
	rows, err := conn.exec(ctx, "SELECT pg_try_advisory_lock($1::bigint)::text", number)
	if err == nil && rows[0][0] != "true" {
		err = fmt.Errorf("epoch %d is held by somebody else", e.number)
	}
	if err == nil {
		_, err = conn.exec(ctx, `INSERT INTO pgpact.gateways(epoch,name,decision_system_identifier,decision_timeline,decision_table)
			VALUES($1::bigint,$2::text,$3::text,$4::integer,`+placeSQL+`)`, number, c.cfg.Name, conn.server.System, conn.server.Timeline)
	}
	if err != nil {
		conn.close()
		return nil, err
	}
	c.epoch.Store(e)
	c.epochHeld.Store(true)
	c.cfg.Logger.Info("epoch begun", "epoch", e.number)
	return conn, nil
}

// holdEpoch keeps the lock's connection under watch. When it is lost, others
// may presume this gateway dead at any moment, so new transactions get a new
// epoch as soon as the decision database is back; those of the old one find out
// at their decision.
func (c *Coordinator) holdEpoch(ctx context.Context, conn *logConn) {
	const interval = time.Second
	for ctx.Err() == nil {
		pause(ctx, interval)
		if ctx.Err() != nil {
			break
		}
		check, cancel := context.WithTimeout(ctx, 2*interval)
		_, err := conn.exec(check, "SELECT 1")
		cancel()
		if err == nil {
			continue
		}
		c.epochHeld.Store(false)
		conn.close()
		c.cfg.Logger.Warn("the lock on this gateway's epoch is lost", "error", err)
		for failing := false; ctx.Err() == nil; {
			next, err := c.beginEpoch(ctx)
			if err == nil {
				conn = next
				c.nudge()
				break
			}
			if !failing { // once for an outage, not once a second: operators read this log then
				c.cfg.Logger.Warn("no new epoch yet", "error", err)
			}
			failing = true
			pause(ctx, interval)
		}
	}
	c.epochHeld.Store(false)
	conn.close()
}
