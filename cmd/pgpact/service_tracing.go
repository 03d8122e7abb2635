package main

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/pgpact/pgpact/internal/tracing"
)

// lastSpansTimeout bounds the sending of the last spans: a collector that does
// not answer must not keep a gateway from stopping.
const lastSpansTimeout = 2 * time.Second

// startTracing begins to send spans, if a collector is configured.
func (s *service) startTracing(ctx context.Context) (err error) {
	if s.cfg.Tracing.Endpoint == "" {
		return nil
	}
	s.traces, err = tracing.Start(ctx, tracing.Config{
		Endpoint: s.cfg.Tracing.Endpoint, Sample: s.cfg.Tracing.Sample, Instance: s.cfg.Name, Version: version, Logger: s.logger,
	})
	return err
}

// tracer is what the gateway makes spans with, nil for none.
func (s *service) tracer() trace.Tracer {
	if s.traces == nil {
		return nil
	}
	return s.traces.Tracer()
}

func (s *service) stopTracing(ctx context.Context) {
	if s.traces == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastSpansTimeout)
	defer cancel()
	if err := s.traces.Stop(ctx); err != nil {
		s.logger.Warn("the last spans have not been sent", "error", err)
	}
}
