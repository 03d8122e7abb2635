package gateway

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Request codes that may stand where a startup packet has its protocol version
// (PostgreSQL documentation, "Message Formats").
const (
	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSSENC = 1234<<16 | 5680

	protocolMajor = 3

	// The limits of Postgres's own ProcessStartupPacket: the body, without the
	// length word, holds at least the version and at most this much.
	minStartupBody = 4
	maxStartupBody = 10000

	// cancelBody is the code, the pid and a 4-byte key. Protocol 3.2 allows longer
	// keys; we hand out none, so a longer one cannot be right.
	cancelBody = 12

	alpnProtocol       = "postgresql"
	tlsRecordHandshake = 0x16
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

	mu              sync.Mutex
	closing         bool
	unauthenticated map[net.Conn]struct{}
}

func newListener(base net.Listener, cfg *FrontConfig, cancels *cancelRegistry) *listener {
	l := &listener{
		base:            base,
		cfg:             cfg,
		cancels:         cancels,
		ready:           make(chan *frontConn),
		closed:          make(chan struct{}),
		failed:          make(chan struct{}),
		unauthenticated: make(map[net.Conn]struct{}),
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
			l.cfg.Logger.Warn("cannot accept a connection, trying again", "err", err, "pause", pause)
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

// admit starts the negotiation with a new connection, or turns it away.
func (l *listener) admit(conn net.Conn) {
	l.mu.Lock()
	full := len(l.unauthenticated) >= l.cfg.MaxUnauthenticated
	admitted := !full && !l.closing
	if admitted {
		l.unauthenticated[conn] = struct{}{}
		l.tasks.Go(func() { l.serve(conn) })
	}
	l.mu.Unlock()
	if admitted {
		return
	}
	if full {
		// The message is small and the socket's buffer empty: this does not block.
		writeFatal(conn, errTooManyClients)
	}
	_ = conn.Close()
}

// release gives back a connection's place among the unauthenticated.
func (l *listener) release(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unauthenticated, conn)
}

// serve negotiates with one connection and hands it to Accept.
func (l *listener) serve(raw net.Conn) {
	handed := false
	defer func() {
		if p := recover(); p != nil {
			l.cfg.Logger.Error("panic while negotiating with a client", "panic", p, "stack", string(debug.Stack()))
		}
		if !handed {
			_ = raw.Close()
			l.release(raw)
		}
	}()
	deadline := time.Now().Add(l.cfg.StartupTimeout)
	l.setSocketOptions(raw, deadline)
	n := &negotiation{listener: l, conn: raw, raw: raw}
	packet, err := n.run()
	if err != nil {
		var fatal *pgconn.PgError
		if errors.As(err, &fatal) {
			writeFatal(n.conn, fatal)
		}
		l.cfg.Logger.Debug("connection ended before its startup packet", "remote", raw.RemoteAddr(), "err", err)
		return
	}
	conn := &frontConn{
		Conn: n.conn, raw: raw, prefix: packet,
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

// errDone ends a connection that has got everything it came for.
var errDone = errors.New("connection served")

// negotiation is the state of one connection before its startup packet.
type negotiation struct {
	listener         *listener
	conn             net.Conn // what to talk through: raw, or TLS over it
	raw              net.Conn
	buf              []byte // received, not yet consumed
	sslDone, gssDone bool   // the request has been made: each is allowed once
}

// run returns the startup packet with whatever the client sent right behind it.
func (n *negotiation) run() ([]byte, error) {
	if err := n.directTLS(); err != nil {
		return nil, err
	}
	for {
		body, err := n.packet()
		if err != nil {
			return nil, err
		}
		switch code := binary.BigEndian.Uint32(body); {
		case code == codeSSL && !n.sslDone:
			n.sslDone = true
			err = n.sslRequest()
		case code == codeGSSENC && !n.gssDone:
			n.gssDone = true
			err = n.gssRequest()
		case code == codeCancel:
			n.cancelRequest(body)
			return nil, errDone
		default:
			return n.buf, checkStartup(body)
		}
		if err != nil {
			return nil, err
		}
	}
}

// packet waits for one untyped message and returns its body. A startup packet
// stays in the buffer, for psql-wire to read again; requests are consumed by
// whoever recognises them, with n.consume.
func (n *negotiation) packet() ([]byte, error) {
	if err := n.fill(4); err != nil {
		return nil, err
	}
	// Compared before it becomes an int: 2 GB and negative lengths end here.
	length := binary.BigEndian.Uint32(n.buf)
	if length < 4+minStartupBody || length > 4+maxStartupBody {
		return nil, frontError(pgerrcode.ProtocolViolation, "invalid length of startup packet")
	}
	if err := n.fill(int(length)); err != nil {
		return nil, err
	}
	return n.buf[4:length], nil
}

// consume drops the packet just read and reports whether bytes were sent with it.
func (n *negotiation) consume() (smuggled bool) {
	length := binary.BigEndian.Uint32(n.buf)
	n.buf = n.buf[length:]
	return len(n.buf) > 0
}

// fill reads until at least size bytes are buffered.
func (n *negotiation) fill(size int) error {
	const usual = 512 // most startup packets are shorter
	for len(n.buf) < size {
		if spare := cap(n.buf) - len(n.buf); spare < size-len(n.buf) || spare == 0 {
			n.buf = append(make([]byte, 0, max(size, usual)), n.buf...)
		}
		read, err := n.conn.Read(n.buf[len(n.buf):cap(n.buf)])
		n.buf = n.buf[:len(n.buf)+read]
		if err != nil && len(n.buf) < size {
			if err == io.EOF && len(n.buf) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("waiting for a startup packet: %w", err)
		}
	}
	return nil
}

// directTLS serves clients that start with a TLS handshake instead of an
// SSLRequest (libpq 17, sslnegotiation=direct).
func (n *negotiation) directTLS() error {
	if err := n.fill(1); err != nil {
		return err
	}
	if n.buf[0] != tlsRecordHandshake || n.listener.cfg.TLS == nil {
		return nil
	}
	hello := &frontConn{Conn: n.raw, raw: n.raw, prefix: n.buf}
	n.buf = nil
	conn, err := n.handshake(hello)
	if err != nil {
		return err
	}
	// Without ALPN this may be another protocol's client, led here by an attacker
	// (ALPACA); Postgres refuses it too.
	if conn.ConnectionState().NegotiatedProtocol != alpnProtocol {
		return frontError(pgerrcode.ProtocolViolation,
			"received direct SSL connection request without ALPN protocol negotiation extension")
	}
	return nil
}

// sslRequest answers an SSLRequest. Bytes that came with it were sent before
// encryption, perhaps by a man in the middle, and must not be taken for the
// client's (CVE-2021-23214). What arrives later than this look goes into the TLS
// handshake and fails there.
func (n *negotiation) sslRequest() error {
	if n.consume() {
		err := frontError(pgerrcode.ProtocolViolation, "received unencrypted data after SSL request")
		err.Detail = "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack."
		return err
	}
	if n.listener.cfg.TLS == nil {
		return n.answer('N')
	}
	if err := n.answer('S'); err != nil {
		return err
	}
	_, err := n.handshake(n.raw)
	return err
}

// gssRequest declines GSSAPI encryption.
func (n *negotiation) gssRequest() error {
	if n.consume() {
		err := frontError(pgerrcode.ProtocolViolation, "received unencrypted data after GSSAPI encryption request")
		err.Detail = "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack."
		return err
	}
	return n.answer('N')
}

// handshake encrypts the connection; over is what it reads the handshake from.
func (n *negotiation) handshake(over net.Conn) (*tls.Conn, error) {
	conn := tls.Server(over, n.listener.cfg.TLS)
	if err := conn.Handshake(); err != nil { // bounded by the startup deadline
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	n.conn, n.sslDone, n.gssDone = conn, true, true
	return conn, nil
}

func (n *negotiation) answer(b byte) error {
	_, err := n.conn.Write([]byte{b})
	return err
}

// cancelRequest serves a CancelRequest. It has no answer, right or wrong: its
// sender only sees the connection close, after the cancel has been delivered.
func (n *negotiation) cancelRequest(body []byte) {
	remote := n.raw.RemoteAddr()
	if len(body) != cancelBody {
		n.listener.cancels.wrongKey(remote)
		return
	}
	n.listener.cancels.request(remote, binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:]))
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
