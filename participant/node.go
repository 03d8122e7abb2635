package participant

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Config describes one node. Zero durations and counts take the defaults named.
type Config struct {
	Name      string // as in gids and placement: see ValidName
	URL       string // postgres:// URL or keyword/value string, as libpq takes it; of several hosts the primary is taken
	ClusterID string // the cluster the node must say it belongs to

	// ClientRoles tells that the connections will act as clients' roles
	// ([RoleName]), so that "$user" in a search path is the client's.
	ClientRoles bool

	// ConnectTimeout bounds one attempt to connect, identity check included
	// (default 5 s). A node that is down is reported within it.
	ConnectTimeout time.Duration
	// MaxIdle is how many idle connections are kept (default 64). How many can
	// exist is bounded by the transaction slots, one connection each.
	MaxIdle int
	// MaxIdleTime is how long an idle connection is kept (default 5 min).
	MaxIdleTime time.Duration
	// StatementCacheSize is how many statements one connection keeps prepared
	// (default 256).
	StatementCacheSize int

	Logger *slog.Logger
}

func (cfg *Config) setDefaults() {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	if cfg.MaxIdle == 0 {
		cfg.MaxIdle = 64
	}
	if cfg.MaxIdleTime == 0 {
		cfg.MaxIdleTime = 5 * time.Minute
	}
	if cfg.StatementCacheSize == 0 {
		cfg.StatementCacheSize = 256
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

// schemaName is the schema of pgpact's own tables on every node.
const schemaName = "pgpact"

// livenessCheckAfter is how long a connection may have been idle before it is
// looked at when taken: a server that restarted meanwhile must not cost a
// client its statement.
const livenessCheckAfter = 50 * time.Millisecond

// Node is one Postgres server/database: its address, identity and connections.
type Node struct {
	cfg     Config
	conf    *pgconn.Config
	primary *Primary

	mu     sync.Mutex
	idle   []*Conn // the most recently used last
	inUse  int
	closed bool

	attempts attempts

	identity atomic.Pointer[Identity]
	at       atomic.Pointer[string] // where the newest connection ended
	admin    adminConn
	watch    adminConn // for LockWaits
	barrier  adminConn
	cancels  sync.WaitGroup
}

// Open checks cfg; it does not connect.
func Open(cfg Config) (*Node, error) {
	cfg.setDefaults()
	if !ValidName(cfg.Name) {
		return nil, fmt.Errorf("node name %q: want 1 to 63 of a-z, 0-9, - and _", cfg.Name)
	}
	conf, err := pgconn.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("node %q: %w", cfg.Name, err)
	}
	primary := &Primary{}
	primary.Among(conf, cfg.ConnectTimeout)
	// The gateway and the node must read the same bytes alike.
	conf.RuntimeParams["client_encoding"] = "UTF8"
	conf.RuntimeParams["standard_conforming_strings"] = "on"
	if conf.RuntimeParams["application_name"] == "" {
		conf.RuntimeParams["application_name"] = "pgpact"
	}
	// A role named like our schema would find our tables before the client's
	// ("$user" comes first in search_path), and CREATE TABLE would put tables there.
	if conf.User == schemaName && !cfg.ClientRoles && conf.RuntimeParams["search_path"] == "" {
		conf.RuntimeParams["search_path"] = "public"
	}
	// The server's side of the keepalive below: when a gateway's machine vanishes in
	// the middle of a transaction, nothing else ends its session and frees the rows
	// it has locked; by default that takes two hours. No tcp_user_timeout there: it
	// would also end the session of a client that reads slowly.
	for name, value := range map[string]string{"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"} {
		if conf.RuntimeParams[name] == "" {
			conf.RuntimeParams[name] = value
		}
	}
	dialer := &net.Dialer{Timeout: conf.ConnectTimeout, Control: controlSocket, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3,
	}}
	conf.DialFunc = dialer.DialContext
	return &Node{
		cfg: cfg, conf: conf, primary: primary,
		admin: newAdminConn("pgpact recovery"), watch: newAdminConn("pgpact lock waits"), barrier: newAdminConn("pgpact barrier"),
	}, nil
}

// Name is the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// ClusterID is the cluster the node belongs to.
func (n *Node) ClusterID() string { return n.cfg.ClusterID }

// Address is the host:port of the server that the newest connection was made to,
// before the first one the first that is configured. For people.
func (n *Node) Address() string {
	if at := n.at.Load(); at != nil {
		return *at
	}
	return net.JoinHostPort(n.conf.Host, fmt.Sprint(n.conf.Port))
}

// Database and User are what the gateway logs in to and as.
func (n *Node) Database() string { return n.conf.Database }

// User is the role the gateway logs in as.
func (n *Node) User() string { return n.conf.User }

// acquire takes an idle connection that carries settings, else another idle
// one, else makes a new one. The caller holds a transaction slot, which is what
// bounds the number of connections.
func (n *Node) acquire(ctx context.Context, settings Settings) (*Conn, error) {
	c, err := n.reuse(settings)
	if c == nil && err == nil {
		c, err = n.grow(ctx, settings)
	}
	if err != nil {
		return nil, err
	}
	c.allowCancel(true)
	return c, nil
}

// reuse takes an idle connection and makes it carry settings; nil if there is none.
func (n *Node) reuse(settings Settings) (*Conn, error) {
	for {
		c := n.takeIdle(settings.key)
		if c == nil {
			return nil, nil
		}
		if time.Since(c.used) > livenessCheckAfter && !Alive(c.nc) {
			c.Abandon(io.EOF)
			n.release(c)
			continue
		}
		if err := c.apply(settings); err != nil {
			n.release(c)
			if c.err != nil {
				continue
			}
			return nil, err
		}
		return c, nil
	}
}

