package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestProgramRuns holds what the harness takes for granted of commands: their output and their exit status arrive.
func TestProgramRuns(t *testing.T) {
	if out := harness.MustRun(t, "fault-points").Stdout; len(strings.Fields(out)) < 10 {
		t.Errorf("fault-points printed %q", out)
	}
	if result := harness.Run(t, "no-such-command"); result.Code == 0 || result.Stderr == "" {
		t.Errorf("an unknown command: exit status %d, stderr %q", result.Code, result.Stderr)
	}
}

// TestServeIsKilledAndServesAgain is the harness's own test of processes on a cluster, and the shortest form of the product's promise: a
// transfer over two nodes, kill -9, a new gateway, the same balances.
func TestServeIsKilledAndServesAgain(t *testing.T) {
	cluster := harness.NewCluster(t, harness.Options{})
	config := cluster.WriteConfig(t)
	harness.Migrate(t, config)

	gateway, url := harness.Serve(t, config)
	conn := harness.Open(t, url)
	// Of sixteen keys, some are on either node.
	for i := range 16 {
		exec1(t, conn, fmt.Sprintf("insert into accounts values ('k%d', 100)", i))
	}
	onNode := func(node *harness.Server) int {
		return queryInt(t, node.Open(t), "select count(*) from accounts where id like 'k%'")
	}
	a, b := onNode(cluster.Node("a")), onNode(cluster.Node("b"))
	if a == 0 || b == 0 || a+b != 16 {
		t.Fatalf("%d accounts on node a and %d on node b, want 16 over both", a, b)
	}
	exec1(t, conn, "begin")
	for i := range 16 {
		exec1(t, conn, fmt.Sprintf("update accounts set balance = balance + %d where id = 'k%d'", 1-2*(i%2), i))
	}
	exec1(t, conn, "commit")

	if exit := gateway.Kill9(t); exit.Signal != syscall.SIGKILL {
		t.Fatalf("after Kill9: %v", exit)
	}
	again, url := harness.Serve(t, config)
	conn = harness.Open(t, url)
	for i := range 16 {
		want := 100 + 1 - 2*(i%2)
		if got := queryInt(t, conn, fmt.Sprintf("select balance from accounts where id = 'k%d'", i)); got != want {
			t.Errorf("k%d has %d, want %d", i, got, want)
		}
	}
	if exit := again.Stop(t); exit != (harness.Exit{}) {
		t.Errorf("SIGTERM: %v, want exit status 0", exit)
	}
}
