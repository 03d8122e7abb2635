package participant_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// deferred makes a table d whose deferred trigger runs a PL/pgSQL body.
func deferred(cluster *clustertest.Cluster, body string) {
	cluster.Exec("a", `CREATE TABLE d(a int);
		CREATE FUNCTION deferred() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN `+body+` RETURN NULL; END$$;
		CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON d DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION deferred()`)
}

// wantNo fails the test unless the vote is a certain no with this SQLSTATE, nothing is prepared, and the
// connection can go on.
func wantNo(t *testing.T, cluster *clustertest.Cluster, b *participant.Branch, v participant.Vote, state string) {
	t.Helper()
	if v.Yes || v.Prepared || v.Err == nil || participant.SQLState(v.Err) != state {
		t.Errorf("vote %+v, want a no with %q", v, state)
	}
	if left := cluster.Prepared(); len(left) > 0 {
		t.Errorf("prepared: %v", left)
	}
	if b.Open() || b.Lost() != nil {
		t.Errorf("open %v, lost %v", b.Open(), b.Lost())
	}
}

func TestPrepareAndCommit(t *testing.T) {
	cluster, node := newNode(t, nil)
	b := newBranch(t, node, "BEGIN")
	must(t, b, "INSERT INTO accounts VALUES('x',1)")
	gid := newGID(node)
	if v := mustVote(t, b, gid); !v.Yes || !v.Prepared || v.Err != nil || b.Open() {
		t.Fatalf("vote %+v, open %v", v, b.Open())
	}
	if !b.StillWhole() {
		t.Error("the connection is not whole after a yes")
	}
	if got := cluster.Prepared(); len(got) != 1 || got[0] != "a:"+gid.String() {
		t.Errorf("prepared: %v", got)
	}
	records := func() bool {
		found, err := node.BranchRecords(t.Context(), []participant.ID{gid.ID, {Epoch: 1, Sequence: 1}})
		if err != nil || len(found) > 1 {
			t.Fatalf("%v, %v", found, err)
		}
		record, visible := found[gid.ID]
		if visible && !slices.Equal(record.Participants, []string{"a"}) {
			t.Errorf("its participants are %q", record.Participants)
		}
		return visible
	}
	if records() {
		t.Error("the branch record is visible before the commit (I8)")
	}
	if err := b.SendCommitPrepared(gid); err != nil {
		t.Fatal(err)
	}
	if err := b.ReceiveFinish(true, time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	if !records() {
		t.Error("no branch record after the commit (I8)")
	}
	if got := cluster.Value("a", "SELECT participants[1] FROM pgpact.branches"); got != "a" {
		t.Errorf("its participant is %q", got)
	}
	if err := node.CommitPrepared(t.Context(), gid); !errors.Is(err, participant.ErrGIDUnknown) {
		t.Errorf("a second time: %v", err)
	}
	if err := node.DeleteBranchRecords(t.Context(), []participant.ID{gid.ID}); err != nil || records() {
		t.Errorf("deleted: %v, still there: %v", err, records())
	}
}

// A vote with tag ROLLBACK is counted as no: a failed block answers PREPARE with that tag and no error.
func TestVoteOfAFailedBlockIsNo(t *testing.T) {
	cluster, node := newNode(t, nil)
	b := newBranch(t, node, "BEGIN")
	must(t, b, "INSERT INTO accounts VALUES('x',1)")
	if r, err := query(b, "SELECT 1/0"); err != nil || r.err == nil || !b.Failed() {
		t.Fatalf("%v, %v, failed %v", r.err, err, b.Failed())
	}
	// By itself, so that it is PREPARE that is answered, and not SET CONSTRAINTS that fails first.
	gid := newGID(node)
	r, err := query(b, "PREPARE TRANSACTION '"+gid.String()+"'")
	if _, lost := errors.AsType[*participant.LostError](err); !lost || len(r.tags) != 1 || r.tags[0] != "ROLLBACK" || r.err != nil {
		t.Fatalf("tags %v, error %v, %v", r.tags, r.err, err)
	}

	b = newBranch(t, node, "BEGIN")
	must(t, b, "INSERT INTO accounts VALUES('x',1)")
	if _, err := query(b, "SELECT 1/0"); err != nil {
		t.Fatal(err)
	}
	v := mustVote(t, b, newGID(node))
	if v.Yes || v.Prepared || participant.SQLState(v.Err) != "25P02" {
		t.Errorf("vote %+v", v)
	}
	if !b.Failed() {
		t.Error("the block should still be there, to be rolled back")
	}
	b.Rollback()
	if b.Open() {
		t.Error("still open after ROLLBACK")
	}
	if n := cluster.Value("a", "SELECT count(*) FROM accounts"); n != "0" {
		t.Errorf("%s rows", n)
	}
}

// Outside a block the message is an implicit transaction: WARNING 25P01.
func TestVoteOutsideABlockIsNo(t *testing.T) {
	cluster, node := newNode(t, nil)
	b := newBranch(t, node, "BEGIN")
	gid := newGID(node)
	v := mustVote(t, b, gid)
	if v.Yes || v.Err == nil || !strings.Contains(v.Err.Error(), "25P01") {
		t.Errorf("vote %+v", v)
	}
	if prepared := len(cluster.Prepared()) == 1; prepared != v.Prepared {
		t.Errorf("prepared is %v, the vote says %v", prepared, v.Prepared)
	}
	if v.Prepared {
		if err := node.RollbackPrepared(t.Context(), gid); err != nil {
			t.Error(err)
		}
	}
}

// What Postgres refuses at PREPARE is passed on as it is, and the branch is rolled back.
func TestVoteRefusedByTheNode(t *testing.T) {
	for _, test := range []struct{ name, setup, statement, state string }{
		{"temporary table", "", "CREATE TEMP TABLE t(a int)", "0A000"},
		{"LISTEN", "", "LISTEN x", "0A000"},
		{"cursor WITH HOLD", "", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "0A000"},
		{"deferred foreign key", "CREATE TABLE p(a int PRIMARY KEY); CREATE TABLE d(a int REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
			"INSERT INTO d VALUES(1)", "23503"},
		{"deferred trigger", "TRIGGER", "INSERT INTO d VALUES(1)", "P0001"},
		{"branch record there already", "", "INSERT INTO pgpact.branches VALUES(77,(SELECT max(sequence) FROM s),'{}')", "23505"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cluster, node := newNode(t, nil)
			gid := newGID(node)
			cluster.Exec("a", fmt.Sprintf("CREATE TABLE s AS SELECT %d AS sequence", gid.Sequence))
			if test.setup == "TRIGGER" {
				deferred(cluster, "RAISE 'no';")
			} else if test.setup != "" {
				cluster.Exec("a", test.setup)
			}
			b := newBranch(t, node, "BEGIN")
			must(t, b, test.statement)
			v := mustVote(t, b, gid)
			if b.Failed() { // the message failed before PREPARE: the block is there yet
				b.Rollback()
			}
			wantNo(t, cluster, b, v, test.state)
			if !b.StillWhole() || b.Conn().TxStatus() != 'I' {
				t.Error("the connection cannot be used again")
			}
		})
	}
}

