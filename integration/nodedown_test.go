package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/integration/harness"
)

const (
	// connectTimeout is what the gateways of this file are configured with.
	connectTimeout = 2 * time.Second
	// haste is what a busy machine may add to something that happens at once.
	haste = 2 * time.Second
)

// TestNodeDown: whoever needs a node that is not there is told so, by its name and in time; everybody else goes on.
func TestNodeDown(t *testing.T) {
	d := deploy(t, harness.Options{}, fmt.Sprintf("connect_timeout: %v", connectTimeout))
	onA, onB := d.open(t, "a", "up", 1)[0], d.open(t, "b", "down", 1)[0]
	_, url := harness.Serve(t, d.config)
	n := &nodeDown{conn: harness.Open(t, url), onA: onA, onB: onB}
	t.Run("stopped", func(t *testing.T) { n.stopped(t, d) })
	t.Run("frozen", func(t *testing.T) { n.frozen(t, d) })
	t.Run("off the network", func(t *testing.T) { offTheNetwork(t, d, onA, onB) })
}

type nodeDown struct {
	conn     *pgx.Conn
	onA, onB string
}

func (n *nodeDown) stopped(t *testing.T, d *deployment) {
	for _, end := range []struct {
		how  string
		stop func(testing.TB)
	}{{"stopped", d.cluster.Node("b").Stop}, {"killed", d.cluster.Node("b").Kill9}} {
		n.bothWork(t) // there are idle connections to the node
		end.stop(t)
		for range 3 {
			wantDown(t, n.conn, haste, fmt.Sprintf("select balance from accounts where id = '%s'", n.onB))
			wantDown(t, n.conn, haste, move(n.onB, 1))
		}
		n.aWorks(t)
		// In a block, it takes the other node's part with it.
		exec1(t, n.conn, "begin")
		exec1(t, n.conn, move(n.onA, -1))
		wantDown(t, n.conn, haste, move(n.onB, 1))
		if tag, err := simple(t.Context(), n.conn, "commit"); err != nil || tag != "ROLLBACK" {
			t.Errorf("%s: COMMIT of the failed block: %q, %v", end.how, tag, err)
		}
		if balance, err := d.balance(n.onA); err != nil || balance != startBalance {
			t.Errorf("%s: %s has %d (%v)", end.how, n.onA, balance, err)
		}
		d.cluster.Node("b").Start(t)
		n.bothWork(t)
	}
}

// frozen: nobody refuses anything, nobody answers.
func (n *nodeDown) frozen(t *testing.T, d *deployment) {
	b := d.cluster.Node("b")
	n.bothWork(t)
	b.Pause(t)
	paused := true
	defer func() {
		if paused {
			b.Unpause(t)
		}
	}()
	// A gateway without connections to the node has connect_timeout to find out.
	_, url := harness.Serve(t, d.cluster.WriteConfig(t, fmt.Sprintf("connect_timeout: %v", connectTimeout)))
	fresh := harness.Open(t, url)
	for range 2 {
		wantDown(t, fresh, connectTimeout+haste, move(n.onB, 1))
	}
	if told, err := transact(fresh, move(n.onA, 0)); told != knowsCommitted {
		t.Errorf("a transaction on node a: %s, %v", told, err)
	}
	// On a connection that is there, a node that is frozen cannot be told from one that thinks: the statement waits, and only it does.
	answered := make(chan error, 1)
	go func() {
		told, err := transact(n.conn, move(n.onB, 1), move(n.onB, -1))
		if told == knowsCommitted {
			err = nil
		}
		answered <- err
	}()
	for range 20 {
		if told, err := transact(fresh, move(n.onA, 0)); told != knowsCommitted {
			t.Errorf("a transaction on node a: %s, %v", told, err)
		}
	}
	b.Unpause(t)
	paused = false
	if err := <-answered; err != nil {
		t.Errorf("the statement that waited for the frozen node: %v", err)
	}
	n.bothWork(t)
	b.Open(t) // it has served the connections that came while it was frozen, in their order: new ones have no queue before them
	if told, err := transact(fresh, move(n.onB, 0)); told != knowsCommitted {
		t.Errorf("the node is awake: %s, %v", told, err)
	}
}

