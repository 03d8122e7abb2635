package harness

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pgpact/pgpact/internal/pgserver"
	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
)

// startProcesses makes the cluster out of local server processes, for machines without a container engine.
func (c *Cluster) startProcesses(t testing.TB, options Options) {
	t.Helper()
	t.Log(Announcement())
	set := pgservertest.Start(t, pgservertest.Options{Settings: options.settings()}, options.names()...)
	for _, name := range options.names() {
		server := &Server{name: name, machine: &process{set: set, server: set.Server(name)}}
		// A frozen server hears no shutdown: wake it before it is stopped. Cleanups run last one first.
		t.Cleanup(func() { _ = server.pause(context.Background(), false) })
		if options.SmallDisks {
			server.moveToDisks(t, set.Server(name).DataDir())
		}
		c.servers = append(c.servers, server)
	}
}

// moveToDisks moves the files of a process that has just been started.
func (s *Server) moveToDisks(t testing.TB, data string) {
	t.Helper()
	s.Stop(t)
	s.disks = map[DiskPart]disk{}
	for _, place := range []struct {
		part DiskPart
		dir  string
	}{{Data, data}, {WAL, filepath.Join(data, "pg_wal")}} {
		d, err := moveToDisk(place.dir, diskSizes[place.part])
		check(t, err)
		s.disks[place.part] = d
	}
	t.Cleanup(func() { // before the set removes its directories, which it could not do with mounts among them
		_ = s.stop(context.Background()) // its set would find it without files
		for _, part := range []DiskPart{WAL, Data} {
			if err := unmountDisk(s.disks[part].dir); err != nil {
				t.Errorf("unmount %s: %v", s.disks[part].dir, err)
			}
		}
	})
	s.Start(t)
}

// process is a server that is a process of this machine.
type process struct {
	set    *pgservertest.Set
	server *pgserver.Server
}

func (p *process) url(super bool) string {
	if super {
		return p.set.SuperURL(p.server.Name())
	}
	return p.set.URL(p.server.Name())
}

func (p *process) direct(bool) string { return "" }

func (p *process) kill(context.Context) error      { return p.server.Kill() }
func (p *process) start(ctx context.Context) error { return p.server.Start(ctx) }
func (p *process) stop(ctx context.Context) error  { return p.server.Stop(ctx) }

func (p *process) running(context.Context) (bool, error) { return p.server.PID() != 0, nil }

// pause stops the postmaster first and wakes it last, so that no backend is born in between and left out.
func (p *process) pause(_ context.Context, paused bool) error {
	postmaster := p.server.PID()
	if postmaster == 0 {
		return nil
	}
	signal := syscall.SIGCONT
	if paused {
		signal = syscall.SIGSTOP
		if err := syscall.Kill(postmaster, signal); err != nil {
			return err
		}
	}
	var errs []error
	for _, child := range childrenOf(postmaster) {
		if err := syscall.Kill(child, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
	}
	if !paused {
		errs = append(errs, syscall.Kill(postmaster, signal))
	}
	return errors.Join(errs...)
}

func (p *process) connected(context.Context, bool) error {
	return errors.New("a local process cannot be taken off the network")
}

func (p *process) log(context.Context) string {
	text, _ := os.ReadFile(p.server.LogFile())
	return string(text)
}

// childrenOf reads /proc: Postgres puts every backend into a process group of its own.
func childrenOf(parent int) []int {
	var children []int
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if _, itsParent, ok := processStat(filepath.Base(name)); ok && err == nil && itsParent == strconv.Itoa(parent) {
			children = append(children, pid)
		}
	}
	return children
}

// processStat reads the state and the parent of a process; not ok where there is no such process, or no /proc.
func processStat(pid string) (state, parent string, ok bool) {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", "", false
	}
	// The second field is the command in parentheses and may hold blanks; after it: state, parent.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return "", "", false
	}
	return fields[0], fields[1], true
}

func (p *process) run(context.Context, string, string) error {
	return errors.New("scripts in a server need containers")
}
