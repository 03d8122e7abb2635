package participant

import (
	"fmt"
	"strconv"
	"strings"
)

// ID is a global transaction id: the life of the gateway process that began
// the transaction and its number within that life.
type ID struct {
	Epoch    int64 // one life of one gateway process, random, positive
	Sequence int64 // counts from 1, never reused within the epoch
}

// IsZero tells whether the id names no transaction.
func (id ID) IsZero() bool { return id == ID{} }

// String spells the id as clients see it: "<epoch>/<sequence>".
func (id ID) String() string {
	return strconv.FormatInt(id.Epoch, 10) + "/" + strconv.FormatInt(id.Sequence, 10)
}

// Less orders ids by epoch, then sequence: the order in which every statement
// that touches several decision rows takes them, so that two cannot deadlock.
func (id ID) Less(other ID) bool {
	if id.Epoch != other.Epoch {
		return id.Epoch < other.Epoch
	}
	return id.Sequence < other.Sequence
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	epoch, sequence, ok := strings.Cut(s, "/")
	e, err1 := parsePositive(epoch)
	q, err2 := parsePositive(sequence)
	if !ok || err1 != nil || err2 != nil {
		return ID{}, fmt.Errorf("%q is not a transaction id (want EPOCH/SEQUENCE)", s)
	}
	return ID{Epoch: e, Sequence: q}, nil
}

// GID is the name under which one node holds a transaction's prepared branch.
// It is unique per server, not per database, hence the node's name in it. Only
// who prepares a branch makes its gid; everybody else has it from ListPrepared,
// since the id and the node do not tell After.
type GID struct {
	Cluster string
	ID
	Node string
	// After is not 0 for a branch that has only locked rows: it is committed after
	// the transaction's branches that changed rows, of which there are so many. It
	// is part of the name so that whoever finds the branch prepared knows of the
	// order, whatever else is lost. The changing ones are the first that the branch
	// records name as participants.
	After int
	// KeyTag is of a transaction with an idempotency key, as [KeyTag] makes it: a
	// prepared branch's record cannot be read, and when its decision may have been
	// lost, this tells which key it may have been committed under. "" for none.
	KeyTag string
}

// MaxGIDLength is the longest gid Postgres takes, in bytes (GIDSIZE 200 with
// its terminating zero).
const MaxGIDLength = 199

const (
	gidPrefix    = "pgpact/"
	keyTagPrefix = "/k"
)

// maxAfter bounds GID.After: no transaction has more branches.
const maxAfter = 1 << 20

// String spells the gid: pgpact/<cluster>/<epoch>/<sequence>/<node>, and
// /<after> where that is not 0, and /k<key tag> where there is one. All parts come
// from a fixed alphabet (see ValidName), so it needs no escaping inside the quotes
// of PREPARE TRANSACTION.
func (g GID) String() string {
	s := gidPrefix + g.Cluster + "/" + g.ID.String() + "/" + g.Node
	if g.After > 0 {
		s += "/" + strconv.Itoa(g.After)
	}
	if g.KeyTag != "" {
		s += keyTagPrefix + g.KeyTag
	}
	return s
}

// ParseGID reads a gid that String wrote; ok is false for anybody else's.
func ParseGID(s string) (g GID, ok bool) {
	rest, found := strings.CutPrefix(s, gidPrefix)
	if !found {
		return GID{}, false
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 4 || len(parts) > 6 || !ValidName(parts[0]) || !ValidName(parts[3]) {
		return GID{}, false
	}
	more, tag := parts[4:], ""
	if n := len(more); n > 0 && isKeyTag(more[n-1]) {
		more, tag = more[:n-1], more[n-1][1:]
	}
	after := int64(0)
	switch len(more) {
	case 0:
	case 1:
		var err error
		if after, err = parsePositive(more[0]); err != nil || after > maxAfter {
			return GID{}, false
		}
	default:
		return GID{}, false
	}
	epoch, err1 := parsePositive(parts[1])
	sequence, err2 := parsePositive(parts[2])
	if err1 != nil || err2 != nil {
		return GID{}, false
	}
	return GID{Cluster: parts[0], ID: ID{Epoch: epoch, Sequence: sequence}, Node: parts[3], After: int(after), KeyTag: tag}, true
}

// ValidName tells whether s may name a node or a cluster: 1 to 63 of a-z, 0-9,
// '-' and '_'. Names end up inside gids and SQL literals.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// parsePositive accepts only the canonical spelling, so that a gid has exactly
// one text.
func parsePositive(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, err
	}
	if n <= 0 || strconv.FormatInt(n, 10) != s {
		return 0, strconv.ErrSyntax
	}
	return n, nil
}
