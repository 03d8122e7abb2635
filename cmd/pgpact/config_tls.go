package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/pgpact/pgpact/gateway"
)

const tls12, tls13 = "1.2", "1.3"

// checkTLS checks what no key of tls can know alone.
func (r *configReader) checkTLS() {
	cfg := r.cfg
	written := func(key, value string) bool { return value != "" || r.refusedAt(key) }
	switch {
	case written("tls.cert", cfg.TLS.Cert) != written("tls.key", cfg.TLS.Key):
		present, missing := "tls.cert", "tls.key"
		if cfg.TLS.Cert == "" {
			present, missing = missing, present
		}
		r.refuse(r.where(present), present, "needs %s as well", missing)
	case cfg.TLS.ClientCA != "" && cfg.TLS.Cert == "":
		r.refuse(r.where("tls.client_ca"), "tls.client_ca", "needs tls.cert and tls.key: clients show their certificates over TLS only")
	}
}

// path is a file that the configuration names: from the directory of the
// configuration unless it is absolute.
func (cfg *Config) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(cfg.file), name)
}

// openCertificates reads the files of TLS to clients; nil when there are none.
func openCertificates(cfg *Config, logger *slog.Logger) (*gateway.Certificates, error) {
	if cfg.TLS.Cert == "" {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	files := gateway.CertificateFiles{
		Cert: cfg.path(cfg.TLS.Cert), Key: cfg.path(cfg.TLS.Key), ClientCA: cfg.path(cfg.TLS.ClientCA), MinVersion: tls.VersionTLS12,
	}
	if cfg.TLS.MinVersion == tls13 {
		files.MinVersion = tls.VersionTLS13
	}
	certificates, err := gateway.OpenCertificates(files, logger)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return certificates, nil
}

// expiresSoon is how long before its end a certificate is worth a warning.
const expiresSoon = 14 * 24 * time.Hour

// inspectTLS looks at the files of TLS to clients.
func (in *inspection) inspectTLS(f *findings) {
	certificates, err := openCertificates(in.cfg, nil)
	switch {
	case err != nil:
		f.add(danger, "%v", err)
	case certificates == nil:
	case !time.Now().Before(certificates.Expires()):
		f.add(warning, "the certificate that clients see (tls.cert) was valid until %s", certificates.Expires().Format(time.DateOnly))
	case time.Until(certificates.Expires()) < expiresSoon:
		f.add(warning, "the certificate that clients see (tls.cert) is valid until %s only", certificates.Expires().Format(time.DateOnly))
	}
}
