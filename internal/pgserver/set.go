//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// SetConfig says which servers a Set has and how they run.
type SetConfig struct {
	Dir      string   // holds everything; made when missing, used as it is when not
	Binaries Binaries // from Find
	Names    []string // one server each; letters, digits, '-' and '_'

	// Settings are added to the defaults of every server and win over them.
	Settings map[string]string
	// Template is a cluster to copy from instead of DIR/template; see EnsureTemplate.
	Template string
	// Logger hears of things worth knowing; nil: nobody.
	Logger *slog.Logger
	// Progress is told, one line at a time, what OpenSet and Start are doing; nil: nobody. It may be called
	// from several goroutines, one at a time.
	Progress func(string)
}

// defaults are the settings of every server, chosen for many small servers on one machine and for two-phase
// commit. fsync stays on: a demo of durability without it would be a lie.
var defaults = map[string]string{
	"fsync":                     "on",
	"max_prepared_transactions": "200",
	"max_connections":           "300",
	"shared_buffers":            "64MB",
	"listen_addresses":          "127.0.0.1",
	"unix_socket_directories":   "", // none: a path below DIR could be longer than a socket's may be
	"logging_collector":         "off",
	"log_line_prefix":           "%m [%p] %u@%d ",
	"lc_messages":               "C",
}

// Set is a directory of servers, locked for us while it is open.
type Set struct {
	config  SetConfig
	account account
	servers []*Server

	lockMu sync.Mutex
	lock   *os.File // nil: not held

	progressMu sync.Mutex
}

var (
	serverName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	reservedTop = map[string]bool{"template": true, "lock": true}
)

// OpenSet locks the directory and makes what is missing in it: the template by initdb, each server's data
// directory by copying that. Servers that are there already are used as they are. Nothing is started.
// Another process that has the directory open is a *DirInUseError.
func OpenSet(ctx context.Context, config SetConfig) (_ *Set, err error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	// 0711: the account that root's children change to must be able to pass.
	if err := os.MkdirAll(config.Dir, 0o711); err != nil {
		return nil, err
	}
	// Postgres's processes show the resolved path, and it is compared with ours when looking for leftovers.
	if config.Dir, err = filepath.EvalSymlinks(config.Dir); err != nil {
		return nil, err
	}
	if config.Dir, err = filepath.Abs(config.Dir); err != nil {
		return nil, err
	}
	s := &Set{config: config}
	if err := s.acquire(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.account, err = chooseAccount(s.existing()); err != nil {
		return nil, err
	}
	for _, name := range config.Names {
		s.servers = append(s.servers, newServer(s, name))
	}
	return s, s.fill(ctx)
}

func (c *SetConfig) validate() error {
	if c.Dir == "" || c.Binaries.Dir == "" || len(c.Names) == 0 {
		return errors.New("pgserver: a set needs Dir, Binaries and at least one name")
	}
	seen := make(map[string]bool)
	for _, name := range c.Names {
		if !serverName.MatchString(name) || reservedTop[name] {
			return fmt.Errorf("pgserver: %q cannot name a server: letters, digits, '-' and '_', not \"template\" or \"lock\"", name)
		}
		if seen[name] {
			return fmt.Errorf("pgserver: two servers named %q", name)
		}
		seen[name] = true
	}
	return nil
}

// existing is one data directory that is there already, or "".
func (s *Set) existing() string {
	for _, name := range s.config.Names {
		data := filepath.Join(s.config.Dir, name)
		if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
			return data
		}
	}
	return ""
}

