package coordinator

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgpact/pgpact/participant"
)

const (
	purgeInterval = time.Minute
	purgeBatch    = 1000
)

// purger forgets finished decisions past their retention (I6). It goes from the
// decision outwards, never by age on a node: first the branch records on the
// participants, then the decision and the horizon in one statement. A crash in
// between leaves a finished decision whose branch records are gone, which is
// outside every retention and so is never looked at again but by the next purge.
type purger struct {
	c    *Coordinator
	last time.Time
}

func newPurger(c *Coordinator) *purger { return &purger{c: c, last: time.Now()} }

// run purges, if it is time, until there is no whole batch left: decisions must
// not be made faster than they are forgotten.
func (p *purger) run(ctx context.Context) error {
	if time.Since(p.last) < purgeInterval {
		return nil
	}
	p.last = time.Now()
	if err := p.c.log.forgetProvenKeys(ctx, int64(p.c.cfg.KeyRetention.Seconds())); err != nil {
		return err
	}
	for {
		if forgotten, err := p.purge(ctx); err != nil || forgotten < purgeBatch {
			return err
		}
	}
}

// purge forgets at most one batch of each epoch and tells how many decisions it
// forgot. A live gateway's epoch is purged by itself alone: only it knows its
// transactions under way.
func (p *purger) purge(ctx context.Context) (forgotten int, err error) {
	// Not EXISTS, and in order: the planner would read all decisions, once for each epoch that has none.
	rows, err := p.c.log.query(ctx, `WITH `+aliveSQL+` SELECT g.epoch::text, g.forgotten::text FROM pgpact.gateways g
 WHERE (g.epoch NOT IN (SELECT epoch FROM alive) OR g.epoch=$1::bigint)
 AND (SELECT true FROM pgpact.transactions t WHERE t.epoch=g.epoch AND t.finished_at IS NOT NULL ORDER BY t.sequence LIMIT 1)`,
		strconv.FormatInt(p.c.epoch.Load().number, 10))
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		epoch, err1 := strconv.ParseInt(row[0], 10, 64)
		horizon, err2 := strconv.ParseInt(row[1], 10, 64)
		if err1 != nil || err2 != nil {
			return forgotten, fmt.Errorf("pgpact.gateways: epoch %q, forgotten %q", row[0], row[1])
		}
		n, err := p.purgeEpoch(ctx, epoch, horizon)
		forgotten += n
		if err != nil {
			return forgotten, err
		}
	}
	return forgotten, nil
}

// forgettable is a decision in front of the horizon.
type forgettable struct {
	id           participant.ID
	participants []string
}

// purgeEpoch moves the horizon over the decisions that may be forgotten, up to
// the first that may not.
func (p *purger) purgeEpoch(ctx context.Context, epoch, horizon int64) (int, error) {
	list, to, err := p.candidates(ctx, epoch, horizon)
	if err != nil || (to <= horizon && len(list) == 0) {
		return 0, err
	}
	if lowest := p.c.running.lowest(epoch); lowest > 0 && to >= lowest {
		to = lowest - 1
	}
	// Every node is asked, whether participant or not: the horizon moves only
	// over sequences of which none holds a prepared branch.
	for _, node := range p.c.cfg.Nodes {
		prepared, err := node.ListPrepared(ctx)
		if err != nil {
			return 0, err
		}
		for _, b := range prepared {
			if b.Epoch == epoch && b.Sequence <= to {
				to = b.Sequence - 1
			}
		}
	}
	for len(list) > 0 && list[len(list)-1].id.Sequence > to {
		list = list[:len(list)-1]
	}
	if to <= horizon && len(list) == 0 {
		return 0, nil
	}
	if err := p.deleteBranchRecords(ctx, list); err != nil {
		return 0, err
	}
	ids := make([]participant.ID, len(list))
	for i, f := range list {
		ids[i] = f.id
	}
	_, sequences := idArrays(ids)
	_, err = p.c.log.query(ctx, `WITH gone AS (DELETE FROM pgpact.transactions WHERE epoch=$1::bigint AND sequence=ANY($2::bigint[]))
 UPDATE pgpact.gateways SET forgotten=greatest(forgotten,$3::bigint) WHERE epoch=$1::bigint`,
		strconv.FormatInt(epoch, 10), sequences, strconv.FormatInt(to, 10))
	return len(list), err
}

// candidates are the decisions above the horizon that may be forgotten, and the
// sequence up to which nothing stands in the way. A keyed decision that is past
// the common retention but not past its own stays, and one that a person forced
// stays for ever; the horizon passes them: a record is looked for before the
// horizon is.
func (p *purger) candidates(ctx context.Context, epoch, horizon int64) (list []forgettable, to int64, err error) {
	// t.sequence: without the t, the order would be that of the column in the answer, which is text.
	seconds := func(d time.Duration) string { return strconv.FormatInt(int64(d.Seconds()), 10) }
	rows, err := p.c.log.query(ctx, `SELECT sequence::text, array_to_string(participants,','),
 coalesce(finished_at<clock_timestamp()-($3::text||' seconds')::interval,false)::text,
 (heuristic IS NOT NULL OR idempotency_key IS NOT NULL AND finished_at>=clock_timestamp()-($4::text||' seconds')::interval)::text
 FROM pgpact.transactions t WHERE epoch=$1::bigint AND (sequence>$2::bigint
 OR (heuristic IS NULL AND idempotency_key IS NOT NULL AND finished_at<clock_timestamp()-($4::text||' seconds')::interval)) ORDER BY t.sequence LIMIT `+strconv.Itoa(purgeBatch),
		strconv.FormatInt(epoch, 10), strconv.FormatInt(horizon, 10), seconds(p.c.cfg.Retention), seconds(p.c.cfg.KeyRetention))
	if err != nil {
		return nil, 0, err
	}
	to = horizon
	for _, row := range rows {
		sequence, err := strconv.ParseInt(row[0], 10, 64)
		if err != nil {
			return nil, 0, err
		}
		if row[2] != "true" && sequence > horizon {
			break
		}
		to = max(to, sequence)
		if row[2] != "true" || row[3] == "true" {
			continue
		}
		f := forgettable{id: participant.ID{Epoch: epoch, Sequence: sequence}}
		if row[1] != "" {
			f.participants = strings.Split(row[1], ",")
		}
		list = append(list, f)
	}
	return list, to, nil
}

// deleteBranchRecords removes the branch records on their participants, or on
// every node where the participants are not known.
func (p *purger) deleteBranchRecords(ctx context.Context, list []forgettable) error {
	for _, node := range p.c.cfg.Nodes {
		var ids []participant.ID
		for _, f := range list {
			if len(f.participants) == 0 || slices.Contains(f.participants, node.Name()) {
				ids = append(ids, f.id)
			}
		}
		if err := node.DeleteBranchRecords(ctx, ids); err != nil {
			return err
		}
	}
	return nil
}
