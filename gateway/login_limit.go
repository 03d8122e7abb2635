package gateway

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgerrcode"
)

// loginLimiter paces those who guess passwords, by address. An address may fail
// perSecond times a second, that is, one login every interval, after a burst of
// as many at once; a login that is right is given back and costs nothing. Who
// comes too fast waits for a turn before the exchange begins, so that nothing
// can be learned from how long it takes; who would wait longer than maxTurnWait
// is refused at once. That keeps the right password of a neighbour on the same
// address from waiting behind more than a second of wrong ones.
type loginLimiter struct {
	interval time.Duration
	burst    int
	now      func() time.Time

	mu sync.Mutex
	// turns is, by address, when the last turn that was handed out is; one that is
	// in the past by the whole burst is as good as none.
	turns *lru.Cache[netip.Addr, time.Time]
}

// maxTurnWait is the longest wait for a turn.
const maxTurnWait = 900 * time.Millisecond

func newLoginLimiter(perSecond int) *loginLimiter {
	turns, err := lru.New[netip.Addr, time.Time](trackedAddresses)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &loginLimiter{interval: time.Second / time.Duration(perSecond), burst: perSecond, now: time.Now, turns: turns}
}

var errTooManyFailures = func() error {
	err := frontError(pgerrcode.TooManyConnections, "too many failed logins from this address")
	err.Hint = "Try again in a second."
	return err
}()

// take waits for a turn.
func (l *loginLimiter) take(ctx context.Context, remote net.Addr) error {
	wait, granted := l.book(addressOf(remote))
	if !granted {
		return errTooManyFailures
	}
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		l.giveBack(remote)
		return ctx.Err()
	}
}

// book reserves the next turn; a negative wait is one of the burst.
func (l *loginLimiter) book(address netip.Addr) (wait time.Duration, granted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	turn := now.Add(-time.Duration(l.burst) * l.interval)
	if last, known := l.turns.Get(address); known && last.After(turn) {
		turn = last
	}
	turn = turn.Add(l.interval)
	if wait = turn.Sub(now); wait > maxTurnWait {
		return wait, false
	}
	l.turns.Add(address, turn)
	return wait, true
}

// giveBack returns a turn: the login was right, or was given up while it waited.
func (l *loginLimiter) giveBack(remote net.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, known := l.turns.Get(addressOf(remote)); known {
		l.turns.Add(addressOf(remote), last.Add(-l.interval))
	}
}
