package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestHarnessFleet holds what tests of faults take for granted: lanes lose, hold, delay and refuse in the direction they say and in no
// other, one gateway's lane is no other's, and gateways die, sleep and come back at their address.
func TestHarnessFleet(t *testing.T) {
	d := deploy(t, harness.Options{})
	fleet := harness.NewFleet(t, d.cluster, 2)
	account := d.open(t, "a", "fleet", 1)[0]
	first, second := fleet.Sites[0], fleet.Sites[1]
	lane := first.Lane("a")
	read := "select balance from accounts where id = '" + account + "'"

	answers := func(site *harness.Site) error { return query(t, harness.Open(t, site.URL()), 10*time.Second, read) }
	must(t, answers(first))
	must(t, answers(second))

	for _, c := range []struct {
		name  string
		begin func() error
		// acts tells whether the server still gets what was sent, hangs whether the gateway hears nothing while the fault lasts.
		acts, hangs bool
		late        bool // and hears it when the fault is over
	}{
		{"requests are lost", func() error { return lane.Cut(harness.Requests) }, false, true, false},
		{"answers are lost", func() error { return lane.Cut(harness.Answers) }, true, true, false},
		{"requests are held", func() error { return lane.Hold(harness.Requests) }, false, true, true},
		{"answers are held", func() error { return lane.Hold(harness.Answers) }, true, true, true},
		{"reset on request", func() error { return lane.Reset(harness.Requests) }, false, false, false},
		{"reset on answer", func() error { return lane.Reset(harness.Answers) }, true, false, false},
		{"connections are broken", lane.Break, false, false, false},
		{"connections are refused", lane.Refuse, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark := strings.ReplaceAll(c.name, " ", "-")
			// A session of the gateway's kind: straight to the lane, so that the gateway's own politeness does not blur the picture.
			conn := harness.Open(t, laneURL(t, first, "a"))
			must(t, c.begin())
			if strings.HasPrefix(c.name, "connections") {
				if err := query(t, conn, 10*time.Second, "select 1"); err == nil {
					t.Error("the connection lives")
				}
			} else {
				answered := make(chan error, 1)
				go func() {
					answered <- query(t, conn, 20*time.Second, "insert into public.journal values ('"+mark+"', '', '', 0)")
				}()
				// What is done is seen on the server, over no lane.
				acted := harness.Poll(map[bool]time.Duration{true: 10 * time.Second, false: 300 * time.Millisecond}[c.acts], func() error {
					found, err := column[string](d.cluster.Node("a").URL(), "select id from journal where id = $1", mark)
					if err == nil && len(found) == 0 {
						err = errors.New("it has not acted")
					}
					return err
				}) == nil
				if acted != c.acts {
					t.Errorf("the server acted: %t, want %t", acted, c.acts)
				}
				if c.hangs {
					select {
					case err := <-answered:
						t.Errorf("the client was answered during the fault: %v", err)
					default:
					}
					must(t, lane.Heal())
				}
				if err := <-answered; (err == nil) != c.late {
					t.Errorf("the client was answered %v, and an answer in the end is %t", err, c.late)
				}
			}
			must(t, answers(second)) // whose lane is whole
			must(t, lane.Heal())
			harness.Eventually(t, 20*time.Second, "after the fault", func() error { return answers(first) })
		})
	}

	t.Run("slow", func(t *testing.T) {
		must(t, lane.Slow(harness.Answers, 300*time.Millisecond, 0))
		conn := harness.Open(t, first.URL())
		began := time.Now()
		must(t, query(t, conn, 10*time.Second, read))
		if took := time.Since(began); took < 300*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		must(t, fleet.Heal())
	})
	t.Run("a gateway sleeps", func(t *testing.T) {
		conn := harness.Open(t, first.URL())
		first.Pause(t)
		err := query(t, conn, 300*time.Millisecond, read)
		must(t, answers(second))
		first.Unpause(t)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a paused gateway: %v", err)
		}
		must(t, answers(first))
	})
	t.Run("a gateway dies", func(t *testing.T) {
		url := first.URL()
		first.Pause(t)
		if exit := first.Kill9(t); exit.Signal != syscall.SIGKILL {
			t.Errorf("ended with %v", exit)
		}
		must(t, answers(second))
		first.Start(t)
		if first.URL() != url {
			t.Errorf("it was at %s and is at %s", url, first.URL())
		}
		must(t, answers(first))
		if log := first.Log(); strings.Count(log, "=== ") != 2 || !strings.Contains(log, "signal killed") {
			t.Errorf("the log of two lives:\n%s", log)
		}
	})
}

// laneURL is a node at the end of a site's lane.
func laneURL(t *testing.T, site *harness.Site, server string) string {
	t.Helper()
	text, err := os.ReadFile(site.Config())
	must(t, err)
	_, after, _ := strings.Cut(string(text), "name: "+server+"\n")
	_, after, _ = strings.Cut(after, `"`)
	url, _, found := strings.Cut(after, `"`)
	if !found {
		t.Fatalf("no url of %s in\n%s", server, text)
	}
	return url
}

func query(t *testing.T, conn *pgx.Conn, within time.Duration, text string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	_, err := simple(ctx, conn, text)
	return err
}

// failing is a test that may fail without failing the one around it.
type failing struct {
	testing.TB
	failed   bool
	said     string
	cleanups []func()
}

func (f *failing) Failed() bool              { return f.failed }
func (f *failing) Cleanup(do func())         { f.cleanups = append(f.cleanups, do) }
func (f *failing) Errorf(_ string, a ...any) { f.failed, f.said = true, f.said+a[0].(string) }
func (f *failing) end() {
	for i := range f.cleanups {
		f.cleanups[len(f.cleanups)-1-i]()
	}
}

func TestHarnessEvidence(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PGPACT_TEST_EVIDENCE", dir)
	for _, fails := range []bool{false, true} {
		inner := &failing{TB: t, failed: fails}
		harness.NewEvidence(inner).Keep("history", func() string { return "what happened" })
		inner.end()
		left, err := filepath.Glob(filepath.Join(dir, "*", "history"))
		must(t, err)
		if !fails {
			if len(left) != 0 {
				t.Errorf("a test that passed left %v", left)
			}
			continue
		}
		if len(left) != 1 || inner.said != filepath.Dir(left[0]) {
			t.Fatalf("a failed test left %v and named %q", left, inner.said)
		}
		if text, err := os.ReadFile(left[0]); err != nil || string(text) != "what happened" {
			t.Errorf("it holds %q (%v)", text, err)
		}
	}
	err := harness.Try(t, func(t testing.TB) { t.Fatalf("no %s", "luck") })
	if err == nil || err.Error() != "no luck" {
		t.Errorf("Try: %v", err)
	}
	if err := harness.Try(t, func(testing.TB) {}); err != nil {
		t.Error(err)
	}
}
