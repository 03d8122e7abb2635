package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgerrcode"
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

// errDone ends a connection that has got everything it came for.
var errDone = errors.New("connection served")

// negotiation is the state of one connection before its startup packet.
type negotiation struct {
	listener         *listener
	conn             net.Conn // what to talk through: raw, or TLS over it
	raw              net.Conn
	buf              []byte // received, not yet consumed
	sslDone, gssDone bool   // the request has been made: each is allowed once
	tls              *tlsFacts
}

// tlsFacts are what authentication may want to know of an encrypted connection.
type tlsFacts struct {
	state tls.ConnectionState
	// own is the gateway's certificate, nil if it is not known which was shown.
	own *x509.Certificate
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
			if errors.Is(err, io.EOF) && len(n.buf) > 0 {
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
	if n.buf[0] != tlsRecordHandshake {
		return nil
	}
	config := n.listener.cfg.tlsNow()
	if config == nil {
		return nil
	}
	hello := &frontConn{Conn: n.raw, raw: n.raw, prefix: n.buf}
	n.buf = nil
	conn, err := n.handshake(hello, config)
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

// sslRequest answers an SSLRequest.
func (n *negotiation) sslRequest() error {
	config := n.listener.cfg.tlsNow()
	if config == nil {
		return n.decline("SSL")
	}
	if n.consume() {
		return smuggled("SSL")
	}
	if err := n.answer('S'); err != nil {
		return err
	}
	// What arrives from here on is read by the handshake, and fails there if it
	// is not TLS.
	_, err := n.handshake(n.raw, config)
	return err
}

// gssRequest declines GSSAPI encryption.
func (n *negotiation) gssRequest() error { return n.decline("GSSAPI encryption") }

// decline answers a request for encryption with 'N'.
func (n *negotiation) decline(what string) error {
	early := n.consume()
	if err := n.answer('N'); err != nil || !early {
		return err
	}
	return smuggled(what)
}

// smuggled is the end of a connection on which bytes came together with a
// request for encryption. They were sent before encryption, perhaps by a man in
// the middle, and must not be taken for the client's (CVE-2021-23214).
func smuggled(what string) error {
	err := frontError(pgerrcode.ProtocolViolation, "received unencrypted data after "+what+" request")
	err.Detail = "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack."
	return err
}

// handshake encrypts the connection; over is what it reads the handshake from.
func (n *negotiation) handshake(over net.Conn, config *tls.Config) (*tls.Conn, error) {
	conn := tls.Server(over, config)
	if err := conn.Handshake(); err != nil { // bounded by the startup deadline
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	n.conn, n.sslDone, n.gssDone = conn, true, true
	n.tls = &tlsFacts{state: conn.ConnectionState()}
	if len(config.Certificates) == 1 { // then there was no choice
		n.tls.own = config.Certificates[0].Leaf
	}
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
