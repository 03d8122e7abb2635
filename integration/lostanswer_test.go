package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestLostAnswers: the server has done what it was asked, and its answer never arrives. What the client is told must be true of what was
// done, which nobody but the server has seen.
func TestLostAnswers(t *testing.T) {
	d := deploy(t, harness.Options{})
	nodeB, decisions := newFuse(t, d.cluster.Node("b").URL()), newFuse(t, d.cluster.Coordinator().URL())
	_, address := harness.Serve(t, d.proxied(t, nodeB, decisions))

	for _, c := range []struct {
		name    string
		fuse    *fuse
		tag     string
		oneNode bool
		tracked bool
		// told may be said, and the outcome must be committed or not.
		told      knowledge
		committed bool
	}{
		{name: "of a one-phase COMMIT", fuse: nodeB, tag: "COMMIT", oneNode: true, told: knowsNothing, committed: true},
		{name: "of PREPARE TRANSACTION", fuse: nodeB, tag: "PREPARE TRANSACTION", told: knowsAborted},
		{name: "of PREPARE TRANSACTION, tracked", fuse: nodeB, tag: "PREPARE TRANSACTION", tracked: true, told: knowsAborted},
		{name: "of COMMIT PREPARED", fuse: nodeB, tag: "COMMIT PREPARED", told: knowsCommitted, committed: true},
		{name: "of the decision", fuse: decisions, tag: "INSERT 0 1", told: knowsCommitted, committed: true},
		{name: "of the decision, tracked", fuse: decisions, tag: "INSERT 0 1", tracked: true, told: knowsCommitted, committed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := halves(t, d, fmt.Sprintf("lost-%d", time.Now().UnixNano()))
			if c.oneNode {
				from = d.open(t, "b", "from-"+from, 1)[0]
			}
			l := &lostAnswer{d: d, from: from, to: to}
			l.run(t, harness.Open(t, address), c.fuse, c.tag, c.tracked)
			if l.told != c.told {
				t.Errorf("the client was told %s, %v, want %s", l.told, l.err, c.told)
			}
			var pgErr *pgconn.PgError
			if l.told == knowsNothing && (!errors.As(l.err, &pgErr) || pgErr.Code != resolutionUnknown) {
				t.Errorf("the client was told %v, want 08007", l.err)
			}
			harness.Eventually(t, settleBound, "in doubt", d.nothingPrepared)
			must(t, moved(d, from, to, c.committed))
			if outcome := map[bool]string{true: "committed", false: "aborted"}[c.committed]; c.tracked {
				if got, err := ask(harness.Open(t, address), "select pgpact.outcome('"+l.id+"')"); got != outcome {
					t.Errorf("pgpact.outcome says %q (%v), want %q", got, err, outcome)
				}
			}
		})
	}
	harness.Eventually(t, 40*time.Second, "decisions and branch records", d.recordsAgree)
}

// proxied is a configuration of a gateway that reaches these servers through fuses.
func (d *deployment) proxied(t *testing.T, fuses ...*fuse) string {
	t.Helper()
	text, err := os.ReadFile(d.cluster.WriteConfig(t))
	must(t, err)
	for _, f := range fuses {
		text = []byte(strings.ReplaceAll(string(text), f.server, f.address))
	}
	config := filepath.Join(t.TempDir(), "proxied.yaml")
	must(t, os.WriteFile(config, text, 0o600))
	return config
}

type lostAnswer struct {
	d        *deployment
	from, to string

	told knowledge
	id   string
	err  error
}

func (l *lostAnswer) run(t *testing.T, conn *pgx.Conn, fuse *fuse, tag string, tracked bool) {
	statements := []string{move(l.from, -visitAmount), move(l.to, visitAmount)}
	fuse.arm(tag)
	if tracked {
		l.told, l.id, l.err = transactTracked(conn, statements...)
	} else {
		l.told, l.err = transact(conn, statements...)
	}
	if fuse.armed.Swap(nil) != nil {
		t.Errorf("no answer %q came by: nothing was tried", tag)
	}
	t.Logf("the client: %s, %v", l.told, l.err)
}

// fuse is a TCP proxy before a server that breaks a connection when a certain answer comes by, once: the server has acted, and the gateway
// does not hear of it.
type fuse struct {
	server, address string
	armed           atomic.Pointer[[]byte]
	// passes lets the answer itself through: lost is what comes after it, as its ReadyForQuery.
	passes atomic.Bool
	// loses, when it is there, is asked for every message in either direction and for every new connection: true breaks the connection.
	loses atomic.Pointer[func() bool]
}

// breaks asks loses.
func (f *fuse) breaks() bool {
	loses := f.loses.Load()
	return loses != nil && (*loses)()
}

func newFuse(t *testing.T, serverURL string) *fuse {
	t.Helper()
	where, err := url.Parse(serverURL)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	f := &fuse{server: where.Host, address: listener.Addr().String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go f.carry(client)
		}
	}()
	return f
}

// arm makes the fuse wait for a CommandComplete with this tag.
func (f *fuse) arm(tag string) {
	f.passes.Store(false)
	answer := append(binary.BigEndian.AppendUint32([]byte{'C'}, uint32(len(tag)+5)), tag...)
	answer = append(answer, 0)
	f.armed.Store(&answer)
}

// armPassing is arm that loses what comes after the answer.
func (f *fuse) armPassing(tag string) {
	f.arm(tag)
	f.passes.Store(true)
}

func (f *fuse) carry(client net.Conn) {
	defer client.Close()
	if f.breaks() {
		return
	}
	server, err := net.Dial("tcp", f.server)
	if err != nil {
		return // as refused as it can be made to look
	}
	defer server.Close()
	go func() {
		defer server.Close()
		defer client.Close()
		f.copy(server, client, false)
	}()
	f.copy(client, server, true)
}

// copy carries bytes until one side ends, or the answer comes by. Our messages are small: an answer is never cut between two reads.
func (f *fuse) copy(to, from net.Conn, answers bool) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if f.breaks() {
			return
		}
		if wanted := f.armed.Load(); answers && wanted != nil && bytes.Contains(buffer[:n], *wanted) && f.armed.CompareAndSwap(wanted, nil) {
			if f.passes.Load() {
				_, _ = to.Write(buffer[:bytes.Index(buffer[:n], *wanted)+len(*wanted)]) // the gateway may be gone
			}
			return
		}
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
	}
}
