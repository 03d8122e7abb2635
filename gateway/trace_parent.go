package gateway

import (
	"context"
	"net/url"
	"regexp"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// A client tells which of its own spans a statement belongs to by a comment at
// the statement's end or beginning, as sqlcommenter writes it:
//
//	SELECT ... /*action='pay',traceparent='00-<trace>-<span>-01'*/
//
// or, for all it does, by an application_name with a traceparent in it. Both are
// W3C's (https://www.w3.org/TR/trace-context/), and wrong ones are as none.

// clientSpan is a context with the client's span, of the text or of the session;
// without one it is empty.
func (s *session) clientSpan(text string) context.Context {
	if parent := spanOfComment(text); parent.IsValid() {
		return trace.ContextWithRemoteSpanContext(context.Background(), parent)
	}
	name, set := s.current().Get("application_name")
	if !set {
		name = s.client.startup["application_name"]
	}
	if parent := spanOf(traceparent.FindString(name), ""); parent.IsValid() {
		return trace.ContextWithRemoteSpanContext(context.Background(), parent)
	}
	return context.Background()
}

// commented tells whether the text itself names the client's span.
func commented(text string) bool { return spanOfComment(text).IsValid() }

var (
	traceparent = regexp.MustCompile(`\b[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\b`)
	commentKey  = regexp.MustCompile(`\b(traceparent|tracestate)='([^']*)'`)
)

// spanOfComment is the span that a comment around the statement names.
func spanOfComment(text string) trace.SpanContext {
	for _, comment := range outerComments(text) {
		found := map[string]string{}
		for _, match := range commentKey.FindAllStringSubmatch(comment, -1) {
			if value, err := url.PathUnescape(match[2]); err == nil {
				found[match[1]] = value
			}
		}
		if parent := spanOf(found["traceparent"], found["tracestate"]); parent.IsValid() {
			return parent
		}
	}
	return trace.SpanContext{}
}

// outerComments are the comment with which a text ends and that with which it
// begins, as far as there are any.
func outerComments(text string) (comments []string) {
	text = strings.Trim(text, "; \t\r\n")
	if before, ok := strings.CutSuffix(text, "*/"); ok {
		if start := strings.LastIndex(before, "/*"); start >= 0 {
			comments = append(comments, before[start+2:])
		}
	}
	if after, ok := strings.CutPrefix(text, "/*"); ok {
		if comment, _, closed := strings.Cut(after, "*/"); closed {
			comments = append(comments, comment)
		}
	}
	return comments
}

// spanOf reads W3C's headers.
func spanOf(traceparent, tracestate string) trace.SpanContext {
	if traceparent == "" {
		return trace.SpanContext{}
	}
	headers := propagation.MapCarrier{"traceparent": traceparent, "tracestate": tracestate}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), headers))
}
