package integration

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestContainersAreUsed keeps a run on local processes from being taken for one on containers: where an engine answers, the
// containers must be there, seen by the engine itself.
func TestContainersAreUsed(t *testing.T) {
	fmt.Println(harness.Announcement())
	if harness.CurrentMode() != harness.Containers {
		// Asked in another way than the harness asks, so that a mistake there does not hide itself.
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if version, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").Output(); err == nil {
			t.Fatalf("a docker engine answers (version %s) and the tests do not use it", version)
		}
		return
	}
	cluster := harness.NewCluster(t, harness.Options{})
	if running := cluster.RunningContainers(t); running != 3 {
		t.Fatalf("the engine runs %d containers of this cluster, want coordinator and two nodes", running)
	}
}

// TestHarnessServers holds what every other test takes for granted of the cluster.
func TestHarnessServers(t *testing.T) {
	began := time.Now()
	cluster := harness.NewCluster(t, harness.Options{Nodes: []string{"a"}, Settings: map[string]string{"log_statement": "ddl"}})
	t.Logf("two servers up after %v", time.Since(began))

	for _, server := range cluster.Servers() {
		conn := server.Open(t)
		for setting, want := range map[string]string{
			"max_prepared_transactions": "200", "max_connections": "300", "fsync": "on", "log_statement": "ddl",
			"server_encoding": "UTF8", "is_superuser": "off", "session_authorization": harness.Role,
		} {
			if got := show(t, conn, setting); got != want {
				t.Errorf("server %s: %s = %q, want %q", server.Name(), setting, got, want)
			}
		}
	}
	if show(t, cluster.Node("a").OpenSuper(t), "is_superuser") != "on" {
		t.Error("SuperURL is no superuser")
	}

	t.Run("a prepared transaction survives kill -9", func(t *testing.T) { preparedSurvivesKill(t, cluster.Node("a")) })
	t.Run("pause", func(t *testing.T) { pauseHangsAndEnds(t, cluster.Node("a")) })
	t.Run("disconnect", func(t *testing.T) { disconnectCutsOff(t, cluster.Node("a")) })
}

func preparedSurvivesKill(t *testing.T, node *harness.Server) {
	conn := node.Open(t)
	for _, statement := range []string{
		"create table kept(n int)", "begin", "insert into kept values (1)", "prepare transaction 'harness'",
	} {
		exec1(t, conn, statement)
	}
	node.Kill9(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, "select 1"); err == nil {
		t.Fatal("the old connection still answers after SIGKILL")
	}
	node.Start(t)
	conn = node.Open(t)
	exec1(t, conn, "commit prepared 'harness'")
	if n := queryInt(t, conn, "select count(*) from kept"); n != 1 {
		t.Fatalf("%d rows after COMMIT PREPARED, want 1", n)
	}
}

func pauseHangsAndEnds(t *testing.T, node *harness.Server) {
	conn := node.Open(t)
	node.Pause(t)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := conn.Exec(ctx, "select 1")
	node.Unpause(t)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a paused server: %v, want silence until the deadline", err)
	}
	if n := queryInt(t, node.Open(t), "select 1"); n != 1 {
		t.Fatal("no answer after Unpause")
	}
}

func disconnectCutsOff(t *testing.T, node *harness.Server) {
	if harness.CurrentMode() == harness.Processes {
		t.Skip("SKIPPED: taking a server off the network needs containers")
	}
	over, direct := node.Open(t), harness.Open(t, node.DirectURL())
	node.Disconnect(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := direct.Exec(ctx, "select 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over the container's address: %v, want silence until the deadline", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := over.Exec(ctx, "select 1"); err == nil {
		t.Error("over the mapped port: an answer from a disconnected server")
	}
	node.Reconnect(t)
	if n := queryInt(t, harness.Open(t, node.DirectURL()), "select 1"); n != 1 {
		t.Fatal("no answer at the old address after Reconnect")
	}
}

func show(t *testing.T, conn *pgx.Conn, setting string) string {
	t.Helper()
	var value string
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := conn.QueryRow(ctx, "select current_setting($1)", setting).Scan(&value); err != nil {
		t.Fatalf("%s: %v", setting, err)
	}
	return value
}

func exec1(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func queryInt(t *testing.T, conn *pgx.Conn, query string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var n int
	if err := conn.QueryRow(ctx, query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}
