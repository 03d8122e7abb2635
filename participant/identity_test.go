package participant_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
	"github.com/pgpact/pgpact/participant"
)

func openNode(t *testing.T, config participant.Config) *participant.Node {
	t.Helper()
	node, err := participant.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	checkReturned(t, node)
	return node
}

// wantRefused fails the test unless the node is refused with these words, for branches and looks alike.
func wantRefused(t *testing.T, node *participant.Node, words string) {
	t.Helper()
	_, branchErr := node.NewBranch(t.Context(), participant.Settings{}, nil)
	_, lookErr := node.ListPrepared(t.Context())
	for _, err := range []error{branchErr, lookErr} {
		if _, ok := errors.AsType[*participant.IdentityError](err); !ok || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want an IdentityError with %q", err, words)
		}
	}
	if s := node.Stats(); s.Idle != 0 || node.Identity() != nil {
		t.Errorf("%+v, identity %v", s, node.Identity())
	}
}

func TestIdentityIsTold(t *testing.T) {
	cluster, node := newNode(t, nil)
	if node.Identity() != nil {
		t.Error("an identity before the first connection")
	}
	use(t, node, participant.Settings{}, "SELECT 1")
	got := node.Identity()
	want := cluster.Value("a", "SELECT system_identifier FROM pg_control_system()")
	if got == nil || got.SystemIdentifier != want || got.Timeline != "1" || got.MaxPrepared != 200 || got.Version < 130000 {
		t.Errorf("%+v, want system identifier %s", got, want)
	}
}

func TestWrongServerIsRefused(t *testing.T) {
	cluster, _ := newNode(t, nil)
	url := cluster.URL("a")
	t.Run("cluster", func(t *testing.T) {
		wantRefused(t, openNode(t, participant.Config{Name: "a", ClusterID: "another", URL: url}), "belongs to cluster")
	})
	t.Run("name", func(t *testing.T) {
		wantRefused(t, openNode(t, participant.Config{Name: "b", ClusterID: cluster.ClusterID, URL: url}), `calls itself node "a"`)
	})
	t.Run("no tables", func(t *testing.T) {
		empty, _ := servers.NewDatabase(t, "a")
		wantRefused(t, openNode(t, participant.Config{Name: "a", ClusterID: cluster.ClusterID, URL: empty}), "run pgpact migrate")
	})
	t.Run("no row", func(t *testing.T) {
		empty, super := servers.NewDatabase(t, "a")
		exec(t, super, "CREATE SCHEMA pgpact AUTHORIZATION pgpact")
		exec(t, empty, "CREATE TABLE pgpact.node(cluster_id text, name text)")
		wantRefused(t, openNode(t, participant.Config{Name: "a", ClusterID: cluster.ClusterID, URL: empty}), "holds 0 rows")
	})
	t.Run("role without rights", func(t *testing.T) {
		cluster.SuperExec("a", "DO $$BEGIN CREATE ROLE nobody_special LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
		node := openNode(t, participant.Config{Name: "a", ClusterID: cluster.ClusterID, URL: strings.Replace(url, "pgpact@", "nobody_special@", 1)})
		_, err := node.NewBranch(t.Context(), participant.Settings{}, nil)
		if _, ok := errors.AsType[*participant.ConnectError](err); !ok || participant.SQLState(err) != "42501" {
			t.Errorf("%v", err)
		}
	})
}

func exec(t *testing.T, url, sql string) {
	t.Helper()
	if err := run(t.Context(), url, sql); err != nil {
		t.Fatal(err)
	}
}

// A server that would not keep what it says it has prepared is refused, and one that cannot prepare.
func TestUnfitServerIsRefused(t *testing.T) {
	for _, test := range []struct{ name, setting, words string }{
		{"fsync", "fsync=off", "fsync=off"},
		{"max_prepared_transactions", "max_prepared_transactions=0", "max_prepared_transactions is 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkLeaks(t)
			key, value, _ := strings.Cut(test.setting, "=")
			set := pgservertest.Start(t, pgservertest.Options{Settings: map[string]string{key: value}}, "a")
			exec(t, set.SuperURL("a"), `CREATE SCHEMA pgpact AUTHORIZATION pgpact;
				CREATE TABLE pgpact.node AS SELECT 'c'::text AS cluster_id, 'a'::text AS name; ALTER TABLE pgpact.node OWNER TO pgpact`)
			wantRefused(t, openNode(t, participant.Config{Name: "a", ClusterID: "c", URL: set.URL("a")}), test.words)
		})
	}
}

// What only a node made for the purpose says.
func TestUnfitAnswersAreRefused(t *testing.T) {
	for _, test := range []struct {
		name, words string
		column      int
		value       string
	}{
		{"standby", "standby", 2, "t"},
		{"encoding", "LATIN1", 7, "LATIN1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, node := startFake(t, nil)
			f.identity[test.column] = test.value
			wantRefused(t, node, test.words)
		})
	}
}

// A node that is down is told apart from everything else: nothing was sent.
func TestNodeDown(t *testing.T) {
	checkLeaks(t)
	node := openNode(t, participant.Config{Name: "a", ClusterID: "c", URL: "postgres://u@127.0.0.1:1/d?sslmode=disable"})
	_, err := node.NewBranch(t.Context(), participant.Settings{}, nil)
	if e, ok := errors.AsType[*participant.ConnectError](err); !ok || e.Node != "a" {
		t.Errorf("%v", err)
	}
	for name, config := range map[string]participant.Config{
		"bad name": {Name: "A", URL: "postgres://x/d"}, "bad URL": {Name: "a", URL: "postgres://x:y:z/"},
	} {
		if _, err := participant.Open(config); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Recovery sees the prepared transactions of its own cluster, node and database, and no others (invariant I7).
func TestListPreparedSeesOnlyOurs(t *testing.T) {
	cluster, node := newNode(t, nil)
	ours := newGID(node)
	for _, gid := range []string{
		ours.String(), "pgpact/other/1/2/a", strings.TrimSuffix(ours.String(), "/a") + "/b", "somebody's", "pgpact/" + cluster.ClusterID + "/1/02/a",
	} {
		cluster.Exec("a", "BEGIN; INSERT INTO accounts VALUES("+participant.QuoteLiteral(gid)+",1); PREPARE TRANSACTION "+participant.QuoteLiteral(gid))
	}
	found, err := node.ListPrepared(t.Context())
	if err != nil || len(found) != 1 || found[0].GID != ours || found[0].Owner != "pgpact" || found[0].Age < 0 || found[0].Prepared.IsZero() {
		t.Errorf("%+v, %v", found, err)
	}
	for _, left := range cluster.Prepared() {
		cluster.Exec("a", "ROLLBACK PREPARED "+participant.QuoteLiteral(strings.TrimPrefix(left, "a:")))
	}
}

// Every verb of recovery ends when its context does, although the node hangs.
func TestRecoverysVerbsFollowTheirContext(t *testing.T) {
	cluster, node := newNode(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := node.Query(ctx, "SELECT pg_sleep(8)")
		done <- err
	}()
	clustertest.WaitFor(t, "it sleeps", wait, func() bool {
		return cluster.Value("a", "SELECT count(*) FROM pg_stat_activity WHERE wait_event='PgSleep' AND datname=current_database()") == "1"
	})
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it was answered")
		}
	case <-t.Context().Done():
	}
	// The connection is not used again, and the next look is right.
	if rows, err := node.Query(t.Context(), "SELECT 5"); err != nil || rows[0][0] != "5" {
		t.Errorf("%v, %v", rows, err)
	}
}
