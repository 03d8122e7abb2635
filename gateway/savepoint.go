package gateway

import (
	"fmt"
	"maps"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// savepoint is one of the block's savepoints. The same stack exists at every
// enlisted node: a node enlisted after SAVEPOINT runs it when its branch opens,
// so that ROLLBACK TO can be said to all of them alike.
type savepoint struct {
	name     string
	journal  int // index of its entry in block.journal
	settings participant.Settings
	local    participant.Settings
	modes    modes
	kept     map[string]string // block.kept
	catalog  *Catalog          // routeSession.catalog
}

// setSavepoint runs SAVEPOINT. A name may be used again: the older savepoint is
// hidden until the newer is released.
func (s *session) setSavepoint(st *sqlparse.Statement) error {
	if err := s.inBlockOnly(onSavepoint, "SAVEPOINT"); err != nil {
		return err
	}
	b, name := s.block, st.Transaction.Savepoint
	sql := "SAVEPOINT " + participant.QuoteIdentifier(name)
	if err := b.broadcast(sql); err != nil {
		return err
	}
	b.savepoints = append(b.savepoints, savepoint{
		name: name, journal: len(b.journal), settings: b.settings, local: b.local, modes: b.modes,
		kept: maps.Clone(b.kept), catalog: s.routing.catalog,
	})
	b.journal = append(b.journal, journalEntry{sql: sql, savepoint: name})
	s.complete("SAVEPOINT")
	return nil
}

// releaseSavepoint runs RELEASE: the savepoint and all newer ones are forgotten.
func (s *session) releaseSavepoint(st *sqlparse.Statement) error {
	if err := s.inBlockOnly(onSavepoint, "RELEASE SAVEPOINT"); err != nil {
		return err
	}
	index, err := s.block.findSavepoint(st.Transaction.Savepoint)
	if err != nil {
		return err
	}
	if err := s.block.broadcast("RELEASE " + participant.QuoteIdentifier(st.Transaction.Savepoint)); err != nil {
		return err
	}
	s.block.forgetSavepoints(index)
	s.portals.release(index)
	s.complete("RELEASE")
	return nil
}

// rollbackTo runs ROLLBACK TO, which also gets a block out of the failed state.
// Not one that has lost a branch: what that had done cannot come back.
func (s *session) rollbackTo(st *sqlparse.Statement) error {
	if err := s.inBlockOnly(onRollbackTo, "ROLLBACK TO SAVEPOINT"); err != nil {
		return err
	}
	b := s.block
	if err := b.doomed(); err != nil {
		return err
	}
	index, err := b.findSavepoint(st.Transaction.Savepoint)
	if err != nil {
		return err
	}
	if err := b.broadcast("ROLLBACK TO " + participant.QuoteIdentifier(st.Transaction.Savepoint)); err != nil {
		return err
	}
	point := b.savepoints[index]
	b.savepoints = b.savepoints[:index+1]
	b.journal = b.journal[:point.journal+1]
	b.settings, b.local, b.modes = point.settings, point.local, point.modes
	b.kept = maps.Clone(point.kept)
	if b.schema > 0 {
		s.routing.catalog, b.schema = point.catalog, s.gw.schemaChanges.Add(1)
	}
	s.portals.rollbackTo(index)
	s.rereadParameters()
	if err := s.advance(onRollbackTo); err != nil {
		return err
	}
	s.complete("ROLLBACK")
	return nil
}

// inBlockOnly refuses a statement that makes sense only in a block, in the
// words Postgres has for it.
func (s *session) inBlockOnly(event txEvent, statement string) error {
	switch refusal := transitions[s.state][event].refusal; refusal {
	case nil:
		return nil
	case errNoBlock:
		return sqlError("25P01", statement+" can only be used in transaction blocks")
	default:
		return refusal
	}
}

func (b *block) findSavepoint(name string) (int, error) {
	for i := len(b.savepoints) - 1; i >= 0; i-- {
		if b.savepoints[i].name == name {
			return i, nil
		}
	}
	return 0, sqlError("3B001", fmt.Sprintf("savepoint %q does not exist", name))
}

// broadcast runs sql on every branch that is open; the others run it when they
// open.
func (b *block) broadcast(sql string) error {
	if b.t == nil {
		return nil
	}
	return b.t.Broadcast(sql)
}
