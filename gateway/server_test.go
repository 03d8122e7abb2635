package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const adminShutdown = "terminating connection due to administrator command"

func TestConnectionsAreCapped(t *testing.T) {
	f := startFront(t, FrontConfig{MaxConnections: 2}, stubSession)
	first, second := f.dial(), f.dial()
	for _, r := range []*rawClient{first, second} {
		r.write(goodStartup())
		r.types()
	}
	r := f.dial()
	r.write(goodStartup())
	r.wantFatal("53300", "sorry, too many clients already")
	pid, secret := uint32(1), uint32(1)
	r = f.dial()
	r.write(cancelPacket(pid, secret)) // cancels get in when sessions do not
	r.wantClosed()
	_ = first.conn.Close()
	eventually(t, "a place becomes free", func() bool {
		conn, err := f.connect("sslmode=disable")
		if err == nil {
			_ = conn.Close(context.Background())
		}
		return err == nil
	})
}

// shutdown runs Shutdown in the background.
func (f *front) shutdown(bound time.Duration) chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		done <- f.Shutdown(ctx)
	}()
	return done
}

func wantDone(t *testing.T, done <-chan error, want error) {
	t.Helper()
	select {
	case err := <-done:
		if !errors.Is(err, want) {
			t.Errorf("ended with %v, want %v", err, want)
		}
	case <-time.After(patience):
		t.Fatal("not ended")
	}
}

func (f *front) session() *rawClient {
	f.t.Helper()
	r := f.dial()
	r.write(goodStartup())
	if seen := r.types(); seen != "RSKZ" {
		f.t.Fatalf("greeting %q", seen)
	}
	return r
}

func TestShutdownLetsTransactionsFinish(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	idle, busy, halfOpen := f.session(), f.session(), f.dial()
	halfOpen.write(sslRequest)
	halfOpen.readByte()
	busy.write(query("begin"))
	busy.types()

	done := f.shutdown(patience)
	idle.wantFatal("57P01", adminShutdown)
	halfOpen.wantClosed()
	if conn, err := net.Dial("tcp", f.addr); err == nil {
		_ = conn.Close()
		t.Error("still accepting")
	}
	busy.write(query("in the transaction"))
	if seen := busy.types(); seen != "CZ" {
		t.Fatalf("in a transaction while draining: %q", seen)
	}
	busy.write(query("commit"))
	if seen := busy.types(); seen != "CZ" {
		t.Fatalf("commit while draining: %q", seen)
	}
	busy.wantFatal("57P01", adminShutdown)
	wantDone(t, done, nil)
	wantDone(t, f.served, nil)
	f.served <- nil // for the cleanup
	if err := f.Serve(context.Background(), listenFlaky(t)); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

// A message that comes in while its session is being ended must not turn the
// goodbye into a reset connection: the client is to read 57P01, which tells it
// that the message was not served.
func TestShutdownIsHeardOverAMessage(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	for range 50 {
		s := f.session()
		c := f.snapshot()[0]
		c.drain()
		eventually(t, "the session is ending", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return !c.waiting })
		_, _ = s.conn.Write(query("too late")) // the FATAL is on its way, or here
		s.wantFatal("57P01", adminShutdown)
		_ = s.conn.Close()
		eventually(t, "the session is gone", func() bool { return len(f.snapshot()) == 0 })
	}
}

func TestShutdownKillsAtItsBound(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	inTransaction, running := f.session(), f.session()
	inTransaction.write(query("begin"))
	inTransaction.types()
	running.write(query("block"))
	eventually(t, "the query runs", func() bool { return f.busy() == 1 })
	done := f.shutdown(20 * time.Millisecond)
	inTransaction.wantFatal("57P01", adminShutdown)
	running.wantFatal("57P01", adminShutdown)
	wantDone(t, done, context.DeadlineExceeded)
}

