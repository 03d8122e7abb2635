package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgerrcode"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// Config of a Gateway. Counts left zero take the defaults named.
type Config struct {
	Coordinator *coordinator.Coordinator
	// Nodes are all nodes of the cluster. Statements that any node can answer
	// go to the first that is up.
	Nodes     []*participant.Node
	Placement *Placement
	Parser    *sqlparse.Parser

	// Database is the name clients must ask for, "" for any.
	Database string
	// Users are the names clients may come by, none for any.
	Users []string
	// Authentication is how they prove their names.
	Authentication Authentication
	// ClientRoles makes every statement run on the nodes as the role that the
	// client has logged in as (roles.go); otherwise as the gateway's own.
	ClientRoles bool

	// MaxStatements and MaxPortals bound what one session may keep open
	// (default 10,000 each), MaxStatementBytes the texts of its statements and
	// MaxPortalBytes the parameters, and rows kept, of its portals (default
	// 128 MiB each). 54000 beyond.
	MaxStatements, MaxPortals         int
	MaxStatementBytes, MaxPortalBytes int
	// ReadConsistency is what pgpact.read_consistency is in a session that does not
	// set it (default ReadAtomic).
	ReadConsistency string
	// DescriptionCacheSize is how many statements' descriptions are kept for all
	// sessions together (default 4,096).
	DescriptionCacheSize int

	// Observer, when not nil, is told what happens.
	Observer Observer

	// Tracer, when not nil, makes spans of what sessions do (trace.go). Without it
	// that costs a comparison.
	Tracer trace.Tracer

	// Logging is what SetLogging changes.
	Logging Logging

	Front  FrontConfig
	Logger *slog.Logger
}

func (cfg *Config) setDefaults() {
	setDefault(&cfg.MaxStatements, 10_000)
	setDefault(&cfg.MaxPortals, 10_000)
	setDefault(&cfg.MaxStatementBytes, 128<<20)
	setDefault(&cfg.MaxPortalBytes, 128<<20)
	setDefault(&cfg.DescriptionCacheSize, 4096)
	if cfg.ReadConsistency == "" {
		cfg.ReadConsistency = ReadAtomic
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	if cfg.Front.Logger == nil {
		cfg.Front.Logger = cfg.Logger
	}
	if cfg.Parser == nil {
		cfg.Parser = sqlparse.NewParser(0)
	}
}

func (cfg *Config) validate() error {
	switch {
	case cfg.Coordinator == nil:
		return errors.New("gateway: no coordinator")
	case len(cfg.Nodes) == 0:
		return errors.New("gateway: no nodes")
	case cfg.Placement == nil:
		return errors.New("gateway: no placement")
	}
	return nil
}

// Gateway serves clients: one session each, over the nodes.
type Gateway struct {
	cfg         Config
	logger      *slog.Logger
	coordinator *coordinator.Coordinator
	nodes       []*participant.Node
	parser      *sqlparse.Parser
	router      *router
	catalogs    *catalogHolder
	// schemaChanges numbers the changes that sessions make.
	schemaChanges atomic.Uint64
	logging       atomic.Pointer[Logging]
	authenticator *authenticator
	server        *Server

	descriptions      *descriptionCache
	plans             *lru.Cache[string, *combinePlan]
	greetings         *lru.Cache[string, greeting] // by a session's settings
	latest            atomic.Pointer[greeting]     // what a node has said last
	defaultSearchPath string
}

// greetingCacheSize is how many different sets of start-up parameters are
// remembered. A fleet of clients has few.
const greetingCacheSize = 256

// New reads the nodes' catalogs, of which at least one must answer, and makes a
// gateway. The coordinator must have been started.
func New(ctx context.Context, cfg Config) (*Gateway, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	catalogs, err := newCatalogHolder(ctx, cfg.Nodes, 0, cfg.Logger)
	if err != nil {
		return nil, err
	}
	greetings, err := lru.New[string, greeting](greetingCacheSize)
	if err != nil {
		return nil, err
	}
	gw := &Gateway{
		cfg: cfg, logger: cfg.Logger, coordinator: cfg.Coordinator, nodes: cfg.Nodes, parser: cfg.Parser,
		catalogs: catalogs, router: newRouter(cfg.Placement, catalogs), greetings: greetings,
		authenticator: newAuthenticator(cfg.Authentication),
	}
	gw.SetLogging(cfg.Logging)
	if gw.descriptions, err = newDescriptionCache(cfg.DescriptionCacheSize, catalogs.Current); err != nil {
		return nil, err
	}
	if gw.plans, err = lru.New[string, *combinePlan](cfg.DescriptionCacheSize); err != nil {
		return nil, err
	}
	if gw.defaultSearchPath, err = gw.askSearchPath(ctx); err != nil {
		return nil, err
	}
	if _, err = gw.askGreeting(ctx, participant.Settings{}); err != nil {
		return nil, err
	}
	front := cfg.Front
	front.login, front.refused = gw.login, cfg.Observer.ConnectionRefused
	gw.server = newServer(front, gw.serve)
	catalogs.Start()
	return gw, nil
}

// Serve accepts clients from ln: see Server.Serve.
func (gw *Gateway) Serve(ctx context.Context, ln net.Listener) error { return gw.server.Serve(ctx, ln) }

// Shutdown lets sessions finish what they are doing and ends them, at the latest
// when ctx ends: see Server.Shutdown.
func (gw *Gateway) Shutdown(ctx context.Context) error { return gw.server.Shutdown(ctx) }

// Close ends what New has begun. Sessions that are still there are ended with
// it: use Shutdown first to let them finish.
func (gw *Gateway) Close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = gw.server.Shutdown(now)
	gw.catalogs.Stop()
}

