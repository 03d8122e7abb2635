package participant

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// LockHolder is a transaction of one node as its lock table knows it: a server
// process with its virtual transaction id, which no other transaction of the
// server ever has again, so that a process id that is used again is seen; or a
// prepared transaction by its gid.
type LockHolder struct {
	PID  uint32 // 0: prepared
	VXID string // its virtual transaction id, "" if prepared
	GID  string // "" unless prepared
}

// String names the holder as Postgres's own deadlock reports do.
func (h LockHolder) String() string {
	if h.GID != "" {
		return "prepared transaction " + strconv.Quote(h.GID)
	}
	return "process " + strconv.FormatUint(uint64(h.PID), 10)
}

// LockWait is one process that waits for a lock. Two looks that see the same
// waiter and the same Since have seen the same wait: it has not ended between
// them.
type LockWait struct {
	Waiter LockHolder
	Since  int64 // microseconds, by the node's clock
	Waited time.Duration
	Mode   string // "ShareLock"
	Lock   string // "transaction 1234", in the words of Postgres's deadlock reports
	// Blockers hold the lock, or wait for it before this one. One that could not
	// be named is left out.
	Blockers []LockHolder
	// Preparing is the transaction whose phase one waits here, zero for none.
	Preparing ID
}

// LockLook is what a node's lock table shows at one moment.
type LockLook struct {
	Waits []LockWait
	// VXIDs are the transactions of all processes that are in one.
	VXIDs map[uint32]string
	// Prepared are our cluster's transactions that have a branch prepared here.
	Prepared map[ID]bool
}

// lockTagSQL words a row of pg_locks as DescribeLockTag in lmgr.c does. Equal
// locks have equal words.
const lockTagSQL = `CASE k.locktype
 WHEN 'relation' THEN pg_catalog.format('relation %s of database %s',k.relation,k.database)
 WHEN 'extend' THEN pg_catalog.format('extension of relation %s of database %s',k.relation,k.database)
 WHEN 'frozenid' THEN pg_catalog.format('pg_database.datfrozenxid of database %s',k.database)
 WHEN 'page' THEN pg_catalog.format('page %s of relation %s of database %s',k.page,k.relation,k.database)
 WHEN 'tuple' THEN pg_catalog.format('tuple (%s,%s) of relation %s of database %s',k.page,k.tuple,k.relation,k.database)
 WHEN 'transactionid' THEN pg_catalog.format('transaction %s',k.transactionid)
 WHEN 'virtualxid' THEN pg_catalog.format('virtual transaction %s',k.virtualxid)
 WHEN 'object' THEN pg_catalog.format('object %s of class %s of database %s',k.objid,k.classid,k.database)
 WHEN 'advisory' THEN pg_catalog.format('advisory lock [%s,%s,%s,%s]',k.database,k.classid,k.objid,k.objsubid)
 ELSE pg_catalog.format('%s [%s,%s,%s,%s,%s]',k.locktype,k.database,k.relation,k.classid,k.objid,k.objsubid) END`

// lockLookSQL reads everything in one statement. pg_locks is readable to
// everybody, without any privilege; so is a prepared transaction's gid. Only the
// text of other roles' statements is not (what its phase one waits for is then
// nobody's that we know), and gateways share a role.
//
//	w  a process of this database that waits, and who blocks it (0: prepared)
//	v  a process and its virtual transaction
//	p  what prepared transactions hold of the locks that are waited for
//	g  our prepared transactions
//
// Postgres 13 does not say since when a process waits, so waitstart is read in a
// way that does without the column, and there the start of the statement is
// taken: it tells two waits apart, unless they are the same statement's.
const lockLookSQL = `WITH k AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks),
 a AS MATERIALIZED (SELECT s.pid, s.query, s.query_start FROM pg_catalog.pg_stat_get_activity(NULL) s
  WHERE s.datid=(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname=pg_catalog.current_database())),
 l AS (SELECT k.*, a.query, CASE WHEN pg_catalog.current_setting('server_version_num')::int>=140000
   THEN (pg_catalog.to_jsonb(k)->>'waitstart')::timestamptz ELSE a.query_start END AS since FROM k JOIN a ON a.pid=k.pid WHERE NOT k.granted),
 w AS MATERIALIZED (SELECT k.pid, k.virtualtransaction, k.since, k.mode, ` + lockTagSQL + ` AS lock, pg_catalog.pg_blocking_pids(k.pid) AS blockers, k.query
  FROM l k WHERE k.since IS NOT NULL)
 SELECT 'w', w.pid::text, w.virtualtransaction, w.mode, w.lock, (extract(epoch from w.since)*1000000)::bigint::text,
  (extract(epoch from pg_catalog.clock_timestamp()-w.since)*1000000)::bigint::text, pg_catalog.array_to_string(w.blockers,','),
  CASE WHEN pg_catalog.left(w.query,30)='SET CONSTRAINTS ALL IMMEDIATE;' THEN pg_catalog.left(w.query,300) ELSE '' END FROM w
 UNION ALL SELECT 'v', k.pid::text, k.virtualtransaction, '', '', '', '', '', '' FROM k
  WHERE k.locktype='virtualxid' AND k.granted AND k.virtualxid=k.virtualtransaction AND k.pid IS NOT NULL
 UNION ALL SELECT 'p', '', '', k.mode, ` + lockTagSQL + `, '', '', '', p.gid FROM k JOIN k x ON x.virtualtransaction=k.virtualtransaction AND x.pid IS NULL AND x.locktype='transactionid'
  JOIN pg_catalog.pg_prepared_xacts p ON p.transaction=x.transactionid
  WHERE k.pid IS NULL AND k.granted AND ` + lockTagSQL + ` IN (SELECT w.lock FROM w WHERE 0=ANY(w.blockers))
 UNION ALL SELECT 'g', '', '', '', '', '', '', '', p.gid FROM pg_catalog.pg_prepared_xacts p WHERE p.database=pg_catalog.current_database()`

