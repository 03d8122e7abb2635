package integration

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestOutcomes is DESIGN section 5, line by line, through real drivers.
func TestOutcomes(t *testing.T) {
	d := deploy(t, harness.Options{})
	_, address := harness.Serve(t, d.config)
	for _, driver := range []string{"psycopg", "psycopg2"} {
		t.Run(driver, func(t *testing.T) {
			if exec.Command("/usr/bin/python3", "-c", "import "+driver).Run() != nil {
				t.Skipf("SKIPPED: %s is not installed", driver)
			}
			from, to := halves(t, d, driver)
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			output, err := exec.CommandContext(ctx, "/usr/bin/python3", "testdata/outcomes.py", driver, address+"?sslmode=disable", from, to).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, output)
			}
			// One transfer tracked and one under a key; the others were rolled back, or lost their race.
			for account, want := range map[string]int64{from: startBalance - 2, to: startBalance + 2} {
				if got, err := d.balance(account); err != nil || got != want {
					t.Errorf("%s has %d (%v), want %d", account, got, err, want)
				}
			}
		})
	}
	t.Run("pgx", func(t *testing.T) { keys(t, d, address) }) // and TestCasesD/D4
}

var transactionID = regexp.MustCompile(`^\d+/\d+$`)

// askFor asks with a parameter, as drivers do.
func askFor(t *testing.T, address, question, argument string) (string, error) {
	t.Helper()
	var answer string
	err := harness.Open(t, address).QueryRow(t.Context(), question, argument).Scan(&answer)
	return answer, err
}

const outcomeOf, outcomeOfKey = "select pgpact.outcome($1)", "select pgpact.outcome_of_key($1)"

func wantAnswer(t *testing.T, address, question, argument, want string) {
	t.Helper()
	if got, err := askFor(t, address, question, argument); err != nil || got != want {
		t.Errorf("%s of %s: %q, %v, want %q", question, argument, got, err, want)
	}
}

// wantState wants an error with this SQLSTATE that holds all words.
func wantState(t *testing.T, what string, err error, state string, words ...string) {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != state {
		t.Errorf("%s: %v, want %s", what, err, state)
		return
	}
	whole := pgErr.Message + " " + pgErr.Detail + " " + pgErr.Hint
	for _, word := range words {
		if !strings.Contains(whole, word) {
			t.Errorf("%s: %q says nothing of %q", what, whole, word)
		}
	}
}

// begin begins a transaction and makes it tracked.
func begin(t *testing.T, address string) (tx pgx.Tx, id string) {
	t.Helper()
	tx, err := harness.Open(t, address).Begin(t.Context())
	must(t, err)
	must(t, tx.QueryRow(t.Context(), "show pgpact.transaction_id").Scan(&id))
	if !transactionID.MatchString(id) {
		t.Errorf("the id is %q", id)
	}
	return tx, id
}

func update(t *testing.T, tx pgx.Tx, account string, delta int) {
	t.Helper()
	if tag, err := tx.Exec(t.Context(), "update accounts set balance = balance + $1 where id = $2", delta, account); err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("%v, %v", tag, err)
	}
}

// tracked: a tracked transaction always leaves a record, whatever it wrote.
func tracked(t *testing.T, d *deployment, address string) {
	from, to := halves(t, d, "tracked")
	for writes, accounts := range map[string][]string{"none": nil, "one node": {from}, "two nodes": {from, to}} {
		tx, id := begin(t, address)
		for _, account := range accounts {
			update(t, tx, account, 1)
		}
		wantAnswer(t, address, outcomeOf, id, "in progress")
		must(t, tx.Commit(t.Context()))
		wantAnswer(t, address, outcomeOf, id, "committed")
		records := mustColumn[string](t, d.cluster.Coordinator().URL(),
			"select outcome from pgpact.transactions where epoch || '/' || sequence = $1", id)
		if len(records) != 1 || records[0] != "committed" {
			t.Errorf("writes on %s: records %v", writes, records)
		}
		tx, id = begin(t, address)
		for _, account := range accounts {
			update(t, tx, account, 1)
		}
		must(t, tx.Rollback(t.Context()))
		wantAnswer(t, address, outcomeOf, id, "aborted")
	}
	_, err := harness.Open(t, address).Exec(t.Context(), "show pgpact.transaction_id")
	wantState(t, "SHOW outside of a block", err, "25P01")
}

