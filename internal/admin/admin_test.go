//go:build unix

package admin

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/internal/metrics"
)

// watched is a whole gateway over real servers with a server of this package.
type watched struct {
	t       *testing.T
	cluster *clustertest.Cluster
	gateway *gateway.Gateway
	metrics *metrics.Metrics
	clients string // the URL for clients
	url     string // for watchers
}

func start(t *testing.T, nodes int) *watched {
	t.Helper()
	w := &watched{t: t, cluster: clustertest.Start(t, nodes, clustertest.Options{})}
	w.metrics = metrics.New(w.cluster.Names(), "test", "commit")
	logger := clustertest.Logger(t)
	c, err := coordinator.New(coordinator.Config{
		DecisionURL: w.cluster.DecisionURL, ClusterID: w.cluster.ClusterID, Nodes: w.cluster.Nodes, Observer: w.metrics,
		ConnectTimeout: time.Second, SweepInterval: 50 * time.Millisecond, Logger: logger,
	})
	must(t, err)
	must(t, c.Start(t.Context()))
	owners := make([]string, 16)
	for i := range owners {
		owners[i] = w.cluster.Names()[i%nodes]
	}
	placement, err := gateway.NewPlacement(w.cluster.Nodes, owners)
	must(t, err)
	w.gateway, err = gateway.New(t.Context(), gateway.Config{Coordinator: c, Nodes: w.cluster.Nodes, Placement: placement, Observer: w.metrics, Logger: logger})
	must(t, err)
	server := New(Config{
		Name: "watched", Version: "test", Metrics: w.metrics, Coordinator: c, Gateway: w.gateway, Nodes: w.cluster.Nodes,
		Buckets: map[string]int{"a": 8, "b": 8}, Logger: logger,
	})
	clients, watchers := listen(t), listen(t)
	w.clients, w.url = "postgres://carol@"+clients.Addr().String()+"/d?sslmode=disable", "http://"+watchers.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- w.gateway.Serve(context.Background(), clients) }()
	go func() { ended <- server.Serve(ctx, watchers) }()
	t.Cleanup(func() {
		last, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		_ = w.gateway.Shutdown(last)
		w.gateway.Close()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		c.Stop(last)
		for _, node := range w.cluster.Nodes {
			node.Close()
		}
	})
	return w
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return ln
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *watched) get(path string) (code int, body string, header http.Header) {
	w.t.Helper()
	answer, err := http.Get(w.url + path) //nolint:noctx // of a test's own server
	must(w.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(w.t, err)
	return answer.StatusCode, string(text), answer.Header
}

func (w *watched) health(path string) (int, Health) {
	w.t.Helper()
	code, body, header := w.get(path)
	if header.Get("Content-Type") != "application/json" {
		w.t.Errorf("%s is %s", path, header.Get("Content-Type"))
	}
	var h Health
	must(w.t, json.Unmarshal([]byte(body), &h))
	return code, h
}

func (w *watched) connect() *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.clients)
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// eventually waits until the metrics have the line.
func (w *watched) eventually(line string) {
	w.t.Helper()
	clustertest.WaitFor(w.t, line, 10*time.Second, func() bool {
		_, text, _ := w.get("/metrics")
		return strings.Contains(text, line+"\n")
	})
}

// A life of a gateway as its watchers see it: one after the other, for the
// servers are one set.
func TestWatching(t *testing.T) {
	w := start(t, 2)
	for _, part := range []struct {
		name string
		test func()
	}{
		{"transactions", w.testTransactions}, {"page", w.testPage}, {"browser", w.testBrowser}, {"in doubt", w.testInDoubt}, {"readiness", w.testReadiness}, {"drain", w.testDrain},
	} {
		began := time.Now()
		part.test()
		t.Logf("%s: %v", part.name, time.Since(began).Round(time.Millisecond))
	}
}