// A gid that somebody else has prepared already: 42710, and the branch is rolled back, the other's transaction is not touched.
func TestVoteGIDInUse(t *testing.T) {
	cluster, node := newNode(t, nil)
	gid := newGID(node)
	// Without a branch record, or that would be what is refused.
	cluster.Exec("a", "BEGIN; SELECT 1; PREPARE TRANSACTION '"+gid.String()+"'")
	b := newBranch(t, node, "BEGIN")
	must(t, b, "INSERT INTO accounts VALUES('x',1)")
	v := mustVote(t, b, gid)
	if v.Yes || v.Prepared || participant.SQLState(v.Err) != "42710" || b.Open() || b.Lost() != nil {
		t.Errorf("vote %+v, open %v, lost %v", v, b.Open(), b.Lost())
	}
	if left := cluster.Prepared(); len(left) != 1 || left[0] != "a:"+gid.String() {
		t.Errorf("prepared: %v", left)
	}
	if err := node.RollbackPrepared(t.Context(), gid); err != nil {
		t.Error(err)
	}
	if n := cluster.Value("a", "SELECT count(*) FROM accounts"); n != "0" {
		t.Errorf("%s rows", n)
	}
}

func TestVoteSerializationFailure(t *testing.T) {
	cluster, node := newNode(t, nil)
	cluster.Exec("a", "INSERT INTO accounts VALUES('x',1),('y',1)")
	const begin = "BEGIN ISOLATION LEVEL SERIALIZABLE"
	first, second := newBranch(t, node, begin), newBranch(t, node, begin)
	// Write skew: each reads what the other writes. The first to prepare wins.
	must(t, first, "SELECT sum(balance) FROM accounts")
	must(t, second, "SELECT sum(balance) FROM accounts")
	must(t, first, "UPDATE accounts SET balance=0 WHERE id='x'")
	must(t, second, "UPDATE accounts SET balance=0 WHERE id='y'")
	gid := newGID(node)
	if v := mustVote(t, first, gid); !v.Yes {
		t.Fatalf("vote %+v", v)
	}
	v := mustVote(t, second, newGID(node))
	if second.Failed() {
		second.Rollback()
	}
	if v.Yes || v.Prepared || participant.SQLState(v.Err) != "40001" {
		t.Errorf("vote %+v", v)
	}
	if err := node.RollbackPrepared(t.Context(), gid); err != nil {
		t.Error(err)
	}
}

