package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// othersBound is the promise for several gateways: so long after one has died, the others have resolved what it left in doubt.
const othersBound = 2 * time.Second

// another starts one more gateway on the deployment, with a name and a port of its own.
func (d *deployment) another(t *testing.T, name string, args ...string) (gateway *harness.Gateway, url string) {
	t.Helper()
	return harness.Serve(t, d.cluster.WriteConfig(t, "name: "+name), args...)
}

// configured is another with further keys in its configuration.
func (d *deployment) configured(t *testing.T, lines []string, args ...string) (gateway *harness.Gateway, url string) {
	t.Helper()
	return harness.Serve(t, d.cluster.WriteConfig(t, lines...), args...)
}

// epochs are those of a gateway's lives, by its name.
func (d *deployment) epochs(t testing.TB, name string) []string {
	t.Helper()
	return mustColumn[string](t, d.cluster.Coordinator().URL(), "select epoch::text from pgpact.gateways where name = $1 order by started_at", name)
}

// preparedOf lists the prepared branches of one epoch, on all nodes.
func (d *deployment) preparedOf(epoch string) ([]string, error) {
	all, err := d.prepared()
	var found []string
	for _, gid := range all {
		if strings.Contains(gid, "/"+epoch+"/") {
			found = append(found, gid)
		}
	}
	return found, err
}

// noneOf is nil when nothing of the epoch is prepared any more.
func (d *deployment) noneOf(epoch string) func() error {
	return func() error {
		found, err := d.preparedOf(epoch)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%d branches prepared, the first %s", len(found), found[0])
		}
		return err
	}
}

// TestAnyGatewayFinishesTheDead: a gateway dies at the moments that matter most and is never started again. Two others, which have
// nothing to do with its clients, have finished its transaction two seconds later, and tell anybody who asks what became of it.
func TestAnyGatewayFinishesTheDead(t *testing.T) {
	d := deploy(t, harness.Options{})
	_, first := d.another(t, "first")
	_, second := d.another(t, "second")
	for i, point := range []struct{ name, outcome string }{
		{"first-vote", "aborted"}, {"voted", "aborted"}, {"decision-writing", "aborted"}, {"decision-written", "committed"},
		{"decided", "committed"}, {"first-commit-prepared-answered", "committed"},
	} {
		t.Run(point.name, func(t *testing.T) {
			name := fmt.Sprintf("dead-%d", i)
			from, to := d.open(t, "a", name+"-from", 1)[0], d.open(t, "b", name+"-to", 1)[0]
			dead, url := d.another(t, name, "--crash-at", point.name)
			told, id, err := transactTracked(harness.Open(t, url), move(from, -7), move(to, 7))
			died := time.Now()
			if told != knowsNothing {
				t.Errorf("the client of a dead gateway knows %s (%v)", told, err)
			}
			dies(t, dead)
			harness.Eventually(t, othersBound, "what the dead gateway left", d.noneOf(d.epochs(t, name)[0]))
			t.Logf("nothing prepared %v after the death", time.Since(died).Round(time.Millisecond))
			for _, other := range []string{first, second} {
				if got, err := ask(harness.Open(t, other), "select pgpact.outcome('"+id+"')"); err != nil || got != point.outcome {
					t.Errorf("pgpact.outcome says %q (%v), want %s", got, err, point.outcome)
				}
			}
			moved := map[string]int64{"committed": 7, "aborted": 0}[point.outcome]
			for account, want := range map[string]int64{from: startBalance - moved, to: startBalance + moved} {
				if got, err := d.balance(account); err != nil || got != want {
					t.Errorf("%s has %d (%v), want %d", account, got, err, want)
				}
			}
			// Its locks are gone, too.
			if told, err := transact(harness.Open(t, first), move(from, -1), move(to, 1)); told != knowsCommitted {
				t.Errorf("a transaction on the same accounts: %s, %v", told, err)
			}
		})
	}
	harness.Eventually(t, settleBound, "decisions and branch records", d.recordsAgree)
}

