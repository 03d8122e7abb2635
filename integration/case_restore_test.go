package integration

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCaseD2: "the decision database is restored from a dump taken earlier, with branches in doubt | unknown epochs untouched and reported;
// proven commits completed; nothing invented". The dump knows the first gateway's epoch and not its decisions, and of the second's life
// nothing. Restored it is with all gateways down, as it must be; the bystanders work when they are up again. Keys are proven as their
// transactions are; whether one of the unknown life has been used cannot be told before a person has resolved it.
func TestCaseD2(t *testing.T) {
	r := newCaseRig(t)
	s := shape{4, 4}
	r.restart(t, "--stop-at", "first-commit-prepared-answered")
	known := r.crowdOf(t, s)
	dump := t.TempDir() + "/dump.sql"
	decisions := r.d.cluster.Coordinator().URL()
	program(t, "pg_dump", "--schema=pgpact", "--file="+dump, decisions)
	r.two.Kill9(t)
	r.two.Start(t, "--stop-at", "voted")
	unknownEpoch := r.d.epochs(t, r.two.Name())[1]
	unknown := r.crowdAt(t, s, r.two.URL())
	second := unknown.commit()
	r.two.Gateway().WaitFrozen(t, 20*time.Second)
	first := known.commit()
	r.one.Gateway().WaitFrozen(t, 20*time.Second)
	r.two.Kill9(t)
	r.one.Kill9(t)
	first()
	second()
	left, err := r.preparedBy([]string{unknownEpoch})
	must(t, err)
	if len(left) == 0 {
		t.Fatal("nothing is in doubt of the life that the dump does not know")
	}

	must(t, run(decisions, "drop schema pgpact cascade"))
	program(t, "psql", "--quiet", "--set=ON_ERROR_STOP=1", "--file="+dump, decisions)
	r.two.Start(t)
	by := r.bystand(t)
	r.start(t)
	r.settled(t, settleBound) // the first gateway's: its epoch is known
	known.judge(t, r.one.URL(), oneCommitted)
	// Of the other life nothing is touched, and everything is said.
	if now, err := r.preparedBy([]string{unknownEpoch}); err != nil || len(now) != len(left) {
		t.Errorf("%d branches of an unknown epoch were prepared, and now %v (%v)", len(left), now, err)
	}
	if records := mustColumn[string](t, decisions, "select outcome from pgpact.transactions where epoch = $1::text::bigint", unknownEpoch); len(records) > 0 {
		t.Errorf("decisions of an unknown epoch were invented: %v", records)
	}
	for _, g := range unknown {
		if committed, err := g.committed(); err != nil || committed || g.told == knowsCommitted {
			t.Errorf("committed is %t (%v), told %s", committed, err, g.told)
		}
		if g.id != "" {
			_, err := askFor(t, r.one.URL(), outcomeOf, g.id)
			wantState(t, "the outcome of an unknown epoch", err, "42704")
		}
		if g.key != "" && slices.ContainsFunc(left, func(gid string) bool { return strings.Contains(gid, "/"+g.id+"/") }) {
			_, err := askFor(t, r.one.URL(), outcomeOfKey, g.key)
			wantState(t, "whether a key of an unknown epoch has been used", err, "55000", g.id)
		}
	}
	if results, err := harness.Open(t, r.one.URL()).PgConn().Exec(t.Context(), "show pgpact.in_doubt").ReadAll(); err != nil || len(results[0].Rows) < len(unknown) {
		t.Errorf("SHOW pgpact.in_doubt has not the %d transactions (%v)", len(unknown), err)
	}
	shown := harness.Run(t, "transactions", "--config", r.d.config).Stdout
	for _, reported := range []string{shown, r.one.Log()} {
		if !strings.Contains(reported, unknownEpoch+"/") {
			t.Errorf("the unknown epoch %s is not reported in\n%s", unknownEpoch, reported)
		}
	}
	by.wellServed(t)
}

// program runs one of Postgres's own.
func program(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if output, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, output)
	}
}
