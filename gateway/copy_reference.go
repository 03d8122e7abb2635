package gateway

import (
	"slices"

	"github.com/pgpact/pgpact/sqlparse"
)

// COPY FROM STDIN into a reference table: every node gets all that the client
// sends, behind the same locks as any other change. What has come of it is
// compared by all rows of the table.

// beginEverywhere begins the COPY at all nodes, the first one first.
func (c *copyIn) beginEverywhere() error {
	s := c.s
	c.everywhere = true
	if err := s.enlistAll(&route{nodes: s.gw.router.placement.fixed}); err != nil {
		return err
	}
	lock := referenceLock([]*Table{c.table})
	if err := s.askThese(s.branches[:1], lock); err != nil {
		return err
	}
	if err := c.beginWith(s.branches[0]); err != nil {
		return err
	}
	if err := s.askThese(s.branches[1:], lock); err != nil {
		return c.abort(err)
	}
	for _, b := range s.branches[1:] {
		n, err := c.begin(b)
		if err != nil {
			return c.abort(err)
		}
		c.nodes[slices.Index(s.gw.router.placement.nodes, b.Node())] = n
	}
	return nil
}

// checkCopyReference refuses a COPY into a reference table that leaves values to
// the nodes which they would not make alike.
func (e *evaluation) checkCopyReference(t *Table) error {
	varies := e.varies()
	switch {
	case t.Triggers:
		return refuse(refusedReferenceTriggers, t.String())
	case varies != "":
		return refuse(refusedReferenceValue, t.String(), varies)
	}
	return e.checkDefaults(t, &sqlparse.Change{Kind: sqlparse.Insert, InsertColumns: e.st.Copy.Columns})
}
