package checker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// flaw is what a hand-written two-phase commit does wrong.
type flaw string

const (
	flawless         flaw = "none"
	decidesLate      flaw = "the decision is written after the first COMMIT PREPARED"
	abortsUnwritten  flaw = "recovery rolls back without writing the abort"
	tagUnchecked     flaw = "the tag of the vote is not looked at"
	discardsOnSilent flaw = "a branch whose COMMIT PREPARED is not answered in time is discarded"
)

// fate is what happens to one transfer on its way. Every fate is met in a run of every flaw.
type fate string

const (
	nothing       fate = "nothing"
	blockFails    fate = "a statement on node b fails, and nobody has looked at its answer"
	diesUndecided fate = "its gateway dies after the votes"
	diesBetween   fate = "its gateway dies after the first COMMIT PREPARED"
	sleeps        fate = "its gateway sleeps after the votes, is presumed dead, and wakes up"
	silence       fate = "the second COMMIT PREPARED is not answered"
)

var fates = []fate{nothing, blockFails, diesUndecided, diesBetween, sleeps, silence}

// TestBrokenProtocolsAreCaught runs two-phase commit, written by hand, against real nodes: done well, no checker finds anything; with one
// flaw, those that must see it do. The flaws are in this file and nowhere else.
func TestBrokenProtocolsAreCaught(t *testing.T) {
	for _, c := range []struct {
		flaw      flaw
		bank, log string // what they must find
	}{
		{flaw: flawless},
		{decidesLate, "is torn", "before it was decided"},
		{abortsUnwritten, "is lost", "no abort is recorded"},
		{tagUnchecked, "is torn", "does not show its branch record"},
		{discardsOnSilent, "is torn", "which is committed"},
	} {
		t.Run(string(c.flaw), func(t *testing.T) {
			p := newProtocol(t, c.flaw)
			for i, fate := range fates {
				p.transfer(t, fmt.Sprintf("t%d", i), fate)
				p.recover(t)
			}
			for i, made := range p.history {
				t.Logf("%s: the client was told %s", fates[i], made.Told)
			}
			bank, log := Bank(p.history, p.books(t), 1000), Log(p.records(t))
			if c.flaw == flawless {
				if err := errors.Join(append(bank, log...)...); err != nil {
					t.Errorf("nothing is wrong, and the checkers say:\n%v", err)
				}
				return
			}
			t.Logf("bank: %v", bank)
			t.Logf("log: %v", log)
			wantFinding(t, "bank", bank, c.bank)
			wantFinding(t, "log", log, c.log)
		})
	}
}

// protocol is two-phase commit as in DESIGN section 4, with at most one flaw, and no more of it than these tests need: two accounts, one
// transfer at a time.
type protocol struct {
	flaw     flaw
	cluster  *harness.Cluster
	id       string
	epoch    int64
	sequence int64
	history  []Transfer
	log      *pgx.Conn
}

func newProtocol(t *testing.T, flaw flaw) *protocol {
	t.Helper()
	p := &protocol{flaw: flaw, cluster: harness.NewCluster(t, harness.Options{Settings: LogSettings()})}
	harness.Migrate(t, p.cluster.WriteConfig(t))
	var number [8]byte
	_, _ = rand.Read(number[:])
	p.epoch = int64(binary.BigEndian.Uint64(number[:])>>1) | 1
	p.log = p.cluster.Coordinator().Open(t)
	if err := p.log.QueryRow(t.Context(), "select id from pgpact.cluster").Scan(&p.id); err != nil {
		t.Fatal(err)
	}
	p.exec(t, p.log, fmt.Sprintf("insert into pgpact.gateways(epoch, name) values (%d, 'by hand')", p.epoch))
	for _, node := range p.cluster.Nodes() {
		conn := node.Open(t)
		p.exec(t, conn, "create table public.journal(transfer text, account text, delta bigint)")
		p.exec(t, conn, fmt.Sprintf("insert into accounts values ('on-%s', 1000)", node.Name()))
	}
	return p
}

