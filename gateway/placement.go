package gateway

// Life of an UPDATE, station 6 (with route.go): the key's bucket, the bucket's
// node.

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/pgpact/pgpact/participant"
)

// DefaultBuckets is how many buckets a new cluster has.
const DefaultBuckets = 256

// maxBuckets is what two bytes of a hash can tell apart.
const maxBuckets = 1 << 16

// Bucket is the bucket of a key's canonical text (see keys.go): the first two
// bytes of its SHA-256, big endian, modulo the number of buckets. The SQL
// function pgpact.bucket says the same; a test holds the two together, for a
// key looked for on another node than it was stored on is a lost row.
func Bucket(canonical string, buckets int) int {
	sum := sha256.Sum256([]byte(canonical))
	return (int(sum[0])<<8 | int(sum[1])) & (buckets - 1)
}

// Placement says which node owns which bucket. It is immutable.
type Placement struct {
	nodes  []*participant.Node
	owner  []uint16              // bucket -> index into nodes
	single [][]*participant.Node // node index -> the slice of that node alone
	// fixed are the nodes in an order that is the same at all gateways, however
	// they are configured: whoever locks something on all of them begins with the
	// same one.
	fixed []*participant.Node
}

// NewPlacement makes the placement from the decision database's table
// pgpact.buckets: owner[b] is the name of bucket b's node. Every bucket must
// have a node, and every node named must be among nodes.
func NewPlacement(nodes []*participant.Node, owner []string) (*Placement, error) {
	if len(nodes) == 0 {
		return nil, errors.New("placement: no nodes")
	}
	if n := len(owner); n == 0 || n > maxBuckets || bits.OnesCount(uint(n)) != 1 {
		return nil, fmt.Errorf("placement: %d buckets, want a power of two up to %d", n, maxBuckets)
	}
	index := make(map[string]uint16, len(nodes))
	p := &Placement{nodes: nodes, owner: make([]uint16, len(owner))}
	for i, node := range nodes {
		if _, ok := index[node.Name()]; ok {
			return nil, fmt.Errorf("placement: two nodes are named %q", node.Name())
		}
		index[node.Name()] = uint16(i)
		p.single = append(p.single, nodes[i:i+1:i+1])
	}
	p.fixed = slices.SortedFunc(slices.Values(nodes), func(a, b *participant.Node) int { return strings.Compare(a.Name(), b.Name()) })
	for bucket, name := range owner {
		i, ok := index[name]
		switch {
		case name == "":
			return nil, fmt.Errorf("placement: bucket %d has no node", bucket)
		case !ok:
			return nil, fmt.Errorf("placement: bucket %d belongs to node %q, which is not configured", bucket, name)
		}
		p.owner[bucket] = i
	}
	return p, nil
}

// Nodes are all nodes, in the order of the configuration. Not to be changed.
func (p *Placement) Nodes() []*participant.Node { return p.nodes }

// Buckets is the number of buckets.
func (p *Placement) Buckets() int { return len(p.owner) }

// NodeFor is the node that owns the key with this canonical text.
func (p *Placement) NodeFor(key string) *participant.Node { return p.nodes[p.indexFor(key)] }

// OwnerOf is the node that owns a bucket.
func (p *Placement) OwnerOf(bucket int) *participant.Node { return p.nodes[p.owner[bucket]] }

// indexFor is the index in Nodes of the key's node.
func (p *Placement) indexFor(key string) int { return int(p.owner[Bucket(key, len(p.owner))]) }
