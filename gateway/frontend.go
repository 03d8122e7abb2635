package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	wire "github.com/jeroenrinzema/psql-wire"
	"github.com/jeroenrinzema/psql-wire/pkg/buffer"
)

// psql-wire (pinned at v0.20.0) carries a connection from its startup packet to
// the authenticated session. Its query cycle is not used (docs/adr says why): the
// session runs inside its SessionMiddleware, over the reader and the connection
// that AuthStrategy is given. What that relies on is held by frontend_test.go:
//
//   - Serve calls, per connection and on one goroutine, AuthStrategy, then writes
//     its ParameterStatus messages, then calls the session middleware, and closes
//     the connection when that returns an error;
//   - buffer.Reader.Buffer is the *bufio.Reader over our connection, with all that
//     was received behind the startup packet;
//   - buffer.Writer.Writer is our connection.

// startupBuffer is psql-wire's read buffer per connection and, being one number
// there, also its limit for a startup packet's body.
const startupBuffer = 10 << 10

// errSessionOver tells psql-wire to close the connection. It must wrap nothing:
// an error wrapping io.EOF would be swallowed there and hang the client.
var errSessionOver = errors.New("session over")

// frontend is the psql-wire server behind one listener.
type frontend struct {
	srv  *Server
	wire *wire.Server
}

func newFrontend(srv *Server) (*frontend, error) {
	f := &frontend{srv: srv}
	parse := func(context.Context, wire.Query) (wire.PreparedStatements, error) {
		return nil, errors.New("psql-wire's query cycle is not used")
	}
	var err error
	f.wire, err = wire.NewServer(parse,
		wire.Logger(slog.New(slog.DiscardHandler)),
		wire.MessageBufferSize(startupBuffer),
		wire.SessionAuthStrategy(f.authenticate),
		wire.SessionMiddleware(f.session),
	)
	if err != nil {
		return nil, fmt.Errorf("psql-wire: %w", err)
	}
	return f, nil
}

// serve hands psql-wire the listener's connections until the listener is closed
// (nil) or broken.
func (f *frontend) serve(l *listener) error { return f.wire.Serve(l) }

// wait returns when all connections of this frontend have ended. Call it after serve.
func (f *frontend) wait() {
	_ = f.wire.Close() // ends psql-wire's helper; sessions are ended by us
	f.wire.Wait()
}

// clientKey finds the client in the context that psql-wire passes from
// authentication to the session.
type clientKey struct{}

// authenticate is psql-wire's AuthStrategy. It leaves AuthenticationOk pending,
// so that the greeting goes out in one write together with what the session adds
// (ParameterStatus, BackendKeyData, ReadyForQuery: Postgres's order), and mutes
// the connection: psql-wire's own ParameterStatus messages are wrong for us.
func (f *frontend) authenticate(ctx context.Context, w *buffer.Writer, r *buffer.Reader) (context.Context, error) {
	conn, ok := w.Writer.(*frontConn)
	if !ok {
		return ctx, fmt.Errorf("psql-wire writes to a %T", w.Writer)
	}
	br, ok := r.Buffer.(*bufio.Reader)
	if !ok {
		return ctx, fmt.Errorf("psql-wire reads from a %T", r.Buffer)
	}
	startup := make(map[string]string)
	for name, value := range wire.ClientParameters(ctx) {
		startup[strings.Clone(string(name))] = strings.Clone(value) // they lie in the read buffer
	}
	c := newClient(f.srv.base, conn, br, startup, &f.srv.cfg)
	conn.onClose = func() { f.leave(c) }
	if err := f.admit(c); err != nil {
		f.refuse(c, err)
		return ctx, errSessionOver
	}
	c.send(&pgproto3.AuthenticationOk{})
	conn.muted = true
	return context.WithValue(ctx, clientKey{}, c), nil
}

// admit runs everything that can still turn a client away.
func (f *frontend) admit(c *client) (err error) {
	defer f.recovered("authentication", c, &err)
	if err := cleanStartup(c.startup); err != nil {
		return err
	}
	if err := f.login(c); err != nil {
		return err
	}
	// Before others can see c: its key does not change after that.
	c.pid, c.secret = f.srv.cancels.register(c.cancelRequested)
	if err := f.srv.enter(c); err != nil {
		return err
	}
	return c.conn.authenticated()
}

// login asks whether the client may come in, within the startup deadline.
func (f *frontend) login(c *client) error {
	ctx, cancel := context.WithDeadline(c.ctx, c.conn.startupDeadline)
	defer cancel()
	var err error
	switch cfg := &f.srv.cfg; {
	case cfg.login != nil:
		err = cfg.login(ctx, c)
		c.reader.Limit(cfg.MaxMessageSize)
	case cfg.Authenticate != nil:
		err = cfg.Authenticate(ctx, c.startup, c.conn.RemoteAddr())
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errWaitTimeout) {
		return frontError(pgerrcode.QueryCanceled, "canceling authentication due to timeout")
	}
	return err
}

// leave undoes everything of authenticate, whichever way c ended.
func (f *frontend) leave(c *client) {
	c.cancel(context.Canceled) // whatever the session left running ends with it
	f.srv.cancels.unregister(c.pid)
	f.srv.leave(c)
}

func (f *frontend) refuse(c *client, err error) {
	if fatal, ok := errors.AsType[*pgconn.PgError](err); ok {
		f.srv.cfg.refused(fatal.Code)
	}
	if why, ok := errors.AsType[*refused](err); ok {
		f.srv.cfg.Logger.Info("login refused", "remote", c.conn.RemoteAddr(), "user", c.startup["user"],
			"database", c.startup["database"], "code", why.Code, "reason", why.reason)
	}
	if unexpected := c.end(err); unexpected {
		f.srv.cfg.Logger.Error("authentication failed for a reason of ours", "remote", c.conn.RemoteAddr(), "error", err)
	}
}

// session is psql-wire's session middleware: it runs the whole session and never
// lets psql-wire's own command loop begin.
func (f *frontend) session(ctx context.Context) (context.Context, error) {
	if c, ok := ctx.Value(clientKey{}).(*client); ok {
		c.conn.muted = false
		f.run(c)
	}
	return ctx, errSessionOver
}

func (f *frontend) run(c *client) {
	err := f.handle(c)
	if unexpected := c.end(err); unexpected {
		f.srv.cfg.Logger.Error("session failed", "remote", c.conn.RemoteAddr(), "session", c.pid, "error", err)
	}
}

// handle runs the session's code; a panic in it is an error of this session only.
func (f *frontend) handle(c *client) (err error) {
	defer f.recovered("session", c, &err)
	return f.srv.handle(c.ctx, c)
}

func (f *frontend) recovered(where string, c *client, err *error) {
	if p := recover(); p != nil {
		f.srv.cfg.Logger.Error("panic in a "+where, "remote", c.conn.RemoteAddr(), "session", c.pid,
			"panic", p, "stack", string(debug.Stack()))
		*err = errPanic
	}
}

// errPanic is what a session that panicked tells its client.
var errPanic = frontError(pgerrcode.InternalError, "internal error of the gateway; its log says more")
