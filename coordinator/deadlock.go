package coordinator

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
)

// Deadlocks that span nodes, also across gateways (docs/adr/0014). Two
// transactions that lock in opposite order on two nodes are no deadlock to either
// node, and would wait for ever.
//
// Every gateway looks, but only while a statement of its own has waited for its
// node longer than DeadlockTimeout, and at all nodes only if that node shows that
// it waits for a lock. One look is one statement on each node. A cycle counts
// when all of its edges were there in two looks, with the same waits and the same
// transactions: then they were all there together between the looks. Which server
// processes on several nodes are one transaction each gateway knows of its own,
// and publishes of those that wait (waitlog.go). The victim follows from the
// cycle alone, so all gateways find the same; its own gateway cancels it.

const (
	// lookBound bounds one look at one node. What a node does not tell within it
	// is not known, and no victim comes of it. It must leave a busy machine its
	// time: with 2 s, and 40 processes to 2 processors, nodes that did answer were
	// left out again and again.
	lookBound = 5 * time.Second
	// silentFor is how long a node that has not answered is left out: it must not
	// make every look slow.
	silentFor = 5 * time.Second
	// actWithin is how old a look may be when its victim is cancelled. A gateway
	// that was stopped in between knows nothing.
	actWithin = 2 * time.Second
	// cancelAgain is the pause between two cancels of one victim.
	cancelAgain = time.Second
)

// detector finds them.
type detector struct {
	c        *Coordinator
	interval time.Duration

	stalls map[*participant.Conn]stall
	before []waitEdge // of the last look
	silent map[string]time.Time
	log    waitLog
	asked  map[*Transaction]time.Time // victims, and when they were cancelled
}

// stall is since when a connection has waited for one answer.
type stall struct {
	turn  uint64
	since time.Time
}

func newDetector(c *Coordinator) *detector {
	interval := min(max(c.cfg.DeadlockTimeout/4, 10*time.Millisecond), 250*time.Millisecond)
	return &detector{
		c: c, interval: interval, stalls: map[*participant.Conn]stall{}, silent: map[string]time.Time{},
		log: waitLog{log: c.log}, asked: map[*Transaction]time.Time{},
	}
}

func (d *detector) run(ctx context.Context) {
	timer := time.NewTimer(d.interval)
	defer timer.Stop()
	defer d.log.close()
	d.connect(ctx)
	soon := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			// The second look at a cycle need not wait; one that comes to nothing is followed by a whole pause.
			if soon = d.tick(ctx) && !soon; soon {
				timer.Reset(d.interval / 10)
			} else {
				timer.Reset(d.interval)
			}
		}
	}
}

// connect makes the connections for looks before they are needed: when there is a
// deadlock there may be none to be had. What is not there by then is made then.
func (d *detector) connect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, d.c.cfg.ConnectTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, node := range d.c.cfg.Nodes {
		wg.Go(func() { _, _ = node.LockWaits(ctx) })
	}
	wg.Go(func() { _ = d.log.connect(ctx) })
	wg.Wait()
}

// tick looks once, if there is a reason to. It tells whether another look is
// wanted soon: there are cycles that one look has seen.
func (d *detector) tick(ctx context.Context) (soon bool) {
	own := d.c.active.waiting()
	overdue := d.overdue(own, time.Now())
	if len(overdue) == 0 {
		d.rest(ctx)
		return false
	}
	looks := d.look(ctx, func(name string) bool { return overdue[name] != nil })
	if !waitForLocks(overdue, looks) {
		d.rest(ctx) // a long statement, or a slow client
		return false
	}
	maps.Copy(looks, d.look(ctx, func(name string) bool { return overdue[name] == nil }))
	looked := time.Now()
	edges, preparing, prepared := edgesOf(looks)
	mine, byName := d.own(own, looks)
	others := d.log.exchange(ctx, d.c.epoch.Load().number, mine, d.stale())
	g := &waitGraph{edges: edges, preparing: preparing, prepared: prepared, txs: append(mine, others...)}
	seen := len(findDeadlocks(g))
	g.edges = confirmed(d.before, edges)
	d.before = edges
	maps.DeleteFunc(d.asked, func(_ *Transaction, at time.Time) bool { return time.Since(at) >= cancelAgain })
	deadlocks := findDeadlocks(g)
	if time.Since(looked) > actWithin {
		return false
	}
	for i := range deadlocks {
		d.resolve(&deadlocks[i], byName)
	}
	return seen > len(deadlocks)
}

// rest forgets the last look: nothing of ours waits.
func (d *detector) rest(ctx context.Context) {
	d.before = nil
	clear(d.asked)
	d.log.withdraw(ctx)
}