// grow makes a connection when it is its turn, unless another has become idle
// until then.
func (n *Node) grow(ctx context.Context, settings Settings) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ConnectTimeout)
	defer cancel()
	attempt, err := n.attempts.begin(ctx)
	if err != nil {
		return nil, &ConnectError{Node: n.cfg.Name, Err: err}
	}
	if c, err := n.reuse(settings); c != nil || err != nil {
		attempt.end(context.Canceled)
		return c, err
	}
	n.mu.Lock()
	closed := n.closed
	if !closed {
		n.inUse++
	}
	n.mu.Unlock()
	if closed {
		attempt.end(context.Canceled)
		return nil, &ConnectError{Node: n.cfg.Name, Err: errors.New("the gateway is shutting down")}
	}
	c, err := n.connect(ctx)
	attempt.end(err)
	if err != nil {
		n.mu.Lock()
		n.inUse--
		n.mu.Unlock()
		return nil, err
	}
	if err := c.apply(settings); err != nil {
		n.release(c)
		return nil, err
	}
	return c, nil
}

// takeIdle prefers a connection whose settings equal key, then the one used
// last.
func (n *Node) takeIdle(key string) *Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	for i := len(n.idle) - 1; i >= 0; i-- {
		c := n.idle[i]
		if c.applied.key != key && i > 0 {
			continue
		}
		if c.applied.key != key { // none fits: the most recently used
			i = len(n.idle) - 1
			c = n.idle[i]
		}
		n.idle = append(n.idle[:i], n.idle[i+1:]...)
		n.inUse++
		return c
	}
	return nil
}

// release gives a connection back. One that is not idle, whole and clean is
// closed or, when only tainted, reset first.
func (n *Node) release(c *Conn) {
	c.allowCancel(false)
	reusable := c.Whole() && c.status == 'I' && !c.cancelled()
	if reusable && c.tainted {
		ctx, cancel := context.WithTimeout(context.Background(), n.cfg.ConnectTimeout)
		reusable = c.reset(ctx) == nil
		cancel()
	}
	if reusable {
		c.SetDeadline(time.Time{})
		c.used = time.Now()
	}
	n.mu.Lock()
	n.inUse--
	var surplus *Conn
	switch {
	case !reusable || n.closed:
		surplus = c
	default:
		n.idle = append(n.idle, c)
		if oldest := n.idle[0]; len(n.idle) > n.cfg.MaxIdle || time.Since(oldest.used) > n.cfg.MaxIdleTime {
			n.idle, surplus = n.idle[1:], oldest
		}
	}
	n.mu.Unlock()
	if surplus != nil {
		_ = surplus.nc.Close()
	}
}

// Stats is a count of connections.
type Stats struct{ Idle, InUse int }

// Stats counts the node's branch connections.
func (n *Node) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Stats{Idle: len(n.idle), InUse: n.inUse}
}

// Close closes the idle connections now and the others when they are given
// back, and waits for cancel requests under way.
func (n *Node) Close() {
	n.mu.Lock()
	idle := n.idle
	n.idle, n.closed = nil, true
	n.mu.Unlock()
	for _, c := range idle {
		_ = c.nc.Close()
	}
	n.admin.close()
	n.watch.close()
	n.barrier.close()
	n.cancels.Wait()
}

// connect makes one physical connection and verifies who is at its other end.
func (n *Node) connect(ctx context.Context) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ConnectTimeout)
	defer cancel()
	pg, err := pgconn.ConnectConfig(ctx, n.conf)
	if err != nil {
		return nil, &ConnectError{Node: n.cfg.Name, Err: err}
	}
	// After a slow write (15 ms, which a busy machine makes of any) pgconn may have
	// left a Read behind on the socket, which would take the first answer meant for us.
	if err := pg.SyncConn(ctx); err != nil {
		_ = pg.Close(ctx)
		return nil, &ConnectError{Node: n.cfg.Name, Err: err}
	}
	hijacked, err := pg.Hijack()
	if err != nil {
		return nil, &ConnectError{Node: n.cfg.Name, Err: err}
	}
	c := newConn(n, hijacked)
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	defer c.SetDeadline(time.Time{})
	if err := n.verify(c); err != nil {
		_ = c.nc.Close()
		return nil, err
	}
	at := c.remote.String()
	n.at.Store(&at)
	return c, nil
}

// sendCancel sends one CancelRequest to the server at the address, which is the
// one that made pid and secret, and waits until the postmaster has closed the
// connection, which it does after it has sent the signal.
func (n *Node) sendCancel(to net.Addr, pid uint32, secret []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.ConnectTimeout)
	defer cancel()
	nc, err := n.conf.DialFunc(ctx, to.Network(), to.String())
	if err != nil {
		n.cfg.Logger.Warn("cancel request not sent", "node", n.cfg.Name, "error", err)
		return
	}
	defer nc.Close()
	deadline, _ := ctx.Deadline()
	_ = nc.SetDeadline(deadline)
	request := binary.BigEndian.AppendUint32(nil, uint32(12+len(secret)))
	request = binary.BigEndian.AppendUint32(request, 80877102)
	request = binary.BigEndian.AppendUint32(request, pid)
	request = append(request, secret...)
	if _, err := nc.Write(request); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, nc)
}
