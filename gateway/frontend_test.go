package gateway

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	wire "github.com/jeroenrinzema/psql-wire"
	"github.com/jeroenrinzema/psql-wire/pkg/buffer"
)

// key reads the greeting and returns its BackendKeyData.
func (r *rawClient) key() (pid, secret uint32) {
	r.t.Helper()
	for {
		msg, err := r.Receive()
		if err != nil {
			r.t.Fatalf("in the greeting: %v", err)
		}
		switch msg := msg.(type) {
		case *pgproto3.BackendKeyData:
			pid, secret = msg.ProcessID, binary.BigEndian.Uint32(msg.SecretKey)
		case *pgproto3.ReadyForQuery:
			return pid, secret
		case *pgproto3.ErrorResponse:
			r.t.Fatalf("in the greeting: %s %s", msg.Code, msg.Message)
		}
	}
}

// What frontend.go assumes of psql-wire, asked of psql-wire alone: callbacks in
// order on one goroutine, the types behind its reader and writer, its own
// ParameterStatus in between, and the end of the connection on an error.
func TestContractWithPsqlWire(t *testing.T) {
	checkLeaks(t)
	var order []string
	var ours net.Conn
	ln := &oneConnListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	note := func(what string) { order = append(order, what) }
	srv, err := wire.NewServer(nil,
		wire.Logger(slogDiscard()),
		wire.MessageBufferSize(startupBuffer),
		wire.SessionAuthStrategy(func(ctx context.Context, w *buffer.Writer, r *buffer.Reader) (context.Context, error) {
			note("auth")
			br, ok := r.Buffer.(*bufio.Reader)
			if !ok || br.Size() != startupBuffer {
				t.Errorf("Reader.Buffer is %T", r.Buffer)
			} else if next, err := br.Peek(1); err != nil || next[0] != 'Q' {
				t.Errorf("behind the startup packet: %q, %v", next, err)
			}
			if w.Writer != io.Writer(ours) {
				t.Errorf("Writer.Writer is %T", w.Writer)
			}
			if params := wire.ClientParameters(ctx); !reflect.DeepEqual(params, wire.Parameters{"user": "alice", "database": "bank"}) {
				t.Errorf("startup parameters %v", params)
			}
			return context.WithValue(ctx, clientKey{}, "kept"), nil
		}),
		wire.SessionMiddleware(func(ctx context.Context) (context.Context, error) {
			note(fmt.Sprint("session ", ctx.Value(clientKey{})))
			return ctx, errSessionOver
		}))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	ours = &recordingConn{Conn: near, note: note}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	ln.conns <- ours
	_ = far.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = far.Write(append(goodStartup(), query("early")...)) }()
	sent, err := io.ReadAll(far)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(sent), "150000") {
		t.Error("psql-wire does not send its own server_version any more: muting may be needless")
	}
	_ = srv.Close()
	srv.Wait()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	want := "auth,write,session kept,close"
	if got := strings.Join(slices.Compact(order), ","); got != want {
		t.Errorf("order %s, want %s", got, want)
	}
}

func TestGreetingIsExactlyOurs(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	r := f.dial()
	r.write(goodStartup())
	var got []string
	for {
		msg, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%T", msg))
		if status, ok := msg.(*pgproto3.ParameterStatus); ok && status.Value != "15.0 (stub)" {
			t.Errorf("a ParameterStatus of psql-wire's: %+v", status)
		}
		if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
			break
		}
	}
	want := "*pgproto3.AuthenticationOk *pgproto3.ParameterStatus *pgproto3.BackendKeyData *pgproto3.ReadyForQuery"
	if strings.Join(got, " ") != want {
		t.Errorf("greeting %v", got)
	}
}

func TestMessagesSentWithTheStartupPacketAreServed(t *testing.T) {
	f := startFront(t, FrontConfig{}, stubSession)
	r := f.dial()
	r.write(goodStartup(), query("one"), query(strings.Repeat("long", 5000)), query("three"))
	if seen := r.types() + r.types() + r.types() + r.types(); seen != "RSKZCZCZCZ" {
		t.Fatalf("answers %q", seen)
	}
}

