package harness

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Fleet is several gateways on one cluster, each with lanes of its own to every server.
type Fleet struct {
	Cluster *Cluster
	Sites   []*Site
	// Evidence is where the logs of all gateways and servers are left when the test fails.
	Evidence *Evidence
}

// NewFleet starts n gateways on a migrated cluster and returns when all are ready. Lines are further keys of their configurations, as for
// WriteConfig.
func NewFleet(t testing.TB, cluster *Cluster, n int, lines ...string) *Fleet {
	t.Helper()
	f := &Fleet{Cluster: cluster, Evidence: NewEvidence(t)}
	for _, server := range cluster.Servers() {
		f.Evidence.Keep("server-"+server.Name()+".log", server.Log)
	}
	for i := range n {
		site := newSite(t, cluster, fmt.Sprintf("gateway-%d", i+1), lines)
		f.Evidence.Keep(site.name+".log", site.Log)
		f.Sites = append(f.Sites, site)
	}
	for _, site := range f.Sites {
		site.Start(t)
	}
	return f
}

// Site is the place of one gateway: its configuration, its address and its lanes, which stay the same while processes come and go.
type Site struct {
	name   string
	config string
	admin  string // where Goroutines asks
	lanes  map[string]*Lane
	disk   *disk // nil without Options.SmallDisks

	mu      sync.Mutex
	url     string
	gateway *Gateway // the latest
	before  strings.Builder
	last    string // the whole log, of a test that has failed, once the disk is gone
}

func newSite(t testing.TB, cluster *Cluster, name string, lines []string) *Site {
	t.Helper()
	s := &Site{name: name, lanes: map[string]*Lane{}, admin: "127.0.0.1:" + FreePort(t)}
	if cluster.disks {
		d := newDisk(t, gatewayDisk, os.Getuid())
		s.disk = &d
		t.Cleanup(func() { // the log is on the disk, and the evidence is written when that has gone
			if t.Failed() {
				s.last = s.Log()
			}
		})
	}
	for _, server := range cluster.Servers() {
		s.lanes[server.Name()] = newLane(t, name, server)
	}
	s.config = cluster.writeConfig(t, s.reach, append([]string{"name: " + name, "admin_listen: " + s.admin}, lines...))
	return s
}

// reach is a server's URL by way of the lane.
func (s *Site) reach(server *Server) string {
	host := hostOf(server.URL())
	return strings.Replace(server.URL(), host, s.lanes[server.Name()].address(), 1)
}

// Name is gateway-1, gateway-2, and so on.
func (s *Site) Name() string { return s.name }

// URL is where clients reach the gateway. It stays the same over Kill9 and Start.
func (s *Site) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// Config is the path of the gateway's configuration, whose servers are at the ends of the lanes.
func (s *Site) Config() string { return s.config }

// Lane is the way from this gateway to a server: harness.CoordinatorName or a node's name. It panics when there is none, because then the
// test is wrong.
func (s *Site) Lane(server string) *Lane {
	if lane := s.lanes[server]; lane != nil {
		return lane
	}
	panic("no server " + server)
}

// Gateway is the latest process.
func (s *Site) Gateway() *Gateway {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gateway
}

// Start starts a process, whose predecessor must have ended, and returns when it is ready. Arguments are those of serve, as
// "--crash-at", "voted". A gateway that gives up because it cannot reach its decision database is started again, as a supervisor would.
func (s *Site) Start(t testing.TB, args ...string) {
	t.Helper()
	deadline := time.Now().Add(bound)
	for {
		g := s.Launch(t, args...)
		url, err := g.ready(time.Until(deadline))
		if err == nil {
			s.mu.Lock()
			s.url = url
			s.mu.Unlock()
			return
		}
		if time.Now().After(deadline) || !g.hasExited() {
			t.Fatalf("%s: %v\n%s", s.name, err, lastLines(g.Log(), 100))
		}
		time.Sleep(200 * time.Millisecond) // as supervisors do
	}
}

// Launch is Start that does not wait: for a process that is to die on its way, of "--crash-at" at a point of recovery.
func (s *Site) Launch(t testing.TB, args ...string) *Gateway {
	t.Helper()
	g := start(t, append([]string{"serve", "--config", s.config}, args...), s.disk)
	g.quiet = true // the evidence has it
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gateway != nil {
		s.before.WriteString(s.gateway.epitaph())
	}
	s.gateway = g
	return g
}

// Kill9 kills the process with SIGKILL, also a paused one, and returns how it ended: it may have ended by itself before.
func (s *Site) Kill9(t testing.TB) Exit { t.Helper(); return s.Gateway().Kill9(t) }

// Stop ends the process in order (SIGTERM).
func (s *Site) Stop(t testing.TB) Exit { t.Helper(); return s.Gateway().Stop(t) }

// Pause stops the process with SIGSTOP: its connections stay open, and so does the lock by which others see that it lives.
func (s *Site) Pause(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGSTOP) }

// Unpause ends Pause (SIGCONT).
func (s *Site) Unpause(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGCONT) }

func (s *Site) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	g := s.Gateway()
	if g.hasExited() {
		return
	}
	if err := g.cmd.Process.Signal(signal); err != nil && !g.hasExited() {
		t.Fatalf("%v to %s: %v", signal, s.name, err)
	}
}

// Goroutines are the stacks of all goroutines of the process.
func (s *Site) Goroutines() (string, error) { return Goroutines(s.admin) }

// Log is what all processes of the site have written, each with how it ended.
func (s *Site) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != "" {
		return s.last
	}
	text := s.before.String()
	if s.gateway != nil {
		text += s.gateway.epitaph()
	}
	return text
}

// Heal ends every fault on every lane.
func (f *Fleet) Heal() error {
	for _, site := range f.Sites {
		for _, lane := range site.lanes {
			if err := lane.Heal(); err != nil {
				return err
			}
		}
	}
	return nil
}
