package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/checker"
	"github.com/pgpact/pgpact/integration/harness"
)

// findingsShown bounds how much of what is wrong is printed.
const findingsShown = 30

// judge runs all checkers.
func (c *chaos) judge(t *testing.T) {
	t.Helper()
	began := time.Now()
	harness.Eventually(t, chaosQuiet, "in doubt after the last fault", c.d.nothingPrepared)
	t.Logf("nothing in doubt %v after the last client", time.Since(began).Round(time.Millisecond))
	harness.Eventually(t, chaosQuiet, "decisions and branch records", c.d.recordsAgree)

	var errs []error
	errs = append(errs, c.bank(t)...)
	errs = append(errs, checker.Linear(c.operations, time.Minute)...)
	errs = append(errs, checker.Log(readRecords(t, c.d))...)
	errs = append(errs, leaks(t, c.d, c.fleet, c.accounts)...)
	for i, err := range errs {
		if i == findingsShown {
			t.Errorf("and %d more", len(errs)-i)
			break
		}
		t.Error(err)
	}
	for _, command := range []string{"check", "transactions"} {
		if result := harness.Run(t, command, "--config", c.d.config); result.Code != 0 {
			t.Errorf("pgpact %s: exit status %d\n%s%s", command, result.Code, result.Stdout, result.Stderr)
		}
	}
}

func (c *chaos) bank(t *testing.T) []error {
	t.Helper()
	books := map[string]*checker.Book{}
	for _, node := range c.d.cluster.Nodes() {
		book, err := checker.ReadBook(t.Context(), node.Open(t))
		must(t, err)
		books[node.Name()] = book
	}
	return checker.Bank(c.transfers, books, startBalance)
}

// readRecords is what all servers show of all transactions.
func readRecords(t *testing.T, d *deployment) *checker.Records {
	t.Helper()
	records, err := checker.ReadDecisions(t.Context(), d.cluster.Coordinator().Open(t))
	must(t, err)
	for _, node := range d.cluster.Nodes() {
		found, err := checker.ReadNode(t.Context(), node.Open(t))
		must(t, err)
		found.Log = node.Log()
		records.Nodes[node.Name()] = found
	}
	return records
}

// leaks: every slot of every gateway can be taken at once, and nothing is left of all that has been done, on the servers and in the
// gateways. They have chaosSlots slots each.
func leaks(t *testing.T, d *deployment, fleet *harness.Fleet, accounts []string) []error {
	t.Helper()
	var errs []error
	for _, site := range fleet.Sites {
		// A slot that has leaked stays away; a connection that could not be made in time on a busy machine is made the next time.
		if err := harness.Poll(chaosQuiet, func() error { return takeSlots(site, accounts) }); err != nil {
			errs = append(errs, fmt.Errorf("leak: of %d slots of %s: %w", chaosSlots, site.Name(), err))
		}
	}
	for _, server := range d.cluster.Servers() {
		conn := server.OpenSuper(t)
		err := harness.Poll(chaosQuiet, func() error {
			return errors.Join(checker.ServerLeaks(t.Context(), conn, harness.Role, len(fleet.Sites)*(chaosSlots+6))...)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("server %s: %w", server.Name(), err))
		}
	}
	admin := "127.0.0.1:" + harness.FreePort(t)
	_, url := harness.Serve(t, d.cluster.WriteConfig(t, "admin_listen: "+admin))
	must(t, run(url, "select 1"))
	idle, err := harness.Goroutines(admin)
	must(t, err)
	for _, site := range fleet.Sites {
		// What looks at the nodes from time to time has goroutines for a moment, on a slow machine for a longer one.
		err := harness.Poll(chaosQuiet, func() error {
			used, err := site.Goroutines()
			if err != nil {
				return err
			}
			return errors.Join(checker.GoroutineLeaks(idle, used, nil)...)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", site.Name(), err))
		}
	}
	return errs
}

// takeSlots has as many transactions under way as there are slots.
func takeSlots(site *harness.Site, accounts []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	for i := range chaosSlots {
		conn, err := pgx.Connect(ctx, site.URL())
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		if _, err := simple(ctx, conn, fmt.Sprintf("begin; select * from accounts where id = '%s'", accounts[i%len(accounts)])); err != nil {
			return fmt.Errorf("number %d: %w", i+1, err)
		}
	}
	return nil
}

// stalled is the longest operation that no fault has touched.
func (c *chaos) stalled() (longest time.Duration, which string) {
	for i, o := range c.operations {
		site, node, _ := strings.Cut(c.sites[i], "/")
		touched := slices.ContainsFunc(c.faults, func(f *chaosFault) bool {
			overlaps := o.Return.After(f.began) && (f.ended.IsZero() || o.Call.Before(f.ended.Add(chaosGrace)))
			hasSite, hasNode := slices.Contains(f.Touches, site), slices.Contains(f.Touches, node)
			return overlaps && (f.Lane && hasSite && hasNode || !f.Lane && (hasSite || hasNode))
		})
		if took := o.Return.Sub(o.Call); !touched && took > longest {
			longest, which = took, fmt.Sprintf("client %d on %s at %s: %s", o.Client, c.sites[i], o.Call.Format("15:04:05.000"), o.Error)
		}
	}
	return longest, which
}

// sqlState finds the state in an error's text; a lost connection has none.
var sqlState = regexp.MustCompile(`SQLSTATE \w{5}`)

// figures prints what the run was.
func (c *chaos) figures(t *testing.T, seconds int) {
	t.Helper()
	told, counted, kinds, states := map[checker.Told]int{}, map[checker.Told]int{}, map[string]int{}, map[string]int{}
	examples := map[string]string{}
	var longest time.Duration
	for _, made := range c.transfers {
		told[made.Told]++
		if made.Error != "" {
			state := string(made.Told) + " " + sqlState.FindString(made.Error)
			states[state]++
			examples[state] = made.Error
		}
		longest = max(longest, made.Ended.Sub(made.Began))
	}
	for _, o := range c.operations {
		counted[o.Told]++
	}
	for _, f := range c.faults {
		kinds[f.Kind]++
	}
	stall, which := c.stalled()
	var text strings.Builder
	fmt.Fprintf(&text, "chaos of %d s, seed %d: %d transfers %v, %d single-row operations %v, %d faults, longest in doubt %v, longest transfer %v, longest stall of an unaffected client %v (%s)\n",
		seconds, c.seed, len(c.transfers), told, len(c.operations), counted, len(c.faults), c.oldest.Round(time.Millisecond),
		longest.Round(time.Millisecond), stall.Round(time.Millisecond), which)
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(&text, "  %3d %s\n", kinds[kind], kind)
	}
	for _, state := range slices.Sorted(maps.Keys(states)) {
		fmt.Fprintf(&text, "  %3d transfers %s, as: %s\n", states[state], state, examples[state])
	}
	t.Log(text.String())
	if stall > chaosStallMost {
		t.Errorf("a client that no fault had touched stalled for %v (%s)", stall, which)
	}
	if told[checker.Committed] == 0 || counted[checker.Committed] == 0 || len(c.faults) == 0 {
		t.Error("nothing has happened")
	}
}

func (c *chaos) faultLines() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var text strings.Builder
	for _, f := range c.faults {
		fmt.Fprintf(&text, "%s to %s %s\n", f.began.Format("15:04:05.000"), f.ended.Format("15:04:05.000"), f)
	}
	return text.String()
}
