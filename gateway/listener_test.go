package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

func TestClientsConnectInEveryWayOfEncryption(t *testing.T) {
	plain := startFront(t, FrontConfig{}, stubSession)
	encrypted := startFront(t, FrontConfig{TLS: testTLS(t)}, stubSession)
	for _, tc := range []struct {
		front   *front
		options string
		tls     bool
	}{
		{plain, "sslmode=disable", false},
		{plain, "sslmode=prefer", false},
		{encrypted, "sslmode=disable", false},
		{encrypted, "sslmode=prefer", true},
		{encrypted, "sslmode=require", true},
		{encrypted, "sslmode=require&sslnegotiation=direct", true},
	} {
		conn, err := tc.front.connect(tc.options)
		if err != nil {
			t.Fatalf("%s: %v", tc.options, err)
		}
		if _, isTLS := conn.Conn().(*tls.Conn); isTLS != tc.tls {
			t.Errorf("%s: encrypted %v, want %v", tc.options, isTLS, tc.tls)
		}
		if tag := mustExec(t, conn, "x"); tag != "x" {
			t.Errorf("%s: answer %q", tc.options, tag)
		}
		_ = conn.Close(context.Background())
	}
	if _, err := plain.connect("sslmode=require"); err == nil {
		t.Error("a client that demands encryption was served without it")
	}
}

func TestNegotiationAllowsEachRequestOnce(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	for _, order := range [][][]byte{{sslRequest}, {gssRequest}, {sslRequest, gssRequest}, {gssRequest, sslRequest}} {
		r := f.dial()
		for _, request := range order {
			r.write(request)
			if b := r.readByte(); b != 'N' {
				t.Fatalf("answer %q", b)
			}
		}
		r.write(goodStartup())
		if seen := r.types(); seen != "RSKZ" {
			t.Fatalf("greeting %q", seen)
		}
	}
	for _, order := range [][][]byte{
		{sslRequest, sslRequest}, {gssRequest, gssRequest},
		{sslRequest, gssRequest, sslRequest}, {gssRequest, sslRequest, gssRequest},
	} {
		r := f.dial()
		last := len(order) - 1
		for _, request := range order[:last] {
			r.write(request)
			r.readByte()
		}
		r.write(order[last])
		r.wantFatal("0A000", fmt.Sprintf("unsupported frontend protocol 1234.%d: server supports 3.0 to 3.0",
			uint16(order[last][6])<<8|uint16(order[last][7])))
	}
	f.mustServe()
}

func TestNothingSentBeforeEncryptionIsAccepted(t *testing.T) {
	for name, cfg := range map[string]FrontConfig{"plain": {}, "tls": {TLS: testTLS(t)}} {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, cfg, stubSession)
			for _, smuggled := range [][]byte{{0}, goodStartup(), query("drop table accounts")} {
				r := f.dial()
				r.write(sslRequest, smuggled)
				if cfg.TLS == nil && r.readByte() != 'N' {
					t.Error("no 'N' before the error")
				}
				r.wantFatal("08P01", "received unencrypted data after SSL request")
				r = f.dial()
				r.write(gssRequest, smuggled)
				if r.readByte() != 'N' {
					t.Error("no 'N' before the error")
				}
				r.wantFatal("08P01", "received unencrypted data after GSSAPI encryption request")
			}
		})
	}
}

func TestLateUnencryptedBytesFailInTheHandshake(t *testing.T) {
	f := startFront(t, FrontConfig{TLS: testTLS(t)}, stubSession)
	r := f.dial()
	r.write(sslRequest)
	if b := r.readByte(); b != 'S' {
		t.Fatalf("answer %q", b)
	}
	r.write(goodStartup(), query("smuggled"))
	answer := make([]byte, 100)
	n, _ := r.conn.Read(answer)
	if n > 0 && answer[0] == 'R' {
		t.Fatalf("an unencrypted startup packet was accepted after 'S': %q", answer[:n])
	}
}

func TestRequestsInsideTLSAreRefused(t *testing.T) {
	f := startFront(t, FrontConfig{TLS: testTLS(t)}, stubSession)
	for _, request := range [][]byte{sslRequest, gssRequest} {
		r := f.dial()
		r.write(sslRequest)
		r.readByte()
		r.over(tls.Client(r.conn, &tls.Config{InsecureSkipVerify: true}))
		r.write(request)
		r.wantFatal("0A000", fmt.Sprintf("unsupported frontend protocol 1234.%d: server supports 3.0 to 3.0", uint16(request[6])<<8|uint16(request[7])))
	}
}

