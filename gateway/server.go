package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
)

// The connection front, in reading order: this file says what it promises and
// starts and stops it; listener.go accepts, and negotiate.go speaks with a new
// connection up to its startup packet, which startup.go judges; frontend.go
// carries it through psql-wire; client.go is what a session holds in its hands,
// over conn.go; cancel.go knows the keys of CancelRequest.

// FrontConfig sets the limits of the connection front. A field left zero takes
// the default named beside it.
type FrontConfig struct {
	// TLS, when set, lets clients encrypt, by SSLRequest or by starting with TLS
	// at once (sslnegotiation=direct). It needs certificates; the front adds the
	// ALPN protocol "postgresql" itself. Nil answers every SSLRequest with 'N'.
	TLS *tls.Config

	// Certificates is TLS whose files are followed while the gateway runs. It takes
	// the place of TLS.
	Certificates *Certificates

	// StartupTimeout bounds everything from accept to the end of authentication,
	// as authentication_timeout does in Postgres. Default 10 s.
	StartupTimeout time.Duration

	// MaxUnauthenticated caps connections that are not yet authenticated. One that
	// comes when all places are taken gets that of the longest there. Default 1000.
	MaxUnauthenticated int

	// MaxConnections caps authenticated connections; 53300 beyond. They need no
	// node connection while idle, so this may be far above the nodes' own limit.
	// Default 5000.
	MaxConnections int

	// MaxMessageSize caps the body of one message from a client. Default 64 MiB.
	MaxMessageSize int

	// WriteTimeout bounds how long a client may take to accept 64 KiB of output,
	// so that one that does not read cannot hold a goroutine, and behind it a
	// transaction, for ever. Default 1 min.
	WriteTimeout time.Duration

	// ClientCheckInterval is how often the sockets of clients whose statement is
	// running are looked at, so that the work of one that has vanished is
	// cancelled. It is noticed after one to two intervals. Default 1 s.
	ClientCheckInterval time.Duration

	// DrainTimeout is how long Serve waits for sessions to become idle when its
	// context ends. Default 10 s. (Shutdown has a context of its own.)
	DrainTimeout time.Duration

	// KeepAlive detects peers that are gone without a word. Default: enabled,
	// first probe after 60 s, then every 10 s, given up after 6.
	KeepAlive *net.KeepAliveConfig

	// WrongCancelKeys is how many CancelRequests with a wrong key one remote
	// address may send per minute before all of its CancelRequests are ignored
	// until the minute's allowance has grown again. Default 100.
	WrongCancelKeys int

	// Authenticate decides whether a client may enter, by its startup parameters
	// (user and database are always set). It returns nil, or a *pgconn.PgError
	// that the client receives as FATAL (28000, 3D000 ...). Its context ends with
	// the startup deadline. Nil trusts everybody.
	Authenticate func(ctx context.Context, startup map[string]string, remote net.Addr) error

	// refused, when not nil, is told the SQLSTATE of every client that is turned
	// away before it has a session.
	refused func(sqlstate string)
	traffic *traffic

	// login, when set, takes the place of Authenticate and speaks with the client
	// itself.
	login func(ctx context.Context, c *client) error

	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
}

