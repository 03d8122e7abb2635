package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/participant"
)

// inspectTables compares the nodes' tables, asks for the role's privileges on
// them, and counts rows that lie where nobody would look for them.
func (in *inspection) inspectTables(ctx context.Context, f *findings) {
	nodes, err := in.usableNodes()
	if err != nil || len(nodes) == 0 {
		return // what makes them unusable has been said
	}
	defer closeNodes(nodes)
	catalog, err := gateway.LoadCatalog(ctx, nodes)
	if err != nil {
		f.add(warning, "the tables cannot be read: %v", err)
		return
	}
	differences := catalog.Differences()
	for _, difference := range differences {
		f.add(warning, "%s", difference)
	}
	tables := catalog.Tables()
	slices.SortFunc(tables, func(a, b *gateway.Table) int { return strings.Compare(a.String(), b.String()) })
	for _, table := range tables {
		if table.Reference {
			in.inspectReference(ctx, table)
			continue
		}
		key, err := table.ShardKey()
		if err != nil {
			// A view or a sequence is nobody's mistake, and a table that differs has
			// been named above.
			if table.Kind == 'r' && !slices.ContainsFunc(differences, func(d string) bool { return strings.Contains(d, table.String()) }) {
				f.add(note, "statements with table %s are refused: %v", table, err)
			}
			continue
		}
		for _, s := range in.servers[1:] {
			in.inspectTable(ctx, s, table, key)
		}
	}
}

// usableNodes are those that can be asked as the gateway would ask them.
func (in *inspection) usableNodes() ([]*participant.Node, error) {
	if in.cluster == nil {
		return nil, nil
	}
	answering := *in.cfg
	answering.Nodes = nil
	for i, s := range in.servers[1:] {
		if s.conn != nil && worst(s.found) < danger {
			answering.Nodes = append(answering.Nodes, in.cfg.Nodes[i])
		}
	}
	return openNodes(&answering, in.cluster.id, slog.New(slog.DiscardHandler))
}

// inspectTable looks at one table on one node.
func (in *inspection) inspectTable(ctx context.Context, s *server, table *gateway.Table, key *gateway.Column) {
	if s.conn == nil || worst(s.found) == danger {
		return
	}
	name := pgx.Identifier{table.Schema, table.Name}.Sanitize()
	s.inspectPrivileges(ctx, warning, []privilege{{name, "SELECT, INSERT, UPDATE, DELETE"}})
	own := make([]int, 0, len(in.cluster.owners))
	for bucket, owner := range in.cluster.owners {
		if owner == s.name {
			own = append(own, bucket)
		}
	}
	// The canonical text of a key is what its type prints (DESIGN section 6).
	column := pgx.Identifier{key.Name}.Sanitize()
	var strays int
	var example *string
	err := s.conn.QueryRow(ctx, fmt.Sprintf(`SELECT count(*), min(%[1]s::text) FROM ONLY %[2]s
		WHERE pgpact.bucket(%[1]s::text) <> ALL ($1::int[])`, column, name), own).Scan(&strays, &example)
	switch {
	case err != nil && participant.SQLState(err) == "42501":
		// The missing privilege has been said.
	case err != nil:
		s.add(warning, "table %s: rows cannot be counted: %s", table, serverMessage(err))
	case strays > 0:
		s.add(warning, "table %s: %d rows belong to other nodes by their key (for example %s = %q): clients cannot find them",
			table, strays, key.Name, *example)
	}
}

// inspectReference compares the rows of a reference table, which are the same on
// every node unless somebody has changed them there.
func (in *inspection) inspectReference(ctx context.Context, table *gateway.Table) {
	name := pgx.Identifier{table.Schema, table.Name}.Sanitize()
	first, firstRows := "", ""
	for _, s := range in.servers[1:] {
		if s.conn == nil || worst(s.found) == danger {
			continue
		}
		s.inspectPrivileges(ctx, warning, []privilege{{name, "SELECT, INSERT, UPDATE, DELETE"}})
		var rows string
		_, err := s.conn.Exec(ctx, gateway.ChecksumSettings)
		if err == nil {
			err = s.conn.QueryRow(ctx, table.ChecksumSQL()).Scan(&rows)
		}
		switch {
		case err != nil && participant.SQLState(err) == "42501":
			// The missing privilege has been said.
		case err != nil:
			s.add(warning, "reference table %s: rows cannot be compared: %s", table, serverMessage(err))
		case first == "":
			first, firstRows = s.name, rows
		case rows != firstRows:
			s.add(warning, "reference table %s is not the same on all nodes: %s here, %s on node %s; clients read any of them", table, rows, firstRows, first)
		}
	}
}

// inspectTransactions looks for transactions that recovery could not finish.
// Those prepared on a node were named there; here are the decided ones, and those
// that are damaged or were forced.
func (in *inspection) inspectTransactions(ctx context.Context, f *findings) {
	if in.cluster == nil || worst(in.servers[0].found) == danger {
		return
	}
	list, err := listTransactions(ctx, in.cfg, in.cluster.id)
	if list == nil && err != nil {
		f.add(warning, "transactions cannot be listed: %v", err)
		return
	}
	for _, t := range list {
		if t.KeyAgain != "" {
			f.add(warning, "DAMAGE: transaction %s (%s): %s: what it did is done twice; undo one of them by hand, then delete its row from pgpact.proven_keys",
				t.ID, t.Decision, t.KeyAgain)
		}
		switch {
		case len(t.Damaged) > 0:
			f.add(warning, "DAMAGE: transaction %s is decided (%s), and node %s contradicts it (%s): compare its rows by hand%s",
				t.ID, t.Decision, strings.Join(t.Damaged, ", "), nodesOf(t), forcedNote(t))
		case t.Forced != "":
			f.add(warning, "transaction %s has an outcome that was forced (%s): it may be half done; compare its rows by hand%s", t.ID, t.Decision, forcedNote(t))
		case t.Age >= in.inDoubtFor && len(t.Prepared) == 0:
			f.add(warning, "transaction %s was decided (%s) %s ago and is still not applied everywhere; pgpact transactions says more",
				t.ID, t.Decision, t.Age.Round(time.Second))
		}
	}
}

func forcedNote(t coordinator.TransactionInfo) string {
	if t.Forced == "" {
		return ""
	}
	return " (" + t.Forced + ")"
}

// listTransactions asks a coordinator that is never started.
func listTransactions(ctx context.Context, cfg *Config, clusterID string) (list []coordinator.TransactionInfo, err error) {
	err = withCoordinator(cfg, clusterID, slog.New(slog.DiscardHandler), func(c *coordinator.Coordinator) (err error) {
		list, err = c.Transactions(ctx)
		return err
	})
	return list, err
}