// keys: unique per role, checked where they are set, and at the decision.
func keys(t *testing.T, d *deployment, address string) {
	from, to := halves(t, d, "keys")
	set := func(tx pgx.Tx, key string) error {
		_, err := tx.Exec(t.Context(), "set local pgpact.idempotency_key = '"+key+"'")
		return err
	}
	wantAnswer(t, address, outcomeOfKey, "k1", "not committed so far")
	tx, id := begin(t, address)
	must(t, set(tx, "k1"))
	update(t, tx, from, -1)
	update(t, tx, to, 1)
	wantAnswer(t, address, outcomeOfKey, "k1", "not committed so far")
	must(t, tx.Commit(t.Context()))
	wantAnswer(t, address, outcomeOfKey, "k1", "committed "+id)

	tx, _ = begin(t, address)
	wantState(t, "the key of a committed transaction", set(tx, "k1"), "23505", id)
	must(t, tx.Rollback(t.Context()))
	other := strings.Replace(address, "//pgpact@", "//other@", 1)
	tx, err := harness.Open(t, other).Begin(t.Context())
	must(t, err)
	must(t, set(tx, "k1")) // another role's k1 is another key
	must(t, tx.Rollback(t.Context()))
	wantAnswer(t, other, outcomeOfKey, "k1", "not committed so far")

	// A race is settled at the decision.
	first, winner := begin(t, address)
	second, loser := begin(t, address)
	must(t, errors.Join(set(first, "k2"), set(second, "k2")))
	update(t, first, from, -1)
	update(t, second, to, 1)
	must(t, first.Commit(t.Context()))
	wantState(t, "the loser's COMMIT", second.Commit(t.Context()), "23505", winner)
	wantAnswer(t, address, outcomeOf, loser, "aborted")
	wantAnswer(t, address, outcomeOfKey, "k2", "committed "+winner)
	for account, want := range map[string]int64{from: startBalance - 2, to: startBalance + 1} {
		if got, err := d.balance(account); err != nil || got != want {
			t.Errorf("%s has %d (%v), want %d", account, got, err, want)
		}
	}
	for what, key := range map[string]string{"empty": "", "4,000 bytes": strings.Repeat("x", 4000), "not UTF-8": "\xc3\x28"} {
		tx, err := harness.Open(t, address).Begin(t.Context())
		must(t, err)
		want := "22023"
		if what == "not UTF-8" {
			want = "22021"
		}
		wantState(t, what+" key", set(tx, key), want)
		must(t, tx.Rollback(t.Context()))
	}
}

// forgotten: below the horizon there is an error, never a guess.
func forgotten(t *testing.T, d *deployment, address string) {
	tx, id := begin(t, address)
	must(t, tx.Commit(t.Context()))
	epoch, sequence, _ := strings.Cut(id, "/")
	must(t, run(d.cluster.Coordinator().URL(), "delete from pgpact.transactions where epoch || '/' || sequence = $1", id))
	must(t, run(d.cluster.Coordinator().URL(), "update pgpact.gateways set forgotten = $1::text::bigint where epoch = $2::text::bigint", sequence, epoch))
	_, err := askFor(t, address, outcomeOf, id)
	wantState(t, "a purged transaction", err, "42704", "forgotten")
	_, err = askFor(t, address, outcomeOf, "4711/1")
	wantState(t, "an unknown gateway's", err, "42704")
}

// firstAttemptStopped (D4): the first attempt under a key hangs with its gateway, after its votes. By its key it is not committed so far;
// the client repeats it elsewhere under the same key; and when the first gateway goes on, one of the two has committed, not both.
func firstAttemptStopped(t *testing.T, d *deployment, address string) {
	from, to := halves(t, d, "stopped")
	patience := []string{"name: hangs", "prepare_timeout: 1s", "decision_timeout: 1s", "finish_timeout: 1s", "in_doubt_timeout: 3s"}
	_, helper := d.configured(t, append([]string{"name: helps"}, patience[1:]...)) // whose patience ends soon, too
	gateway, hanging := d.configured(t, patience, "--stop-at", "voted")
	statements := []string{"set local pgpact.idempotency_key = 'stopped'", move(from, -7), move(to, 7)}
	conn := harness.Open(t, hanging)
	first := make(chan knowledge, 1)
	go func() {
		told, err := transact(conn, statements...)
		t.Logf("the first attempt: %s, %v", told, err)
		first <- told
	}()
	gateway.WaitFrozen(t, 20*time.Second)
	wantAnswer(t, address, outcomeOfKey, "stopped", "not committed so far")
	told, err := transact(harness.Open(t, helper), statements...)
	t.Logf("the second attempt: %s, %v", told, err)
	gateway.Thaw(t)
	one, two := <-first, told
	if one == knowsCommitted && two == knowsCommitted {
		t.Error("both attempts have been told that they committed")
	}
	for account, want := range map[string]int64{from: startBalance - 7, to: startBalance + 7} {
		if got, err := d.balance(account); err != nil || got != want {
			t.Errorf("%s has %d (%v), want %d: exactly one attempt", account, got, err, want)
		}
	}
	if got, err := askFor(t, address, outcomeOfKey, "stopped"); err != nil || !strings.HasPrefix(got, "committed ") {
		t.Errorf("%q, %v", got, err)
	}
}

// onePhaseLost (D4): a COMMIT on one node whose answer is lost leaves nothing to ask for; the client hears that, and how to do better.
func onePhaseLost(t *testing.T, d *deployment) {
	lost := newFuse(t, d.cluster.Node("a").URL())
	_, address := harness.Serve(t, d.proxied(t, lost))
	from := d.open(t, "a", "lost-one", 1)[0]
	conn := harness.Open(t, address)
	for what, statements := range map[string]string{
		"in a block": "begin; " + move(from, 1) + "; commit",
		"autocommit": move(from, 1),
	} {
		lost.arm(map[string]string{"in a block": "COMMIT", "autocommit": "UPDATE 1"}[what])
		_, err := simple(t.Context(), conn, statements)
		wantState(t, what, err, resolutionUnknown, "pgpact.transaction_id")
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && regexp.MustCompile(`\d+/\d+`).MatchString(pgErr.Detail) {
			t.Errorf("%s: there is no id to name, and the detail is %q", what, pgErr.Detail)
		}
		if lost.armed.Swap(nil) != nil {
			t.Error(fmt.Sprint(what, ": no answer came by: nothing was tried"))
		}
	}
}
