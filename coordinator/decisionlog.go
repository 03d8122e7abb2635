package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
)

// Decision is what is recorded of a transaction.
type Decision int

// The decisions. NoDecision: no record.
const (
	NoDecision Decision = iota
	Commit
	Abort
)

func (d Decision) String() string { return [...]string{"none", "committed", "aborted"}[d] }

func parseDecision(outcome string) (Decision, error) {
	switch outcome {
	case "committed":
		return Commit, nil
	case "aborted":
		return Abort, nil
	}
	return NoDecision, fmt.Errorf("pgpact.transactions holds outcome %q", outcome)
}

// errRefused wraps an error the decision database answered with: the statement
// certainly did nothing. Every other error leaves open whether it did.
type errRefused struct{ *pgconn.PgError }

func (e errRefused) Unwrap() error { return e.PgError }

// isRefused tells a certain no from a lost answer.
func isRefused(err error) bool {
	_, ok := errors.AsType[errRefused](err)
	return ok
}

// decisionLog is the decision database, schema pgpact: the only file that
// speaks to it. All connections that write there are made by connect, so that
// none can have a laxer setup than the others (a decision written with
// synchronous_commit=off was gone after a crash, and a late commit succeeded).
type decisionLog struct {
	conf           *pgconn.Config
	primary        *participant.Primary
	clusterID      string
	connectTimeout time.Duration
	commitsSQL     string // insertCommitsSQL, but in tests that do it wrong

	// What recovery, settling and questions share (logshared.go).
	busy  chan struct{} // a lock on conn, of which a context can stop the wait
	conn  *logConn
	again bool         // conn is not the first
	made  atomic.Int64 // how many conn have been made
}

// logConn is one connection to the decision database.
type logConn struct {
	pg        *pgconn.PgConn
	warning   *pgconn.Notice // a warning that came with the current statement
	server    serverIdentity
	up        time.Duration // the server, when we connected
	again     bool          // another connection was lost before this one
	connected time.Time
	prepared  map[string]string // statement text -> name, for the hot ones
}

// serverIdentity tells one life of the decision database from another: after a
// failover or a restore, decisions may have been lost.
type serverIdentity struct {
	System   string // pg_control_system().system_identifier
	Timeline string // decimal
}

// openDecisionLog checks the address; it does not connect.
func openDecisionLog(url, clusterID string, connectTimeout time.Duration) (*decisionLog, error) {
	conf, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("decision database: %w", err)
	}
	primary := &participant.Primary{}
	primary.Among(conf, connectTimeout)
	conf.RuntimeParams["client_encoding"] = "UTF8"
	// The server's side of the keepalive below: when a gateway's machine vanishes,
	// nothing else ends its session and with it the lock on its epoch. By default
	// that takes two hours, in which its tracked transactions are "in progress".
	for name, value := range map[string]string{
		"tcp_keepalives_idle": "2", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "3", "tcp_user_timeout": "5000",
	} {
		if conf.RuntimeParams[name] == "" {
			conf.RuntimeParams[name] = value
		}
	}
	dialer := &net.Dialer{Timeout: conf.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3,
	}}
	conf.DialFunc = dialer.DialContext
	return &decisionLog{
		conf: conf, primary: primary, clusterID: clusterID, connectTimeout: connectTimeout, commitsSQL: insertCommitsSQL,
		busy: make(chan struct{}, 1),
	}, nil
}

const logSetupSQL = `SET synchronous_commit=on; SET default_transaction_isolation='read committed';
 SET default_transaction_read_only=off; SET lock_timeout='3s'; SET statement_timeout='10s'; SET idle_in_transaction_session_timeout='10s';
 SET client_min_messages=warning; SET standard_conforming_strings=on; SET search_path=pg_catalog`

const logVerifySQL = `SELECT c.id, pg_is_in_recovery()::text, s.system_identifier::text, ('x'||substr(pg_walfile_name(pg_current_wal_lsn()),1,8))::bit(32)::int::text,
 current_setting('synchronous_commit'), current_setting('transaction_isolation'), current_setting('fsync'), current_setting('full_page_writes'),
 (extract(epoch from clock_timestamp()-pg_postmaster_start_time())*1000000)::bigint::text
 FROM pgpact.cluster c, pg_control_system() s`

