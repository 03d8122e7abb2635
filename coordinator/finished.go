package coordinator

import (
	"context"

	"github.com/pgpact/pgpact/participant"
)

// A decision is marked finished by the word of its participants' servers. A
// failover may take back what a server has said: then the node's finished
// decisions are checked again (recheck.go). A word that was given before the
// failover and arrives at the decision log after that check would hide a loss
// for ever; so a mark names the servers, and counts only while each node still
// stands for the server that gave the word.

// witnesses are the servers that gave their word, by node.
type witnesses map[string]participant.Identity

// finishedMark is a committed transaction that all its participants have
// confirmed, first-hand.
type finishedMark struct {
	id      participant.ID
	servers witnesses
}

// together takes marks from the front of a list as long as they agree about who
// the nodes are.
func together(marks []finishedMark, limit int) (ids []participant.ID, all witnesses) {
	all = witnesses{}
	for _, m := range marks[:min(len(marks), limit)] {
		for name, server := range m.servers {
			if known, ok := all[name]; ok && !known.SameServer(server) {
				return ids, all
			}
		}
		for name, server := range m.servers {
			all[name] = server
		}
		ids = append(ids, m.id)
	}
	return ids, all
}

// finishedBy is the word of the branches' servers.
func finishedBy(branches []*participant.Branch) witnesses {
	by := make(witnesses, len(branches))
	for _, b := range branches {
		by[b.Node().Name()] = b.Server()
	}
	return by
}

// markFinished marks decisions as applied by all their participants, and tells
// how many. What is not marked because a node's server is another one now is
// left to recovery, which looks at the new one.
func (c *Coordinator) markFinished(ctx context.Context, ids []participant.ID, by witnesses) (int, error) {
	if err := c.recover.noteFirst(ctx, by); err != nil {
		return 0, err
	}
	return c.log.finish(ctx, ids, by)
}

// noteFirst has the decision log know who a node is that it has known nothing
// of: else a change before anybody had noted the node could not be seen.
func (r *recoverer) noteFirst(ctx context.Context, by witnesses) error {
	for name, server := range by {
		r.mu.Lock()
		_, known := r.identities[name]
		known = known || r.first[name]
		r.mu.Unlock()
		if known {
			continue
		}
		if err := r.c.log.noteFirst(ctx, name, server); err != nil {
			return err
		}
		r.mu.Lock()
		r.first[name] = true
		r.mu.Unlock()
	}
	return nil
}

// finish marks those of ids whose participants stand for these servers. The rows
// of the nodes are locked: who notes a change of server waits for this mark, so
// that the check which follows sees it.
func (l *decisionLog) finish(ctx context.Context, ids []participant.ID, by witnesses) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	var names, systems, timelines []string
	for name, server := range by {
		names, systems, timelines = append(names, name), append(systems, server.SystemIdentifier), append(timelines, server.Timeline)
	}
	epochs, sequences := idArrays(ids)
	rows, err := l.query(ctx, `WITH same AS MATERIALIZED (SELECT n.name FROM pgpact.nodes n
 JOIN unnest($3::text[],$4::text[],$5::text[]) w(name,system,timeline) ON w.name=n.name AND w.system=n.system_identifier AND w.timeline=n.timeline::text
 ORDER BY n.name FOR SHARE OF n)
 UPDATE pgpact.transactions t SET finished_at=clock_timestamp() FROM unnest($1::bigint[],$2::bigint[]) u(e,s)
 WHERE t.epoch=u.e AND t.sequence=u.s AND t.finished_at IS NULL AND t.participants <@ coalesce((SELECT array_agg(name) FROM same),'{}') RETURNING 1`,
		epochs, sequences, arrayLiteral(names), arrayLiteral(systems), arrayLiteral(timelines))
	return len(rows), err
}

// agreed are the servers that showed a page of transactions.
func agreed(states map[string]nodeState) witnesses {
	by := make(witnesses, len(states))
	for name, state := range states {
		by[name] = state.server
	}
	return by
}