func (p *protocol) exec(t *testing.T, conn *pgx.Conn, text string) string {
	t.Helper()
	tag, err := execute(conn, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return tag
}

// execute sends one simple message and returns the last tag.
func execute(conn *pgx.Conn, text string) (tag string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, text).ReadAll()
	if err != nil || len(results) == 0 {
		return "", err
	}
	return results[len(results)-1].CommandTag.String(), nil
}

func (p *protocol) gid(node string) string {
	return fmt.Sprintf("pgpact/%s/%d/%d/%s", p.id, p.epoch, p.sequence, node)
}

// settle writes a decision unless there is one, and returns the one that is there.
func (p *protocol) settle(t *testing.T, sequence int64, outcome Told) (decided Told) {
	t.Helper()
	err := p.log.QueryRow(t.Context(), `insert into pgpact.transactions(epoch, sequence, outcome, participants, role) values ($1, $2, $3, '{a,b}', 'hand')
		on conflict (epoch, sequence) do update set epoch = excluded.epoch returning outcome`, p.epoch, sequence, outcome).Scan(&decided)
	if err != nil {
		t.Fatal(err)
	}
	return decided
}

// transfer moves 1 from node a to node b, and meets its fate.
func (p *protocol) transfer(t *testing.T, name string, fate fate) {
	t.Helper()
	p.sequence++
	made := Transfer{Name: name, Told: Unknown, Legs: []Leg{{"a", "on-a", -1}, {"b", "on-b", 1}}}
	defer func() { p.history = append(p.history, made) }()
	conns := map[string]*pgx.Conn{}
	yes := true
	for _, leg := range made.Legs {
		conn := p.cluster.Node(leg.Node).Open(t)
		conns[leg.Node] = conn
		p.exec(t, conn, fmt.Sprintf("begin; update accounts set balance = balance + %d where id = '%s'; insert into journal values ('%s', '%s', %d)",
			leg.Delta, leg.Account, name, leg.Account, leg.Delta))
		if fate == blockFails && leg.Node == "b" {
			_, _ = execute(conn, "select 1/0") // nobody looks
		}
		_, _ = execute(conn, fmt.Sprintf("insert into pgpact.branches values (%d, %d, '{a,b}')", p.epoch, p.sequence)) // the vote tells
		tag := p.exec(t, conn, "prepare transaction '"+p.gid(leg.Node)+"'")
		yes = yes && (tag == "PREPARE TRANSACTION" || p.flaw == tagUnchecked)
	}
	if !yes {
		p.exec(t, conns["a"], "rollback prepared '"+p.gid("a")+"'") // in the session that prepared: its live gateway gives up
		made.Told = Aborted
		return
	}
	switch fate {
	case diesUndecided:
		return
	case sleeps:
		p.recover(t) // others have presumed it dead
	}
	if p.flaw == decidesLate {
		_, _ = execute(conns["a"], "commit prepared '"+p.gid("a")+"'") // recovery may have been faster
		if fate == diesBetween {
			return
		}
		// The log's clock has milliseconds: the decision comes so much later that it shows.
		p.exec(t, conns["b"], "select pg_sleep(0.02)")
	}
	if p.settle(t, p.sequence, Committed) == Aborted {
		made.Told = Aborted // recovery has rolled back, or will
		return
	}
	p.finish(conns, fate)
	if fate != diesBetween {
		made.Told = Committed
	}
}

// finish is phase two. "No such gid" is taken for success: recovery may have been faster.
func (p *protocol) finish(conns map[string]*pgx.Conn, fate fate) {
	_, _ = execute(conns["a"], "commit prepared '"+p.gid("a")+"'")
	switch {
	case fate == diesBetween:
	case fate == silence && p.flaw == discardsOnSilent:
		_, _ = execute(conns["b"], "rollback prepared '"+p.gid("b")+"'")
	case fate == silence: // left to recovery
	default:
		_, _ = execute(conns["b"], "commit prepared '"+p.gid("b")+"'")
	}
}