func (w *watched) testTransactions() {
	t, ctx := w.t, w.t.Context()
	conn := w.connect()
	exec := func(sql string) error { _, err := conn.Exec(ctx, sql); return err }
	must(t, exec("INSERT INTO accounts SELECT 'k1', 1"))
	for _, sql := range []string{"BEGIN", "INSERT INTO accounts VALUES('k2',1),('k3',1),('k4',1),('k5',1),('k6',1)", "COMMIT", "SELECT count(*) FROM accounts"} {
		must(t, exec(sql))
	}
	for sql, want := range map[string]string{
		"VACUUM":                              "0A000",
		"SELECT 1/0":                          "22012",
		"INSERT INTO accounts SELECT 'k1', 1": "23505",
	} {
		if err := exec(sql); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	must(t, exec("BEGIN"))
	for _, line := range []string{
		`pgpact_transactions_total{kind="one-phase",outcome="committed"} 1`,
		`pgpact_transactions_total{kind="one-phase",outcome="aborted"} 1`,
		`pgpact_transactions_total{kind="two-phase",outcome="committed"} 1`,
		`pgpact_phase_duration_seconds_count{node="a",phase="prepare"} 1`,
		`pgpact_phase_duration_seconds_count{node="b",phase="commit prepared"} 1`,
		`pgpact_phase_duration_seconds_count{node="",phase="decide"} 1`,
		`pgpact_decision_batch_size_count 1`,
		`pgpact_statements_refused_total{reason="utility",sqlstate="0A000"} 1`,
		`pgpact_statement_errors_total{class="22"} 1`,
		`pgpact_statement_errors_total{class="23"} 1`,
		`pgpact_connections{state="idle in transaction"} 1`,
		`pgpact_node_up{node="b"} 1`, `pgpact_epoch_held 1`,
	} {
		w.eventually(line)
	}
	must(t, exec("ROLLBACK"))
	_, text, _ := w.get("/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	must(t, err)
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "pgpact_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func (w *watched) testPage() {
	code, body, header := w.get("/")
	if code != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/html") || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
		w.t.Errorf("/: %d %v", code, header)
	}
	for _, outside := range []string{"http://", "https://", " src=", "@import", "<link"} {
		if strings.Contains(body, outside) {
			w.t.Errorf("the page has %s in it: it must need nothing from elsewhere", outside)
		}
	}
	if code, _, _ := w.get("/nothing"); code != http.StatusNotFound {
		w.t.Errorf("/nothing: %d", code)
	}
	answer, err := http.Post(w.url+"/status.json", "text/plain", nil) //nolint:noctx // of a test's own server
	must(w.t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusMethodNotAllowed {
		w.t.Errorf("POST: %d", answer.StatusCode)
	}
}

// A branch that nobody is at work on: of an epoch that nobody knows, so that
// recovery leaves it alone.
func (w *watched) testInDoubt() {
	t := w.t
	gid := "pgpact/" + w.cluster.ClusterID + "/77/1/a"
	w.cluster.Exec("a", "BEGIN; UPDATE accounts SET balance=balance; PREPARE TRANSACTION '"+gid+"'")
	w.eventually(`pgpact_node_in_doubt{node="a"} 1`)
	w.eventually(`pgpact_recovery_actions_total{action="unknown epoch, left alone"} 1`)
	var st Status
	clustertest.WaitFor(t, "the transaction is listed", 10*time.Second, func() bool {
		_, body, _ := w.get("/status.json")
		must(t, json.Unmarshal([]byte(body), &st))
		return len(st.Transactions) == 1
	})
	if got := st.Transactions[0]; got.ID != "77/1" || got.State != coordinator.StateNotOurs || got.Age < 1 || got.Nodes["a"] != coordinator.NodePrepared {
		t.Errorf("listed: %+v", got)
	}
	if len(st.Recovery) != 1 || st.Recovery[0].What != coordinator.ActionLeftAlone || st.Recovery[0].Transaction != "77/1" {
		t.Errorf("recovery: %+v", st.Recovery)
	}
	if len(st.Nodes) != 2 || st.Nodes[0].InDoubt != 1 || st.Nodes[0].Oldest <= 0 || !st.Nodes[1].Up || st.Nodes[1].Buckets != 8 || st.Nodes[1].Version == 0 {
		t.Errorf("nodes: %+v", st.Nodes)
	}
	clustertest.WaitFor(t, "samples", 10*time.Second, func() bool {
		_, body, _ := w.get("/status.json")
		must(t, json.Unmarshal([]byte(body), &st))
		return len(st.Samples) > 1
	})
	last := st.Samples[len(st.Samples)-1].At
	_, body, _ := w.get("/status.json?since=" + jsonNumber(last))
	st = Status{}
	must(t, json.Unmarshal([]byte(body), &st))
	if len(st.Samples) > 0 && st.Samples[0].At <= last {
		t.Errorf("since=%d was answered with a sample of %d", last, st.Samples[0].At)
	}
	w.cluster.Exec("a", "ROLLBACK PREPARED '"+gid+"'")
	w.eventually(`pgpact_node_in_doubt{node="a"} 0`)
}

func jsonNumber(n int64) string { text, _ := json.Marshal(n); return string(text) }

func (w *watched) testReadiness() {
	t := w.t
	if code, h := w.health("/livez"); code != 200 || !h.OK {
		t.Errorf("/livez: %d %+v", code, h)
	}
	if code, h := w.health("/readyz"); code != 200 || !h.OK || len(h.Checks) != 4 {
		t.Errorf("/readyz: %d %+v", code, h)
	}
	becomes := func(what, reason string) {
		t.Helper()
		var h Health
		clustertest.WaitFor(t, what, 20*time.Second, func() bool {
			code := 0
			code, h = w.health("/readyz")
			return code == 503 && strings.Contains(h.Reason, reason)
		})
		if h.OK {
			t.Errorf("%s: %+v", what, h)
		}
		if code, h := w.health("/livez"); code != 200 || !h.OK { // whatever the servers do
			t.Errorf("/livez: %d %+v", code, h)
		}
	}
	if code, stacks, _ := w.get("/goroutines"); code != 200 || !strings.Contains(stacks, "goroutine ") || !strings.Contains(stacks, "created by ") {
		t.Errorf("/goroutines: %d %.200s", code, stacks)
	}
	w.cluster.Kill("b")
	becomes("not ready without a majority of the nodes", "1 of 2 nodes answer, and a majority (2) is needed")
	w.eventually(`pgpact_node_up{node="b"} 0`)
	w.cluster.Kill(clustertest.CoordinatorServer)
	becomes("not ready without the decision database", "decision database: ")
	w.eventually(`pgpact_epoch_held 0`)
}

func (w *watched) testDrain() {
	conn := w.connect()
	_, err := conn.Exec(w.t.Context(), "BEGIN; SELECT 1")
	must(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- w.gateway.Shutdown(ctx) }()
	clustertest.WaitFor(w.t, "not ready while stopping", 5*time.Second, func() bool {
		code, h := w.health("/readyz")
		return code == 503 && h.Reason == "the gateway is stopping"
	})
	w.eventually("pgpact_draining 1")
	_, err = conn.Exec(w.t.Context(), "COMMIT")
	must(w.t, err)
	must(w.t, <-stopped)
}