// unackedTimeout is how long the gateway lets bytes for a node go unacknowledged (participant/socket_linux.go).
const unackedTimeout = 15 * time.Second

// offTheNetwork: no packet comes back, not even a refusal.
func offTheNetwork(t *testing.T, d *deployment, onA, onB string) {
	if d.cluster.Mode() != harness.Containers {
		t.Skip("SKIPPED: taking a server off the network needs containers")
	}
	text, err := os.ReadFile(d.cluster.WriteConfig(t, fmt.Sprintf("connect_timeout: %v", connectTimeout)))
	must(t, err)
	b := d.cluster.Node("b")
	config := filepath.Join(t.TempDir(), "direct.yaml")
	must(t, os.WriteFile(config, []byte(strings.ReplaceAll(string(text), b.URL(), b.DirectURL())), 0o600))
	_, url := harness.Serve(t, config)
	n := &nodeDown{conn: harness.Open(t, url), onA: onA, onB: onB}
	n.bothWork(t)
	b.Disconnect(t)
	others := goOn(harness.Open(t, url), move(onA, 0))
	// Sent on a connection that was good a moment ago, and perhaps done: nobody can know.
	wantFailure(t, n.conn, resolutionUnknown, unackedTimeout+connectTimeout+haste, move(onB, 1))
	wantDown(t, n.conn, connectTimeout+haste, move(onB, 1))
	if longest, err := others(); err != nil || longest > haste {
		t.Errorf("transactions on node a meanwhile: the longest took %v, %v", longest, err)
	}
	n.aWorks(t)
	b.Reconnect(t)
	n.bothWork(t)
}

// goOn runs a statement in one transaction after the other until it is ended; then it says how long the longest took, and what else than
// COMMIT was heard.
func goOn(conn *pgx.Conn, statement string) (end func() (longest time.Duration, err error)) {
	stop, done := make(chan struct{}), make(chan struct{})
	var longest time.Duration
	var failed error
	go func() {
		defer close(done)
		for failed == nil {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond): // a pace: it is to notice a stall, not to keep the processors busy
			}
			began := time.Now()
			if told, err := transact(conn, statement); told != knowsCommitted {
				failed = fmt.Errorf("%s, %w", told, err)
			}
			longest = max(longest, time.Since(began))
		}
	}()
	return func() (time.Duration, error) {
		close(stop)
		<-done
		return longest, failed
	}
}

// bothWork: transactions on either node, and over both, commit at once. A gateway that knew the node as down must not remember it.
func (n *nodeDown) bothWork(t *testing.T) {
	t.Helper()
	n.aWorks(t)
	for range 2 {
		if told, err := transact(n.conn, move(n.onA, 1), move(n.onB, -1), move(n.onA, -1), move(n.onB, 1)); told != knowsCommitted {
			t.Fatalf("a transaction over both nodes: %s, %v", told, err)
		}
	}
}

func (n *nodeDown) aWorks(t *testing.T) {
	t.Helper()
	began := time.Now()
	if told, err := transact(n.conn, move(n.onA, 0)); told != knowsCommitted || time.Since(began) > haste {
		t.Fatalf("a transaction on node a: %s after %v, %v", told, time.Since(began), err)
	}
}

// wantDown runs a statement that needs node b and wants 08006 with its name, in time.
func wantDown(t *testing.T, conn *pgx.Conn, within time.Duration, statement string) {
	t.Helper()
	wantFailure(t, conn, "08006", within, statement)
}

func wantFailure(t *testing.T, conn *pgx.Conn, code string, within time.Duration, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	began := time.Now()
	_, err := simple(ctx, conn, statement)
	took := time.Since(began)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != code || !strings.Contains(pgErr.Message, `node "b"`) {
		t.Errorf("%s: %v, want %s naming node b", statement, err, code)
	}
	if took > within {
		t.Errorf("%s: %v only after %v", statement, err, took)
	}
	t.Logf("%v: %v", took.Round(time.Millisecond), err)
}
