package quickconn

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// longest is the longest write that is made in this way. While it runs its
// processor cannot be taken away, so it has to be short: longer ones copy for as
// long as a garbage collection should not have to wait.
const longest = 16 << 10

// conn is a TCP or Unix connection. As with any net.Conn reads and writes may go
// on at the same time, but only one goroutine may read, and only one write.
type conn struct {
	net.Conn
	raw syscall.RawConn

	in, out transfer
}

// transfer is the state of one direction's call. Its func is made once, for a
// closure would cost an allocation per call.
type transfer struct {
	call  func(fd uintptr) (done bool)
	b     []byte
	n     int
	errno syscall.Errno
}

// Wrap returns nc with quicker Read and Write, or nc itself when it is not a
// socket of package net (TLS, for instance). Everything else, deadlines
// and Close too, is nc's.
func Wrap(nc net.Conn) net.Conn {
	var raw syscall.RawConn
	var err error
	switch socket := nc.(type) {
	case *net.TCPConn:
		raw, err = socket.SyscallConn()
	case *net.UnixConn:
		raw, err = socket.SyscallConn()
	default:
		return nc
	}
	if err != nil {
		return nc // closed: its own calls say so
	}
	c := &conn{Conn: nc, raw: raw}
	c.in.call, c.out.call = c.in.read, c.out.write
	return c
}

// SyscallConn is the socket's own, for those who look at it.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	t := &c.in
	t.b, t.n, t.errno = b, 0, 0
	err := c.raw.Read(t.call)
	t.b = nil
	switch {
	case t.errno != 0:
		return 0, c.opError("read", t.errno)
	case err != nil: // deadline, closed
		return 0, err
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

func (t *transfer) read(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.b))), uintptr(len(t.b)))
		switch errno {
		case 0:
			t.n = int(n)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false // wait until there is something
		default:
			t.errno = errno
			return true
		}
	}
}

func (c *conn) Write(b []byte) (int, error) {
	if len(b) == 0 || len(b) > longest {
		return c.Conn.Write(b)
	}
	t := &c.out
	t.b, t.n, t.errno = b, 0, 0
	err := c.raw.Write(t.call)
	t.b = nil
	if t.errno != 0 {
		return t.n, c.opError("write", t.errno)
	}
	return t.n, err
}

func (t *transfer) write(fd uintptr) bool {
	for t.n < len(t.b) {
		rest := t.b[t.n:]
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(rest))), uintptr(len(rest)))
		switch errno {
		case 0:
			t.n += int(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false // wait until there is room
		default:
			t.errno = errno
			return true
		}
	}
	return true
}

// opError is the error as package net words it.
func (c *conn) opError(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(),
		Err: os.NewSyscallError(op, errno)}
}
