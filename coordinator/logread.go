package coordinator

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// What recovery, questions and purge ask of the decision log. Statements are
// here, their meaning is where they are used.

// aliveSQL is a CTE of the epochs whose gateways live: they hold a session-level
// advisory lock on their epoch. It looks; it never tries to take one.
const aliveSQL = `alive AS MATERIALIZED (SELECT (l.classid::bigint<<32)|l.objid::bigint AS epoch FROM pg_locks l
 WHERE l.locktype='advisory' AND l.objsubid=1 AND l.granted
 AND l.database=(SELECT d.oid FROM pg_database d WHERE d.datname=current_database()))`

// known is what the decision log knows of one transaction.
type known struct {
	decision  Decision
	epoch     bool  // the epoch is registered
	forgotten int64 // the epoch's horizon
	alive     bool  // the epoch's gateway holds its lock
	sameLog   bool  // this is the decision database the epoch began on
	gateway   string
	settled   bool // the decision database has been there long enough that the living hold their locks again
}

// forgottenOrUnknown: nothing may be presumed of it.
func (k known) forgottenOrUnknown(id participant.ID) bool {
	return !k.epoch || id.Sequence <= k.forgotten
}

// settled tells whether the decision database has neither started nor been
// promoted within the grace. A connection of that age has lived through neither.
// A gateway that has just started has none, and believes the server instead: it
// has been up for so long, and on the timeline on which the epoch began. Without
// that, gateways that are restarted every two seconds never presumed anything,
// and rows stayed locked. A connection that was lost may have been lost to a
// crash in which the server's start time stays, so the next one has to wait.
//
// This is patience, not safety: who is presumed dead too early meets the abort
// at its decision and tells its client so (I2).
func (c *logConn) settled(sameLog bool, grace time.Duration) bool {
	connected := time.Since(c.connected)
	return connected >= grace || !c.again && sameLog && c.up+connected >= grace
}

