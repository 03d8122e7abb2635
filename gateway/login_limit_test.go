package gateway

import (
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestFailedLoginsArePacedPerAddress(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := newLoginLimiter(10)
	l.now = func() time.Time { return now }
	one, other := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2)}
	book := func(remote net.Addr) (time.Duration, bool) { return l.book(addressOf(remote)) }
	for i := range 10 {
		if wait, granted := book(one); !granted || wait > 0 {
			t.Fatalf("login %d of the burst waits %v, %v", i+1, wait, granted)
		}
	}
	for i := range 9 {
		if wait, granted := book(one); !granted || wait != time.Duration(i+1)*100*time.Millisecond {
			t.Fatalf("login %d after the burst waits %v, %v", i+1, wait, granted)
		}
	}
	if _, granted := book(one); granted {
		t.Error("a turn a second away was granted")
	}
	if wait, granted := book(other); !granted || wait > 0 {
		t.Errorf("another address waits %v, %v", wait, granted)
	}
	now = now.Add(200 * time.Millisecond)
	if wait, granted := book(one); !granted || wait != 800*time.Millisecond {
		t.Errorf("later: %v, %v", wait, granted)
	}
	l.giveBack(one)
	if wait, granted := book(one); !granted || wait != 800*time.Millisecond {
		t.Errorf("after one was given back: %v, %v", wait, granted)
	}
	now = now.Add(time.Hour)
	for range 10 {
		if wait, granted := book(one); !granted || wait > 0 {
			t.Errorf("long after: %v, %v", wait, granted)
		}
	}
	for i := range 2 * trackedAddresses {
		book(&net.TCPAddr{IP: net.IPv4(11, 1, byte(i>>8), byte(i))})
	}
	if n := l.turns.Len(); n > trackedAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
}

// TestWrongLoginsDoNotKeepARightOneOut: while 1,000 connections are half open and
// others guess passwords as fast as they can, from the same address, whoever has
// the right one is in within a second. 10,000 guesses with
// PGPACT_TEST_WRONG_LOGINS=10000.
func TestWrongLoginsDoNotKeepARightOneOut(t *testing.T) {
	guesses, guessers := 100, 8
	if long, err := strconv.Atoi(os.Getenv("PGPACT_TEST_WRONG_LOGINS")); err == nil {
		guesses, guessers = long, 32
	}
	const halfOpen = 1000
	f := startGuarded(t, FrontConfig{MaxUnauthenticated: halfOpen})
	for i := range halfOpen {
		r := f.dial()
		if i%2 == 0 {
			r.write(goodStartup()[:10])
		}
	}
	var left, wrong, paced atomic.Int64
	left.Store(int64(guesses))
	var work sync.WaitGroup
	for range guessers {
		work.Go(func() {
			for left.Add(-1) >= 0 {
				err := f.as("alice", "guess", "sslmode=disable")
				var pgErr *pgconn.PgError
				switch {
				case errors.As(err, &pgErr) && pgErr.Code == "28P01":
					wrong.Add(1)
				case errors.As(err, &pgErr) && pgErr.Code == "53300":
					paced.Add(1)
				default:
					t.Errorf("a guess ended with %v", err)
					return
				}
			}
		})
	}
	var longest time.Duration
	rights := 0
	for ; left.Load() > 0 || rights < 3; rights++ {
		began := time.Now()
		if err := f.as("alice", alicesPassword, "sslmode=disable"); err != nil {
			t.Errorf("the right password: %v", err)
			break
		}
		longest = max(longest, time.Since(began))
	}
	left.Store(0)
	work.Wait()
	if longest > time.Second {
		t.Errorf("a right login took %v", longest)
	}
	t.Logf("%d wrong, %d refused for their number, %d right, the longest of these took %v", wrong.Load(), paced.Load(), rights, longest)
}
