package main

import (
	"context"
	"fmt"
	"os"
	"testing"

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
