package participant

import (
	"container/list"
	"strconv"
)

// statementCache maps a statement's key (its text and parameter types) to the
// name under which this connection's server process holds it prepared. The
// least recently used is given up when it is full.
type statementCache struct {
	limit int
	next  uint64
	order *list.List // of *preparedStatement, most recently used first
	byKey map[string]*list.Element
	// closing are names the server still holds and nobody will use again. They
	// are closed in front of the next series, and stay here until the server
	// has answered: a series that fails early skips its Close messages.
	closing []string
}

type preparedStatement struct {
	key, name string
	confirmed bool // the server has answered ParseComplete
}

func newStatementCache(limit int) *statementCache {
	return &statementCache{limit: limit, order: list.New(), byKey: map[string]*list.Element{}}
}

// lookup returns the name for key and whether the server already knows it,
// making room for it if it is new.
func (s *statementCache) lookup(key string) (name string, known bool) {
	if element, ok := s.byKey[key]; ok {
		s.order.MoveToFront(element)
		statement := element.Value.(*preparedStatement)
		return statement.name, statement.confirmed
	}
	if s.order.Len() >= s.limit {
		oldest := s.order.Back()
		statement := s.order.Remove(oldest).(*preparedStatement)
		delete(s.byKey, statement.key)
		s.closing = append(s.closing, statement.name)
	}
	s.next++
	statement := &preparedStatement{key: key, name: "pgpact_" + strconv.FormatUint(s.next, 10)}
	s.byKey[key] = s.order.PushFront(statement)
	return statement.name, false
}

// confirm records that the server has prepared key.
func (s *statementCache) confirm(key string) {
	if element, ok := s.byKey[key]; ok {
		element.Value.(*preparedStatement).confirmed = true
	}
}

// forget drops key; the server is asked to close it with the next series.
// Closing a name that does not exist is no error in the protocol.
func (s *statementCache) forget(key string) {
	if element, ok := s.byKey[key]; ok {
		delete(s.byKey, key)
		s.closing = append(s.closing, s.order.Remove(element).(*preparedStatement).name)
	}
}

func (s *statementCache) clear() {
	s.order.Init()
	clear(s.byKey)
	s.closing = nil
}
