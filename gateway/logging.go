package gateway

import (
	"time"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/sqlparse"
)

// Logging says what is logged of statements and commits that are slow. A client's
// text is in no log line unless Statements says so: neither in these nor in any
// other, errors included.
type Logging struct {
	// SlowStatement and SlowCommit are from where on one is logged; 0: never.
	SlowStatement, SlowCommit time.Duration
	// Statements is how much of a slow statement's text is logged with it.
	Statements StatementText
}

// StatementText is how much of a statement's text is logged.
type StatementText string

// What there is of a text.
const (
	TextNone     StatementText = "none"
	TextRedacted StatementText = "redacted" // without its values
	TextFull     StatementText = "full"     // parameters of the extended protocol are no part of it, and never logged
)

// maxLoggedText bounds what is logged of one statement's text, in bytes.
const maxLoggedText = 2000

// SetLogging changes what is logged, from the next statement on.
func (gw *Gateway) SetLogging(l Logging) { gw.logging.Store(&l) }

// text is the statement's text as its client sent it.
func (x *execution) text() string {
	if x.portal != nil && x.portal.statement != nil {
		return x.portal.statement.sql
	}
	return x.sql
}

// logSlowStatement logs a statement that was slow: kind and text are those it
// came with, for EXECUTE makes another of it.
func (s *session) logSlowStatement(l *Logging, kind sqlparse.Kind, text string, took time.Duration, err error) {
	attributes := append(s.identify(), "statement", kind.String(), "took", took.Round(time.Microsecond), "ok", err == nil)
	nodes := make([]string, 0, len(s.branches))
	for _, b := range s.branches {
		if b != nil {
			nodes = append(nodes, b.Node().Name())
		}
	}
	attributes = append(attributes, "nodes", nodes)
	switch l.Statements {
	case TextRedacted:
		attributes = append(attributes, "text", cutText(sqlparse.Redact(text)))
	case TextFull:
		attributes = append(attributes, "text", cutText(text))
	}
	s.gw.logger.Warn("slow statement", attributes...)
}

// logSlowCommit logs a commit that was slow, with what it spent its time on.
func (s *session) logSlowCommit(result coordinator.Result) {
	limit := s.gw.logging.Load().SlowCommit
	t := result.Timing
	if limit == 0 || t.Total < limit {
		return
	}
	attributes := append(s.identify(), "outcome", result.Outcome.String(), "took", t.Total.Round(time.Microsecond))
	if !result.ID.IsZero() {
		attributes = append(attributes, "transaction", result.ID.String(), "prepare", t.Prepare.Round(time.Microsecond),
			"decide", t.Decide.Round(time.Microsecond), "commit_prepared", t.CommitPrepared.Round(time.Microsecond))
	}
	s.gw.logger.Warn("slow commit", append(attributes, "slowest_node", t.Slowest)...)
}

// logUnknown logs that a client was told 08007, so that whoever looks into it finds
// the transaction, or at least the node, without asking the client.
func (s *session) logUnknown(e *unknownOutcome) {
	attributes := []any{"session", s.client.pid, "user", s.client.startup["user"]}
	if !e.id.IsZero() {
		attributes = append(attributes, "transaction", e.id.String())
	}
	s.gw.logger.Warn("outcome unknown", append(attributes, "error", e.err)...)
}

// identify is how a log line names the session, and the transaction if it has a
// name.
func (s *session) identify() []any {
	attributes := []any{"session", s.client.pid, "user", s.client.startup["user"]}
	if s.block != nil && s.block.t != nil && !s.block.t.ID().IsZero() {
		attributes = append(attributes, "transaction", s.block.t.ID().String())
	}
	return attributes
}

// cutText cuts a text to what is logged.
func cutText(text string) string {
	if len(text) <= maxLoggedText {
		return text
	}
	cut := maxLoggedText
	for cut > 0 && text[cut]&0xc0 == 0x80 { // within a character
		cut--
	}
	return text[:cut] + " ..."
}
