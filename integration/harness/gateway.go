package harness

import (
	"fmt"
	"os"
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
	quiet          bool // somebody else shows the log of a failed test

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
func Start(t testing.TB, args ...string) *Gateway { t.Helper(); return start(t, args, nil) }

// start runs the process on a disk, if there is one: then its output goes there and not through us.
func start(t testing.TB, args []string, on *disk) *Gateway {
	t.Helper()
	all := &capture{}
	g := &Gateway{
		args: args, all: all, stdout: &capture{next: all}, stderr: &capture{next: all},
		started: time.Now(), exited: make(chan struct{}),
	}
	g.cmd = exec.Command(Program(t), args...)
	if on == nil {
		g.cmd.Stdout, g.cmd.Stderr = g.stdout, g.stderr
		g.cmd.Dir = t.TempDir()
	} else {
		file, err := os.CreateTemp(on.dir, "log-")
		check(t, err)
		defer file.Close() // the process has it open
		all.file, g.stdout, g.stderr = file.Name(), all, all
		g.cmd.Stdout, g.cmd.Stderr = file, file
		g.cmd.Dir = on.dir
		g.cmd.Env = append(os.Environ(), "TMPDIR="+on.dir)
	}
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
		_ = g.cmd.Process.Signal(syscall.SIGCONT) // it may be paused
		// A chance to end in order, because demo stops its servers then.
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
		_ = g.cmd.Process.Signal(syscall.SIGCONT) // a frozen one would not hear it
		select {
		case <-g.exited:
		case <-time.After(20 * time.Second):
			t.Errorf("pgpact %v did not end on SIGTERM within 20 s", g.args)
			_ = g.cmd.Process.Kill()
			<-g.exited
		}
	}
	if t.Failed() && !g.quiet {
		t.Logf("pgpact %s (started %s, %v) wrote:\n%s", strings.Join(g.args, " "), g.started.Format("15:04:05.000"), g.exit, lastLines(g.Log(), 200))
	}
}

// epitaph is the whole log with how the process began and ended.
func (g *Gateway) epitaph() string {
	end := "runs"
	if g.hasExited() {
		end = g.exit.String()
	}
	return fmt.Sprintf("=== %s pgpact %s (%s)\n%s", g.started.Format("15:04:05.000"), strings.Join(g.args, " "), end, g.Log())
}

var readyLine = regexp.MustCompile(`ready: (postgres(?:ql)?://\S+)`)

// WaitReady waits for the line `ready: postgres://...` and returns the URL. It fails at once when the process ends instead.
func (g *Gateway) WaitReady(t testing.TB) string {
	t.Helper()
	url, err := g.ready(bound)
	if err != nil {
		t.Fatalf("%v\n%s", err, lastLines(g.Log(), 100))
	}
	return url
}

func (g *Gateway) ready(within time.Duration) (url string, err error) {
	err = Poll(within, func() error {
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
	return url, err
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
	file string // where the text is instead
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
	if c.file != "" {
		text, err := os.ReadFile(c.file)
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}
