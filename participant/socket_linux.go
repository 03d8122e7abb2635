package participant

import (
	"syscall"
	"time"
)

// unackedTimeout is how long sent bytes may stay unacknowledged before the
// kernel gives the connection up: keepalive does not probe while data is under
// way, and retransmission alone goes on for a quarter of an hour.
const unackedTimeout = 15 * time.Second

// tcpUserTimeout is TCP_USER_TIMEOUT of <netinet/tcp.h>, which package syscall
// does not name.
const tcpUserTimeout = 0x12

// controlSocket sets what net.Dialer has no field for.
func controlSocket(_, _ string, raw syscall.RawConn) error {
	var err error
	if ctlErr := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(unackedTimeout.Milliseconds()))
	}); ctlErr != nil {
		return ctlErr
	}
	if err == syscall.ENOPROTOOPT || err == syscall.EOPNOTSUPP { // a Unix socket needs none
		return nil
	}
	return err
}
