package gateway

import (
	"slices"

	"github.com/pgpact/pgpact/internal/pgwire"
	"github.com/pgpact/pgpact/participant"
)

// COPY TO STDOUT of several nodes in a block at READ COMMITTED. No message opens
// its snapshot without running it, so it is begun in the window: once a node has
// announced the rows (CopyOutResponse) it has its snapshot. One that does not
// count is undone with a savepoint and begun again.

const (
	copySavepoint = "SAVEPOINT pgpact_copy"
	copyUndo      = "ROLLBACK TO SAVEPOINT pgpact_copy"
	copyRelease   = "RELEASE SAVEPOINT pgpact_copy"
)

// copyTogether runs such a COPY.
func (s *session) copyTogether(x *execution) error {
	branches := slices.Clone(s.branches)
	if err := s.askBranches(branches, copyLocks(x)); err != nil {
		return withoutPosition(err) // the text is not the client's
	}
	if err := s.askBranches(branches, copySavepoint); err != nil {
		return err
	}
	nodes := make([]*participant.Node, 0, len(branches))
	for _, b := range branches {
		nodes = append(nodes, b.Node())
	}
	begun := make([]pgwire.Frame, len(branches))
	again := false
	err := s.atOneInstant(nodes, func() error {
		if again {
			s.endCopies(branches, begun)
			if err := s.askBranches(branches, copyUndo); err != nil {
				return err
			}
		}
		again = true
		return s.beginCopies(x, branches, begun)
	})
	if err != nil {
		s.endCopies(branches, begun)
		return err
	}
	for i, b := range branches {
		x.merged.nth = i
		failure := s.relayCopy(x, begun[i])
		if rest := s.relay(b, x); failure == nil {
			failure = rest
		}
		if failure != nil && err == nil {
			err, x.quiet = failure, true
		}
	}
	if err != nil {
		return err
	}
	if err := s.askBranches(branches, copyRelease); err != nil {
		return err
	}
	s.completeMerged(x)
	return nil
}

// copyLocks takes the locks that COPY will take, so that it need not wait for
// them in the window.
func copyLocks(x *execution) string {
	if query := x.st.Copy.Query; query != nil {
		return "EXPLAIN " + query.SQL
	}
	table := x.st.Tables[0]
	name := participant.QuoteIdentifier(table.Name)
	if table.Schema != "" {
		name = participant.QuoteIdentifier(table.Schema) + "." + name
	}
	return "SELECT FROM " + name + " LIMIT 0"
}

// beginCopies starts the COPY on all branches, and keeps what they announce.
func (s *session) beginCopies(x *execution, branches []*participant.Branch, begun []pgwire.Frame) error {
	for i, b := range branches {
		begun[i] = pgwire.Frame{}
		b.Query(x.sql)
		if err := b.Send(); err != nil {
			return err
		}
	}
	var err error
	for i, b := range branches {
		frame, failed := s.receiveCopy(b)
		if failed != nil && err == nil {
			err = failed
		}
		begun[i] = frame
	}
	return err
}

// receiveCopy reads up to CopyOutResponse, or to the end of what the node refuses.
func (s *session) receiveCopy(b *participant.Branch) (pgwire.Frame, error) {
	var refused error
	for {
		frame, err := b.Receive()
		if err != nil {
			return pgwire.Frame{}, ended(refused, err)
		}
		switch frame.Type() {
		case 'H':
			return pgwire.NewFrame(slices.Clone(frame.Raw())), nil
		case 'E':
			if refused == nil {
				refused = refusedBy(b, frame)
			}
		case 'N':
			s.client.sendRaw(frame.Raw())
		case 'S':
			s.relayParameter(frame)
		case 'Z':
			return pgwire.Frame{}, refused
		}
	}
}

// endCopies ends the COPYs that have begun.
func (s *session) endCopies(branches []*participant.Branch, begun []pgwire.Frame) {
	for i, b := range branches {
		if len(begun[i].Raw()) > 0 {
			b.Conn().Cancel()
		}
	}
	for i, b := range branches {
		if len(begun[i].Raw()) > 0 {
			_, _ = s.readFirst(b, true)
			begun[i] = pgwire.Frame{}
		}
	}
}
