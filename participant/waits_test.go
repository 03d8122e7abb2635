package participant_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// lookUntil looks at the node's lock waits until there are so many.
func lookUntil(t *testing.T, node *participant.Node, n int) participant.LockLook {
	t.Helper()
	var look participant.LockLook
	clustertest.WaitFor(t, fmt.Sprintf("%d waits", n), wait, func() bool {
		var err error
		if look, err = node.LockWaits(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(look.Waits) == n
	})
	return look
}

// start sends a statement without waiting for its answer, which comes by the channel.
func start(t *testing.T, b *participant.Branch, sql string) <-chan reply {
	t.Helper()
	b.Query(sql)
	if err := b.Send(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan reply, 1)
	go func() {
		r, err := receive(b)
		if err != nil {
			t.Error(err)
		}
		answered <- r
	}()
	return answered
}

func locked(cluster *clustertest.Cluster) {
	cluster.Exec("a", "INSERT INTO accounts VALUES('x',1),('y',1)")
}

// A wait is told with who waits, since when, for what and for whom; two looks tell it alike. CancelAs ends it with the error that its
// owner is to read, and nothing else.
func TestLockWaits(t *testing.T) {
	cluster, node := newNode(t, nil)
	locked(cluster)
	holder, waiter := newBranch(t, node, "BEGIN"), newBranch(t, node, "BEGIN")
	must(t, holder, "UPDATE accounts SET balance=2 WHERE id='x'")
	must(t, waiter, "UPDATE accounts SET balance=2 WHERE id='y'")
	idle := waiter.Conn().Turn()
	if idle%2 != 0 {
		t.Errorf("turn %d while nothing is asked", idle)
	}
	answered := start(t, waiter, "UPDATE accounts SET balance=2 WHERE id='x'")
	look := lookUntil(t, node, 1)
	w := look.Waits[0]
	want := participant.LockHolder{PID: holder.Conn().PID(), VXID: look.VXIDs[holder.Conn().PID()]}
	if w.Waiter.PID != waiter.Conn().PID() || w.Waiter.VXID != look.VXIDs[w.Waiter.PID] || w.Mode != "ShareLock" || !strings.HasPrefix(w.Lock, "transaction ") ||
		!slices.Equal(w.Blockers, []participant.LockHolder{want}) || want.VXID == "" || !w.Preparing.IsZero() {
		t.Errorf("%+v, blocked by %+v", w, want)
	}
	again := lookUntil(t, node, 1).Waits[0]
	if again.Waiter != w.Waiter || again.Since != w.Since || again.Waited <= w.Waited {
		t.Errorf("first %+v, then %+v", w, again)
	}

	conn, turn := waiter.Conn(), waiter.Conn().Turn()
	victim := &pgconn.PgError{Code: "40P01", Message: "deadlock detected", Detail: "who and whom", Hint: "a hint"}
	if conn.CancelAs(turn-2, victim) || conn.CancelAs(turn+1, victim) || holder.Conn().CancelAs(holder.Conn().Turn(), victim) {
		t.Error("cancelled what was not asked now")
	}
	if !conn.CancelAs(turn, victim) {
		t.Fatal("not cancelled")
	}
	r := <-answered
	if r.err == nil || r.err.Code != "40P01" || r.err.Message != victim.Message || r.err.Detail != victim.Detail || r.err.Hint != victim.Hint || r.err.Severity != "ERROR" {
		t.Errorf("the owner reads %+v", r.err)
	}
	// What the node says afterwards is the node's own.
	if r, err := query(waiter, "SELECT 1"); err != nil || r.err == nil || r.err.Code != "25P02" {
		t.Errorf("%+v, %v", r.err, err)
	}
	waiter.Rollback()
	must(t, waiter, "BEGIN")
	answered = start(t, waiter, "UPDATE accounts SET balance=2 WHERE id='x'")
	if next := lookUntil(t, node, 1).Waits[0]; next.Since == w.Since || next.Waiter.VXID == w.Waiter.VXID {
		t.Errorf("another wait of another transaction looks like the first: %+v, %+v", w, next)
	}
	conn.Cancel() // the client's
	if r := <-answered; r.err == nil || r.err.Code != "57014" {
		t.Errorf("%+v", r.err)
	}
	waiter.Rollback()
	holder.Rollback()
}

// CancelAs that comes too late for its statement changes no other's answer.
func TestCancelAsTooLate(t *testing.T) {
	_, node := newNode(t, nil)
	b := newBranch(t, node)
	for range 50 {
		b.Query("SELECT 1")
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
		b.Conn().CancelAs(b.Conn().Turn(), &pgconn.PgError{Code: "40P01", Message: "not yours"})
		if _, err := receive(b); err != nil { // cancelled or not
			t.Fatal(err)
		}
		must(t, b, "SET statement_timeout=20")
		if r, err := query(b, "SELECT pg_sleep(1)"); err != nil || r.err == nil || r.err.Code != "57014" {
			t.Fatalf("%+v, %v", r.err, err)
		}
		must(t, b, "SET statement_timeout=0")
	}
}

// Whatever mode a prepared transaction holds a table in, and whatever is wanted: it is named as a blocker exactly when Postgres itself
// says that the two exclude each other. Those ahead in the queue are named, too.
func TestLockWaitsForPrepared(t *testing.T) {
	cluster, node := newNode(t, nil)
	modes := []string{"ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"}
	gids := map[string]participant.GID{} // by table
	for i, mode := range modes {
		table := fmt.Sprintf("t%d", i)
		cluster.Exec("a", "CREATE TABLE "+table+"(x int)")
		b := newBranch(t, node, "BEGIN")
		must(t, b, "LOCK TABLE "+table+" IN "+mode+" MODE")
		gid := newGID(node)
		if v := mustVote(t, b, gid); !v.Yes {
			t.Fatalf("%+v", v)
		}
		gids[table] = gid
	}
	type pair struct{ table, mode string }
	var waiting []pair
	try := newBranch(t, node)
	for table := range gids {
		for _, mode := range modes {
			r, err := query(try, "DO $$BEGIN LOCK TABLE "+table+" IN "+mode+" MODE NOWAIT; END$$")
			if err != nil {
				t.Fatal(err)
			}
			if r.err != nil {
				waiting = append(waiting, pair{table, mode})
			}
		}
	}
	if len(waiting) != 38 { // the conflicts in the documentation's table, "Conflicting Lock Modes"
		t.Errorf("%d pairs exclude each other", len(waiting))
	}
	var branches []*participant.Branch
	var answers []<-chan reply
	byPID := map[uint32]pair{}
	for _, p := range waiting {
		b := newBranch(t, node, "BEGIN")
		branches, byPID[b.Conn().PID()] = append(branches, b), p
		answers = append(answers, start(t, b, "LOCK TABLE "+p.table+" IN "+p.mode+" MODE"))
	}
	look := lookUntil(t, node, len(waiting))
	for _, w := range look.Waits {
		p := byPID[w.Waiter.PID]
		if !slices.Contains(w.Blockers, participant.LockHolder{GID: gids[p.table].String()}) {
			t.Errorf("%+v: blocked by %v", p, w.Blockers)
		}
		if !strings.HasPrefix(w.Lock, "relation ") {
			t.Errorf("waits for %q", w.Lock)
		}
		for _, blocker := range w.Blockers {
			if blocker.PID != 0 && byPID[blocker.PID].table != p.table || blocker.GID != "" && blocker.GID != gids[p.table].String() {
				t.Errorf("%+v: blocked by %+v of another table", p, blocker)
			}
		}
	}
	for _, gid := range gids {
		if !look.Prepared[gid.ID] {
			t.Errorf("%v is not told to be prepared", gid)
		}
	}
	for i, b := range branches {
		b.Conn().Cancel()
		<-answers[i]
		b.Rollback()
	}
	// A mode that does not exclude the prepared one, behind somebody who does: it is not the prepared one that it waits for.
	ahead, behind := newBranch(t, node, "BEGIN"), newBranch(t, node, "BEGIN")
	first := start(t, ahead, "LOCK TABLE t0 IN ACCESS EXCLUSIVE MODE")
	lookUntil(t, node, 1)
	second := start(t, behind, "LOCK TABLE t0 IN ROW EXCLUSIVE MODE")
	for _, w := range lookUntil(t, node, 2).Waits {
		if w.Waiter.PID == behind.Conn().PID() && (len(w.Blockers) != 1 || w.Blockers[0].PID != ahead.Conn().PID()) {
			t.Errorf("behind: %+v", w)
		}
	}
	for b, answered := range map[*participant.Branch]<-chan reply{behind: second, ahead: first} {
		b.Conn().Cancel()
		<-answered
		b.Rollback()
	}
	for _, gid := range gids {
		if err := node.RollbackPrepared(t.Context(), gid); err != nil {
			t.Error(err)
		}
	}
}

// A process at its phase one is known for its transaction, whether or not its gateway is still there to say so.
func TestLockWaitOfPhaseOne(t *testing.T) {
	cluster, node := newNode(t, nil)
	locked(cluster)
	cluster.Exec("a", "CREATE TABLE refers(id text REFERENCES accounts DEFERRABLE INITIALLY DEFERRED)")
	holder, b := newBranch(t, node, "BEGIN"), newBranch(t, node, "BEGIN")
	must(t, holder, "SELECT FROM accounts WHERE id='x' FOR UPDATE")
	must(t, b, "INSERT INTO refers VALUES('x')")
	gid := newGID(node)
	if err := b.SendPrepare(gid, participant.BranchRecord{Participants: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	look := lookUntil(t, node, 1)
	if look.Waits[0].Preparing != gid.ID || look.Prepared[gid.ID] {
		t.Errorf("%+v, prepared: %v", look.Waits[0], look.Prepared)
	}
	holder.Rollback()
	if v, err := b.ReceiveVote(time.Now().Add(wait)); err != nil || !v.Yes {
		t.Fatalf("%+v, %v", v, err)
	}
	if look := lookUntil(t, node, 0); !look.Prepared[gid.ID] {
		t.Errorf("prepared: %v", look.Prepared)
	}
	if err := node.RollbackPrepared(t.Context(), gid); err != nil {
		t.Error(err)
	}
}
