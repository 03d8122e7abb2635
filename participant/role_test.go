package participant_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// withRoles makes the roles of these tests, which are the server's, once for all.
func withRoles(t *testing.T, cluster *clustertest.Cluster, roles ...string) {
	t.Helper()
	for _, role := range roles {
		if cluster.Value("a", "SELECT count(*) FROM pg_roles WHERE rolname = "+participant.QuoteLiteral(role)) == "0" {
			quoted := participant.QuoteIdentifier(role)
			cluster.SuperExec("a", "CREATE ROLE "+quoted+" LOGIN; GRANT "+quoted+" TO pgpact")
		}
	}
}

func asRole(role string) participant.Settings {
	return participant.NewSettings(map[string]string{participant.RoleName: role, "application_name": "x"})
}

// TestPrepareLeavesTheRole: a client's role writes, its deferred triggers run as
// that role, and yet the branch record and the prepared transaction are the
// gateway's, which finishes it there or by recovery; the connection then is the
// client's again.
func TestPrepareLeavesTheRole(t *testing.T) {
	cluster, node := newNode(t, nil)
	withRoles(t, cluster, "client_one")
	cluster.Exec("a", `GRANT SELECT, INSERT, UPDATE ON accounts TO client_one; CREATE TABLE seen(who text, session text); GRANT INSERT ON seen TO client_one;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (current_user, session_user); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER note AFTER INSERT ON accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()`)
	prepare := func(t *testing.T, sequence int64) (*participant.Branch, participant.GID) {
		b, err := node.NewBranch(t.Context(), asRole("client_one"), []string{"BEGIN"})
		if err != nil {
			t.Fatal(err)
		}
		b.MarkWrites()
		b.Query("INSERT INTO public.accounts VALUES ('k" + string(rune('0'+sequence)) + "', 1)")
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
		for {
			frame, err := b.Receive()
			if err != nil || frame.Type() == 'E' {
				t.Fatalf("%v %s", err, frame.Raw())
			}
			if frame.Type() == 'Z' {
				break
			}
		}
		gid := participant.GID{Cluster: cluster.ClusterID, ID: participant.ID{Epoch: 77, Sequence: sequence}, Node: "a"}
		if err := b.SendPrepare(gid, participant.BranchRecord{Participants: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		vote, err := b.ReceiveVote(time.Now().Add(wait))
		if err != nil || !vote.Yes {
			t.Fatalf("vote %+v, %v", vote, err)
		}
		return b, gid
	}
	b, gid := prepare(t, 1)
	if owner := cluster.Value("a", "SELECT owner FROM pg_prepared_xacts WHERE gid = '"+gid.String()+"'"); owner != "pgpact" {
		t.Errorf("the prepared transaction is %s's", owner)
	}
	if err := b.SendCommitPrepared(gid); err != nil {
		t.Fatal(err)
	}
	if err := b.ReceiveFinish(true, time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	b.Release()
	if rows := cluster.Rows("a", "SELECT * FROM seen"); len(rows) != 1 || rows[0] != "client_one|pgpact" {
		t.Errorf("the deferred trigger ran as %v", rows)
	}
	wantUser(t, node, asRole("client_one"), "client_one")

	// The gateway died: recovery has a connection of its own, and no role.
	b, gid = prepare(t, 2)
	b.Release()
	if err := node.CommitPrepared(t.Context(), gid); err != nil {
		t.Errorf("recovery: %v", err)
	}
	wantUser(t, node, participant.Settings{}, "pgpact")
	b, gid = prepare(t, 3)
	if err := b.SendRollbackPrepared(gid); err != nil {
		t.Fatal(err)
	}
	if err := b.ReceiveFinish(false, time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	b.Release()
	wantUser(t, node, asRole("client_one"), "client_one")
	if n := cluster.Value("a", "SELECT count(*) FROM pgpact.branches WHERE epoch = 77"); n != "2" {
		t.Errorf("%s branch records", n)
	}
}

// wantUser takes a connection with settings and asks who it is.
func wantUser(t *testing.T, node *participant.Node, settings participant.Settings, want string) {
	t.Helper()
	b, err := node.NewBranch(t.Context(), settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if got, err := b.Conn().Ask("SELECT current_user"); got != want || err != nil {
		t.Errorf("the connection is %s's, want %s: %v", got, want, err)
	}
}

// TestRolesOfConnections: whoever had a connection before, it acts as the role
// that it is taken for, and a role that is not to be had is the server's error.
func TestRolesOfConnections(t *testing.T) {
	cluster, node := newNode(t, nil)
	withRoles(t, cluster, "client_one", "client_two", `Odd "role" '\`)
	for _, role := range []string{"client_one", "client_two", "", `Odd "role" '\`, "client_one", ""} {
		settings, want := asRole(role), role
		if role == "" {
			settings, want = participant.Settings{}, "pgpact"
		}
		wantUser(t, node, settings, want)
	}
	cluster.SuperExec("a", "DROP ROLE IF EXISTS client_three; CREATE ROLE client_three")
	for role, code := range map[string]string{"nobody": "22023", "client_three": "42501"} {
		_, err := node.NewBranch(t.Context(), asRole(role), nil)
		if participant.SQLState(err) != code || !strings.Contains(err.Error(), role) {
			t.Errorf("%s: %v", role, err)
		}
	}
	wantUser(t, node, participant.Settings{}, "pgpact")
}
