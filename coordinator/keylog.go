package coordinator

import (
	"context"
	"fmt"
	"strconv"

	"github.com/pgpact/pgpact/participant"
)

// What the decision log knows of idempotency keys, and of what it may have lost
// of them. keys.go tells the story.

// logLife is one life of the decision log: a server, its timeline, and the table
// there. What was decided in one life may be missing from the next: a failover
// begins a timeline, a dump is restored to another table or another database.
type logLife struct {
	serverIdentity
	Place string
}

// String is how pgpact.keys_whole holds it.
func (l logLife) String() string { return l.System + "/" + l.Timeline + "/" + l.Place }

// placeSQL is the table of decisions that a statement sees. Both numbers: a
// database that is made from another as its template has its tables' numbers.
const placeSQL = `((SELECT d.oid::text FROM pg_database d WHERE d.datname=current_database())||'.'||'pgpact.transactions'::regclass::oid::text)`

// Why a key that a branch record proves is not in pgpact.transactions.
const (
	reasonNoDecision = "decision not known" // of an epoch that is not known, or forgotten (I7)
	reasonUsedAgain  = "used again"         // another transaction has committed under it meanwhile
	reasonAborted    = "decided aborted"    // and yet a node has committed it
)

// keyAnswer is what the log says of a key.
type keyAnswer struct {
	life   logLife
	whole  bool // every key that any node can prove is here: who is not found has not committed
	found  bool
	winner participant.ID
	reason string // why it is only proven, "" if the decision bears it
}

// byKeySQL says in one round trip who bears the key, and what it is worth that nobody does.
const byKeySQL = `WITH k AS (SELECT epoch, sequence, '' AS reason FROM pgpact.transactions WHERE role=$1::text AND idempotency_key=$2::text
 UNION ALL SELECT epoch, sequence, reason FROM pgpact.proven_keys WHERE role=$1::text AND idempotency_key=$2::text)
 SELECT ` + placeSQL + `, coalesce((SELECT life FROM pgpact.keys_whole),''), coalesce(k.epoch::text||'/'||k.sequence::text,''), coalesce(k.reason,'')
 FROM (SELECT 1) one LEFT JOIN k ON true ORDER BY k.reason LIMIT 1`

// byKey finds the committed transaction that bears the key.
func (c *logConn) byKey(ctx context.Context, role, key string) (keyAnswer, error) {
	rows, err := c.exec(ctx, byKeySQL, role, key)
	if err != nil {
		return keyAnswer{}, err
	}
	row := rows[0]
	a := keyAnswer{life: logLife{c.server, row[0]}, found: row[2] != "", reason: row[3]}
	a.whole = row[1] == a.life.String()
	if a.found {
		a.winner, err = participant.ParseID(row[2])
	}
	return a, err
}

func (l *decisionLog) byKey(ctx context.Context, role, key string) (a keyAnswer, err error) {
	err = l.do(ctx, func(ctx context.Context, c *logConn) error {
		a, err = c.byKey(ctx, role, key)
		return err
	})
	return a, err
}

const settleKeyedSQL = `WITH gate AS (DELETE FROM pgpact.gate)
 INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role,idempotency_key)
 SELECT $1::bigint,$2::bigint,'committed',$3::text[],$4::text,$5::text FROM pgpact.gateways g
 WHERE g.epoch=$1::bigint AND $2::bigint>g.forgotten AND ` + placeSQL + `=$6::text
 ON CONFLICT (epoch,sequence) DO UPDATE SET epoch=excluded.epoch RETURNING outcome`

// settleCommit is settle with the wish to commit, with its key if it has one.
func (c *logConn) settleCommit(ctx context.Context, r record) (decision Decision, changed bool, err error) {
	if r.key != "" {
		return c.settleKeyed(ctx, r)
	}
	decision, err = c.settle(ctx, r, Commit)
	return decision, false, err
}

