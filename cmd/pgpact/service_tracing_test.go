package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A gateway whose configuration names a collector sends it what a transfer did,
// the last of it when it stops.
func TestGatewaySendsSpans(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var names []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &request) != nil {
			http.Error(w, "no OTLP", http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, of := range request.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				for _, span := range scope.Spans {
					names = append(names, span.Name)
				}
			}
		}
	}))
	defer server.Close()
	dir := demoDir(t)
	startDemo(t, dir, "--accounts", "0")
	cfg, err := loadConfig(filepath.Join(dir, demoConfigName), []string{"PGPACT_TRACING_ENDPOINT=" + server.URL, "PGPACT_NAME=traced"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := startService(t.Context(), cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.serve(asked, context.Background(), ln) }()
	query(t, clientURL(cfg, ln.Addr().String()), transfer)
	stop()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"transaction", "BEGIN", "UPDATE accounts", "node a", "node b", "COMMIT", "prepare", "decide", "commit prepared"} {
		if !slices.Contains(names, want) {
			t.Errorf("the collector has no span %q: %q", want, names)
		}
	}
}