func (c FrontConfig) withDefaults() FrontConfig {
	setDefault(&c.StartupTimeout, 10*time.Second)
	setDefault(&c.MaxUnauthenticated, 1000)
	setDefault(&c.MaxConnections, 5000)
	setDefault(&c.MaxMessageSize, 64<<20)
	setDefault(&c.WriteTimeout, time.Minute)
	setDefault(&c.ClientCheckInterval, time.Second)
	setDefault(&c.DrainTimeout, 10*time.Second)
	setDefault(&c.WrongCancelKeys, 100)
	if c.KeepAlive == nil {
		c.KeepAlive = &net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 6}
	}
	if c.TLS != nil {
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = []string{alpnProtocol}
		if c.TLS.MinVersion == 0 {
			c.TLS.MinVersion = tls.VersionTLS12 // as Postgres: ssl_min_protocol_version
		}
	}
	c.traffic = &traffic{}
	if c.refused == nil {
		c.refused = func(string) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// tlsNow is the configuration of the next handshake, nil for no TLS.
func (c *FrontConfig) tlsNow() *tls.Config {
	if c.Certificates != nil {
		return c.Certificates.current()
	}
	return c.TLS
}

// ErrServerClosed is returned by Serve on a Server that has been shut down.
var ErrServerClosed = errors.New("gateway: server closed")

// errShutdown is what a session ends with when the gateway stops. It reaches
// the client as FATAL 57P01, the words of Postgres.
var errShutdown = frontError(pgerrcode.AdminShutdown, "terminating connection due to administrator command")

// killGrace is how long sessions whose context has been cancelled may take to
// say goodbye before their connections are closed under them.
const killGrace = time.Second

// Server accepts clients and runs a session for each. Every goroutine it starts
// has ended when Serve returns.
type Server struct {
	cfg     FrontConfig
	handle  func(ctx context.Context, c *client) error
	cancels *cancelRegistry

	base context.Context // of all sessions; ends with errShutdown
	stop context.CancelCauseFunc

	// serving counts running Serve calls. Each waits for the sessions of its own
	// listener, so waiting for it is waiting for everything.
	serving sync.WaitGroup

	mu        sync.Mutex
	clients   map[*client]struct{}
	listeners map[*listener]struct{}
	draining  bool
}

// newServer makes a server that hands every authenticated client to handle. The
// session is over when handle returns; client.end says what its error does.
func newServer(cfg FrontConfig, handle func(ctx context.Context, c *client) error) *Server {
	cfg = cfg.withDefaults()
	base, stop := context.WithCancelCause(context.Background())
	return &Server{
		base:      base,
		stop:      stop,
		cfg:       cfg,
		handle:    handle,
		cancels:   newCancelRegistry(cfg.WrongCancelKeys),
		clients:   make(map[*client]struct{}),
		listeners: make(map[*listener]struct{}),
	}
}

// Serve accepts clients from ln until Shutdown is called, the context ends, or
// ln fails; in the last two cases it drains as Shutdown does, within
// DrainTimeout. It closes ln, and returns when the last session has ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	front, err := newFrontend(s)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	l, err := s.listen(ln)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer s.serving.Done()

	ended := make(chan struct{})
	stopping, stop := context.WithCancel(ctx)
	defer stop()
	var helpers sync.WaitGroup
	helpers.Go(func() {
		<-stopping.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
		defer cancel()
		_ = s.finish(bounded, ended) // the bound being reached is no error of Serve
	})
	helpers.Go(func() { s.watchClients(ended) })

	err = front.serve(l)
	if err != nil {
		stop() // the listener broke: nobody will come any more
	}
	front.wait()
	close(ended)
	stop()
	helpers.Wait()
	s.forgetListener(l)
	return err
}

// Shutdown stops accepting, lets every session go on until it is idle, and ends
// it there with FATAL 57P01. When ctx ends first, the contexts of the remaining
// sessions are cancelled with the same error, shortly after that their
// connections are closed, and the context's error is returned. In every case
// all sessions and all goroutines have ended when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	s.beginDrain() // before looking at serving: no Serve starts after it
	ended := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(ended)
	}()
	return s.finish(ctx, ended)
}

// finish ends all sessions as Shutdown says; ended is closed when they have.
func (s *Server) finish(ctx context.Context, ended <-chan struct{}) error {
	s.beginDrain()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.stop(errShutdown) // reaches those that are just being authenticated, too
	for _, c := range s.snapshot() {
		c.kill(errShutdown)
	}
	grace := time.NewTimer(killGrace)
	defer grace.Stop()
	select {
	case <-ended:
		return ctx.Err()
	case <-grace.C:
	}
	for _, c := range s.snapshot() {
		c.conn.abandon()
	}
	<-ended
	return ctx.Err()
}

// beginDrain closes the listeners and asks idle sessions to end.
func (s *Server) beginDrain() {
	s.mu.Lock()
	s.draining = true
	listeners := make([]*listener, 0, len(s.listeners))
	for l := range s.listeners {
		listeners = append(listeners, l)
	}
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, c := range s.snapshot() {
		c.drain()
	}
}

func (s *Server) listen(ln net.Listener) (*listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, ErrServerClosed
	}
	s.serving.Add(1)
	l := newListener(ln, &s.cfg, s.cancels)
	s.listeners[l] = struct{}{}
	return l, nil
}

func (s *Server) forgetListener(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// enter counts an authenticated client in, or says why it cannot stay.
func (s *Server) enter(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return frontError(pgerrcode.CannotConnectNow, "the database system is shutting down")
	}
	if len(s.clients) >= s.cfg.MaxConnections {
		return errTooManyClients
	}
	s.clients[c] = struct{}{}
	return nil
}

func (s *Server) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
}

func (s *Server) snapshot() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		all = append(all, c)
	}
	return all
}

// watchClients ends the sessions of clients that vanished while their statement
// runs: nobody reads from their sockets then, so nobody else would notice.
func (s *Server) watchClients(ended <-chan struct{}) {
	tick := time.NewTicker(s.cfg.ClientCheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		for _, c := range s.snapshot() {
			if c.busyForATick() && c.conn.peerGone() {
				s.cfg.Logger.Info("client vanished, its work is cancelled", "remote", c.conn.RemoteAddr(), "session", c.pid)
				c.kill(errClientGone)
			}
		}
	}
}