// LockWaits looks at who waits for whom on this node, on a connection of its own.
func (n *Node) LockWaits(ctx context.Context) (LockLook, error) {
	a, err := n.exchangeOn(ctx, &n.watch, lockLookSQL)
	if err == nil && a.err != nil {
		err = a.err
	}
	if err != nil {
		return LockLook{}, err
	}
	look, err := n.readLockLook(a.rows)
	if err != nil {
		return LockLook{}, fmt.Errorf("pg_locks of node %q: %w", n.cfg.Name, err)
	}
	return look, nil
}

// heldByPrepared is a lock that a prepared transaction holds.
type heldByPrepared struct{ gid, mode string }

func (n *Node) readLockLook(rows [][]string) (LockLook, error) {
	look := LockLook{VXIDs: map[uint32]string{}, Prepared: map[ID]bool{}}
	held := map[string][]heldByPrepared{} // by lock
	var blockers [][]uint32
	for _, row := range rows {
		if len(row) != 9 {
			return look, fmt.Errorf("%d columns", len(row))
		}
		switch row[0] {
		case "w":
			wait, pids, err := readLockWait(row)
			if err != nil {
				return look, err
			}
			look.Waits, blockers = append(look.Waits, wait), append(blockers, pids)
		case "v":
			pid, err := readPID(row[1])
			if err != nil {
				return look, err
			}
			look.VXIDs[pid] = row[2]
		case "p":
			held[row[4]] = append(held[row[4]], heldByPrepared{gid: row[8], mode: row[3]})
		case "g":
			if gid, ok := ParseGID(row[8]); ok && gid.Cluster == n.cfg.ClusterID && gid.Node == n.cfg.Name {
				look.Prepared[gid.ID] = true
			}
		}
	}
	for i := range look.Waits {
		look.Waits[i].Blockers = look.nameBlockers(&look.Waits[i], blockers[i], held)
	}
	return look, nil
}

// nameBlockers finds out which transactions block a wait. A process that is in
// no transaction any more blocks nothing.
func (look *LockLook) nameBlockers(wait *LockWait, pids []uint32, held map[string][]heldByPrepared) []LockHolder {
	var found []LockHolder
	prepared := false
	for _, pid := range pids {
		if pid == 0 { // once for each, and none is named
			prepared = true
		} else if vxid, ok := look.VXIDs[pid]; ok {
			found = append(found, LockHolder{PID: pid, VXID: vxid})
		}
	}
	if prepared {
		seen := map[string]bool{}
		for _, h := range held[wait.Lock] {
			if !seen[h.gid] && modesConflict(h.mode, wait.Mode) {
				seen[h.gid] = true
				found = append(found, LockHolder{GID: h.gid})
			}
		}
	}
	return found
}

func readPID(text string) (uint32, error) {
	pid, err := strconv.ParseUint(text, 10, 32)
	return uint32(pid), err
}

func readLockWait(row []string) (wait LockWait, blockers []uint32, err error) {
	pid, err := readPID(row[1])
	if err != nil {
		return wait, nil, err
	}
	var waited int64
	if _, err := fmt.Sscan(row[5]+" "+row[6], &wait.Since, &waited); err != nil {
		return wait, nil, err
	}
	wait.Waiter = LockHolder{PID: pid, VXID: row[2]}
	wait.Mode, wait.Lock, wait.Waited = row[3], row[4], time.Duration(waited)*time.Microsecond
	wait.Preparing = preparedBy(row[8])
	if row[7] == "" {
		return wait, nil, nil
	}
	for _, text := range strings.Split(row[7], ",") {
		blocker, err := readPID(text)
		if err != nil {
			return wait, nil, err
		}
		blockers = append(blockers, blocker)
	}
	return wait, blockers, nil
}

// preparedBy is the id of the transaction whose phase one the statement is, zero
// for any other statement. No client's statement begins like it: each is sent by
// itself, and this is several.
func preparedBy(query string) ID {
	rest, begins := strings.CutPrefix(query, prepareBegins)
	rest, records := strings.CutPrefix(strings.TrimPrefix(rest, leaveRole), prepareRecord)
	_, rest, values := strings.Cut(rest, prepareValues)
	if !begins || !records || !values {
		return ID{}
	}
	epoch, rest, ok1 := strings.Cut(rest, ",")
	sequence, _, ok2 := strings.Cut(rest, ",")
	e, err1 := parsePositive(epoch)
	q, err2 := parsePositive(sequence)
	if !ok1 || !ok2 || err1 != nil || err2 != nil {
		return ID{}
	}
	return ID{Epoch: e, Sequence: q}
}

// lockModes are Postgres's modes of table locks, which all locks have, weakest
// first (lockdefs.h).
var lockModes = []string{
	"AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock",
	"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock",
}

// lockConflicts has a bit for every mode that conflicts (LockConflicts in lock.c).
var lockConflicts = []uint8{
	0b10000000, 0b11000000, 0b11110000, 0b11111000,
	0b11101100, 0b11111100, 0b11111110, 0b11111111,
}

// modesConflict tells whether two lock modes exclude each other.
func modesConflict(a, b string) bool {
	i, j := -1, -1
	for k, mode := range lockModes {
		if mode == a {
			i = k
		}
		if mode == b {
			j = k
		}
	}
	return i >= 0 && j >= 0 && lockConflicts[i]&(1<<j) != 0
}
