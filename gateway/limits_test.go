package gateway

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestLimitsOfASession: what one session may keep open, and how long a message may be. At the limit everything still works;
// beyond it the statement fails and the session goes on, except after a message that is too long to be read.
func TestLimitsOfASession(t *testing.T) {
	const limit, size = 10, 100_000
	s := startStack(t, stackOptions{config: func(cfg *Config) {
		cfg.MaxStatements, cfg.MaxPortals, cfg.Front.MaxMessageSize = limit, limit, size
		cfg.MaxStatementBytes, cfg.MaxPortalBytes = 2*size, 2*size
	}})
	key := s.fill(t)[0][0]
	for name, test := range map[string]func(*testing.T, *pgconn.HijackedConn){
		"statements": func(t *testing.T, conn *pgconn.HijackedConn) {
			for i := range limit {
				conn.Frontend.Send(&pgproto3.Parse{Name: fmt.Sprint(i), Query: "select 1"})
			}
			wantTypes(t, conn, strings.Repeat("1", limit)+"Z")
			conn.Frontend.Send(&pgproto3.Parse{Name: "more", Query: "select 1"})
			wantTypes(t, conn, "54000Z")
			conn.Frontend.Send(&pgproto3.Close{ObjectType: 'S', Name: "0"})
			conn.Frontend.Send(&pgproto3.Parse{Name: "more", Query: "select 1"})
			wantTypes(t, conn, "31Z")
		},
		"portals": func(t *testing.T, conn *pgconn.HijackedConn) {
			conn.Frontend.Send(&pgproto3.Parse{Query: "select 1"})
			for i := range limit {
				conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: fmt.Sprint(i)})
			}
			conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: "more"})
			wantTypes(t, conn, "1"+strings.Repeat("2", limit)+"54000Z")
			conn.Frontend.Send(&pgproto3.Parse{Query: "select 1"})
			conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: "more"}) // Sync has closed the others
			wantTypes(t, conn, "12Z")
		},
		"statement bytes": func(t *testing.T, conn *pgconn.HijackedConn) {
			big := "select '" + strings.Repeat("x", size*4/5) + "'"
			for _, name := range []string{"a", "b", "more"} {
				conn.Frontend.Send(&pgproto3.Parse{Name: name, Query: big})
			}
			wantTypes(t, conn, "1154000Z")
			conn.Frontend.Send(&pgproto3.Close{ObjectType: 'S', Name: "a"})
			conn.Frontend.Send(&pgproto3.Parse{Name: "more", Query: big})
			wantTypes(t, conn, "31Z")
			conn.Frontend.Send(&pgproto3.Query{String: "deallocate all"})
			wantTypes(t, conn, "CZZ")
			for range 5 { // the unnamed one takes its own place
				conn.Frontend.Send(&pgproto3.Parse{Query: big})
			}
			conn.Frontend.Send(&pgproto3.Parse{Name: "a", Query: big})
			wantTypes(t, conn, "111111Z")
		},
		"portal bytes": func(t *testing.T, conn *pgconn.HijackedConn) {
			conn.Frontend.Send(&pgproto3.Parse{Query: "select length($1)"})
			big := [][]byte{[]byte(strings.Repeat("x", size*4/5))}
			for range 5 {
				conn.Frontend.Send(&pgproto3.Bind{Parameters: big})
			}
			conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: "a", Parameters: big})
			conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: "more", Parameters: big})
			wantTypes(t, conn, "1"+strings.Repeat("2", 6)+"54000Z")
			conn.Frontend.Send(&pgproto3.Parse{Query: "select length($1)"})
			conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: "a", Parameters: big})
			conn.Frontend.Send(&pgproto3.Close{ObjectType: 'P', Name: "a"})
			conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: "b", Parameters: big})
			conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: "c", Parameters: big})
			wantTypes(t, conn, "12322Z")
			// Rows that wait for their client count too.
			conn.Frontend.Send(&pgproto3.Parse{Query: "update accounts set balance = balance returning id, repeat('x', 50000)"})
			conn.Frontend.Send(&pgproto3.Bind{DestinationPortal: "rows"})
			conn.Frontend.Send(&pgproto3.Execute{Portal: "rows", MaxRows: 1})
			wantTypes(t, conn, "1254000Z")
		},
		// An error says that nothing was done, also where one node could have committed by itself.
		"portal bytes of EXECUTE": func(t *testing.T, conn *pgconn.HijackedConn) {
			balance := "select balance from accounts where id = '" + key + "'"
			before := run(t, s.client(t), balance)
			conn.Frontend.Send(&pgproto3.Parse{Query: fmt.Sprintf(
				"prepare w as update accounts set balance = balance + 1 where id = '%s' returning repeat('x', %d)", key, 3*size)})
			conn.Frontend.Send(&pgproto3.Bind{})
			conn.Frontend.Send(&pgproto3.Execute{})
			wantTypes(t, conn, "12CZ")
			conn.Frontend.Send(&pgproto3.Parse{Query: "execute w"})
			conn.Frontend.Send(&pgproto3.Bind{})
			conn.Frontend.Send(&pgproto3.Execute{MaxRows: 1})
			wantTypes(t, conn, "1254000Z")
			if after := run(t, s.client(t), balance); after != before {
				t.Errorf("%s before, %s after", before, after)
			}
		},
		"message size": func(t *testing.T, conn *pgconn.HijackedConn) {
			const around = len("select ''") + 1
			conn.Frontend.Send(&pgproto3.Query{String: "select '" + strings.Repeat("x", size-around) + "'"})
			wantTypes(t, conn, "TDCZZ")
			conn.Frontend.Send(&pgproto3.Query{String: "select '" + strings.Repeat("x", size-around+1) + "'"})
			wantTypes(t, conn, "08P01")
			if msg, err := conn.Frontend.Receive(); err == nil {
				t.Errorf("%#v after a message that was not read", msg)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := s.client(t).Hijack()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Conn.Close()
			if err := conn.Conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			test(t, conn)
		})
	}
	wantRun(t, s.client(t), "SELECT 1", "SELECT 1: 1")
	s.idle(t)
}

