package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgerrcode"
)

// DefaultBucketCount is the bucket count of a cluster that was not given another.
const DefaultBucketCount = 256

// maxBucketCount is how many values two bytes of a hash have.
const maxBucketCount = 65536

// NodeIdentity is who a node is. It never changes: the cluster's id and the node's name are part of every
// gid, and the bucket count decides where every row lives.
type NodeIdentity struct {
	ClusterID   string
	Name        string
	BucketCount int // a power of two; 0 means DefaultBucketCount
}

// String is for messages.
func (n NodeIdentity) String() string {
	return fmt.Sprintf("node %q of cluster %q with %d buckets", n.Name, n.ClusterID, n.BucketCount)
}

var (
	clusterPattern = regexp.MustCompile(`^[a-z0-9]{1,32}$`)
	namePattern    = regexp.MustCompile(`^[a-z0-9_-]{1,63}$`)
)

func (n *NodeIdentity) validate() error {
	if n.BucketCount == 0 {
		n.BucketCount = DefaultBucketCount
	}
	if !clusterPattern.MatchString(n.ClusterID) {
		return fmt.Errorf("cluster id %q: want 1 to 32 of a-z and 0-9", n.ClusterID)
	}
	if !namePattern.MatchString(n.Name) {
		return fmt.Errorf("node name %q: want 1 to 63 of a-z, 0-9, - and _", n.Name)
	}
	return validBucketCount(n.BucketCount)
}

func validBucketCount(n int) error {
	if n < 1 || n > maxBucketCount || n&(n-1) != 0 {
		return fmt.Errorf("bucket count %d: want a power of two from 1 to %d", n, maxBucketCount)
	}
	return nil
}

// IdentityError says that a database belongs to another node than the configuration says. Somebody mixed up
// two addresses, or restored one node's backup as another.
type IdentityError struct {
	Have, Want NodeIdentity
}

// Error implements error.
func (e *IdentityError) Error() string {
	return fmt.Sprintf("the database is %v, not %v: check the node's address in the configuration", e.Have, e.Want)
}

// readIdentity gives the node's row; found is false if there is none yet, or no table.
func (m *migrator) readIdentity(ctx context.Context) (have NodeIdentity, found bool, err error) {
	err = m.db.QueryRowContext(ctx, "SELECT cluster_id, name, bucket_count FROM pgpact.node").
		Scan(&have.ClusterID, &have.Name, &have.BucketCount)
	switch {
	case err == nil:
		return have, true, nil
	case errors.Is(err, sql.ErrNoRows), sqlState(err) == pgerrcode.UndefinedTable, sqlState(err) == pgerrcode.InvalidSchemaName:
		return NodeIdentity{}, false, nil
	}
	return NodeIdentity{}, false, m.explain(ctx, err)
}

// verifyIdentity refuses a database that says it is another node; one that says nothing passes.
func (m *migrator) verifyIdentity(ctx context.Context, want NodeIdentity) error {
	have, found, err := m.readIdentity(ctx)
	if err == nil && found && have != want {
		return &IdentityError{Have: have, Want: want}
	}
	return err
}

// writeIdentity writes who the node is, unless it is written, and verifies that it says so. In the same
// transaction it makes pgpact.bucket(text) with the cluster's bucket count in it; of several migrators only
// the one whose row went in does that.
func (m *migrator) writeIdentity(ctx context.Context, node NodeIdentity) error {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return m.explain(ctx, err)
	}
	defer tx.Rollback() // after a commit it does nothing
	result, err := tx.ExecContext(ctx, `INSERT INTO pgpact.node (cluster_id, name, bucket_count)
		VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, node.ClusterID, node.Name, node.BucketCount)
	if err != nil {
		return m.explain(ctx, err)
	}
	inserted, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if inserted == 1 {
		// A validated number, so it may stand in the text; a function body takes no parameters.
		_, err := tx.ExecContext(ctx, fmt.Sprintf(`CREATE OR REPLACE FUNCTION pgpact.bucket(key text) RETURNS integer
			LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT pgpact.bucket(key, %d)'`, node.BucketCount))
		if err != nil {
			return m.explain(ctx, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return m.explain(ctx, err)
	}
	return m.verifyIdentity(ctx, node)
}