// settleKeyed is settle with the wish to commit under a key, in the life of the
// log in which the key was found to be free. In another one that finding is
// worth nothing, for who had the key may have been lost: then changed, and
// nothing has been written.
func (c *logConn) settleKeyed(ctx context.Context, r record) (decision Decision, changed bool, err error) {
	if c.server != r.keyFreeIn.serverIdentity {
		return NoDecision, true, nil
	}
	epoch, sequence := strconv.FormatInt(r.id.Epoch, 10), strconv.FormatInt(r.id.Sequence, 10)
	rows, err := c.exec(ctx, settleKeyedSQL, epoch, sequence, arrayLiteral(r.participants), r.role, r.key, r.keyFreeIn.Place)
	if err != nil {
		return NoDecision, false, err
	}
	if len(rows) == 0 {
		place, err := c.exec(ctx, "SELECT "+placeSQL)
		return NoDecision, err == nil && place[0][0] != r.keyFreeIn.Place, err
	}
	decision, err = parseDecision(rows[0][0])
	return decision, false, err
}

// restoreSQL settles a proven commit together with its key. A decision that is
// there already is given the key if it is a commit without one.
const restoreSQL = `WITH gate AS (DELETE FROM pgpact.gate)
 INSERT INTO pgpact.transactions AS t (epoch,sequence,outcome,participants,role,idempotency_key)
 SELECT $1::bigint,$2::bigint,'committed',$3::text[],$4::text,$5::text FROM pgpact.gateways g WHERE g.epoch=$1::bigint AND $2::bigint>g.forgotten
 ON CONFLICT (epoch,sequence) DO UPDATE SET
 role=CASE WHEN t.outcome='committed' AND t.idempotency_key IS NULL THEN excluded.role ELSE t.role END,
 idempotency_key=CASE WHEN t.outcome='committed' THEN coalesce(t.idempotency_key,excluded.idempotency_key) END RETURNING outcome`

// restore settles as committed what a visible branch record proves (I8), with
// the key that the record bears: a key is lost with its decision and comes back
// with it (I10). Where the decision cannot bear the key, the key is written down
// beside it, first, so that no crash can hide it; reason says why.
func (c *logConn) restore(ctx context.Context, id participant.ID, proof participant.BranchRecord) (decision Decision, reason string, err error) {
	r := record{id: id, participants: proof.Participants}
	if proof.Key == "" {
		decision, err = c.settle(ctx, r, Commit)
		return decision, "", err
	}
	rows, err := c.exec(ctx, restoreSQL, strconv.FormatInt(id.Epoch, 10), strconv.FormatInt(id.Sequence, 10),
		arrayLiteral(proof.Participants), proof.Role, proof.Key)
	switch {
	case isRefused(err) && participant.SQLState(err) == "23505":
		// The transaction has committed, and so has another one under its key: neither
		// is taken back. The decision is written without the key.
		if err := c.noteProven(ctx, id, proof, reasonUsedAgain); err != nil {
			return NoDecision, "", err
		}
		decision, err = c.settle(ctx, r, Commit)
		return decision, reasonUsedAgain, err
	case err != nil:
		return NoDecision, "", err
	case len(rows) == 0:
		reason = reasonNoDecision
	default:
		if decision, err = parseDecision(rows[0][0]); err != nil {
			return NoDecision, "", err
		}
		if decision == Commit {
			return Commit, "", nil
		}
		reason = reasonAborted
	}
	return decision, reason, c.noteProven(ctx, id, proof, reason)
}

func (c *logConn) noteProven(ctx context.Context, id participant.ID, proof participant.BranchRecord, reason string) error {
	_, err := c.exec(ctx, `INSERT INTO pgpact.proven_keys(role,idempotency_key,epoch,sequence,reason)
 VALUES($1::text,$2::text,$3::bigint,$4::bigint,$5::text) ON CONFLICT DO NOTHING`,
		proof.Role, proof.Key, strconv.FormatInt(id.Epoch, 10), strconv.FormatInt(id.Sequence, 10), reason)
	return err
}

func (l *decisionLog) restore(ctx context.Context, id participant.ID, proof participant.BranchRecord) (decision Decision, reason string, err error) {
	err = l.do(ctx, func(ctx context.Context, c *logConn) error {
		decision, reason, err = c.restore(ctx, id, proof)
		return err
	})
	return decision, reason, err
}

