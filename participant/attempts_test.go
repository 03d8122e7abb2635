package participant

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// begun is an attempt that waits up to bound for its turn.
type begun struct {
	attempt attempt
	err     error
	done    chan struct{}
}

func beginWithin(t *testing.T, a *attempts, bound time.Duration) *begun {
	b := &begun{done: make(chan struct{})}
	go func() {
		defer close(b.done)
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		b.attempt, b.err = a.begin(ctx)
	}()
	synctest.Wait()
	return b
}

func (b *begun) want(t *testing.T, turn bool) {
	t.Helper()
	synctest.Wait()
	select {
	case <-b.done:
		if !turn || b.err != nil {
			t.Errorf("got its turn, or %v; want %v", b.err, turn)
		}
	default:
		if turn {
			t.Error("still waits")
		}
	}
}

// beginAll begins n attempts, each of which has its turn at once.
func beginAll(t *testing.T, a *attempts, n int) []*begun {
	t.Helper()
	all := make([]*begun, n)
	for i := range all {
		all[i] = beginWithin(t, a, time.Hour)
		all[i].want(t, true)
	}
	return all
}

func TestAttemptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a attempts
		all := beginAll(t, &a, maxAttempts)
		older, newer := beginWithin(t, &a, time.Hour), beginWithin(t, &a, time.Hour)
		older.want(t, false)
		newer.want(t, false)
		all[0].attempt.end(nil)
		newer.want(t, true)
		older.want(t, false)
		all[1].attempt.end(errors.New("refused"))
		older.want(t, true)
	})
}

// Attempts that time out halve the bound, but not once for each that was under way; answered ones, if only by a refusal, double it.
func TestAttemptsAfterATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a attempts
		late := &ConnectError{Node: "a", Err: context.DeadlineExceeded}
		for bound := maxAttempts; ; bound /= 2 {
			all := beginAll(t, &a, bound)
			impatient := beginWithin(t, &a, time.Second)
			<-impatient.done // the clock is the test's
			if bound < maxAttempts && (!errors.Is(impatient.err, context.DeadlineExceeded) || !strings.Contains(impatient.err.Error(), "the last of which ended with")) {
				t.Error(impatient.err)
			}
			for _, b := range all {
				b.attempt.end(late)
			}
			if bound == 1 {
				break
			}
		}
		alone := beginAll(t, &a, 1)[0]
		waiting := beginWithin(t, &a, time.Hour)
		waiting.want(t, false)
		alone.attempt.end(context.Canceled) // the client went away: nothing is known
		waiting.want(t, true)
		two := []*begun{beginWithin(t, &a, time.Hour), beginWithin(t, &a, time.Hour)}
		two[1].want(t, false)
		waiting.attempt.end(errors.New("the database system is starting up"))
		two[1].want(t, true)
		two[0].want(t, true)
		for bound := 2; bound <= maxAttempts; bound *= 2 {
			two[0].attempt.end(nil)
			two[0] = beginAll(t, &a, 1)[0]
		}
		beginAll(t, &a, maxAttempts-2)
		beginWithin(t, &a, time.Second).want(t, false)
	})
}

// A server that takes connections and says nothing, as one that cannot keep up: clients that try again and again
// must not pile up attempts on it.
func TestSilentNodeSeesFewAttempts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var accepted atomic.Int64
	go func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go func() { _, _ = io.Copy(io.Discard, nc); _ = nc.Close() }()
		}
	}()
	const timeout = 200 * time.Millisecond
	node, err := Open(Config{Name: "a", URL: "postgres://u@" + listener.Addr().String() + "/d?sslmode=disable", ClusterID: "c", ConnectTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	start := time.Now()
	var clients sync.WaitGroup
	var failed atomic.Int64
	for range 32 {
		clients.Go(func() {
			for time.Since(start) < 10*timeout {
				_, err := node.NewBranch(t.Context(), Settings{}, nil)
				if _, ok := errors.AsType[*ConnectError](err); !ok {
					t.Error(err)
				}
				failed.Add(1)
			}
		})
	}
	clients.Wait()
	// Sixteen together, then eight, four, two, and then one after another.
	if most := 2*maxAttempts + int64(time.Since(start)/timeout); accepted.Load() > most {
		t.Errorf("%d attempts of 32 clients, want at most %d", accepted.Load(), most)
	}
	if n := failed.Load(); n < 32*5 {
		t.Errorf("%d failures told to 32 clients in ten times the timeout: somebody waited too long", n)
	}
}
