package gateway

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	gosync "sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Environment of TestHostileFrames: how many messages (1,000,000 is the full count), and the seed of a run to be repeated.
const (
	framesVariable = "PGPACT_TEST_HOSTILE_FRAMES"
	seedVariable   = "PGPACT_TEST_HOSTILE_SEED"
)

func fromEnvironment(t *testing.T, variable string, value uint64) uint64 {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
		return n
	}
	return value
}

// TestHostileFrames sends random and mutated messages, a few hundred per session, several sessions at a time, while another
// session moves money between nodes through all of it. Every answer stream is judged; afterwards goroutines, memory and node
// connections are what they were.
func TestHostileFrames(t *testing.T) {
	total := fromEnvironment(t, framesVariable, 50_000)
	seed := fromEnvironment(t, seedVariable, uint64(time.Now().UnixNano()))
	t.Logf("%d messages, %s=%d", total, seedVariable, seed)
	rig := newHostileRig(t)
	stop, moved := rig.mover(t)

	// A tenth fills the caches; what grows after that is a leak.
	run := &hostileRun{rig: rig, corpus: corpus(t, rig.keys), seed: seed}
	run.send(t, total/10)
	before := rig.resources(t)
	t.Logf("after %8d messages: %s", run.sent.Load(), before)
	for step := uint64(1); step <= 3; step++ {
		run.send(t, total*3/10)
		t.Logf("after %8d messages: %s", run.sent.Load(), rig.resources(t))
	}
	transfers := moved()
	stop(t)
	after := rig.resources(t)
	t.Logf("%d messages in %d sessions; the other session made %d transfers meanwhile", run.sent.Load(), run.sessions.Load(), transfers)
	if transfers == 0 {
		t.Error("the other session got nothing done")
	}
	if grown := after.goroutines - before.goroutines; grown > 0 {
		t.Errorf("%d goroutines more than before", grown)
	}
	const allowance = 16 << 20
	if grown := after.memory - before.memory; grown > allowance {
		t.Errorf("%d bytes of memory more than before, at most %d expected", grown, allowance)
	}
	rig.idle(t)
}

// hostileRun counts what was sent.
type hostileRun struct {
	rig            *hostileRig
	corpus         [][]byte
	seed           uint64
	sent, sessions atomic.Uint64
}

// send sends so many messages, over four sessions at a time.
func (r *hostileRun) send(t *testing.T, count uint64) {
	t.Helper()
	target := r.sent.Load() + count
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			for r.sent.Load() < target {
				number := r.sessions.Add(1)
				source := newFrameSource(rand.New(rand.NewPCG(r.seed, number)), r.corpus)
				var sent []byte
				frames := 50 + source.rng.IntN(250)
				for range frames {
					sent = append(sent, source.next()...)
				}
				if wrong := r.rig.converse(sent); wrong != "" {
					return fmt.Errorf("session %d of seed %d: %s", number, r.seed, wrong)
				}
				// What stands behind a message that ended the session was not read.
				r.sent.Add(uint64(len(clientFrames(sent, r.rig.gateway.server.cfg.MaxMessageSize))))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// resources are what must not grow.
type resources struct {
	goroutines int
	memory     int64
}

func (r resources) String() string {
	return fmt.Sprintf("%d goroutines, %.1f MiB of heap", r.goroutines, float64(r.memory)/(1<<20))
}

// resources waits until the sessions are gone, all but the mover's.
func (r *hostileRig) resources(t *testing.T) resources {
	t.Helper()
	eventually(t, "the hostile sessions are gone", func() bool { return len(r.gateway.server.snapshot()) <= 1 })
	var now resources
	least := 0
	for range 50 { // goroutines that are on their way out, and those the mover has at this moment
		runtime.GC()
		if n := runtime.NumGoroutine(); least == 0 || n < least {
			least = n
		}
	}
	now.goroutines = least
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	now.memory = int64(m.HeapAlloc)
	return now
}

// mover is a session that moves stock between nodes until it is stopped. The hostile ones do not know that table.
func (r *hostileRig) mover(t *testing.T) (stop func(*testing.T), moved func() uint64) {
	t.Helper()
	conn := r.client(t)
	from, to := r.keys[0][0], r.keys[1][0]
	run1 := func(sql, want string) error {
		if got := run(t, conn, sql); got != want {
			return fmt.Errorf("%s: %q, want %q", sql, got, want)
		}
		return nil
	}
	for _, key := range []string{from, to} {
		if err := run1("INSERT INTO stock VALUES ('"+key+"', 1000000)", "INSERT 0 1"); err != nil {
			t.Fatal(err)
		}
	}
	var count atomic.Uint64
	var stopping atomic.Bool
	var working gosync.WaitGroup
	var failure error
	working.Go(func() {
		for !stopping.Load() && failure == nil {
			for _, step := range [][2]string{
				{"BEGIN", "BEGIN"},
				{"UPDATE stock SET quantity = quantity - 1 WHERE sku = '" + from + "'", "UPDATE 1"},
				{"UPDATE stock SET quantity = quantity + 1 WHERE sku = '" + to + "'", "UPDATE 1"},
				{"COMMIT", "COMMIT"},
			} {
				if failure = run1(step[0], step[1]); failure != nil {
					return
				}
			}
			count.Add(1)
		}
	})
	stop = func(t *testing.T) {
		stopping.Store(true)
		working.Wait()
		if failure != nil {
			t.Errorf("the other session: %v", failure)
		}
		for key, want := range map[string]uint64{from: 1_000_000 - count.Load(), to: 1_000_000 + count.Load()} {
			if err := run1("SELECT quantity FROM stock WHERE sku = '"+key+"'", fmt.Sprintf("SELECT 1: %d", want)); err != nil {
				t.Errorf("after %d transfers: %v", count.Load(), err)
			}
		}
	}
	return stop, count.Load
}
