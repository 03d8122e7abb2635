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

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgerrcode"

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

	// MaxStatements and MaxPortals bound what one session may keep open
	// (default 10,000 each). 54000 beyond.
	MaxStatements, MaxPortals int
	// DescriptionCacheSize is how many statements' descriptions are kept for all
	// sessions together (default 4,096).
	DescriptionCacheSize int

	Front  FrontConfig
	Logger *slog.Logger
}

func (cfg *Config) setDefaults() {
	setDefault(&cfg.MaxStatements, 10_000)
	setDefault(&cfg.MaxPortals, 10_000)
	setDefault(&cfg.DescriptionCacheSize, 4096)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
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
	server      *Server

	descriptions      *descriptionCache
	greetings         *lru.Cache[string, greeting]      // reported parameters by a session's settings
	latest            atomic.Pointer[map[string]string] // what a node has reported last
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
	}
	if gw.descriptions, err = newDescriptionCache(cfg.DescriptionCacheSize, catalogs.Current); err != nil {
		return nil, err
	}
	if gw.defaultSearchPath, err = gw.askSearchPath(ctx); err != nil {
		return nil, err
	}
	if _, err = gw.askParameters(ctx, participant.Settings{}); err != nil {
		return nil, err
	}
	front := cfg.Front
	front.Authenticate = gw.authenticate
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

// authenticate checks whom and what a client asks for, then leaves the rest to
// the front's own check.
func (gw *Gateway) authenticate(ctx context.Context, startup map[string]string, remote net.Addr) error {
	if len(gw.cfg.Users) > 0 && !slices.Contains(gw.cfg.Users, startup["user"]) {
		return frontError(pgerrcode.InvalidAuthorizationSpecification, fmt.Sprintf("role %q does not exist", startup["user"]))
	}
	if gw.cfg.Front.Authenticate != nil {
		if err := gw.cfg.Front.Authenticate(ctx, startup, remote); err != nil {
			return err
		}
	}
	if gw.cfg.Database != "" && startup["database"] != gw.cfg.Database {
		return frontError(pgerrcode.InvalidCatalogName, fmt.Sprintf("database %q does not exist", startup["database"]))
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

// askParameters takes a connection with these settings from the first node that
// answers, and returns the parameters that it reports.
func (gw *Gateway) askParameters(ctx context.Context, settings participant.Settings) (map[string]string, error) {
	t, err := gw.coordinator.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer t.End()
	b, err := gw.firstThatAnswers(func(node *participant.Node) (*participant.Branch, error) {
		return t.Enlist(ctx, node, settings, nil)
	})
	if err != nil {
		return nil, err
	}
	parameters := maps.Clone(b.Conn().Parameters())
	gw.latest.Store(&parameters)
	return parameters, nil
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
