package main

import (
	"context"
	"fmt"
	"net"

	"github.com/pgpact/pgpact/internal/admin"
)

// adminServer is the server behind admin_listen while it runs.
type adminServer struct {
	end  context.CancelFunc
	done chan struct{}
}

// startAdmin serves /metrics, the probes and the status page, if an address is
// configured. It is there before clients are served, and stays until they are
// gone.
func (s *service) startAdmin() error {
	if s.cfg.AdminListen == "" {
		return nil
	}
	ln, err := net.Listen("tcp", s.cfg.AdminListen)
	if err != nil {
		return fmt.Errorf("admin_listen: %w", err)
	}
	buckets := map[string]int{}
	for _, node := range s.cluster.owners {
		buckets[node]++
	}
	server := admin.New(admin.Config{
		Name: s.cfg.Name, Version: version, Metrics: s.metrics, Coordinator: s.coordinator, Gateway: s.gateway,
		Nodes: s.nodes, Buckets: buckets, Logger: s.logger,
	})
	ctx, end := context.WithCancel(context.Background())
	s.admin = &adminServer{end: end, done: make(chan struct{})}
	s.logger.Info("status page, metrics and probes", "url", "http://"+ln.Addr().String()+"/")
	go func() {
		defer close(s.admin.done)
		if err := server.Serve(ctx, ln); err != nil {
			s.logger.Error("the status page, metrics and probes have ended", "error", err)
		}
	}()
	return nil
}

// stop ends it; nil has nothing to end.
func (a *adminServer) stop() {
	if a != nil {
		a.end()
		<-a.done
	}
}
