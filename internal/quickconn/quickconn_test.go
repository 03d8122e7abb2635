package quickconn

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// pair is a connection, wrapped, and its other end.
func pair(t *testing.T, network, address string) (near net.Conn, far net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err = net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near = Wrap(accepted)
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

func eachNetwork(t *testing.T, test func(t *testing.T, near, far net.Conn)) {
	t.Run("tcp", func(t *testing.T) {
		near, far := pair(t, "tcp", "127.0.0.1:0")
		test(t, near, far)
	})
	t.Run("unix", func(t *testing.T) {
		near, far := pair(t, "unix", filepath.Join(t.TempDir(), "s"))
		test(t, near, far)
	})
}

// What goes in comes out at the other end, in any sizes, while both directions
// are busy and buffers are full.
func TestBytesPass(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	eachNetwork(t, func(t *testing.T, near, far net.Conn) {
		random := rand.New(rand.NewPCG(seed, 1))
		sent := make([]byte, 8<<20)
		for i := range sent {
			sent[i] = byte(random.Uint32())
		}
		echoed := make(chan error, 1)
		go func() {
			_, err := io.CopyBuffer(struct{ io.Writer }{near}, struct{ io.Reader }{near}, make([]byte, 9<<10))
			echoed <- err
		}()
		go func() {
			for rest := sent; len(rest) > 0; {
				n := min(1+random.IntN(40<<10), len(rest))
				if _, err := far.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		}()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(far, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, sent) {
			t.Fatal("other bytes came out than went in")
		}
		_ = far.Close()
		if err := <-echoed; err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("after the other end has closed: %v", err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	eachNetwork(t, func(t *testing.T, near, _ net.Conn) {
		_ = near.SetDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read: %v", err)
		}
		// A write fails when the deadline has passed and nobody makes room.
		var err error
		for err == nil {
			_, err = near.Write(make([]byte, 16<<10))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("write: %v", err)
		}
	})
}

func TestCloseWakesAReader(t *testing.T) {
	eachNetwork(t, func(t *testing.T, near, far net.Conn) {
		failed := make(chan error, 1)
		go func() {
			_, err := far.Read(make([]byte, 1)) // it has been answered: near is reading next
			if err == nil {
				err = near.Close()
			}
			if err != nil {
				failed <- err
			}
		}()
		go func() {
			_, _ = near.Write([]byte("x"))
			_, err := near.Read(make([]byte, 1))
			failed <- err
		}()
		select {
		case err := <-failed:
			if !errors.Is(err, net.ErrClosed) {
				t.Fatalf("got %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("still reading after Close")
		}
	})
}

func TestEndAndReset(t *testing.T) {
	near, far := pair(t, "tcp", "127.0.0.1:0")
	if n, err := near.Read(nil); n != 0 || err != nil {
		t.Fatalf("read of nothing: %d, %v", n, err)
	}
	_ = far.(*net.TCPConn).SetLinger(0)
	_ = far.Close()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("after a reset: %v", err)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Fatalf("write after a reset: %v", err)
	}
	near, far = pair(t, "tcp", "127.0.0.1:0")
	_ = far.Close()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("after the end: %v", err)
	}
}

func TestOthersAreLeftAlone(t *testing.T) {
	near, _ := net.Pipe()
	if Wrap(near) != near {
		t.Fatal("a connection that is no socket was wrapped")
	}
}
