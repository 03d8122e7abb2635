package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

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
		for _, end := range []func(){ask, hurry} {
			select {
			case <-signals:
				end()
			case <-done:
				return
			}
		}
		<-done
	}()
	return asked, hurried, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		ask()
		hurry()
	}
}