// recover ends what is prepared, as decided, and presumes the abort of what is not.
func (p *protocol) recover(t *testing.T) {
	t.Helper()
	for _, node := range p.cluster.Nodes() {
		conn := node.Open(t)
		rows, err := conn.Query(t.Context(), "select split_part(gid, '/', 4)::bigint from pg_prepared_xacts order by 1")
		if err != nil {
			t.Fatal(err)
		}
		sequences, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			t.Fatal(err)
		}
		for _, sequence := range sequences {
			verb := "rollback prepared"
			if p.outcome(t, sequence) == Committed {
				verb = "commit prepared"
			}
			p.exec(t, conn, fmt.Sprintf("%s 'pgpact/%s/%d/%d/%s'", verb, p.id, p.epoch, sequence, node.Name()))
		}
	}
	p.exec(t, p.log, "update pgpact.transactions set finished_at = now() where finished_at is null")
}

// outcome is how recovery decides.
func (p *protocol) outcome(t *testing.T, sequence int64) Told {
	t.Helper()
	if p.flaw != abortsUnwritten {
		return p.settle(t, sequence, Aborted)
	}
	var decided Told
	err := p.log.QueryRow(t.Context(), "select outcome from pgpact.transactions where epoch = $1 and sequence = $2", p.epoch, sequence).Scan(&decided)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	return decided
}

func (p *protocol) books(t *testing.T) map[string]*Book {
	t.Helper()
	books := map[string]*Book{}
	for _, node := range p.cluster.Nodes() {
		book, err := ReadBook(t.Context(), node.Open(t))
		if err != nil {
			t.Fatal(err)
		}
		books[node.Name()] = book
	}
	return books
}

func (p *protocol) records(t *testing.T) *Records {
	t.Helper()
	records, err := ReadDecisions(t.Context(), p.cluster.Coordinator().Open(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range p.cluster.Nodes() {
		found, err := ReadNode(t.Context(), node.Open(t))
		if err != nil {
			t.Fatal(err)
		}
		found.Log = node.Log()
		records.Nodes[node.Name()] = found
	}
	return records
}

// TestLostUpdateIsCaught: a counter that reads and then writes what it has computed, against a real node.
func TestLostUpdateIsCaught(t *testing.T) {
	cluster := harness.NewCluster(t, harness.Options{Nodes: []string{"a"}})
	conns := []*pgx.Conn{cluster.Node("a").Open(t), cluster.Node("a").Open(t)}
	if _, err := execute(conns[0], "create table n(n bigint); insert into n values (0)"); err != nil {
		t.Fatal(err)
	}
	for _, atomic := range []bool{true, false} {
		if _, err := execute(conns[0], "update n set n = 0"); err != nil {
			t.Fatal(err)
		}
		history := make([]Operation, 2)
		read := make([]int64, 2)
		for i := range history {
			history[i] = Operation{Key: "n", Client: i, Delta: int64(i + 1), Call: time.Now(), Told: Committed}
			if err := conns[i].QueryRow(t.Context(), "select n from n").Scan(&read[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i := range history {
			statement := fmt.Sprintf("update n set n = n + %d returning n", history[i].Delta)
			if !atomic {
				statement = fmt.Sprintf("update n set n = %d + %d returning n", read[i], history[i].Delta)
			}
			if err := conns[i].QueryRow(t.Context(), statement).Scan(&history[i].Value); err != nil {
				t.Fatal(err)
			}
			history[i].Return = time.Now()
		}
		if errs := Linear(history, time.Minute); (len(errs) == 0) != atomic {
			t.Errorf("atomic %t: %v", atomic, errs)
		}
	}
}

// TestServerLeaksAreCaught: what a gateway may leave behind, left behind.
func TestServerLeaksAreCaught(t *testing.T) {
	cluster := harness.NewCluster(t, harness.Options{Nodes: []string{"a"}})
	node := cluster.Node("a")
	super := node.OpenSuper(t)
	look := func(limit int) []error { return ServerLeaks(t.Context(), super, harness.Role, limit) }
	conn := node.Open(t)
	if errs := look(1); len(errs) != 0 {
		t.Errorf("one idle connection of one: %v", errs)
	}
	wantFinding(t, "a connection too many", look(0), "connections: 1")
	if _, err := execute(conn, "begin; select 1"); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, "an open transaction", look(1), "idle in transaction")
	if _, err := execute(conn, "create table n(n int); prepare transaction 'left'"); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, "a prepared transaction", look(1), "prepared: left")
	if _, err := execute(conn, "rollback prepared 'left'"); err != nil {
		t.Fatal(err)
	}
}
