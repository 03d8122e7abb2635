package coordinator

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// servers serve every test of the package; each test has databases of its own.
var servers *clustertest.Servers

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	s, stop, err := clustertest.NewServers(context.Background(), 3, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	servers = s
	code := m.Run()
	// Only of a run of all tests can it be said.
	if missing := unvisited(); code == 0 && wholeRun() && len(missing) > 0 {
		fmt.Fprintln(os.Stderr, "fault points that no test passes:", missing)
		code = 1
	}
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// wholeRun tells whether no test was left out by flags.
func wholeRun() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return true
}
