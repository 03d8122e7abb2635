package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/participant"
)

// service is a gateway and all it stands on, as serve and demo run it.
type service struct {
	cfg         *Config
	cluster     *cluster
	nodes       []*participant.Node
	coordinator *coordinator.Coordinator
	gateway     *gateway.Gateway
	logger      *slog.Logger
}

// coordinatorConfig is the coordinator's part of the configuration.
func coordinatorConfig(cfg *Config, clusterID string, nodes []*participant.Node) coordinator.Config {
	return coordinator.Config{
		Name: cfg.Name, DecisionURL: cfg.Coordinator.URL, ClusterID: clusterID, Nodes: nodes,
		Slots: cfg.Slots, SlotTimeout: cfg.SlotTimeout, ConnectTimeout: cfg.ConnectTimeout,
		PrepareTimeout: cfg.PrepareTimeout, DecisionTimeout: cfg.DecisionTimeout, FinishTimeout: cfg.FinishTimeout,
		InDoubtTimeout: cfg.InDoubtTimeout, SweepInterval: cfg.SweepInterval,
		Retention: cfg.Retention, KeyRetention: cfg.KeyRetention,
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
	s := &service{cfg: cfg, logger: logger}
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
	config.Logger, config.FaultPoint = logger, crash
	if s.coordinator, err = coordinator.New(config); err != nil {
		return nil, err
	}
	if err := s.coordinator.Start(ctx); err != nil {
		return nil, err
	}
	if s.gateway, err = s.newGateway(ctx); err != nil {
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
	go func() { served <- s.gateway.Serve(context.WithoutCancel(asked), ln) }()
	var err error
	select {
	case err = <-served:
	case <-asked.Done():
		s.logger.Info("stopping", "drain_timeout", s.cfg.DrainTimeout)
		ctx, cancel := context.WithTimeout(hurried, s.cfg.DrainTimeout)
		if s.gateway.Shutdown(ctx) != nil {
			s.logger.Warn("sessions were ended in the middle of a transaction")
		}
		cancel()
		err = <-served
	}
	s.stop(hurried)
	if errors.Is(err, gateway.ErrServerClosed) {
		return nil // asked to stop before it began to serve
	}
	if err != nil {
		return fmt.Errorf("serving %s: %w", ln.Addr(), err)
	}
	return nil
}

// stop ends what startService started. A second signal does not shorten it: the
// bound is short, and what it writes spares others the recovery.
func (s *service) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	s.gateway.Close()
	s.coordinator.Stop(ctx)
	closeNodes(s.nodes)
}
