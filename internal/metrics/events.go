package metrics

import (
	"sync"
	"time"

	"github.com/pgpact/pgpact/coordinator"
)

// maxEvents is how many of recovery's last actions are kept.
const maxEvents = 50

// Event is one of recovery's actions.
type Event struct {
	At          time.Time `json:"at"`
	What        string    `json:"what"`
	Transaction string    `json:"transaction"`
	Node        string    `json:"node,omitempty"`
	Count       int       `json:"count"`
}

// events are the last of them, the oldest first.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) add(action coordinator.RecoveryAction) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.all) == maxEvents {
		e.all = append(e.all[:0], e.all[1:]...)
	}
	e.all = append(e.all, Event{At: time.Now(), What: action.What, Transaction: action.ID.String(), Node: action.Node, Count: action.Count})
}

// Events are recovery's last actions, the newest first.
func (m *Metrics) Events() []Event {
	m.events.mu.Lock()
	defer m.events.mu.Unlock()
	newest := make([]Event, 0, len(m.events.all))
	for i := len(m.events.all) - 1; i >= 0; i-- {
		newest = append(newest, m.events.all[i])
	}
	return newest
}