// keysWhole tells the log's present life, and whether its keys are whole in it.
func (l *decisionLog) keysWhole(ctx context.Context) (life logLife, whole bool, err error) {
	err = l.do(ctx, func(ctx context.Context, c *logConn) error {
		rows, err := c.exec(ctx, "SELECT "+placeSQL+", coalesce((SELECT life FROM pgpact.keys_whole),'')")
		if err != nil {
			return err
		}
		life = logLife{c.server, rows[0][0]}
		whole = rows[0][1] == life.String()
		return nil
	})
	return life, whole, err
}

// markKeysWhole records that the keys are whole in that life, if it is still the
// present one.
func (l *decisionLog) markKeysWhole(ctx context.Context, life logLife) error {
	return l.do(ctx, func(ctx context.Context, c *logConn) error {
		if c.server != life.serverIdentity {
			return fmt.Errorf("decision database: is another one than it was")
		}
		_, err := c.exec(ctx, `INSERT INTO pgpact.keys_whole(life) SELECT $1::text WHERE `+placeSQL+`=$2::text
 ON CONFLICT ((true)) DO UPDATE SET life=excluded.life, since=clock_timestamp()`, life.String(), life.Place)
		return err
	})
}

// missingKeys are those of records whose keys the log does not have.
func (l *decisionLog) missingKeys(ctx context.Context, records []participant.KeyedRecord) (missing []participant.KeyedRecord, err error) {
	ids, roles, keys := make([]participant.ID, len(records)), make([]string, len(records)), make([]string, len(records))
	for i, r := range records {
		ids[i], roles[i], keys[i] = r.ID, r.Role, r.Key
	}
	epochs, sequences := idArrays(ids)
	rows, err := l.query(ctx, `SELECT u.n::text FROM unnest($1::bigint[],$2::bigint[],$3::text[],$4::text[]) WITH ORDINALITY u(e,s,r,k,n)
 WHERE NOT EXISTS (SELECT FROM pgpact.transactions t WHERE t.epoch=u.e AND t.sequence=u.s AND t.role=u.r AND t.idempotency_key=u.k)
 AND NOT EXISTS (SELECT FROM pgpact.proven_keys p WHERE p.epoch=u.e AND p.sequence=u.s AND p.role=u.r AND p.idempotency_key=u.k)`,
		epochs, sequences, arrayLiteral(roles), arrayLiteral(keys))
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		n, err := strconv.Atoi(row[0])
		if err != nil {
			return nil, err
		}
		missing = append(missing, records[n-1])
	}
	return missing, nil
}

// keyUsedAgain is a key under which two transactions have committed.
type keyUsedAgain struct {
	id, other participant.ID // other: whose decision bears the key, zero if none does any more
	role, key string
}

// usedAgain lists the keys that were used again, and not dealt with yet.
func (l *decisionLog) usedAgain(ctx context.Context) ([]keyUsedAgain, error) {
	rows, err := l.query(ctx, `SELECT p.epoch::text||'/'||p.sequence::text, p.role, p.idempotency_key, coalesce(t.epoch::text||'/'||t.sequence::text,'')
 FROM pgpact.proven_keys p LEFT JOIN pgpact.transactions t ON t.role=p.role AND t.idempotency_key=p.idempotency_key WHERE p.reason='used again'`)
	if err != nil {
		return nil, err
	}
	list := make([]keyUsedAgain, len(rows))
	for i, row := range rows {
		u := keyUsedAgain{role: row[1], key: row[2]}
		if u.id, err = participant.ParseID(row[0]); err != nil {
			return nil, err
		}
		if row[3] != "" {
			if u.other, err = participant.ParseID(row[3]); err != nil {
				return nil, err
			}
		}
		list[i] = u
	}
	return list, nil
}

// forgetProvenKeys forgets keys that are only proven past their retention.
// Damage stays.
func (l *decisionLog) forgetProvenKeys(ctx context.Context, seconds int64) error {
	_, err := l.query(ctx, `DELETE FROM pgpact.proven_keys WHERE reason='decision not known' AND found_at<clock_timestamp()-($1::text||' seconds')::interval`,
		strconv.FormatInt(seconds, 10))
	return err
}
