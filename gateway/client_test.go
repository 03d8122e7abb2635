package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
)

// pipeClient is a client whose other end the test holds.
func pipeClient(t *testing.T, cfg FrontConfig) (*client, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	_ = far.SetDeadline(time.Now().Add(patience))
	conn := &frontConn{Conn: near, raw: near}
	cfg = cfg.withDefaults()
	return newClient(context.Background(), conn, bufio.NewReader(conn), nil, &cfg), far
}

func TestOutputKeepsItsOrderAtEverySize(t *testing.T) {
	c, far := pipeClient(t, FrontConfig{})
	var want []byte
	sizes := []int{0, 1, 100, flushAt - 6, flushAt, 3, 10 * flushAt, 7, flushAt / 2, flushAt / 2, flushAt / 2}
	received := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(far)
		received <- all
	}()
	for i, size := range sizes {
		msg := &pgproto3.CopyData{Data: bytes.Repeat([]byte{byte(i)}, size)}
		frame, err := msg.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, frame...)
		if i%2 == 0 {
			c.sendRaw(frame)
		} else {
			c.send(msg)
		}
		if cap(c.out) > 3*flushAt {
			t.Errorf("after %d bytes the buffer holds %d", size, cap(c.out))
		}
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	if c.out != nil {
		t.Error("an idle client keeps its output buffer")
	}
	_ = c.conn.Close()
	if got := <-received; !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, other than the %d sent", len(got), len(want))
	}
}

func TestSmallOutputIsOneWrite(t *testing.T) {
	c, _ := pipeClient(t, FrontConfig{})
	counted := &countingConn{}
	c.conn.Conn = counted
	for range 100 {
		c.send(&pgproto3.DataRow{Values: [][]byte{[]byte("value")}})
	}
	if err := c.flush(); err != nil || counted.writes != 1 {
		t.Errorf("%d writes, %v", counted.writes, err)
	}
	if err := c.flush(); err != nil || counted.writes != 1 {
		t.Errorf("an empty flush wrote: %d, %v", counted.writes, err)
	}
}

type countingConn struct {
	net.Conn
	writes, deadlines int
}

func (c *countingConn) Write(b []byte) (int, error)      { c.writes++; return len(b), nil }
func (c *countingConn) SetWriteDeadline(time.Time) error { c.deadlines++; return nil }

// After a torn write the stream is lost: nothing may follow, not even a FATAL.
func TestNothingIsWrittenAfterAFailedWrite(t *testing.T) {
	c, _ := pipeClient(t, FrontConfig{WriteTimeout: 10 * time.Millisecond})
	c.sendRaw([]byte("first message"))
	first := c.flush() // nobody reads
	if first == nil {
		t.Fatal("a write nobody reads succeeded")
	}
	counted := &countingConn{}
	c.conn.Conn = counted
	c.sendRaw([]byte("second"))
	c.sendRaw(make([]byte, 2*flushAt))
	if err := c.flush(); !errors.Is(err, first) {
		t.Errorf("second flush: %v, want %v", err, first)
	}
	c.end(errShutdown)
	if counted.writes != 0 {
		t.Errorf("%d writes after the failed one", counted.writes)
	}
}

func TestWaitTimeout(t *testing.T) {
	c, far := pipeClient(t, FrontConfig{})
	if _, err := c.next(wait{timeout: 5 * time.Millisecond}); !errors.Is(err, errWaitTimeout) {
		t.Fatalf("waited in vain: %v", err)
	}
	// The client is still usable: the session may answer, or wait again.
	go func() { _, _ = far.Write(query("late")) }()
	frame, err := c.next(wait{timeout: patience})
	if err != nil || frame.Type() != 'Q' {
		t.Fatalf("after the timeout: %v", err)
	}
}

// A wish to drain that comes together with a message must not fail the reads
// that the message's transaction still needs.
func TestDrainNeverTearsATransaction(t *testing.T) {
	for range 200 {
		c, far := pipeClient(t, FrontConfig{})
		go c.drain()
		go func() {
			_, _ = far.Write(query("begin"))
			_, _ = far.Write(query("commit"))
		}()
		_, err := c.next(wait{idle: true})
		if errors.Is(err, errShutdown) {
			continue // ended before the transaction began
		}
		if err != nil {
			t.Fatalf("begin: %v", err)
		}
		if _, err := c.next(wait{idle: false}); err != nil {
			t.Fatalf("inside the transaction: %v", err)
		}
		eventually(t, "drain is noticed", c.ending.Load)
		if _, err := c.next(wait{idle: true}); !errors.Is(err, errShutdown) {
			t.Fatalf("idle while draining: %v", err)
		}
	}
}

func TestKillEndsEveryWait(t *testing.T) {
	for _, w := range []wait{{idle: true}, {idle: false}, {timeout: patience}} {
		c, _ := pipeClient(t, FrontConfig{})
		cause := errors.New("the cause")
		go c.kill(cause)
		if _, err := c.next(w); !errors.Is(err, cause) {
			t.Errorf("%+v: %v", w, err)
		}
		if _, err := c.next(w); !errors.Is(err, cause) || !errors.Is(context.Cause(c.ctx), cause) {
			t.Errorf("%+v, again: %v", w, err)
		}
	}
}

func TestOverlongMessagesEndTheSession(t *testing.T) {
	f := startFront(t, FrontConfig{MaxMessageSize: 1000}, stubSession)
	for _, length := range []uint32{0, 3, 1005, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		r := f.session()
		r.write([]byte{'Q'}, uint32s(length), []byte("some bytes"))
		r.wantFatal("08P01", "invalid message length")
	}
	c, far := pipeClient(t, FrontConfig{MaxMessageSize: 1000})
	go func() { _, _ = far.Write(append([]byte{'Q'}, uint32s(1005)...)) }()
	if _, err := c.next(wait{}); !errors.Is(err, pgwire.ErrFrameTooLong) {
		t.Errorf("the session is told %v", err)
	}
}