// TestOneOfThreeGatewaysIsKilled: clients transfer through three gateways; each in turn is killed and stays away while the two others
// clear up after it, without anybody's restart.
func TestOneOfThreeGatewaysIsKilled(t *testing.T) {
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	l := newLedger(t, d, 20)
	const gateways, clientsEach = 3, 6
	var running [gateways]*harness.Gateway
	var urls [gateways]string
	ports := [gateways]string{}
	start := func(i, life int, port string) {
		running[i], urls[i] = d.configured(t, []string{fmt.Sprintf("name: g%d-%d", i, life), "listen: 127.0.0.1:" + port})
	}
	for i := range gateways {
		ports[i] = harness.FreePort(t)
		start(i, 0, ports[i])
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var clients sync.WaitGroup
	for worker := range gateways * clientsEach {
		clients.Go(func() { l.work(ctx, urls[worker%gateways], worker) })
	}
	for i := range gateways {
		before := l.counts()[knowsCommitted]
		harness.Eventually(t, 20*time.Second, "transfers go on", func() error {
			if now := l.counts()[knowsCommitted]; now < before+100 {
				return fmt.Errorf("%d committed, %d before", now, before)
			}
			return nil
		})
		epoch := d.epochs(t, fmt.Sprintf("g%d-0", i))[0]
		running[i].Kill9(t)
		died := time.Now()
		left, err := d.preparedOf(epoch)
		must(t, err)
		harness.Eventually(t, othersBound-time.Since(died), "what the killed gateway left", d.noneOf(epoch))
		t.Logf("gateway %d killed with at least %d branches prepared, none %v later", i, len(left), time.Since(died).Round(time.Millisecond))
		start(i, 1, ports[i])
	}
	cancel()
	clients.Wait()
	l.audit(t, urls[0])
}

// TestFrozenGatewayHurtsNobody: a gateway stops (SIGSTOP) in the middle of a commit, is presumed dead, its transaction is finished by
// another, and then it goes on as if nothing had happened. Whatever it still believes and sends changes nothing, and its client is told
// the truth. In half of the cases its lock is lost meanwhile, as after a partition; in the others only age speaks against it.
func TestFrozenGatewayHurtsNobody(t *testing.T) {
	d := deploy(t, harness.Options{})
	// The shortest timeouts that the configuration accepts with some slack for a busy machine.
	patience := []string{"prepare_timeout: 1s", "decision_timeout: 1s", "finish_timeout: 1s", "in_doubt_timeout: 3s"}
	d.configured(t, append([]string{"name: awake"}, patience...))
	points := []struct{ name, outcome string }{
		{"first-prepare-sent", "aborted"}, {"prepare-sent", "aborted"}, {"voted", "aborted"}, {"decision-handed-over", "aborted"},
		{"decision-writing", "aborted"}, {"decision-written", "committed"}, {"decided", "committed"},
		{"first-commit-prepared-sent", "committed"}, {"first-commit-prepared-answered", "committed"}, {"committed", "committed"},
	}
	t.Run("frozen", func(t *testing.T) {
		for i, point := range points {
			for _, cut := range []bool{false, true} {
				f := &frozen{d: d, name: fmt.Sprintf("frozen-%d-%t", i, cut), point: point.name, outcome: point.outcome, cut: cut}
				t.Run(fmt.Sprintf("%s/lock-lost=%t", point.name, cut), func(t *testing.T) {
					t.Parallel()
					f.run(t, append([]string{"name: " + f.name}, patience...))
				})
			}
		}
	})
	must(t, d.nothingPrepared())
	harness.Eventually(t, settleBound, "decisions and branch records", d.recordsAgree)
}

// frozen is one gateway that stops at one point.
type frozen struct {
	d                    *deployment
	name, point, outcome string
	cut                  bool
}

// run stops one gateway, waits for the others, and thaws it.
func (f *frozen) run(t *testing.T, lines []string) {
	d := f.d
	from, to := d.open(t, "a", f.name+"-from", 1)[0], d.open(t, "b", f.name+"-to", 1)[0]
	gateway, url := d.configured(t, lines, "--stop-at", f.point)
	conn := harness.Open(t, url)
	type answer struct {
		told knowledge
		id   string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		a.told, a.id, a.err = transactTracked(conn, move(from, -7), move(to, 7))
		answers <- a
	}()
	gateway.WaitFrozen(t, 20*time.Second)
	stopped := time.Now()
	if f.cut {
		// What a partition and a keepalive do after some seconds: the decision database ends the connections, and with one of them the lock.
		must(t, run(d.cluster.Coordinator().SuperURL(), `select pg_terminate_backend(l.pid) from pg_locks l, pgpact.gateways g where l.locktype = 'advisory'
			and (l.classid::bigint << 32) | l.objid::bigint = g.epoch and g.name = '`+f.name+`'`))
	}
	// Only what somebody else does can make these two accounts free again.
	harness.Eventually(t, 15*time.Second, "finished by another", func() error {
		return f.finished(from, to)
	})
	t.Logf("finished by another %v after the stop", time.Since(stopped).Round(time.Millisecond))
	gateway.Thaw(t)
	a := <-answers
	t.Logf("the client of the thawed gateway: %s, %v", a.told, a.err)
	if a.told.contradicts(f.outcome == "committed") {
		t.Errorf("the client was told %s, and the transaction has %s", a.told, f.outcome)
	}
	// It serves on, and nothing it did since has changed anything.
	if told, err := transact(harness.Open(t, url), move(from, 0), move(to, 0)); told != knowsCommitted {
		t.Errorf("a transaction through the thawed gateway: %s, %v", told, err)
	}
	must(t, f.finished(from, to))
	if got, err := ask(harness.Open(t, url), "select pgpact.outcome('"+a.id+"')"); err != nil || got != f.outcome {
		t.Errorf("pgpact.outcome says %q (%v), want %s", got, err, f.outcome)
	}
	if exit := gateway.Stop(t); exit != (harness.Exit{}) {
		t.Errorf("SIGTERM: %v, want exit status 0", exit)
	}
}

// finished is nil when nothing of the frozen gateway's is prepared, and both balances are as the outcome says.
func (f *frozen) finished(from, to string) error {
	epochs, err := column[string](f.d.cluster.Coordinator().URL(), "select epoch::text from pgpact.gateways where name = $1", f.name)
	if err != nil {
		return err
	}
	for _, epoch := range epochs {
		if err := f.d.noneOf(epoch)(); err != nil {
			return err
		}
	}
	decided, err := column[string](f.d.cluster.Coordinator().URL(),
		"select outcome from pgpact.transactions where epoch = any($1::text[]::bigint[]) order by decided_at limit 1", epochs) // the one after the thaw comes later
	if err != nil {
		return err
	}
	if len(decided) == 0 || decided[0] != f.outcome {
		return fmt.Errorf("decided: %v, want %s", decided, f.outcome)
	}
	moved := map[string]int64{"committed": 7, "aborted": 0}[f.outcome]
	for account, want := range map[string]int64{from: startBalance - moved, to: startBalance + moved} {
		if got, err := f.d.balance(account); err != nil || got != want {
			return fmt.Errorf("%s has %d (%v), want %d", account, got, err, want)
		}
	}
	return nil
}
