package gateway

import (
	"fmt"
	"strings"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// changeSchema runs a schema change on one node after the other, always in the
// same order, once it has the locks on all of them.
func (s *session) changeSchema(x *execution, r *route) error {
	if x.st.Concurrently {
		return s.changeConcurrently(x, r)
	}
	if s.state == idle {
		s.hold = x.sql != ""
		if err := s.advance(onSeveral); err != nil {
			return err
		}
	}
	if err := s.enlistAll(r); err != nil {
		return err
	}
	x.collect = true
	x.merged.begin(len(s.branches))
	shapes := x.st.Kind == sqlparse.Create || x.st.Kind == sqlparse.Alter || x.st.Kind == sqlparse.Drop
	for _, b := range s.branches {
		b.MarkWrites()
	}
	previous, err := s.lockSchema(x.st)
	if err != nil {
		return err
	}
	var before []string
	if shapes {
		if before, err = s.askConstraints(s.branches[0]); err != nil {
			return err
		}
	}
	for i, b := range s.branches {
		x.merged.nth = i
		if err := s.runAt(b, x); err != nil {
			return err
		}
	}
	if err := s.askAll("SET LOCAL lock_timeout = '" + previous + "'"); err != nil {
		return err
	}
	if shapes {
		if err := s.checkSchema(s.branches[0], before); err != nil {
			return err
		}
		if err := s.checkReferences(x.st); err != nil {
			return err
		}
	}
	s.completeMerged(x)
	return nil
}

// runAt runs the statement on one branch and waits for its end.
func (s *session) runAt(b *participant.Branch, x *execution) error {
	if err := s.send(x, b); err != nil {
		return err
	}
	s.answerKnown(x)
	return s.relay(b, x)
}

// changeConcurrently runs CREATE or DROP INDEX CONCURRENTLY on one node after
// the other. No transaction can hold it, so it may be done on some nodes and not
// on others: the error says on which.
func (s *session) changeConcurrently(x *execution, r *route) error {
	if s.state != idle {
		return sqlErrorf("25001", "%s INDEX CONCURRENTLY cannot run inside a transaction block", strings.ToUpper(x.st.Kind.String()))
	}
	x.collect = true
	x.merged.begin(len(r.nodes))
	for i, node := range r.nodes {
		x.merged.nth = i
		if err := s.runAlone(x, node); err != nil {
			return concurrentlyFailed(err, r.nodes, i)
		}
	}
	s.gw.catalogs.Renew(s.interrupt.context())
	s.completeMerged(x)
	return nil
}

// runAlone runs the statement on one node, outside of a transaction block.
func (s *session) runAlone(x *execution, node *participant.Node) error {
	t, err := s.beginTransaction()
	if err != nil {
		return err
	}
	defer t.End()
	b, err := s.join(t, node, s.settings, nil)
	if err != nil {
		return err
	}
	return s.runAt(b, x)
}

// concurrentlyFailed says where it is done, where it failed and where it has not
// been tried.
func concurrentlyFailed(err error, nodes []*participant.Node, failed int) error {
	pgErr, _ := clientError(err)
	told := *pgErr
	names := func(nodes []*participant.Node) string {
		list := make([]string, 0, len(nodes))
		for _, node := range nodes {
			list = append(list, fmt.Sprintf("%q", node.Name()))
		}
		if len(list) == 0 {
			return "none"
		}
		return strings.Join(list, ", ")
	}
	where := fmt.Sprintf("It failed on node %q. Done on: %s. Not tried on: %s.", nodes[failed].Name(), names(nodes[:failed]), names(nodes[failed+1:]))
	told.Detail = strings.TrimSpace(told.Detail + " " + where)
	told.Hint = "Remove what is there with DROP INDEX CONCURRENTLY IF EXISTS, which may be repeated, and try again."
	return &told
}
