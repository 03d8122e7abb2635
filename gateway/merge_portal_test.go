package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// TestMergedPortals: rows of several nodes asked for in portions, between other
// statements of the same transaction, are the rows of Postgres, in its order,
// suspended and completed where Postgres does it.
func TestMergedPortals(t *testing.T) {
	servers, stop, err := clustertest.NewServers(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	p := startDifferential(t, servers, 3)
	for _, sql := range []string{
		"SELECT id, price FROM items ORDER BY id",
		"SELECT id FROM items ORDER BY price DESC, id LIMIT 17 OFFSET 3",
		"SELECT id FROM facts ORDER BY tz, id",
		"SELECT price, count(*) FROM items GROUP BY price ORDER BY price",
		"SELECT id FROM items WHERE id > 1000 ORDER BY id",
		"SELECT id FROM items ORDER BY id LIMIT 10 FOR UPDATE",
		"SELECT customer, sum(amount) FROM purchases GROUP BY customer ORDER BY 1",
	} {
		for _, portion := range []uint32{1, 2, 5, 10, 1000} {
			for _, inBlock := range []bool{true, false} {
				got, want := portions(t, p.url, sql, portion, inBlock), portions(t, p.plainURL, sql, portion, inBlock)
				if got != want {
					t.Errorf("%s by %d, in a block %v\n gateway %s\nPostgres %s", sql, portion, inBlock, got, want)
				}
			}
		}
	}
}

// portions executes a portal until it is completed, in a block with another
// statement in between, and writes down what comes.
func portions(t *testing.T, url, sql string, portion uint32, inBlock bool) string {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	front := hijacked.Frontend
	var out strings.Builder
	read := func() (status byte, suspended bool) {
		if err := front.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			message, err := front.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := message.(type) {
			case *pgproto3.DataRow:
				fmt.Fprintf(&out, "%q ", m.Values)
			case *pgproto3.CommandComplete:
				fmt.Fprintf(&out, "%s. ", m.CommandTag)
			case *pgproto3.PortalSuspended:
				suspended = true
				out.WriteString("... ")
			case *pgproto3.ErrorResponse:
				out.WriteString(m.Code + " ")
			case *pgproto3.ReadyForQuery:
				return m.TxStatus, suspended
			}
		}
	}
	front.Send(&pgproto3.Query{String: "SET search_path = public"})
	read()
	if inBlock {
		front.Send(&pgproto3.Query{String: "BEGIN"})
		read()
	}
	front.Send(&pgproto3.Parse{Query: sql})
	front.Send(&pgproto3.Bind{DestinationPortal: "p"})
	front.Send(&pgproto3.Describe{ObjectType: 'P', Name: "p"})
	front.Send(&pgproto3.Execute{Portal: "p", MaxRows: portion})
	if !inBlock { // another portion in the same pipeline
		front.Send(&pgproto3.Execute{Portal: "p", MaxRows: portion})
		front.Send(&pgproto3.Execute{Portal: "p"})
	}
	front.Send(&pgproto3.Sync{})
	_, suspended := read()
	for inBlock && suspended {
		front.Send(&pgproto3.Query{String: "SELECT count(*) FROM items WHERE id IN (1, 2, 3)"})
		read()
		front.Send(&pgproto3.Execute{Portal: "p", MaxRows: portion})
		front.Send(&pgproto3.Sync{})
		_, suspended = read()
	}
	if inBlock {
		front.Send(&pgproto3.Query{String: "COMMIT"})
		read()
	}
	return out.String()
}
