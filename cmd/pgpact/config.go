package main

import (
	"time"

	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/migrations"
)

// Config is everything that `serve`, `migrate`, `check` and `transactions` can
// be told. pgpact.example.yaml describes every key; fields() in config_keys.go
// lists them with their bounds, and a test holds the three together.
type Config struct {
	Name        string
	Listen      string
	AdminListen string // "" for none
	Auth        string
	Database    string
	Users       []string

	Rules        []gateway.Rule
	Verifiers    map[string]gateway.Verifier
	AuthQuery    string
	FailedLogins int
	Roles        string

	TLS struct{ Cert, Key, ClientCA, MinVersion string }

	Coordinator struct{ URL string }
	Nodes       []NodeConfig
	Buckets     int

	Slots       int
	SlotTimeout time.Duration

	ConnectTimeout  time.Duration
	PrepareTimeout  time.Duration
	DecisionTimeout time.Duration
	FinishTimeout   time.Duration
	ReadConsistency string
	SnapshotTimeout time.Duration
	InDoubtTimeout  time.Duration
	SweepInterval   time.Duration
	DeadlockTimeout time.Duration
	Retention       time.Duration
	KeyRetention    time.Duration

	StartupTimeout     time.Duration
	MaxConnections     int
	MaxUnauthenticated int
	MaxMessageSize     int
	MaxStatements      int
	MaxStatementBytes  int
	MaxPortals         int
	MaxPortalBytes     int
	WriteTimeout       time.Duration
	DrainTimeout       time.Duration
	ParserCache        int

	Log struct {
		Level, Format             string
		SlowStatement, SlowCommit time.Duration // 0: off
		Statements                string
	}

	Tracing struct {
		Endpoint string  // "" for none
		Sample   float64 // 0 to 1
	}

	origins map[string]origin // key -> where its value was written
	file    string            // what the configuration was read from
}

// NodeConfig is one node: its name, which never changes, and its address.
type NodeConfig struct {
	Name string
	URL  string
}

// defaultConfig is a configuration in which nothing is written: the addresses
// are missing, everything else is what pgpact.example.yaml shows.
func defaultConfig() *Config {
	cfg := &Config{
		Name:    "pgpact",
		Listen:  "127.0.0.1:6432",
		Buckets: migrations.DefaultBucketCount,

		Slots:       64,
		SlotTimeout: 10 * time.Second,

		ConnectTimeout:  5 * time.Second,
		PrepareTimeout:  10 * time.Second,
		DecisionTimeout: 10 * time.Second,
		FinishTimeout:   5 * time.Second,
		ReadConsistency: gateway.ReadAtomic,
		SnapshotTimeout: 5 * time.Second,
		InDoubtTimeout:  time.Minute,
		SweepInterval:   time.Second,
		DeadlockTimeout: time.Second,
		Retention:       24 * time.Hour,
		KeyRetention:    7 * 24 * time.Hour,

		FailedLogins: 100,

		StartupTimeout:     10 * time.Second,
		MaxConnections:     5000,
		MaxUnauthenticated: 1000,
		MaxMessageSize:     64 << 20,
		MaxStatements:      10000,
		MaxStatementBytes:  128 << 20,
		MaxPortals:         10000,
		MaxPortalBytes:     128 << 20,
		WriteTimeout:       time.Minute,
		DrainTimeout:       10 * time.Second,
		ParserCache:        10000,

		origins: map[string]origin{},
	}
	cfg.TLS.MinVersion = tls12
	cfg.Log.Level, cfg.Log.Format, cfg.Log.Statements = "info", "text", string(gateway.TextNone)
	cfg.Tracing.Sample = 1
	cfg.Log.SlowStatement, cfg.Log.SlowCommit = 0, time.Second
	return cfg
}

// nodeNames are the names of the nodes, in the order of the configuration.
func (cfg *Config) nodeNames() []string {
	names := make([]string, len(cfg.Nodes))
	for i, node := range cfg.Nodes {
		names[i] = node.Name
	}
	return names
}
