package gateway

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/sqlparse"
)

// Observer is told what happens at the clients' side, while it happens. Its
// methods are called by the sessions' goroutines between a statement and its
// answer, so they must neither wait nor fail. The gateway does not know what
// becomes of it.
type Observer interface {
	// StatementDone tells how long a statement took, its client's reading of the
	// rows included.
	StatementDone(kind sqlparse.Kind, took time.Duration)
	// AutocommitEnded tells of a statement that was a transaction of its own. All
	// other transactions are told by the coordinator.
	AutocommitEnded(kind coordinator.Kind, outcome coordinator.Outcome)
	// StatementFailed tells what a client was told by a node.
	StatementFailed(sqlstate string)
	// StatementRefused tells what a client was told by the gateway itself. reason is
	// one of a fixed set of words, "" when the SQLSTATE says it all.
	StatementRefused(sqlstate, reason string)
	// ConnectionRefused tells that a client was turned away before it had a session.
	ConnectionRefused(sqlstate string)
}

type noObserver struct{}

func (noObserver) StatementDone(sqlparse.Kind, time.Duration)            {}
func (noObserver) AutocommitEnded(coordinator.Kind, coordinator.Outcome) {}
func (noObserver) StatementFailed(string)                                {}
func (noObserver) StatementRefused(string, string)                       {}
func (noObserver) ConnectionRefused(string)                              {}

// traffic counts a server's connections and bytes, for all of its life.
type traffic struct{ accepted, received, sent atomic.Int64 }

// Standing is the state of the clients' side at a moment.
type Standing struct {
	// Connections by their state, in Postgres's words (pg_stat_activity), and those
	// that are not authenticated yet.
	Active, Idle, InTransaction, InFailedTransaction, Connecting int
	// Since the gateway was made. Bytes are those of the sockets, without TLS's.
	Accepted, BytesReceived, BytesSent int64
	Draining                           bool
}

// Standing tells it. It may be called at any time.
func (gw *Gateway) Standing() Standing { return gw.server.standing() }

func (s *Server) standing() Standing {
	st := Standing{Accepted: s.cfg.traffic.accepted.Load(), BytesReceived: s.cfg.traffic.received.Load(), BytesSent: s.cfg.traffic.sent.Load()}
	s.mu.Lock()
	st.Draining = s.draining
	listeners := make([]*listener, 0, len(s.listeners))
	for l := range s.listeners {
		listeners = append(listeners, l)
	}
	s.mu.Unlock()
	for _, l := range listeners {
		l.mu.Lock()
		st.Connecting += len(l.unauthenticated)
		l.mu.Unlock()
	}
	for _, c := range s.snapshot() {
		c.mu.Lock()
		waiting := c.waiting
		c.mu.Unlock()
		switch {
		case !waiting:
			st.Active++
		case c.txStatus.Load() == 'T':
			st.InTransaction++
		case c.txStatus.Load() == 'E':
			st.InFailedTransaction++
		default:
			st.Idle++
		}
	}
	return st
}

// observed is perform, told to the observer and, when slow, to the log.
func (s *session) observed(x *execution) error {
	began, kind, text := time.Now(), x.st.Kind, x.text()
	if s.gw.cfg.Tracer != nil {
		s.traceStatement(x.st, text, began)
	}
	err := s.perform(x)
	took := time.Since(began)
	if s.gw.cfg.Tracer != nil {
		s.traceStatementDone(err)
	}
	s.gw.cfg.Observer.StatementDone(kind, took)
	if l := s.gw.logging.Load(); l.SlowStatement > 0 && took >= l.SlowStatement {
		s.logSlowStatement(l, kind, text, took, err)
	}
	return err
}

// observeAutocommit tells the observer how a statement ended that was a
// transaction of its own.
func (s *session) observeAutocommit(writes bool, err error) {
	kind, outcome := coordinator.KindRead, coordinator.Committed
	if writes {
		kind = coordinator.KindOnePhase
	}
	if err != nil {
		outcome = coordinator.Aborted
		if _, unknown := errors.AsType[*unknownOutcome](err); unknown {
			outcome = coordinator.Unknown
		}
	}
	s.gw.cfg.Observer.AutocommitEnded(kind, outcome)
}

// observeError tells the observer what a client is told. Only a node's own errors
// name the place in Postgres's source that they come from.
func (s *session) observeError(pgErr *pgconn.PgError) {
	if pgErr.File != "" {
		s.gw.cfg.Observer.StatementFailed(pgErr.Code)
		return
	}
	s.gw.cfg.Observer.StatementRefused(pgErr.Code, pgErr.Routine)
}
