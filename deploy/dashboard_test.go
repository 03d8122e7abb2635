package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/internal/metrics"
	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// dashboard is what of Grafana's format is of interest here.
type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

// Every query of the dashboard finds data in a Prometheus that reads a gateway's
// metrics: a series that is called otherwise, or a label that is not there, would
// be an empty panel, which nobody notices on a good day.
func TestDashboardFindsData(t *testing.T) {
	prometheus := tool(t, "prometheus")
	var board dashboard
	if err := json.Unmarshal([]byte(read(t, "grafana/dashboards/pgpact.json")), &board); err != nil {
		t.Fatal(err)
	}
	url := startPrometheus(t, prometheus, busyGateway(t))
	queries := 0
	deadline := time.Now().Add(time.Minute)
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			queries++
			expr := strings.NewReplacer("$instance", ".*", "$__rate_interval", "20s").Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: a variable that this test does not know: %s", panel.Title, expr)
				continue
			}
			// Until Prometheus has read often enough for a rate.
			if err := await(deadline, func() error { return findsData(url, expr) }); err != nil {
				t.Errorf("%s: %s: %v", panel.Title, expr, err)
			}
		}
	}
	if queries < 20 {
		t.Errorf("only %d queries found in the dashboard", queries)
	}
	if err := findsData(url, `pgpact_nothing{job="pgpact"}`); err == nil {
		t.Error("a query for what is not there finds data: this test cannot fail")
	}
}

// findsData is nil when the query's answer has a number in it.
func findsData(base, expr string) error {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(base + "/api/v1/query?query=" + url.QueryEscape(expr)) //nolint:noctx // the client has a timeout
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var body struct {
		Error string
		Data  struct{ Result []struct{ Value [2]any } }
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		return err
	}
	if body.Error != "" {
		return errors.New(body.Error)
	}
	for _, result := range body.Data.Result {
		if result.Value[1] != "NaN" {
			return nil
		}
	}
	return fmt.Errorf("%d results, none of them a number", len(body.Data.Result))
}

// busyGateway serves the metrics of a gateway to which everything happens.
func busyGateway(t *testing.T) (address string) {
	t.Helper()
	m := metrics.New([]string{"a", "b"}, "test", "commit")
	m.Watch(metrics.Sources{
		Clients: func() gateway.Standing {
			return gateway.Standing{Active: 1, Accepted: 1, BytesReceived: 1, BytesSent: 1}
		},
		Coordinator: func() coordinator.Standing { return coordinator.Standing{Slots: 64, SlotsInUse: 1, EpochHeld: true} },
		Connections: func(string) participant.Stats { return participant.Stats{Idle: 1, InUse: 1} }, Nodes: []string{"a", "b"},
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, outcome := range []coordinator.Outcome{coordinator.Committed, coordinator.Aborted, coordinator.Unknown} {
			m.TransactionEnded(coordinator.KindTwoPhase, outcome, time.Millisecond)
		}
		for phase := range coordinator.PhaseCount {
			m.PhaseDone(phase, "a", time.Millisecond)
			m.PhaseDone(phase, "", time.Millisecond)
		}
		m.StatementDone(sqlparse.Update, time.Millisecond)
		m.StatementFailed("23505")
		m.StatementRefused("0A000", "merge")
		m.ConnectionRefused("28P01")
		m.DecisionsWritten(2)
		m.SlotWaited(time.Millisecond, false)
		m.NodeSwept("a", coordinator.Swept{Prepared: 1, InDoubt: 1, Oldest: time.Second})
		m.NodeSwept("b", coordinator.Swept{})
		m.Recovered(coordinator.RecoveryAction{What: coordinator.ActionCommitted, ID: participant.ID{Epoch: 1, Sequence: 1}, Count: 1})
		promhttp.HandlerFor(m.Gatherer(), promhttp.HandlerOpts{}).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// startPrometheus starts one that reads the address every half second, and waits
// until it answers.
func startPrometheus(t *testing.T, program, address string) (base string) {
	t.Helper()
	dir := t.TempDir()
	config := fmt.Sprintf("global: {scrape_interval: 500ms, scrape_timeout: 500ms}\nscrape_configs:\n  - {job_name: pgpact, static_configs: [{targets: [%q]}]}\n", address)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := ln.Addr().String()
	_ = ln.Close() // Prometheus cannot be given a socket
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed by us
		if t.Failed() {
			t.Logf("prometheus wrote:\n%s", log.String())
		}
	})
	base = "http://" + listen
	if err := await(time.Now().Add(30*time.Second), func() error { return findsData(base, "up") }); err != nil {
		t.Fatalf("prometheus does not answer: %v", err)
	}
	return base
}

// await asks until there is no error, or the deadline has passed.
func await(deadline time.Time, ask func() error) (err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = ask(); err == nil || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}
