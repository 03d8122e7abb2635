package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// DataDir is an empty directory for `pgpact demo --data`, removed when the test ends. t.TempDir will not do: its parents are closed to the
// account that root's Postgres runs as.
func DataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgpact-it-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Servers whose gateway was killed last may still be writing while they go.
		if err := Poll(20*time.Second, func() error { return os.RemoveAll(dir) }); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return filepath.Join(dir, "data")
}

// WriteConfig writes a configuration for a gateway on this cluster and returns its path. Every call is another gateway: a name and a port
// of its own. Lines are further keys of the file, like "slots: 8"; "name: ..." or "listen: ..." among them replaces the choice made here.
func (c *Cluster) WriteConfig(t testing.TB, lines ...string) string {
	t.Helper()
	return c.writeConfig(t, (*Server).URL, lines)
}

// writeConfig writes a configuration in which the servers are where reach says.
func (c *Cluster) writeConfig(t testing.TB, reach func(*Server) string, lines []string) string {
	t.Helper()
	var text strings.Builder
	has := func(key string) bool {
		for _, line := range lines {
			if strings.HasPrefix(line, key+":") {
				return true
			}
		}
		return false
	}
	port := FreePort(t)
	if !has("name") {
		fmt.Fprintf(&text, "name: gateway-%s\n", port)
	}
	if !has("listen") {
		fmt.Fprintf(&text, "listen: 127.0.0.1:%s\n", port)
	}
	if !has("auth") {
		text.WriteString("auth: trust\n")
	}
	for _, line := range lines {
		text.WriteString(line + "\n")
	}
	fmt.Fprintf(&text, "coordinator:\n  url: %q\nnodes:\n", reach(c.Coordinator()))
	for _, node := range c.Nodes() {
		fmt.Fprintf(&text, "  - name: %s\n    url: %q\n", node.Name(), reach(node))
	}
	path := filepath.Join(t.TempDir(), "pgpact.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Serve starts `pgpact serve` on a configuration and waits until it is ready. Migrate first, once.
func Serve(t testing.TB, config string, args ...string) (gateway *Gateway, url string) {
	t.Helper()
	gateway = Start(t, append([]string{"serve", "--config", config}, args...)...)
	return gateway, gateway.WaitReady(t)
}

// Migrate applies the migrations to all servers of a configuration.
func Migrate(t testing.TB, config string) {
	t.Helper()
	MustRun(t, "migrate", "--config", config)
}
