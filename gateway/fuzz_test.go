package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// hang is how long a conversation may take before it counts as hanging; statements are bounded by hostileStartup.
const hang = 30 * time.Second

// hostileRig is a gateway over real servers for clients that send anything at all.
type hostileRig struct {
	*stack
	keys    [3][2]string
	socket  string
	failure *failureLog
}

// failureLog fails whoever asks after the gateway has logged something it never should: a panic, an error of ours.
type failureLog struct {
	slog.Handler
	text syncBuffer
}

func (l *failureLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *failureLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *failureLog) WithGroup(string) slog.Handler            { return l }

func (l *failureLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		return nil
	}
	return slog.NewTextHandler(&l.text, nil).Handle(ctx, r)
}

// newHostileRig starts one. Clients come over a unix socket: there are many, and closed TCP connections use up ports.
func newHostileRig(t testing.TB) *hostileRig {
	t.Helper()
	rig := &hostileRig{failure: &failureLog{}}
	rig.stack = startStack(t, stackOptions{config: func(cfg *Config) {
		cfg.Logger = slog.New(rig.failure)
		cfg.DescriptionCacheSize = 64 // full early, so that growth is not taken for a leak
		// Conversations are sent whole and half-closed, which must not be taken for a client that vanished.
		cfg.Front.ClientCheckInterval = time.Hour
	}})
	rig.keys = rig.fill(t)
	dir, err := os.MkdirTemp("", "pgpact-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	rig.socket = filepath.Join(dir, "s")
	ln, err := net.Listen("unix", rig.socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- rig.gateway.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = rig.gateway.Shutdown(ctx) // a session that hangs has failed the test already
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return rig
}

// exchange sends bytes on a connection of its own, closes that direction, and returns everything that comes back.
func (r *hostileRig) exchange(sent []byte) ([]byte, error) {
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(hang)); err != nil {
		return nil, err
	}
	go func() { // answers must be read while it is sent, or both sides would wait
		_, _ = conn.Write(sent) // a connection closed early is for the judge
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return got, fmt.Errorf("hangs after %d bytes of answers", len(got))
	}
	return got, nil // a reset is an end like another: not all that was sent may have been read
}

// converse runs one hostile session and returns what was wrong about it.
func (r *hostileRig) converse(sent []byte) string {
	got, err := r.exchange(append(startupPacket(3<<16, hostileStartup...), sent...))
	if err != nil {
		return err.Error()
	}
	_, answers, greeted := bytes.Cut(got, []byte("Z\x00\x00\x00\x05I"))
	if !greeted {
		return fmt.Sprintf("no greeting: %q", got)
	}
	if wrong := judgeConversation(sent, answers, r.gateway.server.cfg.MaxMessageSize); wrong != "" {
		return fmt.Sprintf("%s\nsent %q\n got %q", wrong, sent, answers)
	}
	if logged := r.failure.text.String(); logged != "" {
		return fmt.Sprintf("logged: %s\nsent %q", logged, sent)
	}
	return ""
}

// FuzzSession: the bytes of an authenticated client, against a gateway over real servers.
func FuzzSession(f *testing.F) {
	rig := newHostileRig(f)
	for _, sent := range corpus(f, rig.keys) {
		f.Add(sent)
	}
	f.Add([]byte("0")) // half a message
	other := witness(f, rig.stack)
	f.Fuzz(func(t *testing.T, sent []byte) {
		if len(sent) > 16<<10 {
			return // as many statements as may each take a second
		}
		if wrong := rig.converse(sent); wrong != "" {
			t.Fatal(wrong)
		}
		other(t)
	})
}

// FuzzStartup: the bytes of anybody who finds the port. Whatever comes, the connection ends and nobody else notices.
func FuzzStartup(f *testing.F) {
	rig := newHostileRig(f)
	for _, seed := range [][]byte{
		startupPacket(3<<16, hostileStartup...), startupPacket(3<<16|2, "user", "carol", "_pq_.x", "1"),
		append(bytes.Clone(sslRequest), startupPacket(3<<16, "user", "carol")...), sslRequest, gssRequest,
		append(bytes.Clone(gssRequest), sslRequest...), uint32s(16, codeCancel, 1, 2), uint32s(8, 2<<16), uint32s(1<<31, 3<<16),
		startupPacket(3<<16, "user", "carol", "options", `-c search_path=x\ y --geqo=off`), startupPacket(3<<16, "user", "a\xff"),
		startupPacket(3<<16, "user", "carol", "database", "pgpact", "client_encoding", "LATIN1"),
		startupPacket(3<<16, "user", "carol", "database", "pgpact", "search_path", `","`, "DateStyle", "x'; drop table accounts --"),
		[]byte("GET / HTTP/1.1\r\n\r\n"), []byte("\x16\x03\x01\x00\xff"), {0},
	} {
		f.Add(seed)
	}
	other := witness(f, rig.stack)
	f.Fuzz(func(t *testing.T, sent []byte) {
		if _, err := rig.exchange(sent); err != nil {
			t.Fatalf("%v\nsent %q", err, sent)
		}
		if logged := rig.failure.text.String(); logged != "" {
			t.Fatalf("logged: %s\nsent %q", logged, sent)
		}
		other(t)
	})
}

// witness is another session. The function it returns fails the test unless that session is served as if it were alone.
func witness(t testing.TB, s *stack) func(testing.TB) {
	conn := s.client(t)
	return func(t testing.TB) {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		var got []*pgconn.Result
		got, err := conn.Exec(ctx, "SELECT 'witness'").ReadAll()
		if err != nil || len(got) != 1 || string(got[0].Rows[0][0]) != "witness" {
			t.Fatalf("the other session: %v, %v", got, err)
		}
	}
}
