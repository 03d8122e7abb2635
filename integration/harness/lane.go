package harness

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Direction is one of the two ways on a lane.
type Direction string

const (
	// Requests is from the gateway to the server.
	Requests Direction = "upstream"
	// Answers is from the server to the gateway.
	Answers Direction = "downstream"
)

// Lane is the network between one gateway and one server. It has an address of its own, so that the way of one gateway can be broken
// while another's is whole. Faults on it add up until Heal. Its methods may be called from any goroutine; an error means that the fault
// is not there.
type Lane struct {
	from, to string

	mu     sync.Mutex
	proxy  *toxiproxy.Proxy
	faults []string // names of toxics
}

// newLane puts a proxy before a server; it is gone when the test ends.
func newLane(t testing.TB, from string, server *Server) *Lane {
	t.Helper()
	l := &Lane{from: from, to: server.Name()}
	l.proxy = toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), l.String(), "127.0.0.1:"+FreePort(t), hostOf(server.URL()))
	if err := l.proxy.Start(); err != nil {
		t.Fatalf("lane %s: %v", l, err)
	}
	t.Cleanup(l.proxy.Stop)
	return l
}

// String is "gateway-1 to a".
func (l *Lane) String() string { return l.from + " to " + l.to }

// address is what the gateway connects to instead of the server.
func (l *Lane) address() string { return l.proxy.Listen }

// Cut loses every byte that is sent in this direction from now on, silently. Heal ends the connections that have lost something.
func (l *Lane) Cut(d Direction) error { return l.add("cut", d, "timeout", `{"timeout":0}`) }

// Hold keeps back what is sent in this direction and delivers it when the lane is healed: a partition that ends before anybody has
// given up, and the way to make an answer late. The goodbye of a connection that was closed meanwhile is held as well.
func (l *Lane) Hold(d Direction) error {
	return l.add("hold", d, "latency", fmt.Sprintf(`{"latency":%d}`, time.Hour.Milliseconds()))
}

// Slow delays what is sent in this direction by latency, give or take jitter.
func (l *Lane) Slow(d Direction, latency, jitter time.Duration) error {
	return l.add("slow", d, "latency", fmt.Sprintf(`{"latency":%d,"jitter":%d}`, latency.Milliseconds(), jitter.Milliseconds()))
}

// Reset resets every connection with the next byte that is sent in this direction (TCP RST), new ones as well.
func (l *Lane) Reset(d Direction) error { return l.add("reset", d, "reset_peer", `{"timeout":0}`) }

// Refuse ends all connections and refuses new ones.
func (l *Lane) Refuse() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proxy.Stop()
	return nil
}

// Break ends all connections at once; new ones are let through.
func (l *Lane) Break() error {
	if err := l.Refuse(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.restart()
}

// Heal ends every fault of the lane.
func (l *Lane) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range l.faults {
		if err := l.proxy.Toxics.RemoveToxic(context.Background(), name); err != nil {
			return fmt.Errorf("heal lane %s of %s: %w", l, name, err)
		}
	}
	l.faults = nil
	if !l.proxy.Enabled {
		return l.restart()
	}
	return nil
}

func (l *Lane) restart() error {
	if err := l.proxy.Start(); err != nil {
		return fmt.Errorf("lane %s: %w", l, err)
	}
	return nil
}

func (l *Lane) add(what string, d Direction, kind, attributes string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := what + " " + string(d)
	toxic := fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":%s}`, name, kind, d, attributes)
	if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		return fmt.Errorf("%s on lane %s: %w", name, l, err)
	}
	l.faults = append(l.faults, name)
	return nil
}
