package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// sameWish is how close together two signals say one thing: timeout(1), shells
// and supervisors signal the process and then its group.
const sameWish = 300 * time.Millisecond

// untilSignal makes two contexts: asked ends with the first SIGINT or SIGTERM,
// hurried with the second. stop gives the signals back to the system.
func untilSignal(parent context.Context) (asked, hurried context.Context, stop func()) {
	asked, ask := context.WithCancel(parent)
	hurried, hurry := context.WithCancel(context.WithoutCancel(parent))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var first time.Time
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			switch now := time.Now(); {
			case first.IsZero():
				first = now
				ask()
			case now.Sub(first) > sameWish:
				hurry()
			}
		}
	}()
	return asked, hurried, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		ask()
		hurry()
	}
}
