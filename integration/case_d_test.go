package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCasesD are the cases of the decision, and of what clients can do to it.
func TestCasesD(t *testing.T) {
	family(t, oneCase{"D3", caseD3}, oneCase{"D4", caseD4}, oneCase{"D5", caseD5}, oneCase{"D6", caseD6})
}

// caseD3: "the decision's answer is lost, arrives without ReadyForQuery, or comes with the warning of a cancelled standby wait | settled by
// asking, client told the truth".
func caseD3(t *testing.T, r *caseRig) {
	decisions := newFuse(t, r.d.cluster.Coordinator().URL())
	for i, arm := range []struct {
		name string
		do   func(tag string)
	}{{"lost", decisions.arm}, {"without ReadyForQuery", decisions.armPassing}} {
		t.Run(arm.name, func(t *testing.T) {
			config := r.d.proxied(t, decisions)
			_, url := harness.Serve(t, config)
			by := r.bystand(t)
			for _, s := range shapes {
				s.groups = 1 + i%2*2 // a decision of its own has this tag
				all := r.crowdAt(t, s, url)
				arm.do("INSERT 0 1")
				all.commit()()
				if decisions.armed.Swap(nil) != nil {
					t.Error("no answer came by: nothing was tried")
				}
				for _, g := range all {
					if g.told != knowsCommitted {
						t.Errorf("the client was told %s, %v", g.told, g.err)
					}
				}
				all.judge(t, url, allCommitted)
			}
			by.wellServed(t)
		})
	}
	t.Run("warning of a cancelled standby wait", func(t *testing.T) { r.each(t, few, r.cancelledWait) })
}

// cancelledWait: decisions wait for a standby that is not there, and the waits are cancelled on the server. Postgres calls that a success,
// with a warning; a failover would lose them.
func (r *caseRig) cancelledWait(t *testing.T, s shape) {
	by := r.bystand(t, "d") // one node: needs no decision
	all := r.crowdOf(t, s)
	super := r.d.cluster.Coordinator().OpenSuper(t)
	wantStandby(t, super, "nobody")
	answered := all.commit()
	cancelled := 0
	harness.Eventually(t, settleBound, "decisions wait for the standby", func() error {
		cancelled = queryInt(t, super, "select count(*) from (select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep') x")
		if cancelled == 0 {
			return errors.New("nothing waits")
		}
		return nil
	})
	wantStandby(t, super, "")
	answered()
	r.settled(t, settleBound)
	by.wellServed(t)
	for _, g := range all {
		if g.told == knowsNothing {
			t.Errorf("the standby is not wanted any more, and the client was told %v", g.err)
		}
	}
	all.judge(t, r.two.URL(), allCommitted)
}

// wantStandby makes a server wait for a standby of this name, or for none.
func wantStandby(t *testing.T, super *pgx.Conn, name string) {
	t.Helper()
	exec1(t, super, fmt.Sprintf("alter system set synchronous_standby_names = '%s'", name))
	exec1(t, super, "select pg_reload_conf()")
	harness.Eventually(t, settleBound, "the server has read its configuration", func() error {
		got, err := ask(super, "show synchronous_standby_names")
		if err == nil && got != name {
			err = fmt.Errorf("%q", got)
		}
		return err
	})
}

// caseD4: "outcome asked: after a lost one-phase COMMIT, after the purge, by key while the first attempt is stopped, for a tracked
// transaction without writes | never a guess (DESIGN section 5)".
func caseD4(t *testing.T, r *caseRig) {
	by := r.bystand(t)
	defer by.wellServed(t)
	t.Run("one-phase COMMIT lost", func(t *testing.T) { onePhaseLost(t, r.d) })
	t.Run("first attempt stopped", func(t *testing.T) { firstAttemptStopped(t, r.d, r.one.URL()) })
	t.Run("tracked", func(t *testing.T) { tracked(t, r.d, r.one.URL()) })
	t.Run("purged", func(t *testing.T) { forgotten(t, r.d, r.one.URL()) })
}

// caseD5: "a client with client_min_messages = error, synchronous_commit = off, a deferred trigger of its own role, a function that writes
// under SELECT, a 4,000-byte key, a node lost between ROLLBACK TO and the next statement | safe, each as DESIGN sections 4 and 7 say".
func caseD5(t *testing.T, r *caseRig) {
	t.Run("settings", func(t *testing.T) { r.each(t, few, r.hidingClient) })
	by := r.bystand(t, "c", "d")
	t.Run("deferred trigger", r.deferredTrigger)
	t.Run("function that writes", r.writingFunction)
	t.Run("4,000-byte key", func(t *testing.T) {
		conn := harness.Open(t, r.one.URL())
		exec1(t, conn, "begin")
		_, err := simple(t.Context(), conn, "set local pgpact.idempotency_key = '"+strings.Repeat("x", 4000)+"'")
		wantState(t, "the key", err, "22023")
	})
	t.Run("node lost after ROLLBACK TO", r.lostAfterRollbackTo)
	by.wellServed(t)
}

