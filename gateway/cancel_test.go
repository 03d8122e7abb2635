package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func cancelPacket(pid, secret uint32, moreKey ...byte) []byte {
	return append(uint32s(uint32(16+len(moreKey)), codeCancel, pid, secret), moreKey...)
}

func tcpAddr(s string) net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(s), Port: 40000}
}

func TestCancelRegistryKeys(t *testing.T) {
	r := newCancelRegistry(100)
	remote := tcpAddr("192.0.2.1")
	var called atomic.Int32
	pid, secret := r.register(func() { called.Add(1) })
	if int32(pid) <= 0 {
		t.Fatalf("pid %d is not positive", int32(pid))
	}
	for _, wrong := range [][2]uint32{{pid, secret + 1}, {pid + 1, secret}, {pid, 0}, {0, 0}, {0, secret}} {
		if r.request(remote, wrong[0], wrong[1]) {
			t.Errorf("key %v was accepted", wrong)
		}
	}
	if called.Load() != 0 {
		t.Fatal("a wrong key cancelled")
	}
	if !r.request(remote, pid, secret) || called.Load() != 1 {
		t.Fatalf("the right key: called %d times", called.Load())
	}
	r.unregister(pid)
	if r.request(remote, pid, secret) || called.Load() != 1 {
		t.Fatal("the key of a session that has ended was accepted")
	}
}

func TestCancelKeysAreUnique(t *testing.T) {
	r := newCancelRegistry(100)
	secrets := map[uint32]bool{}
	const sessions = 5000
	for range sessions {
		_, secret := r.register(func() {})
		secrets[secret] = true
	}
	if len(r.sessions) != sessions {
		t.Errorf("%d pids for %d sessions", len(r.sessions), sessions)
	}
	if len(secrets) < sessions-5 { // a repeated secret is possible, many are not
		t.Errorf("%d secrets for %d sessions", len(secrets), sessions)
	}
}

func TestWrongCancelKeysAreRateLimitedPerAddress(t *testing.T) {
	r := newCancelRegistry(10)
	now := time.Unix(1e9, 0)
	r.now = func() time.Time { return now }
	pid, secret := r.register(func() {})
	guesser, honest := tcpAddr("192.0.2.1"), tcpAddr("192.0.2.2")
	for range 10 {
		r.request(guesser, pid, secret+1)
	}
	if r.request(guesser, pid, secret) {
		t.Error("the eleventh guess of the minute was looked at")
	}
	if !r.request(honest, pid, secret) {
		t.Error("another address pays for the guesser")
	}
	now = now.Add(7 * time.Second) // one more key has been earned
	if !r.request(guesser, pid, secret) {
		t.Error("the allowance does not grow back")
	}
	r.wrongKey(guesser)
	if r.request(guesser, pid, secret) {
		t.Error("a key of odd length was not counted")
	}
	now = now.Add(time.Hour)
	for range 10 {
		r.request(guesser, pid, secret+1)
	}
	if r.request(guesser, pid, secret) {
		t.Error("the allowance grows beyond a minute's worth")
	}
}

func TestRateLimitAddresses(t *testing.T) {
	same := [][2]string{{"192.0.2.1", "::ffff:192.0.2.1"}, {"2001:db8::1", "2001:db8::ffff:1"}}
	for _, pair := range same {
		if a, b := addressOf(tcpAddr(pair[0])), addressOf(tcpAddr(pair[1])); a != b {
			t.Errorf("%v counted apart: %v, %v", pair, a, b)
		}
	}
	for _, pair := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8:0:1::1"}} {
		if a, b := addressOf(tcpAddr(pair[0])), addressOf(tcpAddr(pair[1])); a == b {
			t.Errorf("%v counted together: %v", pair, a)
		}
	}
	if addressOf(&net.UnixAddr{}) != addressOf(&net.UnixAddr{Name: "@"}) {
		t.Error("unix sockets counted apart")
	}
}

