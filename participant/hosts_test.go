package participant_test

import (
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// silentHost is the address of a host that takes connections and never says anything.
func silentHost(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

// The first of two hosts is silent: the second is reached within the time for one connection, and a cancel goes where
// the connection is.
func TestSecondHost(t *testing.T) {
	silent, real := silentHost(t), ""
	_, node := newNode(t, func(c *participant.Config) {
		u, err := url.Parse(c.URL)
		if err != nil {
			t.Fatal(err)
		}
		real = u.Host
		c.URL = strings.Replace(c.URL, real, silent+","+real, 1)
		c.ConnectTimeout = 6 * time.Second
	})
	if got := node.Address(); got != silent {
		t.Errorf("address %s before the first connection, want %s", got, silent)
	}
	b := newBranch(t, node)
	b.Query("SELECT pg_sleep(60)")
	if err := b.Send(); err != nil {
		t.Fatal(err)
	}
	if got := node.Address(); got != real {
		t.Errorf("address %s, want %s", got, real)
	}
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() { // again and again: the first may come before the statement runs
		defer close(stopped)
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-ended:
				tick.Stop()
				return
			case <-tick.C:
				b.Conn().Cancel()
			}
		}
	}()
	r, err := receive(b)
	close(ended)
	<-stopped
	if err != nil || r.err == nil || r.err.Code != "57014" {
		t.Errorf("%v, %v", r.err, err)
	}
}

// What was the primary before a failover is not believed afterwards; a server made anew is.
func TestFormerPrimaryIsNotBelieved(t *testing.T) {
	var p participant.Primary
	for i, step := range []struct {
		system, timeline string
		believed         bool
	}{
		{"1", "1", true}, {"1", "9", true}, {"1", "10", true}, {"1", "9", false}, {"1", "1", false}, {"1", "10", true},
		{"2", "1", true}, {"2", "", false},
	} {
		if err := p.Believe(step.system, step.timeline); (err == nil) != step.believed {
			t.Errorf("step %d: %v", i, err)
		}
	}
}
