package harness

import (
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Gateway is a pgpact process, usually `serve` or `demo`.
type Gateway struct {
	args           []string
	cmd            *exec.Cmd
	stdout, stderr *capture
	all            *capture
	started        time.Time

	exited chan struct{} // closed when exit is set
	exit   Exit
}

// Exit is how a process ended: by a signal, or with a code.
type Exit struct {
	Code   int
	Signal syscall.Signal // 0: none
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return "signal " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Start starts pgpact with these arguments. The process is killed when the test ends, if it still runs, and what it wrote is shown when the
// test has failed.
func Start(t testing.TB, args ...string) *Gateway {
	t.Helper()
	all := &capture{}
	g := &Gateway{
		args: args, all: all, stdout: &capture{next: all}, stderr: &capture{next: all},
		started: time.Now(), exited: make(chan struct{}),
	}
	g.cmd = exec.Command(Program(t), args...)
	g.cmd.Stdout, g.cmd.Stderr = g.stdout, g.stderr
	g.cmd.Dir = t.TempDir()
	// Children that inherited the output must not keep Wait from returning: demo's servers do when demo is killed.
	g.cmd.WaitDelay = 5 * time.Second
	endWithParent(g.cmd)

	failed := make(chan error, 1)
	go g.watch(failed)
	if err := <-failed; err != nil {
		t.Fatalf("start pgpact %v: %v", args, err)
	}
	t.Cleanup(func() { g.cleanup(t) })
	return g
}

// watch starts the process and waits for it on one thread: the kernel kills the process when the thread that started it ends, which is to
// happen with the test process and not before.
func (g *Gateway) watch(failed chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := g.cmd.Start()
	failed <- err
	if err != nil {
		return
	}
	_ = g.cmd.Wait() // how it ended is in ProcessState
	if status, ok := g.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		g.exit = Exit{Signal: status.Signal()}
	} else {
		g.exit = Exit{Code: g.cmd.ProcessState.ExitCode()}
	}
	close(g.exited)
}

func (g *Gateway) cleanup(t testing.TB) {
	select {
	case <-g.exited:
	default:
		// A chance to end in order, because demo stops its servers then.
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-g.exited:
		case <-time.After(20 * time.Second):
			t.Errorf("pgpact %v did not end on SIGTERM within 20 s", g.args)
			_ = g.cmd.Process.Kill()
			<-g.exited
		}
	}
	if t.Failed() {
		t.Logf("pgpact %s (started %s, %v) wrote:\n%s", strings.Join(g.args, " "), g.started.Format("15:04:05.000"), g.exit, lastLines(g.Log(), 200))
	}
}

var readyLine = regexp.MustCompile(`ready: (postgres(?:ql)?://\S+)`)

// WaitReady waits for the line `ready: postgres://...` and returns the URL. It fails at once when the process ends instead.
func (g *Gateway) WaitReady(t testing.TB) string {
	t.Helper()
	var url string
	err := Poll(bound, func() error {
		if found := readyLine.FindStringSubmatch(g.Log()); found != nil {
			url = found[1]
			return nil
		}
		if g.hasExited() {
			return nil
		}
		return fmt.Errorf("no ready line from pgpact %v", g.args)
	})
	if err == nil && url == "" {
		err = fmt.Errorf("pgpact %v ended (%v) and was never ready", g.args, g.exit)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, lastLines(g.Log(), 100))
	}
	return url
}

func (g *Gateway) hasExited() bool {
	select {
	case <-g.exited:
		return true
	default:
		return false
	}
}

// Exited is closed when the process has ended.
func (g *Gateway) Exited() <-chan struct{} { return g.exited }

// Wait waits for the process to end by itself.
func (g *Gateway) Wait(t testing.TB, within time.Duration) Exit {
	t.Helper()
	select {
	case <-g.exited:
		return g.exit
	case <-time.After(within):
		t.Fatalf("pgpact %v still runs after %v\n%s", g.args, within, lastLines(g.Log(), 100))
		return Exit{}
	}
}

// Kill9 kills the process with SIGKILL, waits for its end, and returns how it ended: it may have ended by itself before.
func (g *Gateway) Kill9(t testing.TB) Exit {
	t.Helper()
	_ = g.cmd.Process.Kill()
	return g.Wait(t, bound)
}

// Stop asks the process to end (SIGTERM) and returns how it did.
func (g *Gateway) Stop(t testing.TB) Exit {
	t.Helper()
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	return g.Wait(t, bound)
}

// PID is the process id.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// Log is all the process has written so far, both streams in the order of arrival.
func (g *Gateway) Log() string { return g.all.String() }

// capture collects what is written and hands it on.
type capture struct {
	mu   sync.Mutex
	text strings.Builder
	next *capture
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.text.Write(p)
	c.mu.Unlock()
	if c.next != nil {
		return c.next.Write(p)
	}
	return len(p), nil
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}
