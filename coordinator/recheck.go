package coordinator

import (
	"context"
	"errors"
	"strconv"

	"github.com/pgpact/pgpact/participant"
)

// A node's server may change: a standby is promoted, a backup restored. What
// the new one does not have of what the old one had acknowledged is damage, and
// is found because the node's finished decisions within retention are made
// unfinished again: the sweep that marks them finished looks at the node.

// recheckPage is how many decisions one statement looks through: some tenths of
// a second, whatever the size of the log.
const recheckPage = 20_000

// recheck is how far the decisions of a node have been made unfinished again
// after its server became this one.
type recheck struct {
	identity participant.Identity
	after    participant.ID
}

// noteIdentities tells the decision log whom the nodes' names stand for now.
func (r *recoverer) noteIdentities(ctx context.Context) error {
	var errs []error
	for _, node := range r.c.cfg.Nodes {
		errs = append(errs, r.noteIdentity(ctx, node))
	}
	return errors.Join(errs...)
}

func (r *recoverer) noteIdentity(ctx context.Context, node *participant.Node) error {
	name, identity := node.Name(), node.Identity()
	if identity == nil || *identity == r.noted(name) {
		return nil
	}
	// First: from then on no mark counts that the former server stands for
	// (finished.go), so that the check does not miss any.
	unchecked, err := r.c.log.noteNode(ctx, name, *identity)
	if err != nil {
		return err
	}
	if unchecked {
		r.c.cfg.Logger.Warn("a node's server has changed (failover or restore): its finished transactions are checked again",
			"node", name, "system_identifier", identity.SystemIdentifier, "timeline", identity.Timeline)
		if err := r.recheck(ctx, name, *identity); err != nil {
			return err
		}
		// Only now: a gateway that dies before leaves the check to the next one.
		if err := r.c.log.noteChecked(ctx, name, *identity); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.identities[name] = *identity
	delete(r.rechecks, name)
	r.mu.Unlock()
	return nil
}

// recheck makes the node's finished decisions unfinished again, page by page. It
// goes on where it was when its time was up.
func (r *recoverer) recheck(ctx context.Context, name string, identity participant.Identity) error {
	r.mu.Lock()
	at := r.rechecks[name]
	r.mu.Unlock()
	if at.identity != identity {
		at = recheck{identity: identity}
	}
	for {
		last, more, err := r.c.log.unfinishPage(ctx, name, at.after, r.c.cfg.Retention.Seconds())
		if err != nil || !more {
			return err
		}
		at.after = last
		r.mu.Lock()
		r.rechecks[name] = at
		r.mu.Unlock()
	}
}

func (r *recoverer) noted(name string) participant.Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.identities[name]
}

// noteNode records which server the node is, and tells whether its finished
// decisions are to be checked: it was another server when it was noted last, or
// the check of an earlier change is not over. A timeline that is over does not
// come back: who saw the node before a failover is not believed after it.
func (l *decisionLog) noteNode(ctx context.Context, name string, now participant.Identity) (unchecked bool, err error) {
	_, err = l.query(ctx, `INSERT INTO pgpact.nodes(name,system_identifier,timeline,seen_at) VALUES($1::text,$2::text,$3::integer,clock_timestamp())
 ON CONFLICT (name) DO UPDATE SET system_identifier=excluded.system_identifier, timeline=excluded.timeline, seen_at=excluded.seen_at,
 unchecked=nodes.unchecked OR nodes.system_identifier IS NOT NULL
 WHERE (nodes.system_identifier,nodes.timeline) IS DISTINCT FROM (excluded.system_identifier,excluded.timeline)
 AND NOT coalesce(nodes.system_identifier=excluded.system_identifier AND nodes.timeline>excluded.timeline, false)`,
		name, now.SystemIdentifier, now.Timeline)
	if err != nil {
		return false, err
	}
	rows, err := l.query(ctx, `SELECT name FROM pgpact.nodes WHERE name=$1::text AND unchecked`, name)
	return len(rows) == 1, err
}

// noteFirst records which server the node is if nothing is known of that.
func (l *decisionLog) noteFirst(ctx context.Context, name string, now participant.Identity) error {
	_, err := l.query(ctx, `INSERT INTO pgpact.nodes(name,system_identifier,timeline,seen_at) VALUES($1::text,$2::text,$3::integer,clock_timestamp())
 ON CONFLICT (name) DO UPDATE SET system_identifier=excluded.system_identifier, timeline=excluded.timeline, seen_at=excluded.seen_at
 WHERE nodes.system_identifier IS NULL`, name, now.SystemIdentifier, now.Timeline)
	return err
}

// noteChecked records that the check is over, if the node is still that server.
func (l *decisionLog) noteChecked(ctx context.Context, name string, now participant.Identity) error {
	_, err := l.query(ctx, `UPDATE pgpact.nodes SET unchecked=false WHERE name=$1::text AND (system_identifier,timeline)=($2::text,$3::integer)`,
		name, now.SystemIdentifier, now.Timeline)
	return err
}

// unfinishPage makes those of a page of decisions unfinished again that the node
// took part in and that were finished within so many seconds. more is false when
// there was no page left.
func (l *decisionLog) unfinishPage(ctx context.Context, name string, after participant.ID, seconds float64) (last participant.ID, more bool, err error) {
	epoch, sequence := strconv.FormatInt(after.Epoch, 10), strconv.FormatInt(after.Sequence, 10)
	// The bound first: joined with the page, the planner would read the whole log.
	rows, err := l.query(ctx, `SELECT p.epoch||'/'||p.sequence FROM (SELECT epoch, sequence FROM pgpact.transactions
 WHERE (epoch,sequence)>($1::bigint,$2::bigint) ORDER BY epoch,sequence LIMIT `+strconv.Itoa(recheckPage)+`) p
 ORDER BY p.epoch DESC, p.sequence DESC LIMIT 1`, epoch, sequence)
	if err != nil || len(rows) == 0 {
		return participant.ID{}, false, err
	}
	if last, err = participant.ParseID(rows[0][0]); err != nil {
		return participant.ID{}, false, err
	}
	_, err = l.query(ctx, `UPDATE pgpact.transactions SET finished_at=NULL
 WHERE (epoch,sequence)>($1::bigint,$2::bigint) AND (epoch,sequence)<=($3::bigint,$4::bigint)
 AND finished_at>clock_timestamp()-($5::text||' seconds')::interval AND (participants @> ARRAY[$6::text] OR participants='{}')`,
		epoch, sequence, strconv.FormatInt(last.Epoch, 10), strconv.FormatInt(last.Sequence, 10),
		strconv.FormatInt(int64(seconds), 10), name)
	return last, err == nil, err
}