// connect makes a connection and verifies where it ended and how it behaves. People see its
// purpose in pg_stat_activity.
func (l *decisionLog) connect(ctx context.Context, purpose string) (*logConn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.connectTimeout)
	defer cancel()
	c := &logConn{}
	conf := l.conf.Copy()
	conf.RuntimeParams["application_name"] = "pgpact " + purpose
	conf.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { c.warning = n }
	pg, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("decision database: %w", err)
	}
	c.pg = pg
	fail := func(err error) (*logConn, error) {
		c.close()
		return nil, fmt.Errorf("decision database: %w", err)
	}
	if _, err := pg.Exec(ctx, logSetupSQL).ReadAll(); err != nil {
		return fail(err)
	}
	rows, err := c.exec(ctx, logVerifySQL)
	if err != nil {
		if participant.SQLState(err) == "42P01" || participant.SQLState(err) == "3F000" {
			return fail(errors.New("has no table pgpact.cluster: run pgpact migrate"))
		}
		return fail(err)
	}
	if len(rows) != 1 {
		return fail(fmt.Errorf("pgpact.cluster holds %d rows, want 1", len(rows)))
	}
	row := rows[0]
	switch {
	case row[0] != l.clusterID:
		return fail(fmt.Errorf("belongs to cluster %q, not to %q", row[0], l.clusterID))
	case row[1] != "false":
		return fail(errors.New("is a standby (in recovery)"))
	case row[4] != "on" || row[5] != "read committed":
		return fail(fmt.Errorf("synchronous_commit is %s and isolation is %s although set otherwise", row[4], row[5]))
	case row[6] != "on":
		return fail(errors.New("runs with fsync=off: a decision would not survive a crash"))
	}
	// Decisions made since a failover are not in its former primary, in which they would be presumed aborted (I2).
	if err := l.primary.Believe(row[2], row[3]); err != nil {
		return fail(err)
	}
	up, err := strconv.ParseInt(row[8], 10, 64)
	if err != nil {
		return fail(err)
	}
	c.server, c.up = serverIdentity{System: row[2], Timeline: row[3]}, time.Duration(up)*time.Microsecond
	c.connected = time.Now()
	return c, nil
}

func (c *logConn) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.pg.Close(ctx)
}

// fit tells, without waiting, whether the connection is there; one that is not
// is closed.
func (c *logConn) fit() bool {
	if c.pg.IsClosed() {
		return false
	}
	if !participant.Alive(c.pg.Conn()) {
		c.close()
		return false
	}
	return true
}

// prepare has the server keep sql prepared, for exec.
func (c *logConn) prepare(ctx context.Context, sql string) error {
	name := "pgpact_" + strconv.Itoa(len(c.prepared)+1)
	if _, err := c.pg.Prepare(ctx, name, sql, nil); err != nil {
		return err
	}
	if c.prepared == nil {
		c.prepared = map[string]string{}
	}
	c.prepared[sql] = name
	return nil
}

// exec runs one statement with text parameters. Its rows count only when the
// message ended cleanly: ReadyForQuery 'I', no error, no warning. RETURNING
// rows, even CommandComplete, arrive before a commit that can still fail, and a
// cancelled standby wait is success with a warning.
func (c *logConn) exec(ctx context.Context, sql string, args ...string) ([][]string, error) {
	c.warning = nil
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	var result *pgconn.Result
	if name, ok := c.prepared[sql]; ok {
		result = c.pg.ExecPrepared(ctx, name, params, nil, nil).Read()
	} else {
		result = c.pg.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	}
	if result.Err != nil {
		// Severity itself is in the server's language: FEHLER was no certain no.
		if pgErr, ok := errors.AsType[*pgconn.PgError](result.Err); ok && pgErr.SeverityUnlocalized == "ERROR" && !c.pg.IsClosed() && c.pg.TxStatus() == 'I' {
			return nil, errRefused{pgErr}
		}
		c.close()
		return nil, result.Err
	}
	if c.pg.IsClosed() || c.pg.TxStatus() != 'I' {
		c.close()
		return nil, errors.New("the answer did not end with ReadyForQuery")
	}
	if c.warning != nil {
		return nil, fmt.Errorf("%s (%s)", c.warning.Message, c.warning.Code)
	}
	rows := make([][]string, len(result.Rows))
	for i, r := range result.Rows {
		rows[i] = make([]string, len(r))
		for j, v := range r {
			rows[i][j] = string(v)
		}
	}
	return rows, nil
}