func TestRateLimitMemoryIsBounded(t *testing.T) {
	r := newCancelRegistry(10)
	for i := range trackedAddresses + 100 {
		r.wrongKey(&net.TCPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i))})
	}
	if n := r.wrong.Len(); n != trackedAddresses {
		t.Errorf("%d addresses are remembered, want %d", n, trackedAddresses)
	}
}

// cancellable is a stub session whose "wait" queries last until they are cancelled.
func cancellable(cancelled *atomic.Int32) func(context.Context, *client) error {
	return func(ctx context.Context, c *client) error {
		ctx, cancel := context.WithCancelCause(ctx)
		c.onCancel(func() {
			cancelled.Add(1)
			cancel(nil)
		})
		if err := stubSession(ctx, c); !errors.Is(err, context.Canceled) {
			return err
		}
		return frontError("57014", "canceling statement due to user request")
	}
}

func TestCancelRequestsOverTheWire(t *testing.T) {
	plain, encrypted := FrontConfig{}, FrontConfig{TLS: testTLS(t)}
	for name, tc := range map[string]struct {
		cfg     FrontConfig
		prepare func(r *rawClient)
	}{
		"plain":                    {plain, func(*rawClient) {}},
		"after N, as libpq 17":     {plain, func(r *rawClient) { r.write(sslRequest); r.readByte() }},
		"after GSSENC and N":       {plain, func(r *rawClient) { r.write(gssRequest); r.readByte() }},
		"inside TLS":               {encrypted, func(r *rawClient) { r.write(sslRequest); r.readByte(); r.overTLS() }},
		"inside direct TLS (ALPN)": {encrypted, func(r *rawClient) { r.overTLS() }},
	} {
		t.Run(name, func(t *testing.T) {
			var cancelled atomic.Int32
			f := startFront(t, tc.cfg, cancellable(&cancelled))
			victim := f.dial()
			victim.write(goodStartup(), query("block"))
			pid, secret := victim.key()
			for _, wrong := range [][]byte{cancelPacket(pid, secret^1), cancelPacket(pid^1, secret),
				cancelPacket(pid, secret, 1, 2, 3, 4), cancelPacket(pid, secret, make([]byte, 252)...)[:12+256], uint32s(8, codeCancel), uint32s(12, codeCancel, pid)} {
				r := f.dial()
				tc.prepare(r)
				r.write(wrong)
				r.wantClosed()
			}
			if cancelled.Load() != 0 {
				t.Fatal("a wrong key cancelled")
			}
			r := f.dial()
			tc.prepare(r)
			r.write(cancelPacket(pid, secret))
			r.wantClosed()
			if cancelled.Load() != 1 { // delivered before the connection was closed
				t.Fatalf("cancelled %d times", cancelled.Load())
			}
			victim.wantFatal("57014", "canceling statement due to user request")
		})
	}
}

func TestPgxCancelsAStatement(t *testing.T) {
	var cancelled atomic.Int32
	f := startFront(t, FrontConfig{}, cancellable(&cancelled))
	conn, err := f.connect("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	results := conn.Exec(context.Background(), "block")
	if err := conn.CancelRequest(context.Background()); err != nil {
		t.Fatal(err)
	}
	var pgErr *pgconn.PgError
	if _, err := results.ReadAll(); !errors.As(err, &pgErr) || pgErr.Code != "57014" {
		t.Fatalf("the cancelled query: %v", err)
	}
}

// A panic in a session's cancel hook is no reason for the process to end.
func TestPanicWhileCancelling(t *testing.T) {
	f := startFront(t, FrontConfig{}, func(ctx context.Context, c *client) error {
		c.onCancel(func() { panic("in the hook") })
		return stubSession(ctx, c)
	})
	victim := f.dial()
	victim.write(goodStartup())
	pid, secret := victim.key()
	r := f.dial()
	r.write(cancelPacket(pid, secret))
	r.wantClosed()
	f.mustServe()
}

func (r *rawClient) overTLS() {
	r.over(tls.Client(r.conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnProtocol}}))
}
