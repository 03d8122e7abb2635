//go:build unix

package pgserver

import (
	"context"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is one running postmaster, our child.
type process struct {
	pid  int
	done chan struct{} // closed when it has ended and was waited for
	err  error         // how it ended; read only after done
}

// startProcess starts the command and waits for it in a goroutine of its own. That goroutine keeps its
// operating system thread for as long as the child lives: the parent-death signal is tied to the thread, and
// the Go runtime may end a thread it no longer needs.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// ended says whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// pollEvery is how often conditions without a notification are looked at.
const pollEvery = 5 * time.Millisecond

// waitUntil polls the condition until it holds (true), or the bound or the context ends (false).
func waitUntil(ctx context.Context, bound time.Duration, condition func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if condition() {
			return true
		}
		select {
		case <-ctx.Done():
			return condition()
		case <-tick.C:
		}
	}
}

// How long each way of asking a server to stop is given before the next, ruder one.
const (
	fastBound      = 15 * time.Second // SIGINT: rolls back, writes a checkpoint
	immediateBound = 5 * time.Second  // SIGQUIT: no checkpoint, recovery at the next start
	killBound      = 10 * time.Second // SIGKILL: only the kernel's work is left
)

// stopPostmaster ends a postmaster, ours or one that was left behind: fast shutdown, then immediate, then
// SIGKILL to it and its children (docs: "Shutting Down the Server"). A context that has ended only skips the
// politeness; the process is gone on return unless false is returned.
func stopPostmaster(ctx context.Context, pid int, gone func() bool) bool {
	_ = syscall.Kill(pid, syscall.SIGINT) // an error means it is gone, and gone() will say so
	if waitUntil(ctx, fastBound, gone) {
		return true
	}
	ctx = context.WithoutCancel(ctx)
	_ = syscall.Kill(pid, syscall.SIGQUIT)
	if waitUntil(ctx, immediateBound, gone) {
		return true
	}
	return killPostmaster(pid, gone)
}

// killPostmaster ends a postmaster and its children with SIGKILL, as a crash of the machine would. It is
// stopped first so that it starts no further child between the listing and its death; backends lead sessions
// of their own, so no signal to a process group would reach them.
func killPostmaster(pid int, gone func() bool) bool {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	// It may be in the middle of a fork, and goes on until the signal has reached it.
	waitUntil(context.Background(), killBound, func() bool { return stopped(pid) || !alive(pid) })
	family := children(pid)
	_ = syscall.Kill(pid, syscall.SIGKILL)
	killAll(family)
	return waitUntil(context.Background(), killBound, func() bool { return gone() && noneAlive(family) })
}

func killAll(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func noneAlive(pids []int) bool {
	for _, pid := range pids {
		if alive(pid) {
			return false
		}
	}
	return true
}
