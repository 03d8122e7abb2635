//go:build unix

package pgserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// helperDir makes the test binary a program that opens a set, starts it, says its postmaster's id and waits:
// somebody to kill.
const helperDir = "PGSERVER_TEST_HELPER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		os.Exit(helper(dir))
	}
	os.Exit(m.Run())
}

func helper(dir string) int {
	ctx := context.Background()
	b, err := Find("")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	set, err := OpenSet(ctx, SetConfig{Dir: dir, Binaries: b, Names: []string{"a"}})
	if err == nil {
		err = set.Start(ctx)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(set.Server("a").PID())
	_, _ = os.Stdin.Read(make([]byte, 1)) // until our killer, or the end of a parent that forgot us
	_ = set.Stop(ctx)
	return 0
}

// kill -9 of the program: on Linux the servers end by themselves; anywhere the next life takes the directory
// over, and the data is there.
func TestKilledProgramLeavesNothingInTheWay(t *testing.T) {
	dir := openDir(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	pid, numErr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || numErr != nil {
		t.Fatalf("the helper says %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed, that is the point
	if runtime.GOOS == "linux" && !waitUntil(t.Context(), testBound, func() bool { return !alive(pid) }) {
		t.Errorf("postmaster %d outlived its parent", pid)
	}
	set := open(t, dir, "a")
	start(t, set)
	query(t, set.Server("a"), "SELECT 1")
}

// A postmaster that really was left running, as on systems that cannot tie it to its parent, is replaced.
func TestLeftoverIsReplaced(t *testing.T) {
	set := open(t, openDir(t), "a")
	a := set.Server("a")
	left := startByHand(t, set)
	start(t, set)
	if !left.ended() {
		t.Error("two postmasters on one directory")
	}
	if pid := a.PID(); pid == left.pid || pid == 0 {
		t.Errorf("postmaster %d", pid)
	}
	query(t, a, "SELECT 1")
}

// startByHand starts a postmaster on server a's data that the set knows nothing of.
func startByHand(t *testing.T, set *Set) *process {
	t.Helper()
	a := set.Server("a")
	port, err := choosePort(0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(context.Background(), set.config.Binaries, set.account, a.data, "postgres", "-D", a.data,
		"-p", strconv.Itoa(port), "-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1")
	proc, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !proc.ended() {
			stopPostmaster(context.Background(), proc.pid, proc.ended)
		}
	})
	if err := a.waitReady(t.Context(), proc, port); err != nil {
		t.Fatal(err)
	}
	return proc
}

// A pid file that names somebody else: the start works and that somebody is left alone.
func TestForeignPIDFileIsNotBelieved(t *testing.T) {
	set := open(t, openDir(t), "a")
	a := set.Server("a")
	// Of the servers' own account: Postgres itself sees through a process it may not signal.
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = set.account.attributes()
	bystander, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if bystander.ended() {
			t.Errorf("the bystander was ended: %v", bystander.err)
			return
		}
		killAll([]int{bystander.pid})
		<-bystander.done
	}()
	file := filepath.Join(a.data, "postmaster.pid")
	text := fmt.Sprintf("%d\n%s\n1\n1\n\n127.0.0.1\n 1 1\nready   \n", bystander.pid, a.data)
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), set.account.give(file)); err != nil {
		t.Fatal(err)
	}
	start(t, set)
}

// A postmaster was killed alone and a backend of its goes on computing, attached to the shared memory.
func TestOrphanedBackendIsCleared(t *testing.T) {
	set := open(t, openDir(t), "a")
	start(t, set)
	a := set.Server("a")
	conn, err := pgx.Connect(t.Context(), a.SuperURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	backend := int(conn.PgConn().PID())
	// Stopped, it cannot notice that its postmaster is gone.
	if err := syscall.Kill(backend, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	done := a.Done()
	if err := syscall.Kill(a.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-done
	if runtime.GOOS != "linux" {
		// Elsewhere an orphan is waited for, not hunted; let it notice.
		if err := syscall.Kill(backend, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if !alive(backend) {
		t.Fatal("the backend is gone before its time; this test shows nothing")
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(backend) {
		t.Error("the orphan is still there")
	}
	query(t, a, "SELECT 1")
}
