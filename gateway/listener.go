package gateway

import (
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/quickconn"
)

// refuseTimeout bounds the farewell to a connection that is turned away.
const refuseTimeout = time.Second

// listener negotiates encryption and serves cancel requests before anybody else
// sees a connection: Accept returns only connections whose next message is a
// complete, well-formed startup packet of protocol 3, already received. Each
// connection is negotiated on a goroutine of its own under the startup deadline,
// so no client can hold up another.
type listener struct {
	base    net.Listener
	cfg     *FrontConfig
	cancels *cancelRegistry

	ready  chan *frontConn // negotiated, for Accept
	closed chan struct{}
	failed chan struct{} // base is broken, err says how
	err    error

	tasks sync.WaitGroup

	freed chan struct{} // a place among the unauthenticated has been given back

	mu              sync.Mutex
	closing         bool
	unauthenticated map[net.Conn]arrival
}

// arrival is when a connection came, and from where.
type arrival struct {
	at   time.Time
	from netip.Addr
}

// yieldAfter is how long a connection may keep its place among the
// unauthenticated when others wait for one: far more than a client needs that
// means to come in, far less than one can wait.
const yieldAfter = 200 * time.Millisecond

func newListener(base net.Listener, cfg *FrontConfig, cancels *cancelRegistry) *listener {
	l := &listener{
		base:            base,
		cfg:             cfg,
		cancels:         cancels,
		ready:           make(chan *frontConn),
		closed:          make(chan struct{}),
		failed:          make(chan struct{}),
		freed:           make(chan struct{}, 1),
		unauthenticated: make(map[net.Conn]arrival),
	}
	l.tasks.Go(l.acceptLoop)
	return l
}

// Addr is the address of the underlying listener.
func (l *listener) Addr() net.Addr { return l.base.Addr() }

// Accept returns the next connection that has sent its startup packet.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed: // before anything that is ready as well
		return nil, net.ErrClosed
	default:
	}
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-l.failed:
		return nil, l.err
	}
}

// Close stops accepting, drops the connections that are not yet authenticated
// and waits for the goroutines of the listener. Sessions live on.
func (l *listener) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		l.tasks.Wait()
		return nil
	}
	l.closing = true
	close(l.closed)
	for conn := range l.unauthenticated {
		_ = conn.Close()
	}
	l.mu.Unlock()
	err := l.base.Close()
	l.tasks.Wait()
	return err
}

func (l *listener) acceptLoop() {
	const firstPause, maxPause = 5 * time.Millisecond, time.Second
	pause := firstPause
	for {
		conn, err := l.base.Accept()
		switch {
		case err == nil:
			pause = firstPause
			l.admit(conn)
		case isPassing(err):
			// Out of descriptors, say: those who are in can go on and will leave.
			l.cfg.Logger.Warn("cannot accept a connection, trying again", "error", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-l.closed:
				return
			}
			pause = min(2*pause, maxPause)
		default:
			l.err = err
			close(l.failed)
			return
		}
	}
}

// isPassing tells errors of accept(2) that concern one connection or the moment
// from those that mean the listener is broken.
func isPassing(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE,
		syscall.ENOBUFS, syscall.ENOMEM, syscall.EINTR, syscall.EPROTO, syscall.ENETDOWN, syscall.EHOSTUNREACH} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// admit starts the negotiation with a new connection. When all places are taken
// somebody must yield, or a thousand connections that say nothing would keep
// everybody out for the whole startup timeout: of the address that holds the
// most places, the connection that has had one the longest. Nobody else is
// accepted until that one has had yieldAfter.
func (l *listener) admit(conn net.Conn) {
	l.cfg.traffic.accepted.Add(1)
	from := addressOf(conn.RemoteAddr())
	for {
		now := time.Now()
		l.mu.Lock()
		if l.closing {
			l.mu.Unlock()
			_ = conn.Close()
			return
		}
		var rest time.Duration
		if len(l.unauthenticated) >= l.cfg.MaxUnauthenticated {
			oldest, since := l.mostPatient()
			if rest = yieldAfter - now.Sub(since); rest <= 0 {
				delete(l.unauthenticated, oldest)
				_ = oldest.Close()
				l.cfg.refused(errTooManyClients.Code)
			}
		}
		if rest <= 0 {
			l.unauthenticated[conn] = arrival{at: now, from: from}
			l.tasks.Go(func() { l.serve(conn) })
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.waitForPlace(rest)
	}
}

// mostPatient is the connection that yields first.
func (l *listener) mostPatient() (oldest net.Conn, since time.Time) {
	held := map[netip.Addr]int{}
	for _, a := range l.unauthenticated {
		held[a.from]++
	}
	most := 0
	for conn, a := range l.unauthenticated {
		if n := held[a.from]; n > most || n == most && a.at.Before(since) {
			oldest, since, most = conn, a.at, n
		}
	}
	return oldest, since
}

// waitForPlace waits until somebody gives a place back, at most so long.
func (l *listener) waitForPlace(atMost time.Duration) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-l.freed:
	case <-timer.C:
	case <-l.closed:
	}
}

// release gives back a connection's place among the unauthenticated.
func (l *listener) release(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unauthenticated, conn)
	select {
	case l.freed <- struct{}{}:
	default:
	}
}

// serve negotiates with one connection and hands it to Accept.
func (l *listener) serve(raw net.Conn) {
	n := &negotiation{listener: l, conn: raw, raw: raw}
	handed := false
	defer func() {
		if p := recover(); p != nil {
			l.cfg.Logger.Error("panic while negotiating with a client", "panic", p, "stack", string(debug.Stack()))
		}
		if !handed {
			_ = n.conn.Close() // TLS says goodbye first
			l.release(raw)
		}
	}()
	deadline := time.Now().Add(l.cfg.StartupTimeout)
	l.setSocketOptions(raw, deadline)
	packet, err := n.run()
	if err != nil {
		var fatal *pgconn.PgError
		if errors.As(err, &fatal) {
			l.cfg.refused(fatal.Code)
			writeFatal(n.conn, fatal)
		}
		l.cfg.Logger.Debug("connection ended before its startup packet", "remote", raw.RemoteAddr(), "error", err)
		return
	}
	conn := &frontConn{
		Conn: quickconn.Wrap(n.conn), raw: raw, traffic: l.cfg.traffic, prefix: packet, tls: n.tls,
		startupDeadline: deadline, release: func() { l.release(raw) },
	}
	select {
	case l.ready <- conn:
		handed = true
	case <-l.closed:
	case <-l.failed:
	}
}

func (l *listener) setSocketOptions(conn net.Conn, deadline time.Time) {
	// Errors mean that the connection is broken; the first read will say so.
	_ = conn.SetDeadline(deadline)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
		_ = tcp.SetKeepAliveConfig(*l.cfg.KeepAlive)
	}
}

// writeFatal tells a connection that has no session yet why it is closed. It is
// best effort: nobody waits for a client that does not read.
func writeFatal(conn net.Conn, fatal *pgconn.PgError) {
	frame, err := fatalResponse(fatal).Encode(nil)
	if err != nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(refuseTimeout))
	_, _ = conn.Write(frame)
}
