package coordinator

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// What gateways tell each other of their transactions that wait for locks: one
// row each in pgpact.lock_waits, which is there only while they do. When the
// decision database cannot be reached, each gateway still finds the deadlocks
// among its own.

// waitLogBound bounds one exchange with the decision database.
const waitLogBound = 2 * time.Second

// waitLog is the detector's connection to it.
type waitLog struct {
	log       *decisionLog
	conn      *logConn
	published int64     // the epoch under which a row of ours may be there, 0: none
	pause     time.Time // until then it is not asked: it did not answer
}

// publishedTx is a waitingTx on its way between gateways.
type publishedTx struct {
	Serial   int64             `json:"serial"`
	ID       string            `json:"id,omitempty"`
	Branches []publishedBranch `json:"branches"`
}

// publishedBranch is one part of it; Since is not 0 if it waits.
type publishedBranch struct {
	Node  string `json:"node"`
	PID   uint32 `json:"pid"`
	VXID  string `json:"vxid"`
	Since int64  `json:"since,omitempty"`
}

const exchangeWaitsSQL = `WITH ` + aliveSQL + `,
 mine AS (INSERT INTO pgpact.lock_waits AS w (epoch,published_at,waits) VALUES ($1::bigint,clock_timestamp(),$2::text)
  ON CONFLICT (epoch) DO UPDATE SET published_at=excluded.published_at, waits=excluded.waits),
 gone AS (DELETE FROM pgpact.lock_waits WHERE epoch IN (SELECT o.epoch FROM pgpact.lock_waits o
  WHERE o.epoch<>$1::bigint AND o.published_at<clock_timestamp()-interval '1 minute' AND o.epoch NOT IN (SELECT a.epoch FROM alive a) FOR UPDATE SKIP LOCKED))
 ` + readWaitsSQL

const readWaitsSQL = `SELECT o.epoch::text, (extract(epoch from clock_timestamp()-o.published_at)*1000000)::bigint::text, (o.epoch IN (SELECT a.epoch FROM alive a))::text, o.waits
 FROM pgpact.lock_waits o WHERE o.epoch<>$1::bigint`

// exchange publishes what this gateway's transactions wait for and returns what
// the others have published. A failure leaves what others do unknown.
func (l *waitLog) exchange(ctx context.Context, epoch int64, mine []waitingTx, stale time.Duration) []waitingTx {
	if time.Now().Before(l.pause) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, waitLogBound)
	defer cancel()
	if l.published != 0 && l.published != epoch {
		l.withdrawNow(ctx)
	}
	rows, err := l.exec(ctx, exchangeWaitsSQL, strconv.FormatInt(epoch, 10), publishWaits(mine))
	if err != nil {
		l.pause = time.Now().Add(silentFor)
		return nil
	}
	l.published = epoch
	return readPublished(rows, stale)
}

// withdraw takes back what was published: nothing waits any more. If that fails,
// what is there is stale soon.
func (l *waitLog) withdraw(ctx context.Context) {
	if l.published == 0 || time.Now().Before(l.pause) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, waitLogBound)
	defer cancel()
	l.withdrawNow(ctx)
}

func (l *waitLog) withdrawNow(ctx context.Context) {
	_, err := l.exec(ctx, "DELETE FROM pgpact.lock_waits WHERE epoch=$1::bigint", strconv.FormatInt(l.published, 10))
	if err != nil {
		l.pause = time.Now().Add(silentFor)
		return
	}
	l.published = 0
}

func (l *waitLog) exec(ctx context.Context, sql string, args ...string) ([][]string, error) {
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	return l.conn.exec(ctx, sql, args...)
}

// connect makes the connection unless it is there.
func (l *waitLog) connect(ctx context.Context) error {
	if l.conn != nil && l.conn.fit() {
		return nil
	}
	conn, err := l.log.connect(ctx, "lock waits")
	l.conn = conn // nil after an error
	return err
}

func (l *waitLog) close() {
	if l.conn != nil {
		l.conn.close()
		l.conn = nil
	}
}

// readWaits reads what all other gateways have published.
func (l *decisionLog) readWaits(ctx context.Context, epoch int64, stale time.Duration) ([]waitingTx, error) {
	rows, err := l.query(ctx, "WITH "+aliveSQL+" "+readWaitsSQL, strconv.FormatInt(epoch, 10))
	return readPublished(rows, stale), err
}

func publishWaits(txs []waitingTx) string {
	list := make([]publishedTx, 0, len(txs))
	for _, tx := range txs {
		p := publishedTx{Serial: tx.name.Serial}
		if !tx.id.IsZero() {
			p.ID = tx.id.String()
		}
		for _, b := range tx.branches {
			branch := publishedBranch{Node: b.node, PID: b.PID, VXID: b.VXID}
			for _, w := range tx.waits {
				if w.from == b {
					branch.Since = w.since
				}
			}
			p.Branches = append(p.Branches, branch)
		}
		list = append(list, p)
	}
	text, _ := json.Marshal(list) // numbers and names only
	return string(text)
}

// readPublished reads rows of readWaitsSQL. What cannot be read (a newer
// version's) is not known.
func readPublished(rows [][]string, stale time.Duration) []waitingTx {
	var txs []waitingTx
	for _, row := range rows {
		epoch, err1 := strconv.ParseInt(row[0], 10, 64)
		age, err2 := strconv.ParseInt(row[1], 10, 64)
		var list []publishedTx
		if err1 != nil || err2 != nil || json.Unmarshal([]byte(row[3]), &list) != nil {
			continue
		}
		able := row[2] == "true" && time.Duration(age)*time.Microsecond < stale
		for _, p := range list {
			tx := waitingTx{name: txName{Epoch: epoch, Serial: p.Serial}, able: able}
			tx.id, _ = participant.ParseID(p.ID) // zero for none
			for _, b := range p.Branches {
				h := holderAt{b.Node, participant.LockHolder{PID: b.PID, VXID: b.VXID}}
				tx.branches = append(tx.branches, h)
				if b.Since != 0 {
					tx.waits = append(tx.waits, waitEdge{from: h, since: b.Since})
				}
			}
			txs = append(txs, tx)
		}
	}
	return txs
}
