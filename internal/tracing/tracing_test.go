package tracing

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collected is a collector that speaks OTLP, and what it was sent.
type collected struct {
	mu     sync.Mutex
	paths  []string
	header http.Header
	spans  []*spans.ResourceSpans
}

func startCollector(t *testing.T) (*collected, string) {
	t.Helper()
	c := &collected{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &request) != nil {
			http.Error(w, "no OTLP", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.paths, c.header = append(c.paths, r.URL.Path), r.Header
		c.spans = append(c.spans, request.ResourceSpans...)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	return c, server.URL
}

func (c *collected) names() (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range c.spans {
		for _, scope := range of.ScopeSpans {
			for _, span := range scope.Spans {
				names = append(names, span.Name)
			}
		}
	}
	return names
}

func start(t *testing.T, cfg Config) *Sender {
	t.Helper()
	cfg.Instance, cfg.Version = "gateway-1", "v1.2.3"
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	sender, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return sender
}

func TestSpansReachTheCollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret")
	c, url := startCollector(t)
	sender := start(t, Config{Endpoint: url, Sample: 1})
	ctx, outer := sender.Tracer().Start(t.Context(), "transaction")
	_, inner := sender.Tracer().Start(ctx, "COMMIT")
	inner.End()
	outer.End()
	if err := sender.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.names(), ", "); got != "COMMIT, transaction" {
		t.Fatalf("the collector has %q", got)
	}
	if c.paths[0] != "/v1/traces" {
		t.Errorf("sent to %s", c.paths[0])
	}
	if got := c.header.Get("Authorization"); got != "Bearer secret" {
		t.Errorf("OTEL_EXPORTER_OTLP_HEADERS: the header is %q", got)
	}
	about := map[string]string{}
	for _, a := range c.spans[0].Resource.Attributes {
		about[a.Key] = a.Value.GetStringValue()
	}
	if about["service.name"] != "pgpact" || about["service.instance.id"] != "gateway-1" || about["service.version"] != "v1.2.3" {
		t.Errorf("the resource is %v", about)
	}
}

// What is sampled of traces that begin here is ours to say, of others the client's.
func TestSampling(t *testing.T) {
	c, url := startCollector(t)
	sender := start(t, Config{Endpoint: url, Sample: 0})
	_, span := sender.Tracer().Start(t.Context(), "ours")
	span.End()
	for name, flags := range map[string]trace.TraceFlags{"sampled by the client": trace.FlagsSampled, "not sampled by the client": 0} {
		parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: flags, Remote: true})
		_, span = sender.Tracer().Start(trace.ContextWithRemoteSpanContext(t.Context(), parent), name)
		span.End()
	}
	if err := sender.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.names(), ", "); got != "sampled by the client" {
		t.Errorf("the collector has %q", got)
	}
}

// A collector that is not there costs a line in the log, and no time but the one
// that Stop is given.
func TestNoCollector(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	var log bytes.Buffer
	sender := start(t, Config{Endpoint: server.URL, Sample: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	began := time.Now()
	for range 10_000 { // more than the queue holds
		_, span := sender.Tracer().Start(t.Context(), "lost")
		span.End()
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("10,000 spans that nobody takes took %s", took)
	}
	bound, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began = time.Now()
	_ = sender.Stop(bound) // an error or not: what was lost is in the log
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Stop took %s", took)
	}
	if !strings.Contains(log.String(), "level=WARN msg=tracing") {
		t.Errorf("the log says nothing of it: %s", log.String())
	}
}
