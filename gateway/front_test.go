package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"
)

// patience bounds every wait of these tests; none of them waits that long.
const patience = 10 * time.Second

// front is a running Server with a stub for a session behind it.
type front struct {
	*Server
	t      *testing.T
	addr   string
	served chan error
	log    *syncBuffer
}

// startFront serves on a loopback port until the test ends, and then demands
// that Serve returns and that no goroutine is left.
func startFront(t *testing.T, cfg FrontConfig, handle func(context.Context, *client) error) *front {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startFrontOn(t, ln, cfg, handle)
}

func startFrontOn(t *testing.T, ln net.Listener, cfg FrontConfig, handle func(context.Context, *client) error) *front {
	t.Helper()
	checkLeaks(t)
	f := &front{t: t, addr: ln.Addr().String(), served: make(chan error, 1), log: &syncBuffer{}}
	cfg.Logger = slog.New(slog.NewTextHandler(f.log, nil))
	f.Server = newServer(cfg, handle)
	go func() { f.served <- f.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = f.Shutdown(ctx) // sessions that the test left open are killed
		select {
		case <-f.served:
		case <-time.After(patience):
			t.Error("Serve did not return after Shutdown")
		}
	})
	return f
}

// leaksChecked holds the tests that will be checked for leaks already: a test
// with several fronts is checked once, after the last of them is gone.
var leaksChecked sync.Map

func checkLeaks(t *testing.T) {
	if _, again := leaksChecked.LoadOrStore(t, true); !again {
		before := goleak.IgnoreCurrent()
		t.Cleanup(func() { goleak.VerifyNone(t, before) })
	}
}

// stubSession greets as Postgres does and answers every Query with its text as
// the tag. Some queries do what their name says.
func stubSession(ctx context.Context, c *client) error {
	var secret [4]byte
	binary.BigEndian.PutUint32(secret[:], c.secret)
	c.send(&pgproto3.ParameterStatus{Name: "server_version", Value: "15.0 (stub)"})
	c.send(&pgproto3.BackendKeyData{ProcessID: c.pid, SecretKey: secret[:]})
	status := byte('I')
	c.send(&pgproto3.ReadyForQuery{TxStatus: status})
	if err := c.flush(); err != nil {
		return err
	}
	for {
		frame, err := c.next(wait{idle: status == 'I'})
		if err != nil || frame.Type() == 'X' {
			return err
		}
		if frame.Type() != 'Q' {
			continue
		}
		query := strings.TrimRight(string(frame.Body()), "\x00")
		switch query {
		case "panic":
			panic("as asked")
		case "begin":
			status = 'T'
		case "commit":
			status = 'I'
		case "block":
			<-ctx.Done()
			return ctx.Err()
		}
		c.send(&pgproto3.CommandComplete{CommandTag: []byte(query)})
		c.send(&pgproto3.ReadyForQuery{TxStatus: status})
		if err := c.flush(); err != nil {
			return err
		}
	}
}

// connect opens a pgconn connection; extra is appended to the URL's parameters.
func (f *front) connect(extra string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return pgconn.Connect(ctx, "postgres://alice@"+f.addr+"/bank?connect_timeout=10&"+extra)
}