// busy counts the sessions that are not waiting for their clients.
func (f *front) busy() (n int) {
	for _, c := range f.snapshot() {
		c.mu.Lock()
		if !c.waiting {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

func TestShutdownClosesConnectionsThatDoNotListen(t *testing.T) {
	f := startFront(t, FrontConfig{}, floodSession)
	f.dial().write(goodStartup()) // never reads: its session blocks in a write
	eventually(t, "the session is there", func() bool { return len(f.snapshot()) == 1 })
	wantDone(t, f.shutdown(10*time.Millisecond), context.DeadlineExceeded)
}

// floodSession writes until it fails.
func floodSession(_ context.Context, c *client) error {
	row, err := (&pgproto3.DataRow{Values: [][]byte{make([]byte, 8000)}}).Encode(nil)
	if err != nil {
		return err
	}
	for c.flush() == nil {
		for range 10 {
			c.sendRaw(row)
		}
	}
	return c.flush()
}

func TestClientsThatDoNotReadAreGivenUp(t *testing.T) {
	f := startFront(t, FrontConfig{WriteTimeout: 50 * time.Millisecond}, floodSession)
	f.dial().write(goodStartup())
	eventually(t, "the session begins and ends", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.clients) == 1
	})
	eventually(t, "the session is given up", func() bool { return len(f.snapshot()) == 0 })
}

func TestServeEndsWithItsContext(t *testing.T) {
	checkLeaks(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f := &front{t: t, addr: ln.Addr().String(), served: make(chan error, 1)}
	f.Server = newServer(FrontConfig{DrainTimeout: 20 * time.Millisecond}, stubSession)
	go func() { f.served <- f.Serve(ctx, ln) }()
	idle, busy := f.session(), f.session()
	busy.write(query("begin"))
	busy.types()
	cancel()
	idle.wantFatal("57P01", adminShutdown)
	busy.wantFatal("57P01", adminShutdown)
	wantDone(t, f.served, nil)
}

func TestShutdownWakesIdleClientsBehindTLS(t *testing.T) {
	f := startFront(t, FrontConfig{TLS: testTLS(t)}, stubSession)
	r := f.dial()
	r.overTLS()
	r.write(goodStartup())
	r.types()
	done := f.shutdown(patience)
	r.wantFatal("57P01", adminShutdown)
	wantDone(t, done, nil)
}

func TestSeveralListeners(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	second := &front{t: t, Server: f.Server, served: make(chan error, 1)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second.addr = ln.Addr().String()
	go func() { second.served <- second.Serve(context.Background(), ln) }()
	one, two := f.session(), second.session()
	done := f.shutdown(patience)
	one.wantFatal("57P01", adminShutdown)
	two.wantFatal("57P01", adminShutdown)
	wantDone(t, done, nil)
	wantDone(t, second.served, nil)
}

func TestWorkOfAVanishedClientIsCancelled(t *testing.T) {
	cause := make(chan error, 1)
	f := startFront(t, FrontConfig{ClientCheckInterval: 5 * time.Millisecond}, func(ctx context.Context, c *client) error {
		err := stubSession(ctx, c)
		cause <- context.Cause(ctx)
		return err
	})
	patient := f.session()
	patient.write(query("block"))
	r := f.session()
	r.write(query("block"))
	eventually(t, "both queries run", func() bool { return f.busy() == 2 })
	_ = r.conn.Close()
	wantDone(t, cause, errClientGone)
	eventually(t, "its session is gone", func() bool { return len(f.snapshot()) == 1 })
	if err := f.snapshot()[0].ctx.Err(); err != nil {
		t.Errorf("the session whose client is there was ended too: %v", err)
	}
}

func TestOpeningAndClosingLeavesNothing(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	for i := range 300 {
		r := f.session()
		if i%2 == 0 {
			r.write([]byte{'X', 0, 0, 0, 4})
			if _, err := io.ReadAll(r.conn); err != nil {
				t.Fatal(err)
			}
		}
		_ = r.conn.Close()
	}
	eventually(t, "all sessions are gone", func() bool {
		f.cancels.mu.Lock()
		defer f.cancels.mu.Unlock()
		return len(f.snapshot()) == 0 && len(f.cancels.sessions) == 0
	})
}
