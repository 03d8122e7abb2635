package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/sqlparse"
)

// What a session does as spans of OpenTelemetry:
//
//	transaction                  from BEGIN to its end
//	  BEGIN, UPDATE accounts ... each statement
//	    node a                   what it asked a node
//	  COMMIT
//	    prepare, decide, ...     each phase, at each node
//
// A statement that is a transaction of its own has no span around it: when it
// commits on several nodes, its span lasts until that is done, and the phases are
// below it. A statement that names a parent of its client's (trace_parent.go) is
// below that, with a link to its transaction.
//
// Nothing here is reached without a tracer; with one, no error message and no
// value is in a span, and a statement's text only as far as Logging says.

// spans are those that a session has open. They belong to its goroutine.
type spans struct {
	block     trace.Span // of the transaction under way, nil when there is none
	statement trace.Span // of the statement under way
	nodes     []string   // that it has asked
	// own: the block's span is that of the statement in which it began.
	own bool
	// ending is a transaction's span whose end is that of the statement under way.
	ending trace.Span
}

// traceStatement begins the span of a statement.
func (s *session) traceStatement(st *sqlparse.Statement, text string, began time.Time) {
	client := s.clientSpan(text)
	if st.Kind == sqlparse.Begin && s.spans.block == nil {
		s.spans.block = s.startSpan(client, "transaction", began, trace.SpanKindServer, s.sessionAttributes())
		client = context.Background() // BEGIN itself is within the transaction
	}
	attributes := append(s.sessionAttributes(), attribute.String("db.operation.name", operation(st)))
	name := operation(st)
	if table := onlyTable(st); table != "" {
		name += " " + table
		attributes = append(attributes, attribute.String("db.collection.name", table))
	}
	switch s.gw.logging.Load().Statements {
	case TextRedacted:
		attributes = append(attributes, attribute.String("db.query.text", cutText(sqlparse.Redact(text))))
	case TextFull:
		attributes = append(attributes, attribute.String("db.query.text", cutText(text)))
	}
	var links []trace.SpanStartOption
	parent := client
	if block := s.spans.block; block != nil {
		if trace.SpanContextFromContext(client).IsValid() && commented(text) {
			links = append(links, trace.WithLinks(trace.Link{SpanContext: block.SpanContext()}))
		} else {
			parent = trace.ContextWithSpan(context.Background(), block)
		}
	}
	s.spans.nodes = s.spans.nodes[:0]
	s.spans.statement = s.startSpan(parent, name, began, trace.SpanKindServer, attributes, links...)
}

// traceStatementDone ends it, unless the commit is still to come that belongs to
// it: traceBlockDone does then.
func (s *session) traceStatementDone(err error) {
	span := s.spans.statement
	s.spans.statement = nil
	if len(s.spans.nodes) > 0 {
		span.SetAttributes(attribute.StringSlice("pgpact.nodes", s.spans.nodes))
	}
	if err != nil {
		markFailed(span, err)
	}
	if s.spans.ending != nil {
		if s.spans.ending != span {
			span.End()
		}
		s.spans.ending.End()
		s.spans.ending = nil
		return
	}
	if s.block == nil && s.spans.block != nil { // BEGIN was refused
		s.spans.block.End()
		s.spans.block, s.spans.own = nil, false
	}
	if !s.spans.own || s.spans.block != span {
		span.End()
	}
}

// traceBlock begins the span of a block that has just begun.
func (s *session) traceBlock() {
	switch {
	case s.spans.block != nil: // BEGIN has made it
	case s.spans.statement != nil && s.state == implicit:
		s.spans.block, s.spans.own = s.spans.statement, true
	default: // several statements in one message or pipeline, or AND CHAIN
		s.spans.block = s.startSpan(s.clientSpan(""), "transaction", time.Now(), trace.SpanKindServer, s.sessionAttributes())
	}
}

// traceBlockDone says how the block has ended, and ends its span.
func (s *session) traceBlockDone(result coordinator.Result) {
	span := s.spans.block
	if span == nil {
		return
	}
	s.spans.block, s.spans.own = nil, false
	span.SetAttributes(attribute.String("pgpact.transaction.outcome", result.Outcome.String()))
	if !result.ID.IsZero() {
		span.SetAttributes(attribute.String("pgpact.transaction.id", result.ID.String()))
	}
	if result.Err != nil {
		markFailed(span, commitError(result))
	}
	if s.spans.statement != nil {
		s.spans.ending = span // a transaction lasts as long as its COMMIT
		return
	}
	span.End()
}

// tracePhase makes the span of a phase of a commit, which is over now.
func (s *session) tracePhase(phase coordinator.Phase, node string, began time.Time) {
	attributes := []attribute.KeyValue{attribute.String("pgpact.phase", phase.String())}
	if node != "" {
		attributes = append(attributes, attribute.String("pgpact.node", node))
	}
	s.traceDone(phase.String(), began, attributes)
}

// traceNode makes the span of what a node was asked, which is over now.
func (s *session) traceNode(node string, began time.Time) {
	if !slices.Contains(s.spans.nodes, node) {
		s.spans.nodes = append(s.spans.nodes, node)
	}
	s.traceDone("node "+node, began, []attribute.KeyValue{attribute.String("pgpact.node", node)})
}

// traceDone makes a span below what is under way. Settings of an ended statement
// and the like, for which nothing is, have none.
func (s *session) traceDone(name string, began time.Time, attributes []attribute.KeyValue) {
	parent := s.spans.statement
	if parent == nil {
		parent = s.spans.block
	}
	if parent != nil {
		s.startSpan(trace.ContextWithSpan(context.Background(), parent), name, began, trace.SpanKindClient, attributes).End()
	}
}

func (s *session) startSpan(parent context.Context, name string, began time.Time, kind trace.SpanKind, attributes []attribute.KeyValue,
	more ...trace.SpanStartOption) trace.Span {
	options := append(more, trace.WithTimestamp(began), trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	_, span := s.gw.cfg.Tracer.Start(parent, name, options...)
	return span
}

// sessionAttributes say whose span it is. The names that begin with db are
// OpenTelemetry's semantic conventions.
func (s *session) sessionAttributes() []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("db.system.name", "postgresql"), attribute.String("db.namespace", s.client.startup["database"]),
		attribute.Int64("pgpact.session", int64(s.client.pid)), attribute.String("pgpact.user", s.client.startup["user"]),
	}
}

// operation is the statement's verb.
func operation(st *sqlparse.Statement) string { return strings.ToUpper(st.Kind.String()) }

// onlyTable is the table that a statement names, "" for none or several.
func onlyTable(st *sqlparse.Statement) string {
	if st.Facts == nil || len(st.Tables) != 1 {
		return ""
	}
	return st.Tables[0].Name
}

// markFailed gives a span the SQLSTATE. The message is not for others: values are
// in it.
func markFailed(span trace.Span, err error) {
	pgErr, _ := clientError(err)
	span.SetStatus(codes.Error, "")
	span.SetAttributes(attribute.String("db.response.status_code", pgErr.Code), attribute.String("error.type", pgErr.Code))
}