func TestHandlersReturnEndsTheConnection(t *testing.T) {
	for _, tc := range []struct {
		err           error
		code, message string
	}{
		{nil, "", ""},
		{io.EOF, "", ""}, // psql-wire would swallow it and hang the client
		{fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), "", ""},
		{frontError("25P03", "terminating connection due to idle-in-transaction timeout"), "25P03", "terminating connection due to idle-in-transaction timeout"},
		{errors.New("the gateway's own affair"), "XX000", "internal error of the gateway; its log says more"},
	} {
		t.Run(fmt.Sprint(tc.err), func(t *testing.T) {
			f := startFront(t, FrontConfig{}, func(ctx context.Context, c *client) error {
				c.send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				if err := c.flush(); err != nil {
					return err
				}
				return tc.err
			})
			r := f.dial()
			r.write(goodStartup())
			if seen := r.types(); seen != "RZ" {
				t.Fatalf("greeting %q", seen)
			}
			if tc.code == "" {
				r.wantClosed()
			} else {
				r.wantFatal(tc.code, tc.message)
			}
			if logged := strings.Contains(f.log.String(), "own affair"); logged != (tc.code == "XX000") {
				t.Errorf("log: %s", f.log)
			}
		})
	}
}

func TestAPanicEndsItsSessionOnly(t *testing.T) {
	f := startFront(t, FrontConfig{Authenticate: func(_ context.Context, startup map[string]string, _ net.Addr) error {
		if startup["user"] == "mallory" {
			panic("in authentication")
		}
		return nil
	}}, stubSession)
	bystander, err := f.connect("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bystander.Close(context.Background()) }()

	r := f.dial()
	r.write(goodStartup(), query("panic"))
	r.types()
	r.wantFatal("XX000", "internal error of the gateway; its log says more")
	r = f.dial()
	r.write(startupPacket(3<<16, "user", "mallory"))
	r.wantFatal("XX000", "internal error of the gateway; its log says more")

	if tag := mustExec(t, bystander, "unharmed"); tag != "unharmed" {
		t.Fatalf("answer %q", tag)
	}
	if log := f.log.String(); !strings.Contains(log, "as asked") || !strings.Contains(log, "stubSession") {
		t.Errorf("the log lacks the panic or its stack: %s", log)
	}
	eventually(t, "the places of both are free", func() bool { return len(f.snapshot()) == 1 })
}

func TestStartupParameters(t *testing.T) {
	long := strings.Repeat("n", 62) + "éé"
	seen := make(chan map[string]string, 1)
	f := startFront(t, FrontConfig{}, func(_ context.Context, c *client) error {
		seen <- c.startup
		return nil
	})
	for _, tc := range []struct{ sent, want []string }{
		{[]string{"user", "alice"}, []string{"user", "alice", "database", "alice"}},
		{[]string{"user", "alice", "database", ""}, []string{"user", "alice", "database", "alice"}},
		{[]string{"user", "x", "database", "bank", "user", "alice"}, []string{"user", "alice", "database", "bank"}},
		{[]string{"user", "alice", "options", "-c geqo=off", "TimeZone", "UTC", "nonsense", ""},
			[]string{"user", "alice", "database", "alice", "options", "-c geqo=off", "TimeZone", "UTC", "nonsense", ""}},
		{[]string{"user", long}, []string{"user", strings.Repeat("n", 62), "database", strings.Repeat("n", 62)}},
		{[]string{"user", "alice", "application_name", "a\xffb\xc3"}, []string{"user", "alice", "database", "alice", "application_name", "a?b?"}},
		{[]string{"user", "alice", "application_name", "é"}, []string{"user", "alice", "database", "alice", "application_name", "é"}},
		{[]string{"user", "alice", "replication", "off"}, []string{"user", "alice", "database", "alice"}},
		{[]string{"user", "alice", "_pq_.x", "1"}, []string{"user", "alice", "database", "alice"}},
	} {
		r := f.dial()
		r.write(startupPacket(3<<16, tc.sent...))
		want := map[string]string{}
		for i := 0; i < len(tc.want); i += 2 {
			want[tc.want[i]] = tc.want[i+1]
		}
		select {
		case got := <-seen:
			if !reflect.DeepEqual(got, want) {
				t.Errorf("sent %q: got %q, want %q", tc.sent, got, want)
			}
		case <-time.After(patience):
			t.Fatalf("sent %q: no session", tc.sent)
		}
	}
	for _, tc := range []struct {
		sent          []string
		code, message string
	}{
		{[]string{"database", "bank"}, "28000", "no PostgreSQL user name specified in startup packet"},
		{[]string{"user", ""}, "28000", "no PostgreSQL user name specified in startup packet"},
		{[]string{"user", "al\xffice"}, "22021", `invalid byte sequence for encoding "UTF8": 0xff`},
		{[]string{"user", "alice", "\xc3(", "x"}, "22021", `invalid byte sequence for encoding "UTF8": 0xc3`},
		{[]string{"user", "alice", "replication", "true"}, "0A000", "replication connections are not supported by the gateway"},
		{[]string{"user", "alice", "replication", "database"}, "0A000", "replication connections are not supported by the gateway"},
		{[]string{"user", "alice", "replication", "maybe"}, "22023", `invalid value for parameter "replication": "maybe"`},
	} {
		r := f.dial()
		r.write(startupPacket(3<<16, tc.sent...))
		r.wantFatal(tc.code, tc.message)
	}
}

func TestAuthenticateDecides(t *testing.T) {
	f := startFront(t, FrontConfig{StartupTimeout: 200 * time.Millisecond,
		Authenticate: func(ctx context.Context, startup map[string]string, remote net.Addr) error {
			if _, ok := remote.(*net.TCPAddr); !ok {
				return fmt.Errorf("remote address is a %T", remote)
			}
			switch startup["user"] {
			case "alice":
				return nil
			case "slow":
				<-ctx.Done()
				return ctx.Err()
			}
			return &pgconn.PgError{Severity: "ERROR", Code: "3D000", Message: "no such database", Detail: "d", Hint: "h"}
		}}, stubSession)
	f.mustServe()
	_, err := pgconn.Connect(context.Background(), "postgres://bob@"+f.addr+"/nowhere?sslmode=disable")
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Severity != "FATAL" || pgErr.Code != "3D000" || pgErr.Detail != "d" || pgErr.Hint != "h" {
		t.Fatalf("refused with %v", err)
	}
	r := f.dial()
	r.write(startupPacket(3<<16, "user", "slow"))
	r.wantFatal("57014", "canceling authentication due to timeout")
}

// The startup deadline must not outlive authentication.
func TestSessionsOutliveTheStartupDeadline(t *testing.T) {
	const startup = 30 * time.Millisecond
	f := startFront(t, FrontConfig{StartupTimeout: startup}, stubSession)
	conn, err := f.connect("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	<-time.After(2 * startup) // the moment tested is in the future
	mustExec(t, conn, "still here")
}

// Idle clients must stay within 64 KiB each; both ends are counted here.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const connections, limit = 500, 64 << 10
	f := startFront(t, FrontConfig{}, stubSession)
	before := memoryInUse()
	for range connections {
		r := f.dial()
		r.write(goodStartup(), query("x"))
		if seen := r.types() + r.types(); seen != "RSKZCZ" {
			t.Fatalf("answers %q", seen)
		}
		r.Frontend = nil // the client's own buffers are not counted
	}
	each := (memoryInUse() - before) / connections
	t.Logf("%d bytes of heap and stack per idle connection, the client's side included", each)
	if each > limit {
		t.Errorf("%d bytes per idle connection, at most %d wanted", each, limit)
	}
}

func memoryInUse() int64 {
	runtime.GC()
	runtime.GC() // the first one empties the pools into their victims
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
