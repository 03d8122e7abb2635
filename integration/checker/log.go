package checker

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// LogSettings are what Log needs of the nodes: a line for every statement that has succeeded, with its session.
func LogSettings() map[string]string {
	return map[string]string{
		"log_min_duration_statement": "0", "log_line_prefix": "%m %c ", "log_timezone": "UTC", "log_min_error_statement": "error",
	}
}

// Decision is a row of the decision log.
type Decision struct {
	ID           string // epoch/sequence
	Outcome      Told
	Participants []string
	DecidedAt    time.Time
	Finished     bool
}

// Records are what the servers show of transactions when all is over.
type Records struct {
	Cluster   string
	Epochs    []string
	Decisions []Decision
	Nodes     map[string]NodeRecords
}

// NodeRecords are a node's part of Records.
type NodeRecords struct {
	Branches []string // ids of visible branch records
	Prepared []string // gids
	Log      string   // of the server, from its first start on
}

// ReadDecisions reads the decision database's part of Records.
func ReadDecisions(ctx context.Context, conn *pgx.Conn) (*Records, error) {
	r := &Records{Nodes: map[string]NodeRecords{}}
	if err := conn.QueryRow(ctx, "select id from pgpact.cluster").Scan(&r.Cluster); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, "select epoch::text from pgpact.gateways")
	if err != nil {
		return nil, err
	}
	if r.Epochs, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return nil, err
	}
	rows, err = conn.Query(ctx, "select epoch || '/' || sequence, outcome, participants, decided_at, finished_at is not null from pgpact.transactions")
	if err != nil {
		return nil, err
	}
	r.Decisions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Decision])
	return r, err
}

// ReadNode reads a node's part of Records; its log is the caller's to add.
func ReadNode(ctx context.Context, conn *pgx.Conn) (n NodeRecords, err error) {
	rows, err := conn.Query(ctx, "select epoch || '/' || sequence from pgpact.branches")
	if err != nil {
		return n, err
	}
	if n.Branches, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return n, err
	}
	if rows, err = conn.Query(ctx, "select gid from pg_prepared_xacts where gid like 'pgpact/%'"); err != nil {
		return n, err
	}
	n.Prepared, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return n, err
}

// event is a statement about a gid that a node's log says has succeeded. Of a PREPARE that is not so sure: a failed block answers it with
// ROLLBACK and no error.
type event struct {
	what, gid, session string
	at                 time.Time // when it had ended, to the millisecond
}

var (
	logHead  = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC (\S+) LOG:  duration: `)
	logEvent = regexp.MustCompile(`(?i)(PREPARE TRANSACTION|COMMIT PREPARED|ROLLBACK PREPARED) '(pgpact/[^']+)'`)
)

// readLog finds the events of a server log written with LogSettings. A statement of several lines goes on in lines that begin with a tab.
func readLog(text string) []event {
	var events []event
	var head []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "\t") {
			head = nil
			if strings.Contains(line, " LOG:  duration: ") {
				head = logHead.FindStringSubmatch(line)
			}
		}
		if head == nil || !strings.Contains(line, "'pgpact/") {
			continue
		}
		for _, found := range logEvent.FindAllStringSubmatch(line, -1) {
			at, _ := time.Parse("2006-01-02 15:04:05.000", head[1]) // the expression has seen to its form
			events = append(events, event{what: strings.ToUpper(found[1]), gid: found[2], session: head[2], at: at})
		}
	}
	return events
}

// Log checks every gid and every branch record against the decisions.
func Log(r *Records) []error {
	c := &logCheck{r: r, decisions: map[string]*Decision{}, shown: map[string][]string{}}
	for i, d := range r.Decisions {
		c.decisions[d.ID] = &r.Decisions[i]
	}
	for name, node := range r.Nodes {
		c.records(name, node)
		c.events(name, readLog(node.Log))
	}
	for _, d := range r.Decisions {
		c.decision(&d)
	}
	slices.SortFunc(c.errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return c.errs
}

type logCheck struct {
	r         *Records
	decisions map[string]*Decision
	shown     map[string][]string // id -> nodes with its branch record
	errs      []error
}

func (c *logCheck) report(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("log: "+format, args...))
}

func (c *logCheck) outcome(id string) Told {
	if d := c.decisions[id]; d != nil {
		return d.Outcome
	}
	return ""
}

// records: what a node shows must have been decided, and nothing may be left prepared.
func (c *logCheck) records(node string, n NodeRecords) {
	for _, id := range n.Branches {
		c.shown[id] = append(c.shown[id], node)
		if outcome := c.outcome(id); outcome != Committed {
			c.report("node %s shows the branch record of %s, whose decision is %q", node, id, outcome)
		}
	}
	for _, gid := range n.Prepared {
		c.report("node %s still has %s prepared", node, gid)
	}
}

// decision: a committed transaction is visible on exactly its participants, and what is decided is finished.
func (c *logCheck) decision(d *Decision) {
	if d.Outcome == Committed {
		for _, node := range d.Participants {
			if !slices.Contains(c.shown[d.ID], node) {
				c.report("%s is committed, and node %s does not show its branch record", d.ID, node)
			}
		}
		for _, node := range c.shown[d.ID] {
			if !slices.Contains(d.Participants, node) {
				c.report("node %s shows the branch record of %s, and is not among its participants %v", node, d.ID, d.Participants)
			}
		}
	}
	if !d.Finished {
		c.report("%s is %s and not marked finished", d.ID, d.Outcome)
	}
}

// events: what was done to a gid on a node must have been decided, and decided first (I1, I3, I4), and the gid must be one of ours (I7).
func (c *logCheck) events(node string, events []event) {
	if len(events) == 0 && len(c.r.Nodes[node].Branches) > 0 {
		c.report("the log of node %s tells of no gid, and it has branch records: it cannot be judged", node) // blind is not content
	}
	preparedBy := map[string]string{}
	for _, e := range events {
		part := strings.Split(e.gid, "/")
		// More parts are of a branch that has only locked rows (what it comes after) and of an idempotency key (its tag).
		if len(part) < 5 || len(part) > 7 || part[1] != c.r.Cluster || part[4] != node || !slices.Contains(c.r.Epochs, part[2]) {
			c.report("node %s was told %s '%s', which is no gid of this cluster for it", node, e.what, e.gid)
			continue
		}
		id := part[2] + "/" + part[3]
		d, outcome := c.decisions[id], c.outcome(id)
		switch {
		case e.what == "PREPARE TRANSACTION":
			preparedBy[e.gid] = e.session
		case e.what == "COMMIT PREPARED" && outcome != Committed:
			c.report("node %s committed %s, whose decision is %q", node, id, outcome)
		case e.what == "COMMIT PREPARED" && e.at.Add(time.Millisecond).Before(d.DecidedAt):
			c.report("node %s had committed %s at %s, %v before it was decided", node, id, e.at.Format("15:04:05.000"), d.DecidedAt.Sub(e.at))
		case e.what == "ROLLBACK PREPARED" && outcome == Committed:
			c.report("node %s rolled back %s, which is committed", node, id)
		case e.what == "ROLLBACK PREPARED" && outcome == "" && preparedBy[e.gid] != e.session:
			c.report("node %s rolled back %s in a session that had not prepared it, and no abort is recorded", node, id)
		}
	}
}
