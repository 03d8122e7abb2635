package gateway

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
)

// EXPLAIN. Each node that would get a part of the statement explains just that
// part: a combined SELECT as it is rewritten for the nodes, an INSERT with the
// node's rows only. In front stands what the gateway itself does with the
// statement (explain_show.go). With ANALYZE the nodes really run it, inside the
// same transaction as the statement itself would.

// explaining is an EXPLAIN on its way.
type explaining struct {
	route    *route
	verbatim bool // the one node's answer as it is
}

// nodePlan is what one node answered.
type nodePlan struct {
	node  string
	query string // what the node was asked to explain, if that is not the client's text
	rows  int    // of VALUES, -1 if that is no question
	lines []string
}

// explain runs EXPLAIN, by either protocol.
func (s *session) explain(x *execution) error {
	r, err := s.routeExplained(x)
	if err != nil {
		return err
	}
	verbatim := false
	switch format := x.st.ExplainFormat; {
	case format == "yaml" || format == "xml":
		if r.multi() {
			return refuse(refusedExplainFormat, strings.ToUpper(format))
		}
		verbatim = true
	case !s.explains():
		if r.multi() {
			return refuse(refusedExplainOff)
		}
		verbatim = true
	}
	if x.portal != nil {
		if err := s.describeStatement(x.portal.statement); err != nil {
			return err
		}
		if err := x.portal.statement.description.formatsFit(x.portal.bind.ResultFormatCodes); err != nil {
			return err
		}
	}
	if r.combine != nil && r.combine.needed {
		if err := s.planCombination(x, &r); err != nil {
			return x.shiftedInner(err)
		}
	}
	x.explained = &explaining{route: &r, verbatim: verbatim}
	return s.onNodes(x, &r)
}

// shiftedInner is an error that a node has found in the statement that is
// explained, with its place in the client's text.
func (x *execution) shiftedInner(err error) error {
	if x.portal != nil {
		return err // described with EXPLAIN in front before
	}
	at := strings.Index(x.sql, x.st.SQL)
	return shifted(err, x.sql[:max(at, 0)+x.st.Inner.Start])
}

// routeExplained routes the statement as it would be routed without EXPLAIN,
// and has the router tell the keys.
func (s *session) routeExplained(x *execution) (route, error) {
	routing := s.routing
	routing.explain = true
	ctx := s.interrupt.context()
	if x.portal == nil {
		return s.gw.router.route(ctx, x.st, nil, &routing)
	}
	p := x.portal
	st := p.statement
	bound := boundValues{values: p.bind.Parameters, formats: p.bind.ParameterFormatCodes, types: st.oids}
	if st.description != nil {
		bound.types = st.description.params
	}
	r, err := s.gw.router.route(ctx, x.st, &bound, &routing)
	if !errors.Is(err, errParameterTypes) {
		return r, err
	}
	if err := s.describeStatement(st); err != nil {
		return route{}, err
	}
	bound.types = st.description.params
	return s.gw.router.route(ctx, x.st, &bound, &routing)
}

// explainOnNodes has all of s.branches explain their parts, and answers.
func (s *session) explainOnNodes(x *execution) error {
	plans := make([]nodePlan, 0, len(s.branches))
	var err error
	for i, b := range s.branches {
		x.merged.nth = i
		plan := nodePlan{node: b.Node().Name(), rows: -1}
		if x.plan != nil {
			plan.query = x.plan.split.Node
		}
		if x.parts != nil {
			plan.rows = x.parts.parts[i].count
		}
		if err = s.sendExplain(x, b); err != nil {
			x.quiet = true
			break
		}
		plans = append(plans, plan)
	}
	for i, b := range s.branches[:len(plans)] {
		var failure error
		plans[i].lines, failure = s.readPlan(b, x.quiet)
		switch {
		case failure == nil:
		case x.parts != nil:
			err, x.quiet = x.parts.prefer(err, i, failure), true
		case err == nil:
			err, x.quiet = failure, true
		}
	}
	if err != nil {
		if x.plan != nil {
			return withoutPosition(err) // it counts in a text that the client has never seen
		}
		return err
	}
	lines := plans[0].lines
	if !x.explained.verbatim {
		if lines, err = s.showExplained(x, plans); err != nil {
			return err
		}
	}
	return s.answerExplain(x, lines)
}