// hidingClient wants to hear no warnings and to wait for nobody; its node's wait for a standby is cancelled at PREPARE. That is no yes.
func (r *caseRig) hidingClient(t *testing.T, s shape) {
	victim := r.victim(s)
	by := r.bystand(t, r.others(victim)...)
	all := r.crowdOf(t, s)
	for _, g := range all {
		g.also(t, "set client_min_messages = error")
		g.also(t, "set synchronous_commit = off")
	}
	super := victim.OpenSuper(t)
	wantStandby(t, super, "nobody")
	answered := make(chan struct{})
	waitForAnswers := all.commit()
	go func() {
		waitForAnswers()
		close(answered)
	}()
	cancelled := 0
	harness.Eventually(t, settleBound, "PREPARE waits for the standby, is cancelled, and the client is told", func() error {
		cancelled += queryInt(t, super, "select count(*) from (select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep' and query ilike '%prepare transaction%') x")
		select {
		case <-answered:
			return nil
		default:
			return fmt.Errorf("%d cancelled for %d transactions", cancelled, s.groups)
		}
	})
	if cancelled == 0 {
		t.Error("nobody has waited for the standby")
	}
	wantStandby(t, super, "")
	for _, g := range all {
		if g.told != knowsAborted {
			t.Errorf("the client was told %s, %v", g.told, g.err)
		}
	}
	r.settled(t, settleBound)
	by.wellServed(t)
	all.judge(t, r.two.URL(), allAborted)
}

