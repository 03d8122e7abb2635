package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestExamples runs the programs of examples/ as their readers would, while gateways are killed and answers to COMMIT are cut off: every
// transfer is made exactly once, and what a program says of it is true.
func TestExamples(t *testing.T) {
	commands := map[string][]string{"go": {buildExample(t)}}
	if exec.Command("/usr/bin/python3", "-c", "import psycopg").Run() == nil {
		commands["python"] = []string{"/usr/bin/python3", filepath.Join(harness.Root(), "examples", "python", "transfer.py")}
	} else {
		t.Log("SKIPPED for Python: psycopg 3 is not installed")
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			e := &example{command: command, d: deploy(t, harness.Options{})}
			e.gateways(t)
			t.Run("plainly", e.plainly)
			t.Run("while answers are cut off and gateways die", e.underFire)
		})
	}
}

func buildExample(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "transfer")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./examples/go")
	build.Dir = harness.Root()
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./examples/go: %v\n%s", err, output)
	}
	return path
}

// example is one of the programs, on three gateways with a fuse before each.
type example struct {
	command []string
	d       *deployment
	running [3]*harness.Gateway
	configs [3]string
	fuses   [3]*fuse
	url     string // of all fuses
}

func (e *example) gateways(t *testing.T) {
	var hosts []string
	for i := range e.running {
		e.configs[i] = e.d.cluster.WriteConfig(t)
		var address string
		e.running[i], address = harness.Serve(t, e.configs[i])
		e.fuses[i] = newFuse(t, address)
		hosts = append(hosts, e.fuses[i].address)
	}
	e.url = (&url.URL{Scheme: "postgresql", User: url.User("pgpact"), Host: strings.Join(hosts, ","), Path: "/" + harness.Database}).String()
	e.url += "?sslmode=disable"
}

// run is one run of the program; said is the line it printed.
func (e *example) run(key, from, to string, amount int) (said string, code int, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := append(e.command[1:len(e.command):len(e.command)], "--url", e.url, "--key", key, "--from", from, "--to", to, "--amount", fmt.Sprint(amount), "--timeout", timeoutOf(e.command))
	command := exec.CommandContext(ctx, e.command[0], args...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err = command.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		err = nil
	}
	return strings.TrimSpace(out.String()), command.ProcessState.ExitCode(), errs.String(), err
}

// timeoutOf spells a minute as the program wants it.
func timeoutOf(command []string) string {
	if len(command) == 1 {
		return "60s"
	}
	return "60"
}

// plainly: done; done again and still done once; impossible.
func (e *example) plainly(t *testing.T) {
	from, to := e.d.open(t, "a", "plain-from", 1)[0], e.d.open(t, "b", "plain-to", 1)[0]
	first, code, stderr, err := e.run("order '42'", from, to, 10)
	if err != nil || code != 0 || !strings.HasPrefix(first, "committed ") {
		t.Fatalf("%q, exit status %d, %v\n%s", first, code, err, stderr)
	}
	if again, code, stderr, err := e.run("order '42'", from, to, 10); err != nil || code != 0 || again != first {
		t.Errorf("again: %q, exit status %d, %v\n%s", again, code, err, stderr)
	}
	if said, code, stderr, err := e.run("order 43", from, to, 10*startBalance); err != nil || code != 1 || !strings.Contains(said, "accounts_balance_check") {
		t.Errorf("too much: %q, exit status %d, %v\n%s", said, code, err, stderr)
	}
	if said, code, _, err := e.run("order 44", from, "nobody", 10); err != nil || code != 1 || !strings.Contains(said, "nobody") {
		t.Errorf("no account: %q, exit status %d, %v", said, code, err)
	}
	for account, want := range map[string]int64{from: startBalance - 10, to: startBalance + 10} {
		if got, err := e.d.balance(account); err != nil || got != want {
			t.Errorf("%s has %d (%v), want %d", account, got, err, want)
		}
	}
}

// exampleKills is how many gateways have to be killed before it is enough.
const exampleKills = 6

// order is one transfer to be made exactly once.
type order struct {
	key, from, to string
	amount        int
	again         bool // run once more after it has said that it is done
}

// underFire: eight people at a time transfer while the answer to every few COMMITs is lost and gateways are killed in turn. Each runs the
// program until it has said what has become of the transfer, and one in four once more after that.
func (e *example) underFire(t *testing.T) {
	accounts := append(e.d.open(t, "a", "fire-a", 4), e.d.open(t, "b", "fire-b", 4)...)
	seed := seedOf(t)
	choose := rand.New(rand.NewPCG(seed, 0))
	want := map[string]int64{}
	for _, account := range accounts {
		want[account] = startBalance
	}
	orders := make(chan order)
	var people, trouble sync.WaitGroup
	for range 8 {
		people.Go(func() {
			for o := range orders {
				e.place(t, o)
			}
		})
	}
	var kills atomic.Int32
	stop := make(chan struct{})
	trouble.Go(func() { e.trouble(t, rand.New(rand.NewPCG(seed, 1)), &kills, stop) })
	made := 0
	for deadline := time.Now().Add(2 * time.Minute); kills.Load() < exampleKills && time.Now().Before(deadline); made++ {
		from := choose.IntN(len(accounts))
		to := (from + 1 + choose.IntN(len(accounts)-1)) % len(accounts)
		o := order{key: fmt.Sprintf("fire-%d", made), from: accounts[from], to: accounts[to], amount: 1, again: made%4 == 0}
		want[o.from]--
		want[o.to]++
		orders <- o
	}
	close(orders)
	people.Wait()
	close(stop)
	trouble.Wait()
	t.Logf("%d transfers, %d gateways killed", made, kills.Load())
	if kills.Load() < exampleKills {
		t.Errorf("only %d gateways were killed", kills.Load())
	}
	harness.Eventually(t, settleBound, "in doubt", e.d.nothingPrepared)
	for _, account := range accounts {
		if got, err := e.d.balance(account); err != nil || got != want[account] {
			t.Errorf("%s has %d (%v), want %d: every transfer once", account, got, err, want[account])
		}
	}
	harness.Eventually(t, 40*time.Second, "decisions and branch records", e.d.recordsAgree)
}

// place runs the program until the transfer is done. Nothing but done and not known can come: everybody has enough, as good as certainly.
func (e *example) place(t *testing.T, o order) {
	for range 10 {
		said, code, stderr, err := e.run(o.key, o.from, o.to, o.amount)
		switch {
		case err != nil || code != 0 && code != 3:
			t.Errorf("%s: %q, exit status %d, %v\n%s", o.key, said, code, err, stderr)
			return
		case code == 0 && !o.again:
			return
		case code == 0:
			o.again = false
		}
	}
	t.Errorf("%s: not done after ten runs", o.key)
}

// trouble goes on until stop is closed: fuses are armed again and again, so that a COMMIT that was done is not answered, and one gateway
// after the other is killed and started again.
func (e *example) trouble(t *testing.T, choose *rand.Rand, kills *atomic.Int32, stop chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		e.fuses[choose.IntN(len(e.fuses))].arm("COMMIT")
		if n%10 == 0 {
			i := int(kills.Load()) % len(e.running)
			e.running[i].Kill9(t)
			e.running[i], _ = harness.Serve(t, e.configs[i])
			kills.Add(1)
		}
	}
}
