// Package tracing sends spans to a collector, by OTLP over HTTP. What becomes a
// span is decided by whoever is given the tracer.
//
// Nobody waits for the collector: spans are kept in a bounded queue and sent in
// batches, and what does not fit is dropped.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config of a Sender.
type Config struct {
	// Endpoint is the collector's URL, http://collector:4318 for instance; without a
	// path it is OTLP's own, /v1/traces. What else the exporter can be told
	// (headers, certificates) it takes from OpenTelemetry's own variables,
	// OTEL_EXPORTER_OTLP_*.
	Endpoint string
	// Sample is the part, from 0 to 1, of the traces that begin here which is sent.
	// Of those that a client has begun the client decides.
	Sample float64
	// Instance is the gateway's name, Version the program's.
	Instance, Version string
	Logger            *slog.Logger
}

// Sender has a tracer, and sends its spans until it is stopped.
type Sender struct {
	provider *sdktrace.TracerProvider
}

// Start makes a sender. The collector need not be there yet.
func Start(ctx context.Context, cfg Config) (*Sender, error) {
	endpoint, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = "/v1/traces" // the exporter would post to /
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint.String()))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	// The only way in which OpenTelemetry tells that spans were lost.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { cfg.Logger.Warn("tracing", "error", err) }))
	// Not resource.New's: it would add the machine's and the process's own names.
	about := resource.NewSchemaless(
		attribute.String("service.name", "pgpact"), attribute.String("service.instance.id", cfg.Instance),
		attribute.String("service.version", cfg.Version))
	return &Sender{provider: sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Sample))),
	)}, nil
}

// Tracer is what spans are made with.
func (s *Sender) Tracer() trace.Tracer { return s.provider.Tracer("github.com/pgpact/pgpact") }

// Stop sends what is still in the queue, until ctx ends.
func (s *Sender) Stop(ctx context.Context) error { return s.provider.Shutdown(ctx) }
