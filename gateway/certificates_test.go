package gateway

import (
	"context"
	"crypto/tls"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
)

// tlsFiles are the files of a gateway's TLS and the authority behind them.
type tlsFiles struct {
	*pgservertest.Authority
	dir   string
	files CertificateFiles
	root  string // the authority's file
}

func newTLSFiles(t *testing.T) *tlsFiles {
	t.Helper()
	f := &tlsFiles{Authority: pgservertest.NewAuthority(t), dir: t.TempDir()}
	f.files.Cert, f.files.Key = f.IssueFiles(t, f.dir, "gateway", "gateway", "127.0.0.1")
	f.root = f.File(t, f.dir, "root.crt")
	return f
}

// open opens them with a clock of the test's, so that no look at the files is
// spared.
func (f *tlsFiles) open(t *testing.T) *Certificates {
	t.Helper()
	c, err := OpenCertificates(f.files, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { now = now.Add(2 * lookAtFilesEvery); return now }
	return c
}

func (f *tlsFiles) verifyFull() string { return "sslmode=verify-full&sslrootcert=" + f.root }

func TestCertificatesFollowTheirFiles(t *testing.T) {
	f := newTLSFiles(t)
	c := f.open(t)
	front := startFront(t, FrontConfig{Certificates: c}, stubSession)
	shown := func() string {
		conn, err := front.connect(f.verifyFull())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		mustExec(t, conn, "x")
		return conn.Conn().(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "gateway" {
		t.Fatalf("shown: %s", got)
	}
	// A certificate without its key is not used, and harms nobody.
	cert, key := f.Issue(t, "renewed", "127.0.0.1")
	pgservertest.WriteFile(t, f.dir, "gateway.crt", cert)
	if got := shown(); got != "gateway" {
		t.Errorf("a certificate without its key is shown: %s", got)
	}
	if err := c.Reload(); err == nil || shown() != "gateway" {
		t.Errorf("reload: %v", err)
	}
	pgservertest.WriteFile(t, f.dir, "gateway.key", key)
	if got := shown(); got != "renewed" {
		t.Errorf("shown after renewal: %s", got)
	}
	if err := os.Remove(f.files.Key); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != "renewed" {
		t.Errorf("shown without files: %s", got)
	}
}

func TestCertificateFilesThatAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, f *tlsFiles){
		"No such file":                   func(_ *testing.T, f *tlsFiles) { f.files.Cert += "x" },
		"no such file":                   func(_ *testing.T, f *tlsFiles) { f.files.ClientCA = f.dir + "/none" },
		"does not match":                 func(t *testing.T, f *tlsFiles) { _, f.files.Key = f.IssueFiles(t, f.dir, "other", "x") },
		"group or world access":          func(_ *testing.T, f *tlsFiles) { _ = os.Chmod(f.files.Key, 0o644) },
		"holds no certificate":           func(_ *testing.T, f *tlsFiles) { f.files.ClientCA = f.files.Key },
		"failed to find any PEM data in": func(t *testing.T, f *tlsFiles) { pgservertest.WriteFile(t, f.dir, "gateway.crt", []byte("x")) },
	} {
		f := newTLSFiles(t)
		spoil(t, f)
		if _, err := OpenCertificates(f.files, nil); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TLS older than 1.2 is not spoken, nor older than what is configured.
func TestTLSVersions(t *testing.T) {
	f := newTLSFiles(t)
	plain := startFront(t, FrontConfig{Certificates: f.open(t)}, stubSession)
	f.files.MinVersion = tls.VersionTLS13
	newest := startFront(t, FrontConfig{Certificates: f.open(t)}, stubSession)
	for _, tc := range []struct {
		front    *front
		max      uint16
		accepted bool
	}{
		{plain, tls.VersionTLS11, false}, {plain, tls.VersionTLS12, true}, {plain, tls.VersionTLS13, true},
		{newest, tls.VersionTLS12, false}, {newest, tls.VersionTLS13, true},
	} {
		r := tc.front.dial()
		r.write(sslRequest)
		r.readByte()
		conn := tls.Client(r.conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tc.max})
		if err := conn.Handshake(); (err == nil) != tc.accepted {
			t.Errorf("at most %s: %v", tls.VersionName(tc.max), err)
		}
	}
}

// libpq and pgx believe the gateway's certificate for what it says, and a wrong
// one not at all.
func TestVerifyFullByRealClients(t *testing.T) {
	f := newTLSFiles(t)
	front := startFront(t, FrontConfig{Certificates: f.open(t)}, stubSession)
	other := pgservertest.NewAuthority(t).File(t, f.dir, "other.crt")
	for _, tc := range []struct{ host, root, refusal string }{
		{"127.0.0.1", f.root, ""}, {"localhost", f.root, "localhost"}, {"127.0.0.1", other, "verif"},
	} {
		_, port, _ := strings.Cut(front.addr, ":")
		url := "postgres://alice@" + tc.host + ":" + port + "/bank?sslmode=verify-full&sslrootcert=" + tc.root
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		conn, err := pgconn.Connect(ctx, url)
		if err == nil {
			_ = conn.Close(ctx)
		}
		if (err == nil) != (tc.refusal == "") {
			t.Errorf("pgx, host %s: %v", tc.host, err)
		}
		out, err := exec.CommandContext(ctx, "psql", "-X", "-w", url, "-c", "hello").CombinedOutput()
		if (err == nil) != (tc.refusal == "") || !strings.Contains(string(out), tc.refusal) {
			t.Errorf("psql, host %s: %v %s", tc.host, err, out)
		}
		cancel()
	}
}
