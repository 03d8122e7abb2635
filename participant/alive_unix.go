//go:build unix

package participant

import (
	"crypto/tls"
	"net"
	"syscall"
)

// Alive looks, without waiting, whether an idle connection has been closed by
// the server or has been sent something (a FATAL on shutdown): either way it is
// not fit for use.
func Alive(nc net.Conn) bool {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	// Control, not Read: a Read of somebody else's may be under way on it (pgconn
	// leaves one behind after a slow write), and would be waited for.
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, errno := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errno == syscall.EAGAIN || errno == syscall.EWOULDBLOCK
	})
	return err == nil && quiet
}