// All slots for prepared transactions in use: 53200, and the branch is rolled back.
func TestVoteNoSlot(t *testing.T) {
	checkLeaks(t)
	cluster := clustertest.Start(t, 1, clustertest.Options{Settings: map[string]string{"max_prepared_transactions": "1"}})
	node := cluster.Nodes[0]
	checkReturned(t, node)
	first, second := newBranch(t, node, "BEGIN"), newBranch(t, node, "BEGIN")
	must(t, first, "SELECT 1")
	must(t, second, "INSERT INTO accounts VALUES('x',1)")
	gid := newGID(node)
	if v := mustVote(t, first, gid); !v.Yes {
		t.Fatalf("vote %+v", v)
	}
	v := mustVote(t, second, newGID(node))
	if v.Yes || v.Prepared || participant.SQLState(v.Err) != "53200" || second.Open() {
		t.Errorf("vote %+v, open %v", v, second.Open())
	}
	if err := node.RollbackPrepared(t.Context(), gid); err != nil {
		t.Error(err)
	}
	if n := cluster.Value("a", "SELECT count(*) FROM accounts"); n != "0" {
		t.Errorf("%s rows", n)
	}
}

// What deferred triggers of the client's own say is for the client, and spoils no vote.
func TestNoticesOfDeferredTriggersReachTheVote(t *testing.T) {
	cluster, node := newNode(t, nil)
	deferred(cluster, "RAISE WARNING 'careful'; RAISE NOTICE 'by the way';")
	b := newBranch(t, node, "BEGIN")
	must(t, b, "INSERT INTO d VALUES(1)")
	gid := newGID(node)
	v := mustVote(t, b, gid)
	if !v.Yes || v.Err != nil {
		t.Errorf("vote %+v", v)
	}
	if len(v.Notices) != 2 || v.Notices[0].Message != "careful" || v.Notices[0].Severity != "WARNING" || v.Notices[1].Message != "by the way" {
		t.Errorf("notices %v", v.Notices)
	}
	if err := node.RollbackPrepared(t.Context(), gid); err != nil {
		t.Error(err)
	}
}

