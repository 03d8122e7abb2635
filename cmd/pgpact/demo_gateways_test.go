package main

import (
	"errors"
	"net"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var gatewayLine = regexp.MustCompile(`(?m)^  psql (postgres://\S+) +# (\S+), kill -9 (\d+)$`)

// eventually waits for a condition, within the bound.
func eventually(t *testing.T, bound time.Duration, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(bound); !condition(); {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", bound, what)
		case <-tick.C:
		}
	}
}

// Three gateways are three processes with an epoch each. The first dies with a decided transfer in its hands; the
// others finish it without it, and the demo goes on.
func TestDemoGateways(t *testing.T) {
	t.Parallel()
	dir := demoDir(t)
	d := startDemo(t, dir, "--accounts", "0", "--gateways", "3", "--crash-at", "decided")
	eventually(t, 10*time.Second, "a line for each gateway", func() bool { return len(gatewayLine.FindAllString(d.stdout.String(), -1)) == 3 })
	lines := gatewayLine.FindAllStringSubmatch(d.stdout.String(), -1)
	ready := readyLine.FindAllStringSubmatch(d.stdout.String(), -1)
	for i, line := range lines {
		if len(ready) != 3 || ready[i][1] != line[1] || line[2] != "demo-"+strconv.Itoa(i+1) {
			t.Fatalf("gateways %v, ready %v", lines, ready)
		}
		if got := query(t, line[1], "SELECT balance FROM accounts WHERE id = 'alice'"); strings.Join(got, " ") != "1000" {
			t.Errorf("gateway %s: alice has %v", line[2], got)
		}
	}
	cfg, err := loadConfig(filepath.Join(dir, demoConfigName), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := query(t, cfg.Coordinator.URL, "SELECT name FROM pgpact.gateways ORDER BY name"); strings.Join(got, " ") != "demo-1 demo-2 demo-3" {
		t.Errorf("epochs of %v", got)
	}

	conn, err := pgx.Connect(t.Context(), lines[0][1])
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	_, err = conn.PgConn().Exec(t.Context(), transfer).ReadAll()
	if _, answered := errors.AsType[*pgconn.PgError](err); err == nil || answered {
		t.Errorf("the transfer was answered: %v", err)
	}
	eventually(t, 2*time.Second, "the others finish the transfer", func() bool {
		alice, bob := balances(t, dir)
		return alice == "a900" && bob == "b1100"
	})
	eventually(t, 10*time.Second, "the demo says how to start it again", func() bool {
		return strings.Contains(d.stderr.String(), "PGPACT_NAME=demo-1 PGPACT_LISTEN=127.0.0.1:")
	})
	query(t, lines[1][1], transfer)
	query(t, lines[2][1], transfer)
	wantBalances(t, dir, "a700", "b1300")

	// A frozen one does not keep the demo from ending.
	pid, err := strconv.Atoi(lines[2][3])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d.signal(t, syscall.SIGTERM)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("SIGTERM: %v", d.cmd.ProcessState)
	}
	for _, line := range lines {
		if pid, err := strconv.Atoi(line[3]); err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			t.Errorf("gateway %s has outlived the demo (%v)", line[2], err)
		}
	}
	noServers(t, dir)
}

// A port that is taken is said before anything is started, whichever gateway's it is.
func TestDemoGatewaysNeedTheirPorts(t *testing.T) {
	t.Parallel()
	o := &demoOptions{listen: "127.0.0.1:0", gateways: 2}
	addresses, ln, err := o.claimAddresses()
	if err != nil || ln != nil || len(addresses) != 2 || addresses[0] == addresses[1] {
		t.Fatalf("%v, %v, %v", addresses, ln, err)
	}
	one := &demoOptions{listen: addresses[1], gateways: 1}
	_, taken, err := one.claimAddresses()
	if err != nil || taken == nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, _, err := (&demoOptions{listen: addresses[1], gateways: 2}).claimAddresses(); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("%v", err)
	}
	refuseDemo(t, "--gateways must be 1 to 8", "--gateways", "9")
}

// Whoever kills a demo with several gateways leaves none of them behind.
func TestDemoGatewaysEndWithTheDemo(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: only Linux ends children with their parent")
	}
	d := startDemo(t, demoDir(t), "--accounts", "0", "--nodes", "1", "--gateways", "2")
	eventually(t, 10*time.Second, "a line for each gateway", func() bool { return len(gatewayLine.FindAllString(d.stdout.String(), -1)) == 2 })
	lines := gatewayLine.FindAllStringSubmatch(d.stdout.String(), -1)
	d.signal(t, syscall.SIGKILL)
	for _, line := range lines {
		conf, err := pgconn.ParseConfig(line[1])
		if err != nil {
			t.Fatal(err)
		}
		_, address := pgconn.NetworkAddress(conf.Host, conf.Port)
		eventually(t, 20*time.Second, "gateway "+line[2]+" has ended", func() bool {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
	}
}
