// Package admin serves what people and machines want to see of a gateway, over
// HTTP on an address of its own: /metrics for Prometheus, /livez and /readyz for
// whoever starts and stops it, /goroutines for reports of one that hangs, and a
// status page at /.
//
// It only shows: there is no request that changes anything. There is no
// authentication either, for neither probes nor Prometheus bring any along by
// themselves; the address is off unless it is configured, and the documentation
// says to keep it among the operators. No answer holds a client's statement, a
// value or a password.
package admin

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/internal/metrics"
	"github.com/pgpact/pgpact/participant"
)

// Config says of what is shown.
type Config struct {
	Name, Version string
	Metrics       *metrics.Metrics
	Coordinator   *coordinator.Coordinator
	Gateway       *gateway.Gateway
	Nodes         []*participant.Node
	Buckets       map[string]int // how many each node has
	Logger        *slog.Logger
}

// Server answers the requests.
type Server struct {
	cfg     Config
	started time.Time
	http    *http.Server

	health  cached[Health]
	listing cached[listing]
}

// Times for a request; the listings ask every node, which may hang.
const (
	requestTimeout = 10 * time.Second
	stopTimeout    = time.Second
)

// New makes a server. The coordinator must have been started.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, started: time.Now()}
	s.health = cached[Health]{keep: time.Second, read: s.readHealth}
	s.listing = cached[listing]{keep: 2 * time.Second, read: s.readListing}
	cfg.Metrics.Watch(metrics.Sources{
		Clients: cfg.Gateway.Standing, Coordinator: cfg.Coordinator.Standing, Connections: s.connections, Nodes: s.nodeNames(),
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics.Gatherer(), promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelError)}))
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status.json", s.status)
	mux.HandleFunc("GET /goroutines", goroutines)
	mux.HandleFunc("GET /{$}", page)
	s.http = &http.Server{
		Handler: guarded(mux), ReadHeaderTimeout: requestTimeout, ReadTimeout: requestTimeout,
		WriteTimeout: 2 * requestTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers requests from ln, and takes the samples that the page plots,
// until ctx ends. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.cfg.Metrics.Run(sampling)
	}()
	counting := make(chan struct{})
	go func() {
		defer close(counting)
		s.countForced(sampling)
	}()
	ended := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if s.http.Shutdown(bounded) != nil {
			_ = s.http.Close()
		}
	})
	defer ended()
	err := s.http.Serve(ln)
	stop()
	<-done
	<-counting
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// forcedInterval is how often the heuristic outcomes on record are counted.
// Persons make them, with another program.
const forcedInterval = 15 * time.Second

func (s *Server) countForced(ctx context.Context) {
	tick := time.NewTicker(forcedInterval)
	defer tick.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, probeTimeout)
		if count, err := s.cfg.Coordinator.CountForced(bounded); err == nil { // else /readyz says what is wrong
			s.cfg.Metrics.SetForced(count)
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Server) nodeNames() (names []string) {
	for _, node := range s.cfg.Nodes {
		names = append(names, node.Name())
	}
	return names
}

func (s *Server) connections(name string) participant.Stats {
	for _, node := range s.cfg.Nodes {
		if node.Name() == name {
			return node.Stats()
		}
	}
	return participant.Stats{}
}

// guarded sets what browsers are to be strict about. The page needs nothing from
// elsewhere, and nobody has a reason to show it in a frame.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

//go:embed page.html
var pageHTML []byte

func page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(pageHTML) // the browser may have gone
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}
