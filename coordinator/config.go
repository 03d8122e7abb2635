package coordinator

import (
	"errors"
	"log/slog"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// Config of a coordinator. Zero durations and counts take the defaults named.
type Config struct {
	// Name of this gateway, for people: it is stored with its epoch.
	Name string
	// DecisionURL is the coordinator database, as a postgres:// URL.
	DecisionURL string
	// ClusterID is what the decision database and every node must call theirs.
	ClusterID string
	// Nodes are all nodes of the cluster.
	Nodes []*participant.Node

	// Slots bounds the transactions under way (default 64). A slot guarantees a
	// connection on every node, so that pools cannot deadlock.
	Slots int
	// SlotTimeout bounds the wait for a slot (default 10 s); past it 53300.
	SlotTimeout time.Duration
	// ConnectTimeout bounds one attempt to reach the decision database
	// (default 5 s).
	ConnectTimeout time.Duration
	// PrepareTimeout bounds phase one (default 10 s); past it the transaction is
	// aborted.
	PrepareTimeout time.Duration
	// DecisionTimeout bounds the client's wait for the decision (default 10 s);
	// past it the client hears 08007 and recovery takes over.
	DecisionTimeout time.Duration
	// FinishTimeout bounds phase two (default 5 s); past it the client hears
	// COMMIT with a warning and recovery takes over.
	FinishTimeout time.Duration
	// SnapshotTimeout bounds how long a read of several nodes waits for snapshots
	// that show every transaction wholly or not at all (default 5 s).
	SnapshotTimeout time.Duration
	// InDoubtTimeout is how old a prepared branch without a decision must be
	// before its abort is presumed although its gateway is alive (default 60 s).
	// It must be longer than PrepareTimeout and DecisionTimeout together.
	InDoubtTimeout time.Duration
	// SweepInterval is the pause between two recovery sweeps (default 1 s).
	SweepInterval time.Duration
	// GraceAfterRestart is how long after a start or promotion of the decision
	// database nobody is presumed dead (default 2 s): the living need the time
	// to take their locks again.
	GraceAfterRestart time.Duration
	// DeadlockTimeout is how long a statement waits for its node before the gateway
	// looks for a deadlock that spans nodes (default 1 s, as in Postgres).
	DeadlockTimeout time.Duration
	// Retention is how long a finished decision is kept (default 24 h);
	// KeyRetention is the same for one with an idempotency key (default 7 days).
	Retention, KeyRetention time.Duration

	// FaultPoint, when not nil, is called with the name of every fault point
	// that is passed. Tests and --crash-at use it.
	FaultPoint func(name string)

	// Observer, when not nil, is told what happens.
	Observer Observer

	Logger *slog.Logger
}

func (cfg *Config) setDefaults() {
	setDefault := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if cfg.Slots == 0 {
		cfg.Slots = 64
	}
	if cfg.Name == "" {
		cfg.Name = "pgpact"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	setDefault(&cfg.SlotTimeout, 10*time.Second)
	setDefault(&cfg.ConnectTimeout, 5*time.Second)
	setDefault(&cfg.PrepareTimeout, 10*time.Second)
	setDefault(&cfg.DecisionTimeout, 10*time.Second)
	setDefault(&cfg.FinishTimeout, 5*time.Second)
	setDefault(&cfg.SnapshotTimeout, 5*time.Second)
	setDefault(&cfg.InDoubtTimeout, 60*time.Second)
	setDefault(&cfg.SweepInterval, time.Second)
	setDefault(&cfg.GraceAfterRestart, 2*time.Second)
	setDefault(&cfg.DeadlockTimeout, time.Second)
	setDefault(&cfg.Retention, 24*time.Hour)
	setDefault(&cfg.KeyRetention, 7*24*time.Hour)
}

func (cfg *Config) validate() error {
	switch {
	case len(cfg.Nodes) == 0:
		return errors.New("no nodes are configured")
	case cfg.DecisionURL == "":
		return errors.New("no decision database is configured")
	case !participant.ValidName(cfg.ClusterID):
		return errors.New("the cluster id must be 1 to 63 of a-z, 0-9, - and _")
	case cfg.PrepareTimeout+cfg.DecisionTimeout >= cfg.InDoubtTimeout:
		return errors.New("in_doubt_timeout must be longer than prepare_timeout and decision_timeout together: " +
			"a transaction still being decided must not be presumed aborted")
	}
	return nil
}
