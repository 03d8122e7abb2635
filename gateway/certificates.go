package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// CertificateFiles are what TLS to clients is made of. All files are PEM.
type CertificateFiles struct {
	Cert string // the gateway's certificate, then the intermediate ones
	Key  string // its private key
	// ClientCA, when not "", are the authorities whose client certificates are
	// taken. A client need not have one, unless a rule says so, but one that is
	// not good ends its connection.
	ClientCA string
	// MinVersion is tls.VersionTLS12, the default, or tls.VersionTLS13.
	MinVersion uint16
}

// lookAtFilesEvery is how often, at most, a new connection has the files of the
// certificates looked at.
const lookAtFilesEvery = time.Second

// Certificates serve TLS to clients and follow their files: when one has
// changed, the next handshake uses what is in it now. Files that do not fit
// together, such as a new certificate whose key has not been written yet, are
// reported, and the ones before stay in use. Connections that exist keep theirs.
type Certificates struct {
	files  CertificateFiles
	logger *slog.Logger
	now    func() time.Time

	mu     sync.Mutex
	looked time.Time
	seen   [3]fileState // of the last attempt, whatever came of it
	config *tls.Config
}

// fileState is what tells a changed file.
type fileState struct {
	modified time.Time
	size     int64
	inode    uint64 // a replaced symlink (Kubernetes) shows in nothing else for sure
}

// OpenCertificates reads the files; they must be good to begin with.
func OpenCertificates(files CertificateFiles, logger *slog.Logger) (*Certificates, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	c := &Certificates{files: files, logger: logger, now: time.Now}
	return c, c.Reload()
}

// Reload reads the files now. An error leaves in use what was.
func (c *Certificates) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.load(c.states())
}

// Expires is when the certificate in use ends to be valid.
func (c *Certificates) Expires() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.config.Certificates[0].Leaf.NotAfter
}

// current is the configuration of the next handshake.
func (c *Certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.looked) < lookAtFilesEvery {
		return c.config
	}
	c.looked = now
	if states := c.states(); states != c.seen {
		if err := c.load(states); err != nil {
			c.logger.Error("the changed TLS files are not used, those before stay", "error", err)
		} else {
			c.logger.Info("TLS certificate loaded", "subject", c.config.Certificates[0].Leaf.Subject.String(),
				"expires", c.config.Certificates[0].Leaf.NotAfter)
		}
	}
	return c.config
}

func (c *Certificates) states() (states [3]fileState) {
	for i, name := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if info, err := os.Stat(name); err == nil {
			states[i] = fileState{modified: info.ModTime(), size: info.Size()}
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				states[i].inode = stat.Ino
			}
		}
	}
	return states
}

// load reads the files, whose states were taken before: a change meanwhile is
// seen at the next look.
func (c *Certificates) load(states [3]fileState) error {
	c.seen, c.looked = states, c.now()
	config, err := c.files.read()
	if err != nil {
		return err
	}
	c.config = config
	return nil
}

func (f CertificateFiles) read() (*tls.Config, error) {
	if err := checkKeyFile(f.Key); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{alpnProtocol},
		MinVersion:   max(f.MinVersion, tls.VersionTLS12), // as Postgres: ssl_min_protocol_version
		// As Postgres: clients would not use them, and a resumed session could outlive the
		// authority that its certificate was judged by.
		SessionTicketsDisabled: true,
	}
	if f.ClientCA != "" {
		authorities, err := os.ReadFile(f.ClientCA)
		if err != nil {
			return nil, err
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", f.ClientCA)
		}
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return config, nil
}

// checkKeyFile refuses a private key that others can read or write, by the rule
// of Postgres: it is its owner's alone, or root's and readable to its group.
func checkKeyFile(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	forbidden := os.FileMode(0o077)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 {
		forbidden = 0o037
	}
	if info.Mode().Perm()&forbidden != 0 {
		return fmt.Errorf("private key file %s has group or world access: its permissions must be u=rw (0600) or less, "+
			"or u=rw,g=r (0640) or less if it belongs to root", name)
	}
	return nil
}
