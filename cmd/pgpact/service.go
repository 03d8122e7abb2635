package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/internal/metrics"
	"github.com/pgpact/pgpact/internal/tracing"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// service is a gateway and all it stands on, as serve and demo run it.
type service struct {
	cfg         *Config
	cluster     *cluster
	nodes       []*participant.Node
	coordinator *coordinator.Coordinator
	gateway     *gateway.Gateway
	// certificates are what clients see; nil without TLS.
	certificates *gateway.Certificates
	metrics      *metrics.Metrics
	admin        *adminServer    // nil without admin_listen
	users        *userLookup     // nil without auth_query
	traces       *tracing.Sender // nil without tracing.endpoint
	logger       *slog.Logger
}

// coordinatorConfig is the coordinator's part of the configuration.
func coordinatorConfig(cfg *Config, clusterID string, nodes []*participant.Node) coordinator.Config {
	return coordinator.Config{
		Name: cfg.Name, DecisionURL: cfg.Coordinator.URL, ClusterID: clusterID, Nodes: nodes,
		Slots: cfg.Slots, SlotTimeout: cfg.SlotTimeout, ConnectTimeout: cfg.ConnectTimeout,
		PrepareTimeout: cfg.PrepareTimeout, DecisionTimeout: cfg.DecisionTimeout, FinishTimeout: cfg.FinishTimeout,
		SnapshotTimeout: cfg.SnapshotTimeout, InDoubtTimeout: cfg.InDoubtTimeout, SweepInterval: cfg.SweepInterval,
		DeadlockTimeout: cfg.DeadlockTimeout,
		Retention:       cfg.Retention, KeyRetention: cfg.KeyRetention,
	}
}

// startService looks at the servers, refuses those with which a promise could
// not be kept, and starts the coordinator: recovery runs before the first
// client is served.
func startService(ctx context.Context, cfg *Config, logger *slog.Logger, crash func(string)) (_ *service, err error) {
	found := inspect(ctx, cfg, false)
	if err := refusalOf(found); err != nil {
		return nil, err
	}
	for _, f := range found {
		level := slog.LevelInfo
		if f.severity == warning {
			level = slog.LevelWarn
		}
		logger.Log(ctx, level, f.text, "server", f.server)
	}
	s := &service{cfg: cfg, logger: logger, metrics: metrics.New(cfg.nodeNames(), version, commit)}
	if s.cluster, err = readCluster(ctx, cfg); err != nil {
		return nil, err
	}
	if s.nodes, err = openNodes(cfg, s.cluster.id, logger); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeNodes(s.nodes)
		}
	}()
	config := coordinatorConfig(cfg, s.cluster.id, s.nodes)
	config.Logger, config.FaultPoint, config.Observer = logger, crash, s.metrics
	if s.coordinator, err = coordinator.New(config); err != nil {
		return nil, err
	}
	if err := s.coordinator.Start(ctx); err != nil {
		return nil, err
	}
	if err = s.startTracing(ctx); err != nil {
		s.coordinator.Stop(ctx)
		return nil, err
	}
	if s.gateway, err = s.newGateway(ctx); err != nil {
		s.stopTracing(ctx)
		s.coordinator.Stop(ctx)
		return nil, err
	}
	if err = s.startAdmin(); err != nil {
		s.gateway.Close()
		s.stopTracing(ctx)
		s.coordinator.Stop(ctx)
		return nil, err
	}
	return s, nil
}

// stopTimeout bounds what a stopping coordinator still writes.
const stopTimeout = 5 * time.Second

// serve serves clients until asked ends; then it lets sessions become idle, for
// drain_timeout at most or until hurried ends, and stops everything.
func (s *service) serve(asked, hurried context.Context, ln net.Listener) error {
	served := make(chan error, 1)
	// Not until asked ends: the drain that follows has a bound of its own.
	go func() { served <- s.gateway.Serve(context.WithoutCancel(asked), ln) }()
	var err error
	select {
	case err = <-served:
		s.stop(hurried)
	case <-asked.Done():
		s.logger.Info("stopping", "drain_timeout", s.cfg.DrainTimeout)
		s.stop(hurried)
		err = <-served
	}
	if err != nil && !errors.Is(err, gateway.ErrServerClosed) { // that one: asked to stop before it began
		return fmt.Errorf("serving %s: %w", ln.Addr(), err)
	}
	return nil
}

// stop ends what startService started. What the coordinator still writes is not
// cut short by hurried: its bound is short, and it spares others the recovery.
func (s *service) stop(hurried context.Context) {
	drain, cancel := context.WithTimeout(hurried, s.cfg.DrainTimeout)
	defer cancel()
	if s.gateway.Shutdown(drain) != nil {
		s.logger.Warn("sessions were ended before they became idle")
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(hurried), stopTimeout)
	defer cancel()
	s.coordinator.Stop(last)
	s.stopTracing(last)
	s.admin.stop() // until now it has told that the gateway is stopping
	closeNodes(s.nodes)
	if s.users != nil {
		s.users.close()
	}
}

// newGateway makes the clients' side.
func (s *service) newGateway(ctx context.Context) (*gateway.Gateway, error) {
	placement, err := gateway.NewPlacement(s.nodes, s.cluster.owners)
	if err != nil {
		return nil, err
	}
	if s.certificates, err = openCertificates(s.cfg, s.logger); err != nil {
		return nil, err
	}
	return gateway.New(ctx, gateway.Config{
		Coordinator: s.coordinator, Nodes: s.nodes, Placement: placement, Parser: sqlparse.NewParser(s.cfg.ParserCache),
		ReadConsistency: s.cfg.ReadConsistency, MaxStatements: s.cfg.MaxStatements, MaxStatementBytes: s.cfg.MaxStatementBytes,
		MaxPortals: s.cfg.MaxPortals, MaxPortalBytes: s.cfg.MaxPortalBytes,
		Database: cmp.Or(s.cfg.Database, s.nodes[0].Database()), Users: s.cfg.Users, Logger: s.logger,
		Observer: s.metrics, Logging: loggingOf(s.cfg), Tracer: s.tracer(),
		Authentication: s.authentication(), ClientRoles: s.cfg.clientRoles(),
		Front: gateway.FrontConfig{
			StartupTimeout: s.cfg.StartupTimeout, MaxConnections: s.cfg.MaxConnections,
			MaxUnauthenticated: s.cfg.MaxUnauthenticated, MaxMessageSize: s.cfg.MaxMessageSize,
			WriteTimeout: s.cfg.WriteTimeout, DrainTimeout: s.cfg.DrainTimeout, Logger: s.logger,
			Certificates: s.certificates,
		},
	})
}
