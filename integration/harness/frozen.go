package harness

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// WaitFrozen waits until the process has been stopped (SIGSTOP), by itself with --stop-at or by Freeze.
func (g *Gateway) WaitFrozen(t testing.TB, within time.Duration) {
	t.Helper()
	Eventually(t, within, "a stopped process", func() error {
		if g.hasExited() {
			return fmt.Errorf("pgpact %v has ended (%v)", g.args, g.exit)
		}
		if state, _, ok := processStat(strconv.Itoa(g.PID())); !ok || state != "T" {
			return fmt.Errorf("pgpact %v is in state %q", g.args, state)
		}
		return nil
	})
}

// Freeze stops the process with SIGSTOP: its connections stay open and nothing answers.
func (g *Gateway) Freeze(t testing.TB) {
	t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	g.WaitFrozen(t, bound)
}

// Thaw lets the process go on where it was stopped.
func (g *Gateway) Thaw(t testing.TB) {
	t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}
