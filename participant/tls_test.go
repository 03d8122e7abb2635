package participant_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
	"github.com/pgpact/pgpact/participant"
)

// TestTLSToNodes: with sslmode=verify-full a node is used over TLS if its
// certificate is of the right authority and of the host's name, and otherwise not
// at all.
func TestTLSToNodes(t *testing.T) {
	cluster := clustertest.Start(t, 1, clustertest.Options{Servers: servers})
	right, wrong, dir := pgservertest.NewAuthority(t), pgservertest.NewAuthority(t), t.TempDir()
	rightFile, wrongFile := right.File(t, dir, "right.crt"), wrong.File(t, dir, "wrong.crt")
	secure := func(mode, authority string) string {
		address, err := url.Parse(cluster.URL("a"))
		if err != nil {
			t.Fatal(err)
		}
		address.RawQuery = url.Values{"sslmode": {mode}, "sslrootcert": {authority}}.Encode()
		return address.String()
	}
	open := func(t *testing.T, address string) *participant.Node {
		return cluster.Open(t, func(config *participant.Config) { config.URL = address })[0]
	}

	t.Run("server without TLS", func(t *testing.T) {
		wantConnectError(t, open(t, secure("verify-full", rightFile)), "refused TLS")
	})
	cert, key := right.Issue(t, "a", "127.0.0.1")
	servers.ServeTLS(t, "a", cert, key)
	t.Run("right certificate", func(t *testing.T) {
		node := open(t, secure("verify-full", rightFile))
		b, err := node.NewBranch(t.Context(), participant.Settings{}, []string{"BEGIN"})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		if used, err := b.Conn().Ask("SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); used != "true" || err != nil {
			t.Fatalf("TLS is used: %q, %v", used, err)
		}
	})
	t.Run("certificate of another authority", func(t *testing.T) {
		node := open(t, secure("verify-full", wrongFile))
		wantConnectError(t, node, "certificate signed by unknown authority")
		if rows, err := node.Query(t.Context(), "SELECT 1"); err == nil {
			t.Errorf("recovery's connection was made: %v", rows)
		}
	})
	cert, key = right.Issue(t, "a", "another.example")
	servers.ServeTLS(t, "a", cert, key)
	t.Run("certificate of another host", func(t *testing.T) {
		wantConnectError(t, open(t, secure("verify-full", rightFile)), "127.0.0.1")
		if _, err := open(t, secure("verify-ca", rightFile)).Query(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("verify-ca does not look at the host: %v", err)
		}
	})
}

func wantConnectError(t *testing.T, node *participant.Node, text string) {
	t.Helper()
	b, err := node.NewBranch(t.Context(), participant.Settings{}, []string{"BEGIN"})
	if err == nil {
		b.Release()
		t.Fatal("connected")
	}
	if _, ok := err.(*participant.ConnectError); !ok || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want a ConnectError with %q", err, text)
	}
}
