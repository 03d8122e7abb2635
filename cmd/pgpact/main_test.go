package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
)

// asProgram makes the test binary be pgpact: tests that need a process of its
// own start themselves, and there is nothing to build.
const asProgram = "PGPACT_TEST_AS_PROGRAM"

// servers is one Postgres server for all tests that look at databases.
var servers *pgservertest.Set

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	// fsync stays on: it is one of the things that are looked at.
	set, stop, err := pgservertest.New(context.Background(), pgservertest.Options{}, "x")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	servers = set
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// Scripts take the first word of each line, and its order for the protocol's.
func TestFaultPointsCommand(t *testing.T) {
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"fault-points"}, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	points := coordinator.FaultPoints()
	if len(lines) != len(points) {
		t.Fatalf("%d lines for %d points", len(lines), len(points))
	}
	for i, p := range points {
		if fields := strings.Fields(lines[i]); len(fields) < 3 || fields[0] != p.Name || fields[1] != p.Expect.String() {
			t.Errorf("line %d: %q, want %s %s first", i+1, lines[i], p.Name, p.Expect)
		}
	}
}

func TestVersionCommand(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		var out, errs strings.Builder
		if code := run(t.Context(), []string{arg}, &out, &errs); code != 0 || !strings.HasPrefix(out.String(), "pgpact "+version+" (commit ") {
			t.Errorf("%s: exit %d, %q", arg, code, &out)
		}
	}
}
