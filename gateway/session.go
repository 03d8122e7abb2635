package gateway

// Life of an UPDATE, step 3: the session. It reads the client's messages one by
// one and holds what Postgres holds per connection: the state of the
// transaction (state.go), settings, prepared statements and portals.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
)

// session is one client's session. It belongs to one goroutine, interrupt
// excepted.
type session struct {
	gw        *Gateway
	client    *client
	interrupt interrupt

	state txState
	block *block // nil exactly when state is idle

	startup       participant.Settings // what RESET returns to
	startupValues map[string]string    // the same
	settings      participant.Settings // what SET has made of it, committed
	reported      reportedParameters   // what the client was told
	// What follows from the settings, as of settingsKey.
	settingsKey string
	planKey     string // part of the settings that decides what statements mean
	routing     routeSession
	timeouts    sessionTimeouts
	// What the nodes are told of the settings with nodesKey: see forNodes.
	nodesKnown    bool
	nodesKey      string
	nodesSettings participant.Settings
	clockUntil    time.Time // the end of the transaction's time; zero: not counted

	statements statementSet
	portals    portalSet
	pending    pending // replies of the extended protocol that are owed
	inSeries   bool    // messages of the extended protocol since the last Sync
	ended      error   // ends the session after the message being served
	atSync     bool    // a Sync is being served that ends the transaction, and all portals
	skipping   bool    // an error happened: discard everything until Sync
	answered   bool    // a ReadyForQuery may not have been flushed yet

	// hold keeps the next CommandComplete back in held: it must not be sent
	// before the commit that belongs to it.
	hold   bool
	held   []byte
	unseen uint64 // of what the client was sent, what need not be sent again if a statement is repeated

	spans    spans     // what is being traced; empty without a tracer
	x        execution // the statement being run; one object, used again and again
	branches []*participant.Branch
}

// serve is the session of one authenticated client, from the greeting to its
// end.
func (gw *Gateway) serve(ctx context.Context, c *client) error {
	s := &session{gw: gw, client: c}
	s.routing.cursor = s.portals.nodeOf
	s.interrupt.session = ctx
	c.onCancel(func() { s.interrupt.fire(errCanceled) })
	// A client that vanishes, or a shutdown that has run out of patience, stops
	// what runs at the nodes.
	stop := context.AfterFunc(ctx, func() { s.interrupt.end(context.Cause(ctx)) })
	defer stop()
	defer s.close()
	if err := s.greet(); err != nil {
		return err
	}
	return s.run()
}

// close ends what the client left behind. An open block is rolled back.
func (s *session) close() {
	s.client.onCancel(nil)
	s.interrupt.stop()
	if s.block != nil && s.block.t != nil {
		s.block.t.Rollback()
	}
	s.traceBlockDone(coordinator.Result{Outcome: coordinator.Aborted})
}

// errTerminate ends the message loop: the client has said Terminate.
var errTerminate = errors.New("terminate")

func (s *session) run() error {
	for {
		// Half a message, or the beginning of another series, is no reason to wait
		// with answers that are whole: its sender may be waiting for them.
		if (!s.inSeries || s.answered) && !s.client.reader.Complete() {
			if err := s.client.flush(); err != nil {
				return err
			}
			s.answered = false
		}
		frame, err := s.client.next(s.wait())
		if err != nil {
			return s.waitError(err)
		}
		if s.timedOut() {
			return errTransactionTimeout
		}
		s.interrupt.enter()
		err = s.handle(frame)
		s.interrupt.leave()
		if s.block == nil && s.ended == nil {
			s.stopClock() // whatever it was, it is over, and its end has been told
		}
		switch {
		case errors.Is(err, errTerminate):
			return nil
		case err != nil:
			return err
		case s.ended != nil:
			return s.ended
		}
	}
}

// wait says how the session waits for its client.
func (s *session) wait() wait {
	w := wait{idle: s.state == idle && !s.inSeries}
	if !s.inSeries {
		if s.state == idle {
			w.timeout = s.timeouts.session
		} else {
			w.timeout = s.timeouts.inBlock
		}
	}
	if left := s.clockLeft(); left > 0 && (w.timeout == 0 || left <= w.timeout) {
		w.timeout = left
	}
	return w
}

// clockLeft is how much of the transaction's time is left, at least a
// microsecond; 0: it is not counted.
func (s *session) clockLeft() time.Duration {
	if s.clockUntil.IsZero() {
		return 0
	}
	return max(time.Until(s.clockUntil), time.Microsecond)
}

// waitError is why the session ends while it waits.
func (s *session) waitError(err error) error {
	switch {
	case !errors.Is(err, errWaitTimeout):
		return err
	case !s.clockUntil.IsZero() && !time.Now().Before(s.clockUntil):
		return errTransactionTimeout
	case s.state == idle:
		return frontError("57P05", "terminating connection due to idle-session timeout")
	}
	return frontError(pgerrcode.IdleInTransactionSessionTimeout, "terminating connection due to idle-in-transaction timeout")
}