// mustServe proves that a well-behaved client is served.
func (f *front) mustServe() {
	f.t.Helper()
	conn, err := f.connect("sslmode=disable")
	if err != nil {
		f.t.Fatalf("a well-behaved client is not served: %v", err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if tag := mustExec(f.t, conn, "hello"); tag != "hello" {
		f.t.Fatalf("answer %q", tag)
	}
}

func mustExec(t *testing.T, conn *pgconn.PgConn, query string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, err := conn.Exec(ctx, query).ReadAll()
	if err != nil || len(results) != 1 {
		t.Fatalf("%s: %v, %v", query, results, err)
	}
	return results[0].CommandTag.String()
}

// rawClient speaks in bytes.
type rawClient struct {
	t    *testing.T
	conn net.Conn
	*pgproto3.Frontend
}

func (f *front) dial() *rawClient {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	r := &rawClient{t: f.t, conn: conn}
	r.over(conn)
	f.t.Cleanup(func() { _ = conn.Close() })
	return r
}

func (r *rawClient) over(conn net.Conn) {
	r.conn = conn
	_ = conn.SetDeadline(time.Now().Add(patience))
	r.Frontend = pgproto3.NewFrontend(conn, conn)
}

func (r *rawClient) write(b ...[]byte) {
	r.t.Helper()
	if _, err := r.conn.Write(bytes.Join(b, nil)); err != nil {
		r.t.Fatalf("write: %v", err)
	}
}

// readByte reads the one-byte answer to SSLRequest or GSSENCRequest.
func (r *rawClient) readByte() byte {
	r.t.Helper()
	var b [1]byte
	if _, err := io.ReadFull(r.conn, b[:]); err != nil {
		r.t.Fatalf("read: %v", err)
	}
	return b[0]
}

// types reads messages up to and including the first of type ReadyForQuery.
func (r *rawClient) types() string {
	r.t.Helper()
	var seen []byte
	for {
		msg, err := r.Receive()
		if err != nil {
			r.t.Fatalf("after %q: %v", seen, err)
		}
		frame, err := msg.Encode(nil)
		if err != nil {
			r.t.Fatal(err)
		}
		seen = append(seen, frame[0])
		if frame[0] == 'Z' {
			return string(seen)
		}
	}
}

// wantFatal expects an ErrorResponse with severity FATAL next, and the end then.
func (r *rawClient) wantFatal(code, message string) {
	r.t.Helper()
	msg, err := r.Receive()
	if err != nil {
		r.t.Fatalf("instead of FATAL %s: %v", code, err)
	}
	fatal, ok := msg.(*pgproto3.ErrorResponse)
	if !ok {
		r.t.Fatalf("instead of FATAL %s: %#v", code, msg)
	}
	if fatal.Severity != "FATAL" || fatal.SeverityUnlocalized != "FATAL" || fatal.Code != code || fatal.Message != message {
		r.t.Fatalf("got %s/%s %s %q, want FATAL %s %q", fatal.Severity, fatal.SeverityUnlocalized, fatal.Code, fatal.Message, code, message)
	}
	r.wantClosed()
}

// wantClosed expects the connection to be closed without a further byte.
func (r *rawClient) wantClosed() {
	r.t.Helper()
	rest, err := io.ReadAll(r.conn)
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		r.t.Fatal("the connection is still open")
	}
	if len(rest) > 0 {
		r.t.Fatalf("%d more bytes: %q", len(rest), rest)
	}
}

// uint32s encodes big-endian words.
func uint32s(words ...uint32) []byte {
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

var (
	sslRequest = uint32s(8, codeSSL)
	gssRequest = uint32s(8, codeGSSENC)
)

// startupPacket builds one from a version and names and values.
func startupPacket(version uint32, pairs ...string) []byte {
	body := uint32s(version)
	for _, s := range pairs {
		body = append(append(body, s...), 0)
	}
	body = append(body, 0)
	return append(uint32s(uint32(len(body)+4)), body...)
}

func goodStartup() []byte { return startupPacket(3<<16, "user", "alice", "database", "bank") }

func query(text string) []byte {
	b, err := (&pgproto3.Query{String: text}).Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// eventually waits for a condition, looking often.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	eventuallyWithin(t, patience, what, condition)
}

func eventuallyWithin(t *testing.T, within time.Duration, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	bound := time.After(within)
	for !condition() {
		select {
		case <-tick.C:
		case <-bound:
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// testTLS is a server configuration with a fresh certificate.
func testTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// syncBuffer is a log that tests may read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func slogDiscard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// oneConnListener hands out the connections put into it.
type oneConnListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneConnListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConnListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConnListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// recordingConn notes writes and the end.
type recordingConn struct {
	net.Conn
	note func(string)
}

func (c *recordingConn) Write(b []byte) (int, error) {
	c.note("write")
	return c.Conn.Write(b)
}

func (c *recordingConn) Close() error {
	c.note("close")
	return c.Conn.Close()
}
