package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
)

// ErrNotMigrated is what questions to a database say that was never migrated.
var ErrNotMigrated = errors.New("the database was never migrated: run pgpact migrate")

// ClusterID reads the cluster's id from the coordinator's database.
func ClusterID(ctx context.Context, url string) (string, error) {
	m, err := open(url, coordinatorSet, Options{})
	if err != nil {
		return "", err
	}
	defer m.close()
	var id string
	err = m.db.QueryRowContext(ctx, "SELECT id FROM pgpact.cluster").Scan(&id)
	return id, m.notMigrated(ctx, err)
}

// notMigrated tells a missing table from other errors.
func (m *migrator) notMigrated(ctx context.Context, err error) error {
	switch code := sqlState(err); {
	case err == nil:
		return nil
	case code == pgerrcode.UndefinedTable, code == pgerrcode.InvalidSchemaName, errors.Is(err, sql.ErrNoRows):
		return ErrNotMigrated
	}
	return m.explain(ctx, err)
}

// WithoutBucketsError reports nodes that are known but have no bucket, because they were added after the
// buckets were placed. Nothing is wrong: they hold no rows until buckets are moved to them, which is never
// done silently. EnsureBuckets has done its work when it returns this.
type WithoutBucketsError struct {
	Nodes []string
}

// Error implements error.
func (e *WithoutBucketsError) Error() string {
	return fmt.Sprintf("no bucket is placed on %s: added after the buckets were placed, and rows are not moved by themselves",
		strings.Join(e.Nodes, ", "))
}

// EnsureBuckets writes the nodes' names into pgpact.nodes and, the first time, places the buckets on them:
// neighbouring pairs of buckets in turn on the nodes, in the order given (in pairs, because then the names
// that every example uses, alice in bucket 216 and bob in 182, live apart on two nodes or more). Later the
// placement stays as it is whatever the order. applied says whether the buckets were placed now.
//
// Another bucket count than the one stored is an error, and so is a node that has buckets and is not among
// the names: its rows would be out of reach. A node without buckets is reported as *WithoutBucketsError.
func EnsureBuckets(ctx context.Context, url string, nodes []string, buckets int) (applied bool, err error) {
	if buckets == 0 {
		buckets = DefaultBucketCount
	}
	if err := validBucketCount(buckets); err != nil {
		return false, err
	}
	if err := validNodes(nodes, buckets); err != nil {
		return false, err
	}
	m, err := open(url, coordinatorSet, Options{})
	if err != nil {
		return false, err
	}
	defer m.close()
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return false, m.explain(ctx, err)
	}
	defer tx.Rollback() // after a commit it does nothing
	// Two gateways that start at the same time: the second waits here and finds the first one's placement.
	// Readers of the placement are not disturbed by this lock.
	if _, err := tx.ExecContext(ctx, "LOCK TABLE pgpact.nodes, pgpact.buckets IN SHARE ROW EXCLUSIVE MODE"); err != nil {
		return false, m.notMigrated(ctx, err)
	}
	owners, stored, err := placement(ctx, tx)
	if err != nil {
		return false, m.explain(ctx, err)
	}
	if err := compatible(owners, stored, nodes, buckets); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO pgpact.nodes (name) SELECT pg_catalog.unnest($1::text[]) ON CONFLICT DO NOTHING", nodes); err != nil {
		return false, m.explain(ctx, err)
	}
	if stored == 0 {
		_, err := tx.ExecContext(ctx, `INSERT INTO pgpact.buckets (bucket, node)
			SELECT nr - 1, owner FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS placed(owner, nr)`, EvenPlacement(nodes, buckets))
		if err != nil {
			return false, m.explain(ctx, err)
		}
		owners = nodes
	}
	if err := tx.Commit(); err != nil {
		return false, m.explain(ctx, err)
	}
	return stored == 0, withoutBuckets(nodes, owners)
}

// EvenPlacement is the first placement of a cluster: the node of each bucket. Two consecutive buckets go to
// the same node, unless a node would be left without any.
func EvenPlacement(nodes []string, buckets int) []string {
	together := 2
	if 2*len(nodes) > buckets {
		together = 1
	}
	owners := make([]string, buckets)
	for b := range owners {
		owners[b] = nodes[b/together%len(nodes)]
	}
	return owners
}

func validNodes(nodes []string, buckets int) error {
	if len(nodes) == 0 {
		return errors.New("no nodes to place buckets on")
	}
	if len(nodes) > buckets {
		return fmt.Errorf("%d nodes cannot share %d buckets", len(nodes), buckets)
	}
	for i, name := range nodes {
		if !namePattern.MatchString(name) {
			return fmt.Errorf("node name %q: want 1 to 63 of a-z, 0-9, - and _", name)
		}
		if slices.Contains(nodes[:i], name) {
			return fmt.Errorf("two nodes named %q", name)
		}
	}
	return nil
}

// placement reads which nodes have buckets, and how many buckets there are.
func placement(ctx context.Context, tx *sql.Tx) (owners []string, stored int, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT node, count(*) FROM pgpact.buckets GROUP BY node ORDER BY node")
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var node string
		var count int
		if err := rows.Scan(&node, &count); err != nil {
			return nil, 0, err
		}
		owners = append(owners, node)
		stored += count
	}
	return owners, stored, rows.Err()
}

// compatible compares what is stored with what is configured.
func compatible(owners []string, stored int, nodes []string, buckets int) error {
	if stored == 0 {
		return nil
	}
	if stored != buckets {
		return fmt.Errorf("the cluster has %d buckets, not %d: the count is fixed when the cluster is made", stored, buckets)
	}
	for _, owner := range owners {
		if !slices.Contains(nodes, owner) {
			return fmt.Errorf("buckets are placed on node %q, which is not configured: its rows would be out of reach", owner)
		}
	}
	return nil
}

func withoutBuckets(nodes, owners []string) error {
	var idle []string
	for _, name := range nodes {
		if !slices.Contains(owners, name) {
			idle = append(idle, name)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	return &WithoutBucketsError{Nodes: idle}
}
