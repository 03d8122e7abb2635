package coordinator

import (
	"context"
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
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}
