package participant

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// maxAttempts is how many attempts to connect a node sees from one gateway at a
// time. Each costs the server a process and a password check; when it cannot
// keep up, more of them at once only make all of them time out, and clients that
// try again keep it so.
const maxAttempts = 16

// attempts bounds the attempts to connect to a node that are under way. Each that
// is not answered in time halves the bound, down to one, and each that is answered
// doubles it: a server that hangs is asked by one client at a time, and one that
// is slow by as many as it can serve. Of those that wait, the newest goes first:
// it has the most of its time left, while the oldest would leave the server with
// half an attempt.
type attempts struct {
	mu      sync.Mutex
	running int
	slower  int   // how often the bound has been halved since it was maxAttempts
	halved  int64 // how often in all
	late    error // how the newest attempt timed out, nil if it was answered
	waiting []chan struct{}
}

// attempt is one that has begun.
type attempt struct {
	of     *attempts
	halved int64 // as of its beginning
}

// begin waits for a turn, as long as ctx lasts. An attempt that has begun must end.
func (a *attempts) begin(ctx context.Context) (attempt, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running < a.bound() {
		a.running++
		return attempt{a, a.halved}, nil
	}
	turn := make(chan struct{})
	a.waiting = append(a.waiting, turn)
	a.mu.Unlock()
	var err error
	select {
	case <-turn:
	case <-ctx.Done():
		err = ctx.Err()
	}
	a.mu.Lock()
	if err != nil && a.giveUp(turn) {
		if a.late != nil {
			return attempt{}, fmt.Errorf("%w while waiting for another attempt, the last of which ended with: %w", err, a.late)
		}
		return attempt{}, fmt.Errorf("%w while waiting for other attempts", err)
	}
	return attempt{a, a.halved}, nil
}

// giveUp stops waiting for turn; false: it has just come.
func (a *attempts) giveUp(turn chan struct{}) bool {
	for i, w := range a.waiting {
		if w == turn {
			a.waiting = append(a.waiting[:i], a.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// end says how the attempt ended. That the client went away in the middle of it
// (context.Canceled) says nothing about the server.
func (t attempt) end(err error) {
	a := t.of
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		a.late = err
		if t.halved == a.halved && a.bound() > 1 { // not once for each of those that were under way together
			a.slower++
			a.halved++
		}
	case !errors.Is(err, context.Canceled):
		a.late = nil
		a.slower = max(0, a.slower-1)
	}
	for a.running < a.bound() && len(a.waiting) > 0 {
		last := len(a.waiting) - 1
		close(a.waiting[last])
		a.waiting = a.waiting[:last]
		a.running++
	}
}

func (a *attempts) bound() int { return max(1, maxAttempts>>a.slower) }
