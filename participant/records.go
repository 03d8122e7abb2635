package participant

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"
)

// BranchRecord is what a branch leaves on its node, visible exactly when it has
// committed there (invariant I8).
type BranchRecord struct {
	// Participants of the transaction: those that changed rows first.
	Participants []string
	// Role and Key: under which idempotency key it has committed, "" for none. The
	// key travels with the data, as the proof does: the decision database may lose it.
	Role, Key string
}

// recordColumns are the columns that scanRecord reads.
const recordColumns = "epoch::text||'/'||sequence::text, pg_catalog.array_to_string(participants,','), coalesce(role,''), coalesce(idempotency_key,'')"

func scanRecord(row []string) (ID, BranchRecord, error) {
	id, err := ParseID(row[0])
	return id, BranchRecord{Participants: strings.Split(row[1], ","), Role: row[2], Key: row[3]}, err // no name holds a comma
}

// BranchRecords tells which of ids have a visible branch record here, that is,
// which have committed here. A failed read is "cannot know".
func (n *Node) BranchRecords(ctx context.Context, ids []ID) (map[ID]BranchRecord, error) {
	found, _, err := n.BranchRecordsSeen(ctx, ids)
	return found, err
}

// BranchRecordsSeen is BranchRecords and the server that showed them: after a
// failover its word counts no more. No server for no ids.
func (n *Node) BranchRecordsSeen(ctx context.Context, ids []ID) (map[ID]BranchRecord, Identity, error) {
	if len(ids) == 0 {
		return map[ID]BranchRecord{}, Identity{}, nil
	}
	return n.records(ctx, "(epoch,sequence) IN ("+idList(ids)+")")
}

// RecordsOfKey are the branch records here that bear the role's key.
func (n *Node) RecordsOfKey(ctx context.Context, role, key string) (map[ID]BranchRecord, error) {
	found, _, err := n.records(ctx, "idempotency_key="+QuoteLiteral(key)+" AND role="+QuoteLiteral(role))
	return found, err
}

func (n *Node) records(ctx context.Context, where string) (map[ID]BranchRecord, Identity, error) {
	a, err := n.adminExchange(ctx, "SELECT "+recordColumns+" FROM pgpact.branches WHERE "+where)
	if err != nil {
		return nil, Identity{}, err
	}
	if a.err != nil {
		return nil, Identity{}, a.err
	}
	found := make(map[ID]BranchRecord, len(a.rows))
	for _, row := range a.rows {
		id, record, err := scanRecord(row)
		if err != nil {
			return nil, Identity{}, err
		}
		found[id] = record
	}
	return found, *a.from, nil
}

// KeyedRecord is a branch record with a key.
type KeyedRecord struct {
	ID
	BranchRecord
}

// KeyedRecords are, in an order of their own, at most limit branch records with
// a key, beginning after one of them (the zero one: with the first).
func (n *Node) KeyedRecords(ctx context.Context, after KeyedRecord, limit int) ([]KeyedRecord, error) {
	rows, err := n.query(ctx, "SELECT "+recordColumns+" FROM pgpact.branches b WHERE idempotency_key IS NOT NULL AND (role,idempotency_key,b.epoch,b.sequence)>("+
		QuoteLiteral(after.Role)+","+QuoteLiteral(after.Key)+","+strconv.FormatInt(after.Epoch, 10)+","+strconv.FormatInt(after.Sequence, 10)+
		") ORDER BY role,idempotency_key,b.epoch,b.sequence LIMIT "+strconv.Itoa(limit))
	if err != nil {
		return nil, err
	}
	list := make([]KeyedRecord, len(rows))
	for i, row := range rows {
		if list[i].ID, list[i].BranchRecord, err = scanRecord(row); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// keyTagLength is 64 bits in base32: two keys have the same tag so rarely that it
// may cost a wait, and it costs nothing else.
const keyTagLength = 13

// KeyTag is the tag of a role's idempotency key in gids.
func KeyTag(role, key string) string {
	sum := sha256.Sum256([]byte(role + "\x00" + key)) // neither holds a zero byte
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:8]))
}

// isKeyTag tells whether a part of a gid is a tag with its k.
func isKeyTag(part string) bool {
	if len(part) != 1+keyTagLength || part[0] != keyTagPrefix[1] {
		return false
	}
	for _, c := range []byte(part[1:]) {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