// A client's own client_min_messages and synchronous_commit must not hide the warning of a cancelled standby
// wait, nor skip the wait. The wait is a real one: for a standby that does not exist.
func TestVoteWithClientsSettings(t *testing.T) {
	cluster, node := newNode(t, nil)
	settings := participant.NewSettings(map[string]string{"client_min_messages": "error", "synchronous_commit": "off"})
	b := newBranchWith(t, node, settings, "BEGIN")
	must(t, b, "INSERT INTO accounts VALUES('x',1)")
	cluster.SuperExec("a", "ALTER SYSTEM SET synchronous_standby_names='nobody'")
	cluster.SuperExec("a", "SELECT pg_reload_conf()")
	defer func() {
		cluster.SuperExec("a", "ALTER SYSTEM RESET synchronous_standby_names")
		cluster.SuperExec("a", "SELECT pg_reload_conf()")
		clustertest.WaitFor(t, "nobody waits for a standby", wait, func() bool {
			return cluster.Value("a", "SHOW synchronous_standby_names") == ""
		})
	}()
	clustertest.WaitFor(t, "the node wants a standby", wait, func() bool {
		return cluster.Value("a", "SHOW synchronous_standby_names") == "nobody"
	})
	gid := newGID(node)
	if err := b.SendPrepare(gid, participant.BranchRecord{Participants: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	clustertest.WaitFor(t, "PREPARE waits for the standby", wait, func() bool {
		return cluster.Value("a", fmt.Sprintf("SELECT coalesce(wait_event,'') FROM pg_stat_activity WHERE pid=%d", b.Conn().PID())) == "SyncRep"
	})
	b.Conn().Cancel()
	v, err := b.ReceiveVote(time.Now().Add(wait))
	if err != nil {
		t.Fatal(err)
	}
	if v.Yes || !v.Prepared || v.Err == nil || !strings.Contains(v.Err.Error(), "01000") {
		t.Errorf("vote %+v", v)
	}
	// It is prepared all the same: an abort must be told to the node, and is.
	if got := cluster.Prepared(); len(got) != 1 {
		t.Errorf("prepared: %v", got)
	}
	ctx, cancel := timeout(t, 300*time.Millisecond) // ROLLBACK PREPARED waits for the standby, too
	defer cancel()
	if err := node.RollbackPrepared(ctx, gid); err == nil {
		t.Error("confirmed although no standby has it")
	}
}

// FATAL: the server process is ended while PREPARE runs. There is no answer, and nothing may be inferred.
func TestVoteTerminated(t *testing.T) {
	cluster, node := newNode(t, nil)
	deferred(cluster, "PERFORM pg_sleep(60);")
	b := newBranch(t, node, "BEGIN")
	must(t, b, "INSERT INTO d VALUES(1)")
	if err := b.SendPrepare(newGID(node), participant.BranchRecord{Participants: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	waitSleeping(t, cluster, b)
	cluster.SuperExec("a", fmt.Sprintf("SELECT pg_terminate_backend(%d)", b.Conn().PID()))
	v, err := b.ReceiveVote(time.Now().Add(wait))
	checkVote(t, voteCase{lost: true, prepared: true}, b, v, err)
	if b.StillWhole() {
		t.Error("a lost connection is whole")
	}
}

// Silence beyond the deadline: PREPARE is cancelled, which is a no.
func TestVoteTooLate(t *testing.T) {
	cluster, node := newNode(t, nil)
	deferred(cluster, "PERFORM pg_sleep(60);")
	b := newBranch(t, node, "BEGIN")
	must(t, b, "INSERT INTO d VALUES(1)")
	v, err := vote(t, b, newGID(node), 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	b.Rollback()
	wantNo(t, cluster, b, v, "57014")
}

func waitSleeping(t *testing.T, cluster *clustertest.Cluster, b *participant.Branch) {
	t.Helper()
	clustertest.WaitFor(t, "the trigger sleeps", wait, func() bool {
		return cluster.Value("a", fmt.Sprintf("SELECT coalesce(wait_event,'') FROM pg_stat_activity WHERE pid=%d", b.Conn().PID())) == "PgSleep"
	})
}

// A connection that breaks between the vote and the decision is seen without asking.
func TestStillWholeSeesALostServer(t *testing.T) {
	cluster, node := newNode(t, nil)
	b := newBranch(t, node, "BEGIN")
	must(t, b, "SELECT 1")
	gid := newGID(node)
	if v := mustVote(t, b, gid); !v.Yes || !b.StillWhole() {
		t.Fatalf("vote %+v", v)
	}
	cluster.SuperExec("a", fmt.Sprintf("SELECT pg_terminate_backend(%d)", b.Conn().PID()))
	clustertest.WaitFor(t, "the loss is seen", wait, func() bool { return !b.StillWhole() })
	prepared, err := node.ListPrepared(context.Background())
	if err != nil || len(prepared) != 1 || prepared[0].GID != gid {
		t.Errorf("prepared %v, %v", prepared, err)
	}
	if err := node.RollbackPrepared(t.Context(), gid); err != nil {
		t.Error(err)
	}
}