// deferredTrigger: one that warns spoils no vote, and its warning reaches the client; one that fails is a no, on all nodes.
func (r *caseRig) deferredTrigger(t *testing.T) {
	must(t, run(r.d.cluster.Node("b").URL(), `create function public.warns() returns trigger language plpgsql as
		'begin if new.id like ''bad%'' then raise exception ''no''; end if; raise warning ''careful''; return null; end';
		create constraint trigger warns after insert on public.pledges deferrable initially deferred for each row execute function public.warns()`))
	defer func() { must(t, run(r.d.cluster.Node("b").URL(), "drop function public.warns() cascade")) }()
	config, err := pgx.ParseConfig(r.one.URL())
	must(t, err)
	var heard []string
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { heard = append(heard, notice.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	must(t, err)
	defer conn.Close(context.Background())
	from, to := halves(t, r.d, "deferred")
	pledge := func(prefix string) string {
		return fmt.Sprintf("insert into pledges values ('%s', '%s')", r.d.keyOn("b", prefix), to)
	}
	told, err := transact(conn, move(from, -1), move(to, 1), pledge("bad"))
	if told != knowsAborted {
		t.Errorf("a trigger that fails: %s", told)
	}
	wantState(t, "a trigger that fails", err, "P0001", "no")
	if told, err := transact(conn, move(from, -visitAmount), move(to, visitAmount), pledge("good")); told != knowsCommitted {
		t.Errorf("a trigger that warns: %s, %v", told, err)
	}
	if strings.Join(heard, " ") != "careful" {
		t.Errorf("heard %q", heard)
	}
	must(t, moved(r.d, from, to, true))
}

// writingFunction: SELECT of a function that writes makes its node a participant, whether the transaction commits or not.
func (r *caseRig) writingFunction(t *testing.T) {
	for _, node := range r.d.cluster.Nodes() {
		must(t, run(node.URL(), `create function public.note(mark text) returns text language sql as
			$$ insert into public.journal values (mark, mark, '', 0) returning id $$`))
		defer func() { must(t, run(node.URL(), "drop function public.note(text)")) }()
	}
	from, to := halves(t, r.d, "function")
	third := r.d.open(t, "c", "function", 1)[0] // that node only runs a SELECT
	notes := func(mark string) (n int) {
		for _, node := range r.d.cluster.Nodes() {
			n += mustColumn[int](t, node.URL(), "select count(*) from journal where transfer = $1", mark)[0]
		}
		return n
	}
	conn := harness.Open(t, r.one.URL())
	note := func(mark string) string {
		return fmt.Sprintf("select public.note('%s') from accounts where id = '%s'", mark, third)
	}
	pledge := fmt.Sprintf("insert into pledges values ('%s', 'nobody')", r.d.keyOn("b", "function"))
	_, err := simple(t.Context(), conn, "select public.note('nowhere')")
	wantState(t, "a function that is held to no node", err, "0A000")
	if told, err := transact(conn, note("refused"), move(from, -1), move(to, 1), pledge); told != knowsAborted || notes("refused") != 0 {
		t.Errorf("%s, %v, and %d notes", told, err, notes("refused"))
	}
	if told, err := transact(conn, note("accepted"), move(from, -visitAmount), move(to, visitAmount)); told != knowsCommitted || notes("accepted") != 1 {
		t.Errorf("%s, %v, and %d notes", told, err, notes("accepted"))
	}
	must(t, moved(r.d, from, to, true))
	// Alone with one more node it is a transaction over two.
	told, id, err := transactTracked(conn, note("tracked"), move(to, 0))
	if told != knowsCommitted || notes("tracked") != 1 {
		t.Errorf("%s, %v, and %d notes", told, err, notes("tracked"))
	}
	wantAnswer(t, r.two.URL(), outcomeOf, id, "committed")
}

// lostAfterRollbackTo: what the node did before the savepoint is lost with it, so ROLLBACK TO saves nothing.
func (r *caseRig) lostAfterRollbackTo(t *testing.T) {
	b := r.d.cluster.Node("b")
	from, to := halves(t, r.d, "rollback-to")
	conn := harness.Open(t, r.one.URL())
	for _, statement := range []string{"begin", move(to, visitAmount), "savepoint s", move(from, -visitAmount), "rollback to s"} {
		exec1(t, conn, statement)
	}
	b.Kill9(t)
	b.Start(t)
	ctx, cancel := context.WithTimeout(context.Background(), transactionBound)
	defer cancel()
	if tag, err := simple(ctx, conn, move(to, 1)); err == nil {
		t.Errorf("a statement on the node that has lost the transaction: %s", tag)
	}
	_, _ = simple(ctx, conn, "rollback to s") // may be refused: what counts is that it revives nothing
	if told, err := end(simple(ctx, conn, "commit")); told != knowsAborted {
		t.Errorf("COMMIT: %s, %v", told, err)
	}
	must(t, moved(r.d, from, to, false))
	if told, err := transact(conn, move(from, 0), move(to, 0)); told != knowsCommitted {
		t.Errorf("afterwards: %s, %v", told, err)
	}
}

// caseD6: "two gateways with overlapping keys in opposite order; ALTER of our own tables while a branch is in doubt | no deadlock, bounded
// waits".
func caseD6(t *testing.T, r *caseRig) {
	t.Run("opposite order", r.oppositeOrder)
	t.Run("ALTER", func(t *testing.T) { r.each(t, few, r.alterInDoubt) })
	r.restart(t)
}

// oppositeOrder: each holds a row on one node and wants the other's. No node sees a deadlock; lock_timeout bounds the wait, and the loser's
// end lets the winner go on.
func (r *caseRig) oppositeOrder(t *testing.T) {
	by := r.bystand(t)
	x, y := halves(t, r.d, "opposite")
	one, two := harness.Open(t, r.one.URL()), harness.Open(t, r.two.URL())
	exec1(t, one, "set lock_timeout = '1s'")
	exec1(t, two, "set lock_timeout = '20s'")
	for _, statement := range []string{"begin", move(x, -visitAmount)} {
		exec1(t, one, statement)
	}
	for _, statement := range []string{"begin", move(y, visitAmount)} {
		exec1(t, two, statement)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := simple(t.Context(), two, move(x, -visitAmount))
		waits <- err
	}()
	began := time.Now()
	_, err := simple(t.Context(), one, move(y, visitAmount))
	wantState(t, "the one with less patience", err, "55P03")
	inTime(t, "it was answered", began, time.Second)
	exec1(t, one, "rollback")
	must(t, <-waits)
	if told, err := end(simple(t.Context(), two, "commit")); told != knowsCommitted {
		t.Errorf("the other: %s, %v", told, err)
	}
	must(t, moved(r.d, x, y, true))
	by.wellServed(t)
}

// alterInDoubt: a migration's ALTER of the branch records waits for the branches in doubt, and gives up; what queues behind it goes on.
func (r *caseRig) alterInDoubt(t *testing.T, s shape) {
	by := r.bystand(t)
	all, answered := r.freeze(t, s, "voted")
	began := time.Now()
	super := r.victim(s).OpenSuper(t)
	exec1(t, super, "set lock_timeout = '2s'")
	_, err := simple(t.Context(), super, "alter table pgpact.branches add column if not exists c int")
	wantState(t, "ALTER TABLE", err, "55P03")
	if result := harness.Run(t, "migrate", "--config", r.d.config); result.Code != 0 {
		t.Errorf("pgpact migrate with nothing to do: %s", result.Stderr)
	}
	r.one.Kill9(t)
	answered()
	r.settled(t, settleBound)
	t.Logf("all over after %v", time.Since(began).Round(time.Millisecond))
	by.wellServed(t)
	all.judge(t, r.two.URL(), allAborted)
}
