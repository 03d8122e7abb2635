//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// startBound is how long a server may take until it answers; recovery after a crash is part of it.
const startBound = 60 * time.Second

// Server is one Postgres server of a Set.
type Server struct {
	set  *Set
	name string
	data string

	op sync.Mutex // one of Start, Stop, Restart, Kill at a time

	mu   sync.Mutex // guards what follows
	proc *process   // nil: never started, or stopped
	port int        // of the last start; 0: none yet
}

func newServer(set *Set, name string) *Server {
	s := &Server{set: set, name: name, data: filepath.Join(set.config.Dir, name)}
	s.port = s.rememberedPort()
	return s
}

// Name is the server's name in its set.
func (s *Server) Name() string { return s.name }

// DataDir is the server's data directory.
func (s *Server) DataDir() string { return s.data }

// LogFile is where the server's standard error goes.
func (s *Server) LogFile() string { return s.data + ".log" }

// Port is the port of the last start, or the one remembered from an earlier life; 0 if there was none.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

// Addr is host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())) }

// URL is a connection URL for this server.
func (s *Server) URL(role, database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", role, s.Addr(), database)
}

// PID is the postmaster's process id; 0 if it does not run.
func (s *Server) PID() int {
	if p := s.running(); p != nil {
		return p.pid
	}
	return 0
}

// Done is closed when the postmaster that runs now has ended; nil (never) if none runs.
func (s *Server) Done() <-chan struct{} {
	if p := s.running(); p != nil {
		return p.done
	}
	return nil
}

func (s *Server) running() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || s.proc.ended() {
		return nil
	}
	return s.proc
}

// Start starts the server and returns when it answers. It is not an error if it runs already. What an
// earlier life left behind on the data directory is cleared away first.
func (s *Server) Start(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	return s.start(ctx)
}

func (s *Server) start(ctx context.Context) error {
	if s.running() != nil {
		return nil
	}
	if err := s.set.acquire(); err != nil {
		return err
	}
	if err := s.clearLeftover(ctx); err != nil {
		return fmt.Errorf("server %s: %w", s.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	for {
		port, err := choosePort(s.Port())
		if err != nil {
			return fmt.Errorf("server %s: %w", s.name, err)
		}
		err = s.startOn(ctx, port)
		if err == nil {
			s.set.progress("server %s answers on %s", s.name, s.Addr())
			return nil
		}
		// Two refusals pass by themselves: somebody took the port between our look and Postgres's, and
		// backends of a postmaster that was killed have not noticed yet.
		var failed *startError
		if !errors.As(err, &failed) || !failed.transient() || !pause(ctx) {
			return fmt.Errorf("server %s: %w", s.name, err)
		}
	}
}

// pause waits a little before another attempt; false when there is no time for one.
func pause(ctx context.Context) bool {
	return !waitUntil(ctx, 100*time.Millisecond, func() bool { return ctx.Err() != nil })
}

// startError is a postmaster that ended, or did not answer in time, with the end of its log.
type startError struct {
	err error
	log string
}

func (e *startError) Error() string {
	return fmt.Sprintf("did not start: %v; its log ends:\n%s", e.err, tail(e.log))
}

func (e *startError) Unwrap() error { return e.err }

func (e *startError) transient() bool {
	return strings.Contains(e.log, "Address already in use") || strings.Contains(e.log, "shared memory block")
}

// startOn makes one attempt on one port.
func (s *Server) startOn(ctx context.Context, port int) error {
	log, err := os.OpenFile(s.LogFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	before, err := log.Stat()
	if err != nil {
		return err
	}
	settings := s.set.settings()
	args := []string{"-D", s.data, "-p", strconv.Itoa(port)}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", key+"="+settings[key])
	}
	// Not the caller's context: it bounds the start, not the server's life.
	cmd := command(context.Background(), s.set.config.Binaries, s.set.account, s.data, "postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	endWithParent(cmd.SysProcAttr)
	proc, err := startProcess(cmd)
	if err != nil {
		return err
	}
	if err := s.waitReady(ctx, proc, port); err != nil {
		if !proc.ended() {
			stopPostmaster(ctx, proc.pid, proc.ended)
		}
		return &startError{err: err, log: readFrom(s.LogFile(), before.Size())}
	}
	s.mu.Lock()
	s.proc, s.port = proc, port
	s.mu.Unlock()
	return s.rememberPort(port)
}

// waitReady waits until this very postmaster accepts connections. Its pid file says so first, which costs no
// connection and cannot be mistaken for another server on the same port.
func (s *Server) waitReady(ctx context.Context, proc *process, port int) error {
	var ready bool
	waitUntil(ctx, startBound, func() bool {
		ready = readPostmaster(s.data).readyAs(proc.pid)
		return ready || proc.ended()
	})
	switch {
	case proc.ended():
		return fmt.Errorf("the postmaster ended: %v", proc.err)
	case !ready && ctx.Err() != nil:
		return fmt.Errorf("it is not ready: %w", context.Cause(ctx))
	}
	return ping(ctx, port)
}

// readFrom reads what was added to a file after offset; "" when it cannot be read.
func readFrom(path string, offset int64) string {
	content, err := os.ReadFile(path)
	if err != nil || int64(len(content)) < offset {
		return ""
	}
	return string(content[offset:])
}

// Stop stops the server: fast shutdown, then ruder. It is not an error if it does not run. If ctx ends, the
// ruder ways come sooner.
func (s *Server) Stop(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	return s.stop(ctx)
}

func (s *Server) stop(ctx context.Context) error {
	p := s.running()
	if p == nil {
		return nil
	}
	if !stopPostmaster(ctx, p.pid, p.ended) {
		return fmt.Errorf("server %s: process %d cannot be ended", s.name, p.pid)
	}
	return nil
}

// Restart stops the server and starts it again, on the same port unless somebody took it.
func (s *Server) Restart(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	if err := s.stop(ctx); err != nil {
		return err
	}
	return s.start(ctx)
}

// Kill ends the postmaster and all its children with SIGKILL and waits until they are gone: a crash. What
// was flushed is there after the next Start, what was not is lost with the machine only, not with us.
func (s *Server) Kill() error {
	s.op.Lock()
	defer s.op.Unlock()
	p := s.running()
	if p == nil {
		return nil
	}
	if !killPostmaster(p.pid, p.ended) {
		return fmt.Errorf("server %s: process %d or its children cannot be ended", s.name, p.pid)
	}
	return nil
}