// look reads what is known of ids.
func (l *decisionLog) look(ctx context.Context, ids []participant.ID, grace time.Duration) (map[participant.ID]known, error) {
	found := make(map[participant.ID]known, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	epochs, sequences := idArrays(ids)
	err := l.do(ctx, func(c *logConn) error {
		rows, err := c.exec(ctx, `WITH `+aliveSQL+` SELECT u.e::text||'/'||u.s::text, coalesce(t.outcome,''), (g.epoch IS NOT NULL)::text, coalesce(g.forgotten,0)::text,
 (u.e IN (SELECT epoch FROM alive))::text, coalesce(g.decision_system_identifier,''), coalesce(g.decision_timeline::text,''), coalesce(g.name,'')
 FROM unnest($1::bigint[],$2::bigint[]) u(e,s)
 LEFT JOIN pgpact.transactions t ON t.epoch=u.e AND t.sequence=u.s LEFT JOIN pgpact.gateways g ON g.epoch=u.e`, epochs, sequences)
		if err != nil {
			return err
		}
		for _, row := range rows {
			id, err := participant.ParseID(row[0])
			if err != nil {
				return err
			}
			k := known{gateway: row[7], epoch: row[2] == "true", alive: row[4] == "true",
				sameLog: serverIdentity{System: row[5], Timeline: row[6]} == c.server}
			k.settled = c.settled(k.sameLog, grace)
			if k.forgotten, err = strconv.ParseInt(row[3], 10, 64); err != nil {
				return err
			}
			if row[1] != "" {
				if k.decision, err = parseDecision(row[1]); err != nil {
					return err
				}
			}
			found[id] = k
		}
		return nil
	})
	return found, err
}

// settle is logConn.settle on the shared connection.
func (l *decisionLog) settle(ctx context.Context, r record, wish Decision) (decision Decision, err error) {
	err = l.do(ctx, func(c *logConn) error {
		decision, err = c.settle(ctx, r, wish)
		return err
	})
	return decision, err
}

// byKey finds the committed transaction that bears the key.
func (c *logConn) byKey(ctx context.Context, role, key string) (id participant.ID, found bool, err error) {
	rows, err := c.exec(ctx, "SELECT epoch::text||'/'||sequence::text FROM pgpact.transactions WHERE role=$1::text AND idempotency_key=$2::text", role, key)
	if err != nil || len(rows) == 0 {
		return participant.ID{}, false, err
	}
	id, err = participant.ParseID(rows[0][0])
	return id, err == nil, err
}

func (l *decisionLog) byKey(ctx context.Context, role, key string) (id participant.ID, found bool, err error) {
	err = l.do(ctx, func(c *logConn) error {
		id, found, err = c.byKey(ctx, role, key)
		return err
	})
	return id, found, err
}

// finish marks decisions as applied by all their participants.
func (l *decisionLog) finish(ctx context.Context, ids []participant.ID) error {
	if len(ids) == 0 {
		return nil
	}
	epochs, sequences := idArrays(ids)
	_, err := l.query(ctx, `UPDATE pgpact.transactions t SET finished_at=clock_timestamp() FROM unnest($1::bigint[],$2::bigint[]) u(e,s)
 WHERE t.epoch=u.e AND t.sequence=u.s AND t.finished_at IS NULL`, epochs, sequences)
	return err
}

// unfinished is a decision that is not known to be applied everywhere.
type unfinished struct {
	id           participant.ID
	decision     Decision
	participants []string // empty: not known, every node may be one
	alive        bool
	gateway      string
	age          time.Duration
}

// unfinishedAfter lists unfinished decisions in order of their ids, at most
// limit, beginning after an id.
func (l *decisionLog) unfinishedAfter(ctx context.Context, after participant.ID, limit int) ([]unfinished, error) {
	rows, err := l.query(ctx, `WITH `+aliveSQL+` SELECT t.epoch::text||'/'||t.sequence::text, t.outcome, array_to_string(t.participants,','),
 (t.epoch IN (SELECT epoch FROM alive))::text, coalesce(g.name,''), (extract(epoch from clock_timestamp()-t.decided_at)*1000000)::bigint::text
 FROM pgpact.transactions t LEFT JOIN pgpact.gateways g ON g.epoch=t.epoch
 WHERE t.finished_at IS NULL AND (t.epoch,t.sequence)>($1::bigint,$2::bigint) ORDER BY t.epoch,t.sequence LIMIT $3::bigint`,
		strconv.FormatInt(after.Epoch, 10), strconv.FormatInt(after.Sequence, 10), strconv.Itoa(limit))
	if err != nil {
		return nil, err
	}
	list := make([]unfinished, len(rows))
	for i, row := range rows {
		u := unfinished{alive: row[3] == "true", gateway: row[4]}
		if u.id, err = participant.ParseID(row[0]); err != nil {
			return nil, err
		}
		if u.decision, err = parseDecision(row[1]); err != nil {
			return nil, err
		}
		if row[2] != "" {
			u.participants = strings.Split(row[2], ",")
		}
		micros, err := strconv.ParseInt(row[5], 10, 64)
		if err != nil {
			return nil, err
		}
		u.age = time.Duration(micros) * time.Microsecond
		list[i] = u
	}
	return list, nil
}

// noteNode records what a node's server says of itself. If that has changed, a
// failover or a restore has happened and may have lost or undone commits: the
// node's finished decisions within retention are unfinished again until they
// have been seen there. Returns whether it had changed.
func (l *decisionLog) noteNode(ctx context.Context, name string, system, timeline string, retention time.Duration) (changed bool, err error) {
	rows, err := l.query(ctx, `WITH was AS (SELECT system_identifier, timeline FROM pgpact.nodes WHERE name=$1::text),
 noted AS (INSERT INTO pgpact.nodes(name,system_identifier,timeline,seen_at) VALUES($1::text,$2::text,$3::integer,clock_timestamp())
  ON CONFLICT (name) DO UPDATE SET system_identifier=excluded.system_identifier, timeline=excluded.timeline, seen_at=excluded.seen_at),
 again AS (UPDATE pgpact.transactions t SET finished_at=NULL FROM was WHERE was.system_identifier IS NOT NULL
  AND (was.system_identifier,was.timeline) IS DISTINCT FROM ($2::text,$3::integer)
  AND t.finished_at>clock_timestamp()-($4::text||' seconds')::interval AND (t.participants @> ARRAY[$1::text] OR t.participants='{}'))
 SELECT (was.system_identifier IS NOT NULL AND (was.system_identifier,was.timeline) IS DISTINCT FROM ($2::text,$3::integer))::text FROM was`,
		name, system, timeline, strconv.FormatInt(int64(retention.Seconds()), 10))
	if err != nil {
		return false, err
	}
	return len(rows) == 1 && rows[0][0] == "true", nil
}

// idArrays spells ids as two parallel bigint[] literals, sorted by id.
func idArrays(ids []participant.ID) (epochs, sequences string) {
	var e, s strings.Builder
	for i, id := range ids {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		e.WriteByte(separator)
		s.WriteByte(separator)
		fmt.Fprintf(&e, "%d", id.Epoch)
		fmt.Fprintf(&s, "%d", id.Sequence)
	}
	e.WriteByte('}')
	s.WriteByte('}')
	return e.String(), s.String()
}