// Catalog is what the nodes' catalogs now say.
func (gw *Gateway) Catalog() *Catalog { return gw.catalogs.Current() }

// login lets a client in by the rules, then looks at what it asks for. That
// comes last: who has not proved anything learns of no user and no database.
func (gw *Gateway) login(ctx context.Context, c *client) error {
	user := c.startup["user"]
	if err := gw.authenticator.authenticate(ctx, c); err != nil {
		return err
	}
	if len(gw.cfg.Users) > 0 && !slices.Contains(gw.cfg.Users, user) {
		return errNoRole(user)
	}
	if err := gw.checkRole(user); err != nil {
		return err
	}
	if gw.cfg.Front.Authenticate != nil {
		if err := gw.cfg.Front.Authenticate(ctx, c.startup, c.conn.RemoteAddr()); err != nil {
			return err
		}
	}
	if gw.cfg.Database != "" && c.startup["database"] != gw.cfg.Database {
		return frontError(pgerrcode.InvalidCatalogName, fmt.Sprintf("database %q does not exist", c.startup["database"]))
	}
	return nil
}

// askSearchPath is the search path of a session that sets none.
func (gw *Gateway) askSearchPath(ctx context.Context) (string, error) {
	var first error
	for _, node := range gw.nodes {
		rows, err := node.Query(ctx, "SELECT pg_catalog.current_setting('search_path')")
		if err == nil && len(rows) == 1 {
			return rows[0][0], nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// askGreeting takes a connection with these settings from the first node that
// answers, and returns what a session that has them begins with. A connection
// that was lost while it was idle says nothing of its node: another is taken.
func (gw *Gateway) askGreeting(ctx context.Context, settings participant.Settings) (g greeting, err error) {
	for range 3 {
		if g, err = gw.tryGreeting(ctx, settings); !isLost(err) {
			break
		}
	}
	if err == nil {
		gw.latest.Store(&g)
	}
	return g, err
}

func (gw *Gateway) tryGreeting(ctx context.Context, settings participant.Settings) (greeting, error) {
	t, err := gw.coordinator.Begin(ctx)
	if err != nil {
		return greeting{}, err
	}
	defer t.End()
	b, err := gw.firstThatAnswers(func(node *participant.Node) (*participant.Branch, error) {
		return t.Enlist(ctx, node, settings, nil)
	})
	if err != nil {
		return greeting{}, err
	}
	isolation, err := b.Conn().Ask("SELECT pg_catalog.current_setting('" + isolationDefault + "')")
	if err != nil {
		return greeting{}, err
	}
	return greeting{parameters: maps.Clone(b.Conn().Parameters()), isolation: isolation, at: time.Now()}, nil
}

func isLost(err error) bool {
	_, lost := errors.AsType[*participant.LostError](err)
	return lost
}

// firstThatAnswers tries the nodes in the order of the configuration. Always
// the same order: what a client asks of no table in particular is mostly the
// catalog, whose OIDs it uses in its next question, and they differ from node
// to node.
func (gw *Gateway) firstThatAnswers(take func(*participant.Node) (*participant.Branch, error)) (*participant.Branch, error) {
	var first error
	for _, node := range gw.nodes {
		branch, err := take(node)
		if err == nil {
			return branch, nil
		}
		if first == nil {
			first = err
		}
		if !isUnreachable(err) {
			return nil, err
		}
	}
	return nil, first
}