// sendExplain sends one node its part.
func (s *session) sendExplain(x *execution, b *participant.Branch) error {
	if x.portal == nil && x.plan == nil {
		return s.send(x, b) // the client's text, or a part of it
	}
	var parse pgproto3.Parse
	var bind *pgproto3.Bind
	switch {
	case x.plan != nil:
		parse.Query = x.st.SQL[:x.st.Inner.Start] + x.plan.split.Node
		parse.ParameterOIDs = x.plan.params
		skip, left, err := x.limits()
		if err != nil {
			return err
		}
		bind = x.bindParameters()
		x.bindLimit(bind, skip, left)
	case x.parts != nil:
		part := &x.parts.parts[x.merged.nth]
		parse.Query, parse.ParameterOIDs = part.sql, part.oids
		bind = x.parts.bind(x.merged.nth, x.portal)
		bind.ResultFormatCodes = nil
	default:
		parse.Query, parse.ParameterOIDs = x.portal.statement.sql, x.portal.statement.oids
		bind = x.bindParameters()
	}
	b.StartSeries()
	s.portals.closeAbandoned(b)
	b.Parse(&parse)
	b.Bind(bind)
	b.Execute(&pgproto3.Execute{})
	b.Sync()
	return b.Send()
}

// readPlan reads one node's answer: its only column, row by row.
func (s *session) readPlan(b *participant.Branch, quiet bool) (lines []string, refused error) {
	for {
		frame, err := b.Receive()
		if err != nil {
			return nil, err
		}
		switch frame.Type() {
		case 'D':
			var row pgproto3.DataRow
			if err := row.Decode(frame.Body()); err != nil {
				return nil, err
			}
			if len(row.Values) != 1 {
				return nil, errRow
			}
			lines = append(lines, string(row.Values[0]))
		case 'E':
			if refused == nil {
				refused = refusedBy(b, frame)
			}
		case 'N':
			if !quiet && refused == nil {
				s.client.sendRaw(frame.Raw())
			}
		case 'S':
			s.relayParameter(frame)
		case 'Z':
			return lines, refused
		}
	}
}

// answerExplain sends the lines. Text and json are the same bytes in either
// format of the protocol.
func (s *session) answerExplain(x *execution, lines []string) error {
	if x.portal == nil {
		s.client.send(explainDescription(x.st.ExplainFormat).rowDescription(nil))
	}
	for _, line := range lines {
		row := pgproto3.DataRow{Values: [][]byte{[]byte(line)}}
		frame, err := row.Encode(nil)
		if err != nil {
			return err
		}
		if x.spool == nil {
			s.client.sendRaw(frame)
		} else if err := x.spool.add(frame); err != nil {
			return err
		}
	}
	if x.spool != nil {
		x.merged.tag = "EXPLAIN"
		return nil
	}
	if x.portal != nil {
		s.completed(x.portal)
	}
	s.complete("EXPLAIN")
	return nil
}

// Types that EXPLAIN returns beside text (pg_type.dat).
const (
	oidJSON = 114
	oidXML  = 142
)

// explainDescription is what Postgres says of EXPLAIN's column
// (ExplainResultDesc in explain.c).
func explainDescription(format string) *description {
	d := showDescription("QUERY PLAN")
	switch format {
	case "json":
		d.fields[0].DataTypeOID = oidJSON
	case "xml":
		d.fields[0].DataTypeOID = oidXML
	}
	return d
}

// explains tells whether EXPLAIN shows the gateway's own part: unless the client
// has said SET pgpact.explain = off.
func (s *session) explains() bool { return s.ownSwitch(explainName) }

// writers counts the branches that the transaction would commit as writing ones
// if it ended with this statement.
func (s *session) writers() int {
	nodes := map[*participant.Node]bool{}
	for _, b := range s.branches {
		nodes[b.Node()] = true
	}
	if s.block != nil && s.block.t != nil {
		for _, b := range s.block.t.Branches() {
			if b.Writes() && !slices.Contains(s.branches, b) {
				nodes[b.Node()] = true
			}
		}
	}
	return len(nodes)
}
