package harness

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Fault is something that can be done to a server, a gateway or the way between them for a while. Faults on different targets may overlap
// in any way; the same target has one at a time.
type Fault struct {
	Kind   string
	Target string
	// Touches are the names of the servers and gateways whose clients may notice. With a lane, it is those who need both ends.
	Touches []string
	// Lane tells that only transactions that need all of Touches may notice.
	Lane bool
	// Begin and End may fail the test. After End the target works, or is on its way to.
	Begin, End func(t testing.TB)
}

// String is "kill -9 of a node: b".
func (f Fault) String() string { return f.Kind + ": " + f.Target }

// Faults are all faults that there are for a fleet; those of a full disk if the cluster has been made with small ones. Points are the fault
// points at which a gateway may be made to crash. Random choices within a fault come from choose, which is used in the calls of Begin only,
// and one at a time.
func (f *Fleet) Faults(choose *rand.Rand, points []string) []Fault {
	var all []Fault
	for _, server := range f.Cluster.Servers() {
		all = append(all, serverFaults(server)...)
	}
	for _, site := range f.Sites {
		all = append(all, siteFaults(site, choose, points)...)
		for _, server := range f.Cluster.Servers() {
			all = append(all, laneFaults(site, server.Name(), choose)...)
		}
	}
	return all
}

func serverFaults(s *Server) []Fault {
	kind := "node"
	if s.Name() == CoordinatorName {
		kind = "decision database"
	}
	touches := []string{s.Name()}
	faults := []Fault{
		{Kind: "kill -9 of a " + kind, Target: s.Name(), Touches: touches, Begin: s.Kill9, End: s.Start},
		{Kind: "pause of a " + kind, Target: s.Name(), Touches: touches, Begin: s.Pause, End: s.Unpause},
		{Kind: "stop of a " + kind, Target: s.Name(), Touches: touches, Begin: s.Stop, End: s.Start},
	}
	for part := range s.disks {
		faults = append(faults, Fault{
			Kind: fmt.Sprintf("full %s disk of a %s", part, kind), Target: s.Name(), Touches: touches,
			Begin: func(t testing.TB) { s.FillDisk(t, part) }, End: s.FreeDisk,
		})
	}
	return faults
}

func siteFaults(s *Site, choose *rand.Rand, points []string) []Fault {
	again := func(t testing.TB) { s.Start(t) }
	touches := []string{s.Name()}
	var faults []Fault
	if s.disk != nil { // it touches nobody: a gateway writes nothing but its log
		faults = append(faults, Fault{Kind: "full disk of a gateway", Target: s.Name(), Begin: s.FillDisk, End: s.FreeDisk})
	}
	return append(faults, []Fault{
		{Kind: "kill -9 of a gateway", Target: s.Name(), Touches: touches, Begin: func(t testing.TB) { s.Kill9(t) }, End: again},
		{Kind: "SIGSTOP of a gateway", Target: s.Name(), Touches: touches, Begin: s.Pause, End: s.Unpause},
		{Kind: "SIGTERM of a gateway", Target: s.Name(), Touches: touches, Begin: func(t testing.TB) { s.Stop(t) }, End: again},
		{
			Kind: "crash of a gateway at a fault point", Target: s.Name(), Touches: touches,
			Begin: func(t testing.TB) {
				point := points[choose.IntN(len(points))]
				s.Kill9(t)
				s.Launch(t, "--crash-at", point)
			},
			End: func(t testing.TB) {
				s.Kill9(t) // unless it has passed the point
				s.Start(t)
			},
		},
	}...)
}

func laneFaults(s *Site, server string, choose *rand.Rand) []Fault {
	lane := s.Lane(server)
	heal := func(t testing.TB) { check(t, lane.Heal()) }
	one := func(kind string, begin ...func() error) Fault {
		return Fault{
			Kind: kind, Target: lane.String(), Touches: []string{s.Name(), server}, Lane: true, End: heal,
			Begin: func(t testing.TB) {
				for _, do := range begin {
					check(t, do())
				}
			},
		}
	}
	on := func(do func(Direction) error, d Direction) func() error { return func() error { return do(d) } }
	slow := func(d Direction) func() error {
		latency := time.Duration(20+choose.IntN(300)) * time.Millisecond
		return func() error { return lane.Slow(d, latency, latency/2) }
	}
	return []Fault{
		one("lost requests", on(lane.Cut, Requests)),
		one("lost answers", on(lane.Cut, Answers)),
		one("lost requests and answers", on(lane.Cut, Requests), on(lane.Cut, Answers)),
		one("held requests", on(lane.Hold, Requests)),
		one("held answers", on(lane.Hold, Answers)),
		one("slow lane", slow(Requests), slow(Answers)),
		one("reset on request", on(lane.Reset, Requests)),
		one("reset on answer", on(lane.Reset, Answers)),
		one("refused connections", lane.Refuse),
		one("broken connections", lane.Break),
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
