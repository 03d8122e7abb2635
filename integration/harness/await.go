package harness

import (
	"fmt"
	"testing"
	"time"
)

// Poll calls check until it returns nil or the time is over; then it returns check's last error.
func Poll(within time.Duration, check func() error) error {
	deadline := time.Now().Add(within)
	pause := 10 * time.Millisecond
	for {
		err := check()
		if err == nil {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("after %v: %w", within, err)
		}
		time.Sleep(min(pause, left))
		pause = min(2*pause, 200*time.Millisecond)
	}
}

// Eventually is Poll that fails the test; what says what was waited for.
func Eventually(t testing.TB, within time.Duration, what string, check func() error) {
	t.Helper()
	if err := Poll(within, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