// handle serves one message. An error ends the session; errors of statements
// are told to the client inside.
func (s *session) handle(frame pgwire.Frame) error {
	kind, body := frame.Type(), frame.Body()
	switch kind {
	case 'S':
		if err := s.noBody(body); err != nil {
			s.skipping = true
			s.report(err)
		}
		s.syncMessage()
		return nil
	case 'X':
		return errTerminate
	case 'Q', 'F', 'P', 'B', 'D', 'E', 'C', 'H', 'd', 'c', 'f':
	default: // the stream means something else than we think, skipping or not
		return frontError(pgerrcode.ProtocolViolation, fmt.Sprintf("invalid frontend message type %d", kind))
	}
	if s.skipping {
		return nil
	}
	switch kind {
	case 'Q', 'F':
		// An error of an earlier message is that message's: this one is discarded with
		// it, until Sync.
		if err := s.settle(); err != nil {
			return s.failSeries(err)
		}
	}
	switch kind {
	case 'Q':
		s.queryMessage(body)
		return nil
	case 'P', 'B', 'D', 'E', 'C', 'H':
		s.inSeries = true
		if err := s.extendedMessage(kind, body); err != nil {
			return s.failSeries(err)
		}
		if kind == 'H' {
			return s.client.flush()
		}
		return nil
	case 'F':
		s.report(sqlError(pgerrcode.FeatureNotSupported, "the function call protocol is not supported"))
		s.readyForQuery()
		return nil
	}
	return nil // the rest of a COPY that has failed, as Postgres takes it
}

// failSeries tells the client that a series failed: the rest of it is discarded.
func (s *session) failSeries(err error) error {
	s.skipping = true
	s.report(err)
	return s.client.flush() // Postgres shows an error at once
}

// report tells the client that a statement, or a message, failed, and moves the
// transaction on accordingly.
func (s *session) report(err error) {
	if _, unknown := errors.AsType[*unknownOutcome](err); s.timedOut() && s.ended == nil && !unknown {
		s.ended = errTransactionTimeout // the node's "canceled" was our doing
		err = s.ended
	}
	pgErr, known := clientError(err)
	s.observeError(pgErr)
	if s.client.ctx.Err() != nil {
		// The session is being ended: nobody reads this.
	} else if err == s.ended { //nolint:errorlint // the very same
		// The session ends with it, and says so then.
	} else if !known {
		s.gw.logger.Error("statement failed for a reason of ours", "session", s.client.pid, "error", err)
	} else if pgErr.Code == pgerrcode.ConnectionFailure {
		s.gw.logger.Warn("statement failed", "session", s.client.pid, "error", err)
	}
	if unknown, ok := errors.AsType[*unknownOutcome](err); ok {
		s.logUnknown(unknown) // also when its client has gone and hears nothing
	}
	s.hold, s.held = false, s.held[:0]
	if s.ended == nil || err != s.ended { //nolint:errorlint // the very same
		s.client.send(errorResponse(pgErr))
	}
	s.abandonPending()
	// Rolling back cannot fail, and no error is refused.
	_ = s.advance(onError)
	if s.state == failed {
		s.settingsChanged()
		if pgErr.Code == pgerrcode.DeadlockDetected {
			s.freeLocks()
		}
	}
}

// readyForQuery ends the answer to a query or a pipeline.
func (s *session) readyForQuery() {
	if s.ended != nil {
		return
	}
	s.tellParameters()
	// An idle session holds on to nothing big.
	s.x.sql, s.x.portal, s.x.spool = "", nil, nil
	clear(s.branches)
	s.client.send(&pgproto3.ReadyForQuery{TxStatus: s.state.ready()})
	s.client.txStatus.Store(uint32(s.state.ready()))
	s.answered = true
}

// complete sends a statement's tag, or keeps it back until its commit.
func (s *session) complete(tag string) {
	// Encoding fails beyond 1 GiB only.
	frame, _ := (&pgproto3.CommandComplete{CommandTag: []byte(tag)}).Encode(nil)
	s.completeRaw(frame)
}

func (s *session) completeRaw(frame []byte) {
	if s.hold {
		s.held = append(s.held[:0], frame...)
		return
	}
	s.client.sendRaw(frame)
}

// sendHeld sends the tag that was kept back.
func (s *session) sendHeld() {
	s.hold = false
	if len(s.held) > 0 {
		s.client.sendRaw(s.held)
		s.held = s.held[:0]
	}
}

// warn sends a warning of our own, unless the client does not want any.
func (s *session) warn(warning *pgconn.PgError) {
	if level, _ := s.current().Get("client_min_messages"); level == "error" {
		return
	}
	msg := noticeResponse(warning)
	msg.Severity, msg.SeverityUnlocalized = "WARNING", "WARNING"
	s.client.send(msg)
}

// current are the settings in force.
func (s *session) current() participant.Settings {
	switch {
	case s.block == nil:
		return s.settings
	case s.state != failed:
		return s.block.local
	case len(s.block.savepoints) > 0:
		// The failure has undone what was set since the last savepoint.
		return s.block.savepoints[len(s.block.savepoints)-1].local
	}
	return s.block.base
}

// cString reads a message whose body is one zero-terminated string.
func cString(body []byte) (string, error) {
	end := bytes.IndexByte(body, 0)
	if end < 0 || end != len(body)-1 {
		return "", sqlError(pgerrcode.ProtocolViolation, "invalid message format")
	}
	return string(body[:end]), nil
}