// fill makes the data directories that are missing.
func (s *Set) fill(ctx context.Context) error {
	var missing []*Server
	for _, server := range s.servers {
		switch err := checkMajor(server.data, s.config.Binaries); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, server)
		case err != nil:
			return err
		}
	}
	if len(missing) == 0 {
		return checkAccess(ctx, s.config.Binaries, s.account, s.servers[0].data)
	}
	template := s.config.Template
	if template == "" {
		template = filepath.Join(s.config.Dir, "template")
		s.progress("initdb with Postgres %s from %s", s.config.Binaries.Version, s.config.Binaries.Dir)
		if err := makeTemplate(ctx, s.config.Binaries, s.account, template); err != nil {
			return err
		}
	}
	for _, server := range missing {
		s.progress("making data directory %s", server.data)
		if err := copyCluster(template, server.data, s.account); err != nil {
			return err
		}
	}
	// A template from elsewhere was checked there; this directory was not.
	return checkAccess(ctx, s.config.Binaries, s.account, missing[0].data)
}

// EnsureTemplate makes sure that dir/data is an initdb'd cluster for SetConfig.Template, made once however
// many processes ask at the same time, and returns its path.
func EnsureTemplate(ctx context.Context, b Binaries, dir string) (string, error) {
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// The name is known to everybody on the machine: what somebody else put there is not ours to run.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	uid, _, err := ownerOf(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || int(uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a directory of ours", dir)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"), true)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	data := filepath.Join(dir, "data")
	a, err := chooseAccount("")
	if err != nil {
		return "", err
	}
	return data, makeTemplate(ctx, b, a, data)
}

// DirInUseError says that another process has the directory open.
type DirInUseError struct {
	Dir string
	PID string // of the holder, as it wrote it down; may be empty
}

// Error implements error.
func (e *DirInUseError) Error() string {
	return fmt.Sprintf("%s is in use by another pgpact (process %s); stop that one, or use another directory", e.Dir, e.PID)
}

// acquire takes the directory's lock unless it is held already.
func (s *Set) acquire() error {
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if s.lock != nil {
		return nil
	}
	path := filepath.Join(s.config.Dir, "lock")
	f, err := lockFile(path, false)
	if errors.Is(err, errLocked) {
		holder, _ := os.ReadFile(path) // only for the message
		return &DirInUseError{Dir: s.config.Dir, PID: strings.TrimSpace(string(holder))}
	}
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(0), writeAll(f, fmt.Sprintln(os.Getpid()))); err != nil {
		return errors.Join(err, f.Close())
	}
	s.lock = f
	return nil
}

func writeAll(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// release lets the directory go.
func (s *Set) release() {
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if s.lock != nil {
		_ = s.lock.Close()
		s.lock = nil
	}
}

// Start starts all servers at the same time and returns when every one answers. If one cannot be started,
// the others are stopped again.
func (s *Set) Start(ctx context.Context) error {
	if err := s.acquire(); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, server := range s.servers {
		group.Go(func() error { return server.Start(groupCtx) })
	}
	if err := group.Wait(); err != nil {
		return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return nil
}

// Stop stops all servers at the same time, fast and then ruder, waits for their end, and lets the directory
// go. A context that ends only makes it ruder sooner; nothing is left running because of it. A later Start
// works.
func (s *Set) Stop(ctx context.Context) error {
	errs := make([]error, len(s.servers))
	var wg sync.WaitGroup
	for i, server := range s.servers {
		wg.Go(func() { errs[i] = server.Stop(ctx) })
	}
	wg.Wait()
	s.release()
	return errors.Join(errs...)
}

// Servers are the servers in the order of SetConfig.Names.
func (s *Set) Servers() []*Server { return s.servers }

// Server finds a server by name; nil if there is none.
func (s *Set) Server(name string) *Server {
	for _, server := range s.servers {
		if server.name == name {
			return server
		}
	}
	return nil
}

// Dir is the directory, absolute and without symbolic links.
func (s *Set) Dir() string { return s.config.Dir }

func (s *Set) progress(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if s.config.Logger != nil {
		s.config.Logger.Debug(line)
	}
	if s.config.Progress != nil {
		s.progressMu.Lock()
		defer s.progressMu.Unlock()
		s.config.Progress(line)
	}
}

// settings are the defaults, overridden.
func (s *Set) settings() map[string]string {
	merged := maps.Clone(defaults)
	maps.Copy(merged, s.config.Settings)
	return merged
}
