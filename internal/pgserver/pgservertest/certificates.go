//go:build unix

package pgservertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Authority issues certificates for one test.
type Authority struct {
	PEM  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &Authority{key: newKey(tb)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	a.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

// Issue makes a certificate and its key: of a client by its name, of a server by
// its hosts as well. It ends to be valid in an hour.
func (a *Authority) Issue(tb testing.TB, commonName string, hosts ...string) (cert, key []byte) {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: commonName}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	own := newKey(tb)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// IssueFiles is Issue into NAME.crt and NAME.key of dir, the key closed to others.
func (a *Authority) IssueFiles(tb testing.TB, dir, name, commonName string, hosts ...string) (certFile, keyFile string) {
	tb.Helper()
	cert, key := a.Issue(tb, commonName, hosts...)
	return WriteFile(tb, dir, name+".crt", cert), WriteFile(tb, dir, name+".key", key)
}

// File writes the authority's own certificate to NAME of dir.
func (a *Authority) File(tb testing.TB, dir, name string) string {
	tb.Helper()
	return WriteFile(tb, dir, name, a.PEM)
}

// WriteFile writes a file that only its owner can read, in the place of one of
// that name.
func WriteFile(tb testing.TB, dir, name string, content []byte) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
	return path
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func serial(tb testing.TB) *big.Int {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// ServeTLS makes the server speak TLS, as ssl = on does, until the test ends.
func (s *Set) ServeTLS(tb testing.TB, name string, cert, key []byte) {
	tb.Helper()
	dir := s.must(name).DataDir()
	s.reconfigure(tb, name,
		writeByServer(dir+"/test.crt", cert), writeByServer(dir+"/test.key", key),
		"ALTER SYSTEM SET ssl_cert_file = 'test.crt'", "ALTER SYSTEM SET ssl_key_file = 'test.key'", "ALTER SYSTEM SET ssl = on")
	tb.Cleanup(func() {
		s.reconfigure(tb, name, "ALTER SYSTEM RESET ssl", "ALTER SYSTEM RESET ssl_cert_file", "ALTER SYSTEM RESET ssl_key_file")
	})
}

// writeByServer has the server write the file: it belongs to its account then, and
// to nobody else.
func writeByServer(path string, content []byte) string {
	return "COPY (SELECT unnest(string_to_array('" + strings.TrimSuffix(string(content), "\n") + "', E'\\n'))) " +
		"TO PROGRAM 'umask 077; cat > " + path + "'"
}

// reconfigure runs statements as the superuser and has the server read its
// settings again. New connections know them when it returns.
func (s *Set) reconfigure(tb testing.TB, name string, statements ...string) {
	tb.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.SuperURL(name))
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	var before time.Time
	if err := conn.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&before); err != nil {
		tb.Fatal(err)
	}
	for _, statement := range append(statements, "SELECT pg_reload_conf()") {
		if _, err := conn.Exec(ctx, statement); err != nil {
			tb.Fatalf("%s: %v", statement, err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for loaded := before; !loaded.After(before); {
		if time.Now().After(deadline) {
			tb.Fatal("the server does not read its settings")
		}
		fresh, err := pgx.Connect(ctx, s.SuperURL(name)) // a connection that is there may be told later
		if err != nil {
			tb.Fatal(err)
		}
		err = fresh.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&loaded)
		_ = fresh.Close(ctx)
		if err != nil {
			tb.Fatal(err)
		}
	}
}