// record is a decision to be written.
type record struct {
	id           participant.ID
	participants []string
	role, key    string
	keyFreeIn    logLife // of a commit with a key: in which life of the log the key was found to be free
}

// insertCommitsSQL writes a batch of commit decisions. The DELETE from the
// empty table gate takes its lock in the very statement that decides
// (DESIGN 7b: readers of several nodes hold it off for a moment). A row whose
// epoch is not known, or whose sequence has been forgotten, is not written.
const insertCommitsSQL = `WITH gate AS (DELETE FROM pgpact.gate)
 INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role)
 SELECT u.e,u.s,'committed',u.p::text[],u.r FROM unnest($1::bigint[],$2::bigint[],$3::text[],$4::text[]) u(e,s,p,r)
 JOIN pgpact.gateways g ON g.epoch=u.e AND u.s>g.forgotten ORDER BY u.e,u.s
 ON CONFLICT (epoch,sequence) DO NOTHING RETURNING epoch::text||'/'||sequence::text`

// insertCommits writes commit decisions for unkeyed transactions, which must be
// sorted by id, and returns those it wrote. One that does not come back is not
// aborted by that: the row that was in the way may be our own. It is settled.
func (c *logConn) insertCommits(ctx context.Context, sql string, records []record) (map[participant.ID]bool, error) {
	var epochs, sequences, participants, roles []string
	for _, r := range records {
		epochs = append(epochs, strconv.FormatInt(r.id.Epoch, 10))
		sequences = append(sequences, strconv.FormatInt(r.id.Sequence, 10))
		participants = append(participants, arrayLiteral(r.participants))
		roles = append(roles, r.role)
	}
	rows, err := c.exec(ctx, sql, arrayLiteral(epochs), arrayLiteral(sequences), arrayLiteral(participants), arrayLiteral(roles))
	if err != nil {
		return nil, err
	}
	written := make(map[participant.ID]bool, len(rows))
	for _, row := range rows {
		id, err := participant.ParseID(row[0])
		if err != nil {
			return nil, err
		}
		written[id] = true
	}
	return written, nil
}

const settleSQL = `WITH gate AS (DELETE FROM pgpact.gate)
 INSERT INTO pgpact.transactions(epoch,sequence,outcome,participants,role)
 SELECT $1::bigint,$2::bigint,$3::text,$4::text[],$5::text FROM pgpact.gateways g WHERE g.epoch=$1::bigint AND $2::bigint>g.forgotten
 ON CONFLICT (epoch,sequence) DO UPDATE SET epoch=excluded.epoch RETURNING outcome`

// settle is the one statement that ends every doubt: it records wish unless a
// decision is there, and tells what is recorded then (I2). NoDecision means that
// the epoch is not known or the sequence forgotten: touch nothing, report. A
// commit with a key is settled by settleKeyed, or by restore if a branch record
// proves it (keylog.go).
func (c *logConn) settle(ctx context.Context, r record, wish Decision) (Decision, error) {
	rows, err := c.exec(ctx, settleSQL, strconv.FormatInt(r.id.Epoch, 10), strconv.FormatInt(r.id.Sequence, 10),
		wish.String(), arrayLiteral(r.participants), r.role)
	if err != nil || len(rows) == 0 {
		return NoDecision, err
	}
	return parseDecision(rows[0][0])
}

// arrayLiteral spells a Postgres array of strings.
func arrayLiteral(elements []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range elements {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		for j := range len(e) {
			if e[j] == '"' || e[j] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(e[j])
		}
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}