// wantTypes sends Sync and reads as many answers as are wanted: their types, of errors their SQLSTATE.
func wantTypes(t *testing.T, conn *pgconn.HijackedConn, want string) {
	t.Helper()
	conn.Frontend.Send(&pgproto3.Sync{})
	if err := conn.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	var got string
	for len(got) < len(want) {
		msg, err := conn.Frontend.Receive()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		if failure, ok := msg.(*pgproto3.ErrorResponse); ok {
			got += failure.Code
			continue
		}
		frame, err := msg.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		got += string(frame[0])
	}
	if got != want {
		t.Errorf("answers %q, want %q", got, want)
	}
}

// TestSessionsLeaveNoGoroutines opens and closes sessions over the whole gateway, in the middle of a transaction too.
// PGPACT_TEST_SESSIONS is how many.
func TestSessionsLeaveNoGoroutines(t *testing.T) {
	count := fromEnvironment(t, "PGPACT_TEST_SESSIONS", 500)
	rig := newHostileRig(t)
	sessions := func(count uint64) int {
		for i := range count {
			sent := query("BEGIN; UPDATE accounts SET balance = balance + 1 WHERE id = '" + rig.keys[i%3][0] + "'")
			if i%2 == 0 {
				sent = append(sent, query("COMMIT")...)
			}
			if wrong := rig.converse(sent); wrong != "" {
				t.Fatal(wrong)
			}
		}
		return rig.resources(t).goroutines
	}
	before := sessions(50)
	after := sessions(count)
	t.Logf("%d goroutines before and %d after %d sessions", before, after, count)
	if after > before {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines more than before:\n%s", after-before, stacks[:runtime.Stack(stacks, true)])
	}
	rig.idle(t)
}
