package integration

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// point is a line of `pgpact fault-points`.
type point struct {
	name, expect, scenario string
}

var columns = regexp.MustCompile(` {2,}`)

// faultPoints asks the program, so that a point which is new there cannot be left out here.
func faultPoints(t *testing.T) []point {
	t.Helper()
	var points []point
	for line := range strings.Lines(harness.MustRun(t, "fault-points").Stdout) {
		fields := columns.Split(strings.TrimSpace(line), -1)
		if len(fields) != 3 {
			t.Fatalf("fault-points printed %q", line)
		}
		points = append(points, point{fields[0], fields[1], fields[2]})
	}
	if len(points) == 0 {
		t.Fatal("fault-points printed nothing")
	}
	return points
}

// scenario is what passes a kind of fault point.
type scenario struct {
	// leftAt is the point at which a first gateway dies, for points of recovery: the second dies of what the first has left.
	leftAt string
	// oneNode: the transaction writes on one node only.
	oneNode bool
	// refused: the second node votes no.
	refused bool
	// reads: the gateway dies of a read of several nodes, after the transaction.
	reads bool
	// frozenAt is the point at which the transaction's own gateway stands still meanwhile.
	frozenAt string
	// locks: the transaction locks a row on a third node before it writes on two.
	locks bool
}

var scenarios = map[string]scenario{
	"two-phase commit":                         {},
	"two-phase commit with a lock-only branch": {locks: true},
	"one-phase commit":                         {oneNode: true},
	"a node votes no":                          {refused: true},
	"recovery of a decided transaction":        {leftAt: "decided"},
	"recovery of an undecided transaction":     {leftAt: "voted"},
	"a read of several nodes":                  {reads: true},
	"a read that meets a decided transaction":  {reads: true, frozenAt: "decided"},
}

// TestEveryFaultPoint kills a gateway at every named moment of the protocol and holds what is found afterwards against what the point
// promises and what the client was told.
func TestEveryFaultPoint(t *testing.T) {
	points := faultPoints(t)
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	var visits []*visit
	for i, p := range points {
		s, known := scenarios[p.scenario]
		if !known {
			t.Errorf("fault point %s is passed by %q, and no test knows how to do that", p.name, p.scenario)
			continue
		}
		for _, tracked := range []bool{false, true} {
			if tracked && s.oneNode {
				continue // a tracked transaction never commits in one phase
			}
			if !s.oneNode && tracked == (i%2 == 0) && os.Getenv(fullVariable) == "" {
				continue // one of the two
			}
			v := &visit{d: d, point: p, scenario: s, tracked: tracked}
			name := p.name
			if tracked {
				name += "/tracked"
			}
			if t.Run(name, func(t *testing.T) { v.run(t, fmt.Sprintf("p%02d-%t", i, tracked)) }) && v.from != "" { // what -run leaves out passes, too
				visits = append(visits, v)
			}
		}
	}
	// Once more, when all is long over: what was right must have stayed so.
	must(t, d.nothingPrepared())
	for _, v := range visits {
		if committed, err := v.committed(); err != nil || committed != v.found {
			t.Errorf("%s: committed is %t now (%v), and was %t", v.point.name, committed, err, v.found)
		}
	}
	harness.Serve(t, d.config) // somebody has to mark as finished what the last visit left
	harness.Eventually(t, 30*time.Second, "decisions and branch records", d.recordsAgree)
}

// visit is one crash at one point.
type visit struct {
	d        *deployment
	point    point
	scenario scenario
	tracked  bool

	from, to string // accounts
	locked   string // the account whose row is only locked, if one is
	id       string // of the tracked transaction
	told     knowledge
	found    bool // committed
}

const visitAmount = 100

