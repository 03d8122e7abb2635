package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgpact/pgpact/migrations"
)

// severity says what a finding is worth.
type severity int

const (
	// note is worth knowing and nothing is wrong.
	note severity = iota
	// warning is something wrong that one can serve with: a node that is down, a
	// table that the nodes do not agree about. check exits 1.
	warning
	// danger endangers a promise (DESIGN section 1), or nothing would work at
	// all: serve does not start.
	danger
)

func (s severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// finding is one thing that check has to say.
type finding struct {
	server   string // "coordinator", "node a", "cluster" or "clients"
	severity severity
	text     string
}

func (f finding) String() string { return fmt.Sprintf("%s: %s: %s", f.server, f.severity, f.text) }

// findings are the things found at one server.
type findings struct {
	server string
	found  []finding
}

func (f *findings) add(s severity, format string, args ...any) {
	f.found = append(f.found, finding{server: f.server, severity: s, text: fmt.Sprintf(format, args...)})
}

// inspection looks at everything the configuration names. It changes nothing.
type inspection struct {
	cfg     *Config
	cluster *cluster // nil while the decision database has not said
	// thorough also reads what takes time or says nothing about the start: rows in
	// the wrong place, tables that differ, transactions in doubt.
	thorough bool
	// inDoubtFor is from what age on a transaction in doubt is worth a warning:
	// recovery needs seconds.
	inDoubtFor time.Duration

	servers []*server // the coordinator's first, then the nodes in their order
}

// inspect is what check prints and serve obeys.
func inspect(ctx context.Context, cfg *Config, thorough bool) []finding {
	return (&inspection{cfg: cfg, thorough: thorough, inDoubtFor: time.Minute}).run(ctx)
}

func (in *inspection) run(ctx context.Context) []finding {
	cfg := in.cfg
	in.servers = append(in.servers, in.newServer("coordinator", "", cfg.Coordinator.URL))
	for _, node := range cfg.Nodes {
		in.servers = append(in.servers, in.newServer("node "+node.Name, node.Name, node.URL))
	}
	defer in.close()
	in.connectAll(ctx)

	whole, door := &findings{server: "cluster"}, &findings{server: "clients"}
	in.inspectTLS(door)
	in.inspectRules(door)
	in.inspectCoordinator(ctx, in.servers[0])
	for _, s := range in.servers[1:] {
		in.inspectNode(ctx, s)
	}
	in.inspectPlacement(whole)
	in.inspectSameness(whole)
	if in.thorough {
		in.inspectTables(ctx, whole)
		in.inspectTransactions(ctx, whole)
	}
	var all []finding
	for _, s := range in.servers {
		all = append(all, s.found...)
	}
	return append(append(all, whole.found...), door.found...)
}

func worst(all []finding) severity {
	w := note
	for _, f := range all {
		w = max(w, f.severity)
	}
	return w
}

// inspectPlacement compares pgpact.buckets with the configuration.
func (in *inspection) inspectPlacement(f *findings) {
	if in.cluster == nil || len(in.cluster.owners) == 0 {
		return // inspectCoordinator has said why
	}
	if have := len(in.cluster.owners); have != in.cfg.Buckets {
		f.add(danger, "the cluster has %d buckets and the configuration says %d: the count is fixed when the cluster is made; set buckets: %d", have, in.cfg.Buckets, have)
	}
	names := in.cfg.nodeNames()
	for _, owner := range slices.Compact(slices.Sorted(slices.Values(in.cluster.owners))) {
		if !slices.Contains(names, owner) {
			f.add(danger, "buckets are placed on node %s, which is not configured: its rows would be out of reach", owner)
		}
	}
	for _, name := range names {
		if !slices.Contains(in.cluster.owners, name) {
			f.add(note, "no bucket is placed on node %s: it holds no rows", name)
		}
	}
}

// inspectSameness looks for two nodes that are one database: both halves of a
// transfer would meet there.
func (in *inspection) inspectSameness(f *findings) {
	seen := map[string]string{}
	for _, s := range in.servers[1:] {
		if s.facts == nil {
			continue
		}
		identity := s.facts.systemIdentifier + "/" + s.facts.databaseOID
		if other, taken := seen[identity]; taken {
			f.add(danger, "node %s and node %s are the same database of the same server", other, s.name)
		}
		seen[identity] = s.name
	}
}

// refusalOf makes the error with which serve refuses to start; nil when
// nothing found is a danger.
func refusalOf(all []finding) error {
	var errs []error
	for _, f := range all {
		if f.severity == danger {
			errs = append(errs, errors.New(f.String()))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.Join(append(errs, errors.New("not started, because promises could not be kept"))...)
}

// inspectCoordinator looks at the decision database.
func (in *inspection) inspectCoordinator(ctx context.Context, s *server) {
	if s.conn == nil {
		s.add(danger, "cannot connect to %s: %v", s.address, s.err)
		return
	}
	s.inspectFacts(in.cfg)
	if !s.inspectVersion(ctx, migrations.CoordinatorPending) {
		return
	}
	s.inspectPrivileges(ctx, danger, []privilege{
		{"pgpact.cluster", "SELECT"}, {"pgpact.login_secret", "SELECT"}, {"pgpact.buckets", "SELECT"}, {"pgpact.gate", "DELETE"},
		{"pgpact.gateways", "SELECT, INSERT, UPDATE, DELETE"}, {"pgpact.nodes", "SELECT, INSERT, UPDATE"},
		{"pgpact.transactions", "SELECT, INSERT, UPDATE, DELETE"},
		{"pgpact.keys_whole", "SELECT, INSERT, UPDATE"}, {"pgpact.proven_keys", "SELECT, INSERT, DELETE"},
	})
	in.inspectAuthQuery(ctx, s)
	c := &cluster{}
	if err := s.conn.QueryRow(ctx, "SELECT id FROM pgpact.cluster").Scan(&c.id); err != nil {
		s.add(danger, "pgpact.cluster cannot be read: %v", err)
		return
	}
	var err error
	if c.owners, err = readPlacement(ctx, s.conn); err != nil {
		s.add(danger, "pgpact.buckets cannot be read: %v", err)
		return
	}
	if len(c.owners) == 0 {
		s.add(danger, "no bucket is placed yet: run pgpact migrate")
	}
	in.cluster = c
}

// inspectNode looks at a node.
func (in *inspection) inspectNode(ctx context.Context, s *server) {
	if s.conn == nil {
		// The others go on working, so this does not stop serve.
		s.add(warning, "cannot connect to %s: %v", s.address, s.err)
		return
	}
	s.inspectFacts(in.cfg)
	s.inspectPreparing(in.cfg)
	if !s.inspectVersion(ctx, migrations.ParticipantPending) {
		return
	}
	s.inspectPrivileges(ctx, danger, []privilege{
		{"pgpact.node", "SELECT"}, {"pgpact.branches", "SELECT, INSERT, DELETE"},
	})
	in.inspectIdentity(ctx, s)
	if in.thorough {
		s.inspectPrepared(ctx, in.cluster, in.inDoubtFor)
	}
}

// inspectIdentity asks the node who it is.
func (in *inspection) inspectIdentity(ctx context.Context, s *server) {
	var clusterID, name string
	var buckets int
	err := s.conn.QueryRow(ctx, "SELECT cluster_id, name, bucket_count FROM pgpact.node").Scan(&clusterID, &name, &buckets)
	if err != nil {
		s.add(danger, "pgpact.node cannot be read: %v; run pgpact migrate", err)
		return
	}
	if name != s.name {
		s.add(danger, "the server at %s calls itself node %s: two addresses are mixed up, or one node's backup was restored as another", s.address, name)
	}
	if in.cluster == nil {
		return
	}
	if clusterID != in.cluster.id {
		s.add(danger, "it belongs to cluster %s, and the decision database to %s", clusterID, in.cluster.id)
	}
	if have := len(in.cluster.owners); have > 0 && buckets != have {
		s.add(danger, "pgpact.bucket() counts with %d buckets here, and the cluster has %d", buckets, have)
	}
}

// summary is the last line of check.
func summary(all []finding) string {
	counts := map[severity]int{}
	for _, f := range all {
		counts[f.severity]++
	}
	var parts []string
	for _, s := range []severity{danger, warning, note} {
		if n := counts[s]; n == 1 {
			parts = append(parts, "1 "+s.String())
		} else if n > 1 {
			parts = append(parts, fmt.Sprintf("%d %ss", n, s))
		}
	}
	if len(parts) == 0 {
		return "nothing is wrong"
	}
	return strings.Join(parts, ", ")
}
