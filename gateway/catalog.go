package gateway

import (
	"context"
	"log/slog"

	"github.com/pgpact/pgpact/participant"
)

// Table is a relation as the nodes know it.
type Table struct {
	Schema, Name string
	Columns      []Column
}

// Column is a column of a Table.
type Column struct{ Name string }

// Catalog is what the nodes' catalogs say, as far as routing needs it. It is
// immutable.
type Catalog struct{ differences []string }

// LoadCatalog reads the catalogs of all nodes. A node that cannot be reached
// is left out, but one must answer.
func LoadCatalog(ctx context.Context, nodes []*participant.Node) (*Catalog, error) {
	holder, err := newCatalogHolder(ctx, nodes, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return holder.Current(), nil
}

// Differences says in plain lines what the nodes do not agree about.
func (c *Catalog) Differences() []string { return c.differences }

// nodeCatalog is what one node's catalog says.
type nodeCatalog struct{}

func readNodeCatalog(ctx context.Context, node *participant.Node, known *nodeCatalog) (*nodeCatalog, error) {
	return &nodeCatalog{}, nil
}

func mergeCatalogs(nodes []*participant.Node, read []*nodeCatalog) *Catalog { return &Catalog{} }
