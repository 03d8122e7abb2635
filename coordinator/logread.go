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
	err := l.do(ctx, func(ctx context.Context, c *logConn) error {
		rows, err := c.exec(ctx, `WITH `+aliveSQL+` SELECT u.e::text||'/'||u.s::text, coalesce(t.outcome,''), (g.epoch IS NOT NULL)::text, coalesce(g.forgotten,0)::text,
 (u.e IN (SELECT epoch FROM alive))::text, coalesce(g.decision_system_identifier,''), coalesce(g.decision_timeline::text,''), coalesce(g.name,''),
 coalesce(g.decision_table,`+placeSQL+`), `+placeSQL+`
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
				sameLog: logLife{serverIdentity{System: row[5], Timeline: row[6]}, row[8]} == logLife{c.server, row[9]}}
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
	err = l.do(ctx, func(ctx context.Context, c *logConn) error {
		decision, err = c.settle(ctx, r, wish)
		return err
	})
	return decision, err
}

// settleManySQL is settleSQL for several transactions without a key. In the order of their ids, so that two of these, and the decider's
// batches, cannot deadlock.
const settleManySQL = `WITH gate AS (DELETE FROM pgpact.gate)
 INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role)
 SELECT u.e,u.s,$3::text,u.p::text[],'' FROM unnest($1::bigint[],$2::bigint[],$4::text[]) u(e,s,p)
 JOIN pgpact.gateways g ON g.epoch=u.e AND u.s>g.forgotten ORDER BY u.e,u.s
 ON CONFLICT (epoch,sequence) DO UPDATE SET epoch=excluded.epoch RETURNING epoch::text||'/'||sequence::text, outcome`

// settleMany is settle for several at once. One that is missing from the answer
// is forgotten, or of an epoch that is not known: touch nothing, report.
func (l *decisionLog) settleMany(ctx context.Context, records []record, wish Decision) (map[participant.ID]Decision, error) {
	if len(records) == 0 {
		return map[participant.ID]Decision{}, nil
	}
	ids, participants := make([]participant.ID, len(records)), make([]string, len(records))
	for i, r := range records {
		ids[i], participants[i] = r.id, arrayLiteral(r.participants)
	}
	epochs, sequences := idArrays(ids)
	rows, err := l.query(ctx, settleManySQL, epochs, sequences, wish.String(), arrayLiteral(participants))
	if err != nil {
		return nil, err
	}
	settled := make(map[participant.ID]Decision, len(rows))
	for _, row := range rows {
		id, err := participant.ParseID(row[0])
		if err != nil {
			return nil, err
		}
		if settled[id], err = parseDecision(row[1]); err != nil {
			return nil, err
		}
	}
	return settled, nil
}

// unfinished is a decision that is not known to be applied everywhere, or one
// that a person forced.
type unfinished struct {
	id           participant.ID
	decision     Decision
	participants []string // empty: not known, every node may be one
	alive        bool
	gateway      string
	age          time.Duration
	forced       string // what a person forced
	finished     bool
}

// Which decisions decidedAfter lists. Each has a partial index.
const (
	whereUnfinished = "t.finished_at IS NULL"
	whereForced     = "t.heuristic IS NOT NULL"
)

// unfinishedAfter lists unfinished decisions in order of their ids, at most
// limit, beginning after an id.
func (l *decisionLog) unfinishedAfter(ctx context.Context, after participant.ID, limit int) ([]unfinished, error) {
	return l.decidedAfter(ctx, whereUnfinished, after, limit)
}

// decidedAfter lists decisions of one kind in order of their ids, at most
// limit, beginning after an id.
func (l *decisionLog) decidedAfter(ctx context.Context, which string, after participant.ID, limit int) ([]unfinished, error) {
	rows, err := l.query(ctx, `WITH `+aliveSQL+` SELECT t.epoch::text||'/'||t.sequence::text, t.outcome, array_to_string(t.participants,','),
 (t.epoch IN (SELECT epoch FROM alive))::text, coalesce(g.name,''), (extract(epoch from clock_timestamp()-t.decided_at)*1000000)::bigint::text,
 coalesce(t.heuristic,''), (t.finished_at IS NOT NULL)::text
 FROM pgpact.transactions t LEFT JOIN pgpact.gateways g ON g.epoch=t.epoch
 WHERE `+which+` AND (t.epoch,t.sequence)>($1::bigint,$2::bigint) ORDER BY t.epoch,t.sequence LIMIT $3::bigint`,
		strconv.FormatInt(after.Epoch, 10), strconv.FormatInt(after.Sequence, 10), strconv.Itoa(limit))
	if err != nil {
		return nil, err
	}
	list := make([]unfinished, len(rows))
	for i, row := range rows {
		u := unfinished{alive: row[3] == "true", gateway: row[4], forced: row[6], finished: row[7] == "true"}
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

// idArrays spells ids as two parallel bigint[] literals, in the order given.
func idArrays(ids []participant.ID) (epochs, sequences string) {
	if len(ids) == 0 {
		return "{}", "{}"
	}
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