func TestDirectTLSNeedsALPN(t *testing.T) {
	f := startFront(t, FrontConfig{TLS: testTLS(t)}, stubSession)
	r := f.dial()
	r.over(tls.Client(r.conn, &tls.Config{InsecureSkipVerify: true}))
	r.wantFatal("08P01", "received direct SSL connection request without ALPN protocol negotiation extension")

	r = f.dial()
	other := tls.Client(r.conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	_ = other.SetDeadline(time.Now().Add(patience))
	if err := other.Handshake(); err == nil {
		t.Error("an HTTP/2 client finished its handshake")
	}
	f.mustServe()
}

func TestDirectTLSWithoutTLSIsGarbage(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	r := f.dial()
	r.write([]byte{tlsRecordHandshake, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3})
	r.wantFatal("08P01", "invalid length of startup packet")
}

func TestStartupPacketLengths(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	for _, length := range []uint32{0, 1, 2, 3, 4, 5, 6, 7, 10005, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		r := f.dial()
		r.write(uint32s(length, 3<<16))
		r.wantFatal("08P01", "invalid length of startup packet")
	}
	// The longest one allowed: 10000 bytes behind the length word.
	overhead := len(startupPacket(3<<16, "user", "alice", "application_name", ""))
	long := startupPacket(3<<16, "user", "alice", "application_name", strings.Repeat("x", 10004-overhead))
	r := f.dial()
	r.write(long)
	if seen := r.types(); len(long) != 10004 || seen != "RSKZ" {
		t.Fatalf("startup packet of %d bytes: greeting %q", len(long), seen)
	}
}

func TestStartupPacketLayouts(t *testing.T) {
	const layout = "invalid startup packet layout: expected terminator as last byte"
	f := startFront(t, FrontConfig{}, stubSession)
	for _, tc := range []struct {
		body          string
		code, message string
	}{
		{"", "08P01", layout},
		{"user", "08P01", layout},
		{"user\x00", "08P01", layout},
		{"user\x00alice", "08P01", layout},
		{"user\x00alice\x00", "08P01", layout},
		{"user\x00alice\x00\x00\x00", "08P01", layout},
		{"user\x00alice\x00\x00database\x00x\x00\x00", "08P01", layout},
		{"\x00", "28000", "no PostgreSQL user name specified in startup packet"},
	} {
		r := f.dial()
		r.write(uint32s(uint32(8+len(tc.body)), 3<<16), []byte(tc.body))
		r.wantFatal(tc.code, tc.message)
	}
}

func TestGarbageEndsItsOwnConnectionOnly(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	bystander, err := f.connect("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bystander.Close(context.Background()) }()
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", strings.Repeat("\xff", 5000), strings.Repeat("\x00", 64),
	} {
		r := f.dial()
		r.write([]byte(garbage))
		r.wantFatal("08P01", "invalid length of startup packet")
	}
	if tag := mustExec(t, bystander, "unharmed"); tag != "unharmed" {
		t.Fatalf("answer %q", tag)
	}
}

func TestProtocolVersions(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	for _, version := range []uint32{0, 1 << 16, 2 << 16, 4 << 16, 1<<32 - 1} {
		r := f.dial()
		r.write(startupPacket(version, "user", "alice"))
		r.wantFatal("0A000", fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.0", version>>16, version&0xffff))
	}
	for _, tc := range []struct {
		minor   uint32
		options []string
	}{{2, nil}, {9999, nil}, {0, []string{"_pq_.command_tag_format"}}, {2, []string{"_pq_.a", "_pq_.b"}}} {
		pairs := []string{"user", "alice"}
		for _, option := range tc.options {
			pairs = append(pairs, option, "1")
		}
		r := f.dial()
		r.write(startupPacket(3<<16|tc.minor, pairs...))
		msg, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		negotiate, ok := msg.(*pgproto3.NegotiateProtocolVersion)
		if !ok {
			t.Fatalf("3.%d %v: %#v", tc.minor, tc.options, msg)
		}
		if negotiate.NewestMinorProtocol != 3<<16 || strings.Join(negotiate.UnrecognizedOptions, ",") != strings.Join(tc.options, ",") {
			t.Errorf("3.%d %v: offered %+v", tc.minor, tc.options, negotiate)
		}
		if seen := r.types(); seen != "RSKZ" {
			t.Errorf("3.%d: greeting %q", tc.minor, seen)
		}
	}
}

func TestStartupDeadlineCutsSilentAndSlowClients(t *testing.T) {
	f := startFront(t, FrontConfig{StartupTimeout: 100 * time.Millisecond, TLS: testTLS(t)}, stubSession)
	packet := goodStartup()
	for name, part := range map[string][]byte{
		"nothing": nil, "half a length": packet[:2], "half a packet": packet[:len(packet)/2], "after SSLRequest": sslRequest,
	} {
		r := f.dial()
		r.write(part)
		if name == "after SSLRequest" {
			r.readByte()
		}
		r.wantClosed()
	}
	// One byte whenever 10 ms have passed: every single read succeeds in time.
	r := f.dial()
	start := time.Now()
	for i := 0; ; i++ {
		if _, err := r.conn.Write([]byte{packet[i%4]}); err != nil || i == 4 {
			break
		}
		_ = r.conn.SetReadDeadline(time.Now().Add(40 * time.Millisecond))
		if _, err := r.conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	_ = r.conn.SetReadDeadline(start.Add(patience))
	r.wantClosed()
	f.mustServe()
}

func TestStartupInSingleBytesIsServed(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	r := f.dial()
	for _, b := range append(bytes.Clone(goodStartup()), query("slow")...) {
		r.write([]byte{b})
	}
	if seen := r.types() + r.types(); seen != "RSKZCZ" {
		t.Fatalf("answers %q", seen)
	}
}

func TestHalfOpenConnectionsDoNotKeepOthersOut(t *testing.T) {
	f := startFront(t, FrontConfig{MaxUnauthenticated: 600}, stubSession)
	for range 500 {
		f.dial().write(goodStartup()[:10])
	}
	f.mustServe()
}

func TestUnauthenticatedConnectionsAreCapped(t *testing.T) {
	f := startFront(t, FrontConfig{MaxUnauthenticated: 3}, stubSession)
	halfOpen := func(from string) *rawClient {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := dialer.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		r := &rawClient{t: t}
		r.over(conn)
		r.write(sslRequest)
		r.readByte() // it has been admitted
		return r
	}
	patient := halfOpen("127.0.0.2") // comes first, and alone from its address
	second, third := halfOpen("127.0.0.1"), halfOpen("127.0.0.1")

	began := time.Now()
	f.mustServe() // takes the place of the longest there, from the address that has most
	if took := time.Since(began); took > time.Second {
		t.Errorf("the next one waited %v", took)
	}
	second.wantClosed()
	for _, r := range []*rawClient{patient, third} {
		r.write(goodStartup())
		if seen := r.types(); seen != "RSKZ" {
			t.Fatalf("greeting %q", seen)
		}
	}
	eventually(t, "places are given back", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for l := range f.listeners {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.unauthenticated) == 0
		}
		return false
	})
}

// flakyListener fails as told before it accepts.
type flakyListener struct {
	net.Listener
	errs chan error
}

func (l *flakyListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, err
	default:
		return l.Listener.Accept()
	}
}

func listenFlaky(t *testing.T, errs ...error) *flakyListener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	flaky := &flakyListener{ln, make(chan error, len(errs))}
	for _, err := range errs {
		flaky.errs <- err
	}
	return flaky
}

func TestAcceptErrors(t *testing.T) {
	passing := &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	f := startFrontOn(t, listenFlaky(t, passing, passing), FrontConfig{}, stubSession)
	f.mustServe()

	broken := errors.New("broken for good")
	f = startFrontOn(t, listenFlaky(t, broken), FrontConfig{}, stubSession)
	select {
	case err := <-f.served:
		if !errors.Is(err, broken) {
			t.Fatalf("Serve: %v", err)
		}
		f.served <- err // for the cleanup
	case <-time.After(patience):
		t.Fatal("Serve goes on with a broken listener")
	}
}
