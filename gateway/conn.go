package gateway

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// frontConn is a client's connection as psql-wire and the session see it: what
// the negotiation has already received is read first, and psql-wire's unwanted
// messages can be muted. Reads and writes belong to the connection's goroutine.
type frontConn struct {
	net.Conn          // the client's bytes: the socket, or TLS over it
	raw      net.Conn // the socket

	tls     *tlsFacts // nil: not encrypted
	traffic *traffic  // nil: not counted, as of the bytes under TLS, which are counted above it

	prefix []byte // received during the negotiation, not yet read
	muted  bool   // writes vanish

	startupDeadline time.Time
	release         func() // gives the place among the unauthenticated back; once
	onClose         func() // set once there is a client
}

func (c *frontConn) Read(b []byte) (int, error) {
	if len(c.prefix) == 0 {
		n, err := c.Conn.Read(b)
		if c.traffic != nil {
			c.traffic.received.Add(int64(n))
		}
		return n, err
	}
	n := copy(b, c.prefix)
	c.prefix = c.prefix[n:]
	if len(c.prefix) == 0 {
		c.prefix = nil // an idle connection needs no memory for its past
	}
	return n, nil
}

func (c *frontConn) Write(b []byte) (int, error) {
	if c.muted {
		return len(b), nil
	}
	n, err := c.Conn.Write(b)
	if c.traffic != nil {
		c.traffic.sent.Add(int64(n))
	}
	return n, err
}

// Close is called by psql-wire, on every way out.
func (c *frontConn) Close() error {
	err := c.Conn.Close()
	if c.release != nil {
		c.release()
	}
	if c.onClose != nil {
		c.onClose()
	}
	return err
}

// authenticated ends the startup phase: its deadline and its share of the limit
// on unauthenticated connections.
func (c *frontConn) authenticated() error {
	c.release()
	return c.SetDeadline(time.Time{})
}

// abandon closes the socket under a session that does not end by itself. The
// session's goroutine then fails in its next read or write and closes the rest.
func (c *frontConn) abandon() { _ = c.raw.Close() }

// peerGone reports whether the client has closed the connection, without
// consuming anything. Behind bytes that have not been read it cannot look: then
// the client is taken to be there.
func (c *frontConn) peerGone() bool {
	conn, ok := c.raw.(syscall.Conn)
	if !ok {
		return false
	}
	socket, err := conn.SyscallConn()
	if err != nil {
		return true // closed on our side
	}
	gone := false
	err = socket.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == nil:
			gone = n == 0
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		default:
			gone = true // reset, timed out by keepalive
		}
	})
	return gone || err != nil
}
