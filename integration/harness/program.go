package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("PGPACT_TEST_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := os.MkdirTemp("", "pgpact-program-")
	if err != nil {
		return "", err
	}
	programDir = dir
	// The parser is a lot of C: the first build on a fresh machine takes a while.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	path := filepath.Join(dir, "pgpact")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/pgpact")
	build.Dir = Root()
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/pgpact: %w\n%s", err, output)
	}
	// pgpact may run Postgres as another user, who must be able to reach nothing here; but who runs us as root sees 0700 as no obstacle.
	return path, nil
})

var programDir string

func removeProgram() {
	if programDir != "" {
		_ = os.RemoveAll(programDir) // in the temporary directory; what stays is harmless
	}
}

// Program is the path of the pgpact program, built once per test run without the race detector, as it is shipped. PGPACT_TEST_BINARY names
// another one.
func Program(t testing.TB) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Result is what a command said and how it ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs pgpact to its end, within a bound: `migrate`, `check`, `transactions`, `fault-points`.
func Run(t testing.TB, args ...string) Result {
	t.Helper()
	process := Start(t, args...)
	exit := process.Wait(t, bound)
	if exit.Signal != 0 {
		t.Fatalf("pgpact %v ended by signal %v:\n%s", args, exit.Signal, process.Log())
	}
	return Result{Stdout: process.stdout.String(), Stderr: process.stderr.String(), Code: exit.Code}
}

// MustRun is Run that fails the test when the command fails.
func MustRun(t testing.TB, args ...string) Result {
	t.Helper()
	result := Run(t, args...)
	if result.Code != 0 {
		t.Fatalf("pgpact %v: exit status %d\n%s%s", args, result.Code, result.Stdout, result.Stderr)
	}
	return result
}
