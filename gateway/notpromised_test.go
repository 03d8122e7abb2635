//go:build unix

package gateway

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pgpact/pgpact/coordinator"
)

// TestWhatIsNotPromised holds a transfer between its two COMMIT PREPAREDs, and shows what docs/guarantees.md does not promise of that
// moment; and that an atomic read sees all of the transfer even then, and a REPEATABLE READ transaction, too.
func TestWhatIsNotPromised(t *testing.T) {
	half, goOn := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	s := startStack(t, stackOptions{coord: func(cfg *coordinator.Config) {
		cfg.FaultPoint = func(point string) {
			if point == "first-commit-prepared-sent" && held.CompareAndSwap(false, true) { // others go on
				close(half)
				<-goOn
			}
		}
	}})
	keys := s.fill(t)
	a, b := keys[0][0], keys[1][0]
	writer, reader := s.client(t), s.client(t)
	done := make(chan string, 1)
	go func() {
		result := writer.Exec(t.Context(), fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - 100 WHERE id = '%s'; UPDATE accounts SET balance = balance + 100 WHERE id = '%s'; COMMIT", a, b))
		_, err := result.ReadAll()
		done <- fmt.Sprint(err)
	}()
	<-half
	s.await(t, "a", "SELECT count(*) = 0 FROM pg_prepared_xacts") // node a has committed, node b has not been told
	one := func(key string) string { return fmt.Sprintf("SELECT balance FROM accounts WHERE id = '%s'", key) }

	run(t, reader, "BEGIN")
	wantRun(t, reader, one(a), "SELECT 1: 900")
	wantRun(t, reader, one(b), "SELECT 1: 1000") // seen on a, and not on b
	run(t, reader, "COMMIT")

	run(t, reader, "SET pgpact.read_consistency = per_node")
	if got := run(t, reader, fmt.Sprintf("UPDATE accounts SET balance = balance WHERE balance <> 1000 AND id IN ('%s', '%s')", a, b)); got != "UPDATE 1" {
		t.Errorf("the WHERE of an UPDATE over nodes: %s, and was to find one half", got)
	}
	if got := run(t, reader, "SELECT sum(balance) FROM accounts"); !strings.Contains(got, " 5900") {
		t.Errorf("a read per node: %s, want a wrong sum", got)
	}
	run(t, reader, "RESET pgpact.read_consistency")

	// The reader finds the transfer decided, and finishes it.
	wantRun(t, reader, "SELECT sum(balance) FROM accounts", "SELECT 1: 6000")
	run(t, reader, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	wantRun(t, reader, one(a), "SELECT 1: 900")
	wantRun(t, reader, one(b), "SELECT 1: 1100")
	run(t, reader, "COMMIT")
	close(goOn)
	if err := <-done; err != "<nil>" {
		t.Errorf("the transfer: %s", err)
	}
	s.idle(t)
}
