package harness

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Evidence is a directory with what a failing test leaves behind: logs, histories, the seed. The failure names it. Of a test that passes
// nothing is left. PGPACT_TEST_EVIDENCE names the directory in which it is made, else it is the temporary one.
//
// What is kept is read when the test ends and before anything that was made earlier is cleaned up: make it after the cluster.
type Evidence struct {
	mu    sync.Mutex
	names []string
	texts map[string]func() string
}

// NewEvidence makes the directory when the test has failed, not before.
func NewEvidence(t testing.TB) *Evidence {
	t.Helper()
	e := &Evidence{texts: map[string]func() string{}}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		dir, err := e.write(t.Name())
		if err != nil {
			t.Errorf("the evidence is not complete: %v", err)
		}
		t.Errorf("histories and logs of this run are in %s", dir)
	})
	return e
}

// Keep has a file written when the test fails.
func (e *Evidence) Keep(name string, text func() string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.texts[name] == nil {
		e.names = append(e.names, name)
	}
	e.texts[name] = text
}

func (e *Evidence) write(test string) (dir string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	dir, err = os.MkdirTemp(os.Getenv("PGPACT_TEST_EVIDENCE"), "pgpact-"+strings.ReplaceAll(test, "/", "-")+"-")
	if err != nil {
		return "", err
	}
	for _, name := range e.names {
		if writeErr := os.WriteFile(filepath.Join(dir, name), []byte(e.texts[name]()), 0o600); writeErr != nil {
			err = writeErr
		}
	}
	return dir, err
}

// SeedVariable repeats the choices of a run, as far as the scheduler allows.
const SeedVariable = "PGPACT_TEST_SEED"

// Seed is for a test's random choices: from SeedVariable, else random. It is printed.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(SeedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", SeedVariable, err)
		}
	}
	t.Logf("%s=%d", SeedVariable, seed)
	return seed
}

// Try runs do, which may be written for the test's own goroutine, in any other: what would end the test ends do and is returned.
func Try(t testing.TB, do func(t testing.TB)) (err error) {
	a := &attempt{TB: t}
	defer func() {
		if r := recover(); r != nil {
			if r != any(a) {
				panic(r)
			}
			err = a.err
		}
	}()
	do(a)
	return nil
}

// attempt is a test whose fatal end is a panic with itself.
type attempt struct {
	testing.TB
	err error
}

func (a *attempt) fail(text string) {
	a.err = fmt.Errorf("%s", strings.TrimSpace(text))
	panic(a)
}

func (a *attempt) Fatal(args ...any)                 { a.fail(fmt.Sprintln(args...)) }
func (a *attempt) Fatalf(format string, args ...any) { a.fail(fmt.Sprintf(format, args...)) }
func (a *attempt) FailNow()                          { a.fail("FailNow") }
func (a *attempt) Skip(args ...any)                  { a.fail(fmt.Sprintln(args...)) }
func (a *attempt) Skipf(format string, args ...any)  { a.fail(fmt.Sprintf(format, args...)) }
