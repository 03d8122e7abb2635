package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"syscall"
	"time"
)

// certificate is one that has signed itself, and its key, in PEM.
type certificate struct{ cert, key []byte }

// newCertificate makes one for 127.0.0.1. ECDSA, because a certificate with Ed25519 has no channel binding. The address is also the common name:
// libpq before 15 looks for it nowhere else.
func newCertificate() (certificate, error) {
	const address = "127.0.0.1"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: address},
		IPAddresses:  []net.IP{net.ParseIP(address)},
		NotBefore:    now.Add(-time.Hour),
		// pgpact warns of certificates that end within two weeks.
		NotAfter:              now.Add(30 * 24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true, // it is its own authority
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return certificate{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return certificate{}, err
	}
	return certificate{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}

// write puts it into two files of the account that owns the directory dir: root's Postgres runs as another account, and a key is read by its
// owner only.
func (c certificate) write(certFile, keyFile, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return errors.New(dir + ": no owner known")
	}
	for name, content := range map[string][]byte{certFile: c.cert, keyFile: c.key} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return err
		}
		if err := os.Lchown(name, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return nil
}