// stale is from when on what a gateway has published says that it is not at
// work: others are cancelled in its transactions' place.
func (d *detector) stale() time.Duration { return max(3*time.Second, 10*d.interval) }

// overdue are, by node, the server processes that have not answered for
// DeadlockTimeout.
func (d *detector) overdue(own []ownTx, now time.Time) map[string]map[uint32]bool {
	stalls := make(map[*participant.Conn]stall, len(d.stalls))
	overdue := map[string]map[uint32]bool{}
	for _, tx := range own {
		for _, b := range tx.branches {
			if !b.waiting() {
				continue
			}
			st := d.stalls[b.conn]
			if st.turn != b.turn {
				st = stall{turn: b.turn, since: now}
			}
			stalls[b.conn] = st
			if now.Sub(st.since) < d.c.cfg.DeadlockTimeout-d.interval/2 {
				continue
			}
			if overdue[b.node] == nil {
				overdue[b.node] = map[uint32]bool{}
			}
			overdue[b.node][b.pid] = true
		}
	}
	d.stalls = stalls
	return overdue
}

func waitForLocks(overdue map[string]map[uint32]bool, looks map[string]participant.LockLook) bool {
	for node, look := range looks {
		for _, w := range look.Waits {
			if overdue[node][w.Waiter.PID] {
				return true
			}
		}
	}
	return false
}

// look asks the nodes that are wanted, all at once. One that does not answer is
// missing, now and for a while.
func (d *detector) look(ctx context.Context, wanted func(name string) bool) map[string]participant.LockLook {
	looks := map[string]participant.LockLook{}
	var mu sync.Mutex // guards looks and d.silent
	var wg sync.WaitGroup
	for _, node := range d.c.cfg.Nodes {
		name := node.Name()
		mu.Lock()
		silent := time.Now().Before(d.silent[name])
		mu.Unlock()
		if silent || !wanted(name) {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookBound)
			defer cancel()
			look, err := node.LockWaits(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				d.silent[name] = time.Now().Add(silentFor)
				if ctx.Err() == nil || context.Cause(ctx) == context.DeadlineExceeded { //nolint:errorlint // the very same
					d.c.cfg.Logger.Warn("lock waits cannot be seen: deadlocks over this node are not found meanwhile", "node", name, "error", err)
				}
				return
			}
			looks[name] = look
		})
	}
	wg.Wait()
	return looks
}

// own is what is known of this gateway's own transactions after a look: those of
// which a wait was seen that is still the one that was under way before the look.
func (d *detector) own(before []ownTx, looks map[string]participant.LockLook) (list []waitingTx, byName map[txName]*ownTx) {
	return ownWaits(d.c.epoch.Load().number, before, looks)
}

func ownWaits(epoch int64, before []ownTx, looks map[string]participant.LockLook) (list []waitingTx, byName map[txName]*ownTx) {
	byName = map[txName]*ownTx{}
	waits := map[string]map[uint32]*participant.LockWait{}
	for node, look := range looks {
		waits[node] = map[uint32]*participant.LockWait{}
		for i := range look.Waits {
			waits[node][look.Waits[i].Waiter.PID] = &look.Waits[i]
		}
	}
	for i := range before {
		tx := &before[i]
		known := waitingTx{name: txName{Epoch: epoch, Serial: tx.t.serial}, id: tx.id, able: true}
		for _, b := range tx.branches {
			if vxid, ok := looks[b.node].VXIDs[b.pid]; ok {
				known.branches = append(known.branches, holderAt{b.node, participant.LockHolder{PID: b.pid, VXID: vxid}})
			}
			w := waits[b.node][b.pid]
			if w != nil && b.waiting() && b.conn.Turn() == b.turn {
				known.waits = append(known.waits, waitEdge{from: holderAt{b.node, w.Waiter}, since: w.Since})
			}
		}
		if len(known.waits) > 0 {
			list = append(list, known)
			byName[known.name] = tx
		}
	}
	return list, byName
}

// resolve cancels a deadlock's victim if it is ours.
func (d *detector) resolve(found *deadlock, byName map[txName]*ownTx) {
	if found.victim == nil {
		return // somebody's whom no gateway at work knows
	}
	tx := byName[found.victim.name]
	if tx == nil {
		return
	}
	if _, asked := d.asked[tx.t]; asked {
		return
	}
	detail := found.detail()
	if !tx.cancelAs(deadlockError(detail)) {
		return
	}
	d.asked[tx.t] = time.Now()
	d.c.cfg.Logger.Warn("deadlock detected", "detail", detail, "victim", found.victim.String(), "transactions", len(found.cycle))
}

// deadlockError is what the victim hears, in Postgres's words.
func deadlockError(detail string) *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "40P01", Message: "deadlock detected",
		Detail: detail, Hint: "See server log for query details.",
	}
}