func (v *visit) run(t *testing.T, prefix string) {
	second := "b"
	if v.scenario.oneNode {
		second = "a"
	}
	v.from, v.to = v.d.open(t, "a", prefix+"-from", 1)[0], v.d.open(t, second, prefix+"-to", 1)[0]
	if v.scenario.locks {
		v.locked = v.d.open(t, "c", prefix+"-locked", 1)[0]
	}
	before, err := v.d.sum()
	must(t, err)

	v.crash(t, prefix)
	left := v.d.backends(t)

	began := time.Now()
	gateway, url := harness.Serve(t, v.d.config)
	within := func() time.Duration { return max(0, settleBound-time.Since(began)) }
	harness.Eventually(t, within(), "after the restart", func() error { return errors.Join(gone(left), v.d.nothingPrepared()) })
	if v.found, err = v.committed(); err != nil {
		t.Fatalf("the nodes do not agree: %v", err)
	}
	t.Logf("the client knows %s, committed is %t, settled %v after the restart", v.told, v.found, time.Since(began).Round(time.Millisecond))
	if v.told.contradicts(v.found) {
		t.Errorf("the client was told %s, and committed is %t", v.told, v.found)
	}
	if want := v.point.expect; want == "committed" && !v.found || want == "aborted" && v.found {
		t.Errorf("committed is %t, and a crash here must leave it %s", v.found, want)
	}
	if after, err := v.d.sum(); err != nil || after != before {
		t.Errorf("the sum was %d and is %d (%v)", before, after, err)
	}
	conn := harness.Open(t, url)
	if v.tracked {
		outcome := map[bool]string{true: "committed", false: "aborted"}[v.found]
		if got, err := ask(conn, "select pgpact.outcome('"+v.id+"')"); err != nil || got != outcome {
			t.Errorf("pgpact.outcome says %q (%v), want %q", got, err, outcome)
		}
	}
	// Nothing of the dead transaction stands in the way of the next.
	again := []string{move(v.from, 0), move(v.to, 0)}
	if v.locked != "" {
		again = append(again, lock(v.locked))
	}
	if told, err := transact(conn, again...); told != knowsCommitted {
		t.Errorf("a transaction on the same accounts afterwards: %s, %v", told, err)
	}
	if exit := gateway.Stop(t); exit != (harness.Exit{}) {
		t.Errorf("SIGTERM: %v, want exit status 0", exit)
	}
}

// crash runs the transaction and sees the gateway die of it.
func (v *visit) crash(t *testing.T, prefix string) {
	at := v.point.name
	if v.scenario.leftAt != "" {
		at = v.scenario.leftAt
	}
	statements := []string{move(v.from, -visitAmount), move(v.to, visitAmount)}
	if v.locked != "" {
		statements = append([]string{lock(v.locked)}, statements...)
	}
	if v.scenario.refused {
		pledge := v.d.keyOn(v.d.owner(v.to), prefix)
		statements = append(statements, fmt.Sprintf("insert into pledges values ('%s', 'nobody')", pledge))
	}
	if v.scenario.frozenAt != "" {
		v.crashOfReader(t, statements)
		return
	}
	gateway, url := harness.Serve(t, v.d.config, "--crash-at", at)
	conn := harness.Open(t, url)
	v.transact(t, conn, statements)
	if v.scenario.reads { // the transaction is through
		readAll(t, conn)
	}
	dies(t, gateway)
	if v.scenario.leftAt != "" {
		dies(t, harness.Start(t, "serve", "--config", v.d.config, "--crash-at", v.point.name))
	}
}

// transact runs the transaction, and notes what its client knows then.
func (v *visit) transact(t *testing.T, conn *pgx.Conn, statements []string) {
	var err error
	if v.tracked {
		v.told, v.id, err = transactTracked(conn, statements...)
	} else {
		v.told, err = transact(conn, statements...)
	}
	t.Logf("the client: %s, %v", v.told, err)
}

// crashOfReader has the transaction's gateway stand still, and sees another die of reading what that has left.
func (v *visit) crashOfReader(t *testing.T, statements []string) {
	frozen, url := v.d.configured(t, nil, "--stop-at", v.scenario.frozenAt)
	conn := harness.Open(t, url)
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.transact(t, conn, statements)
	}()
	frozen.WaitFrozen(t, 20*time.Second)
	reader, readerURL := harness.Serve(t, v.d.config, "--crash-at", v.point.name)
	readAll(t, harness.Open(t, readerURL))
	dies(t, reader)
	frozen.Kill9(t)
	<-done
}

// readAll reads several nodes at one instant, which the gateway does not survive.
func readAll(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if sum, err := ask(conn, "select sum(balance) from accounts"); err == nil {
		t.Errorf("a read of all balances answered %s, and should have ended with its gateway", sum)
	}
}

// lock takes the row's lock, and changes nothing.
func lock(account string) string {
	return fmt.Sprintf("select balance from accounts where id = '%s' for update", account)
}

// dies waits until the gateway has killed itself.
func dies(t *testing.T, gateway *harness.Gateway) {
	t.Helper()
	if exit := gateway.Wait(t, 20*time.Second); exit.Signal != syscall.SIGKILL {
		t.Fatalf("the gateway ended with %v, want SIGKILL", exit)
	}
}

// committed is read on the nodes. An error: they do not agree.
func (v *visit) committed() (bool, error) {
	from, err := v.d.balance(v.from)
	if err != nil {
		return false, err
	}
	to, err := v.d.balance(v.to)
	if err != nil {
		return false, err
	}
	switch {
	case from == startBalance && to == startBalance:
		return false, nil
	case from == startBalance-visitAmount && to == startBalance+visitAmount:
		return true, nil
	}
	return false, fmt.Errorf("%s has %d, %s has %d", v.from, from, v.to, to)
}
