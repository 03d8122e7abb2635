package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestHostileMessages: a message that is wrong costs its sender an error or the
// connection, and nobody else anything.
func TestHostileMessages(t *testing.T) {
	s := startStack(t, stackOptions{})
	s.fill(t)
	const sync = "S\x00\x00\x00\x04"
	// The SQLSTATE of the first error is compared.
	for name, test := range map[string]struct{ send, code string }{
		"unknown type":               {"y\x00\x00\x00\x04", "08P01"},
		"error before a query":       {"P\x00\x00\x00\x13\x00select*from\x00\x00\x00" + queryFrame("select 1") + sync, "42601"},
		"function call":              {"F\x00\x00\x00\x04", "0A000"},
		"query without its zero":     {"Q\x00\x00\x00\x05x", "08P01"},
		"query with a zero inside":   {"Q\x00\x00\x00\x0aab\x00cd\x00", "08P01"},
		"empty parse":                {"P\x00\x00\x00\x04" + sync, "08P01"},
		"parse with too few OIDs":    {"P\x00\x00\x00\x08\x00\x00\x7f\xff" + sync, "08P01"},
		"bind cut short":             {"B\x00\x00\x00\x06\x00\x00" + sync, "08P01"},
		"bind with length -2":        {"B\x00\x00\x00\x10\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00" + sync, "08P01"},
		"bind with a huge length":    {"B\x00\x00\x00\x10\x00\x00\x00\x00\x00\x01\x7f\xff\xff\xff\x00\x00" + sync, "08P01"},
		"bind with many formats":     {"B\x00\x00\x00\x0a\x00\x00\xff\xff\x00\x00" + sync, "08P01"},
		"bind to nothing":            {"B\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00" + sync, "26000"},
		"describe of neither":        {"D\x00\x00\x00\x06x\x00" + sync, "08P01"},
		"close of neither":           {"C\x00\x00\x00\x06x\x00" + sync, "08P01"},
		"execute cut short":          {"E\x00\x00\x00\x05\x00" + sync, "08P01"},
		"execute of nothing":         {"E\x00\x00\x00\x09\x00\xff\xff\xff\xff" + sync, "34000"},
		"format code 2":              {"P\x00\x00\x00\x11\x00select $1\x00\x00\x00" + "B\x00\x00\x00\x13\x00\x00\x00\x01\x00\x02\x00\x01\x00\x00\x00\x01x\x00\x00" + sync, "22023"},
		"message beyond the limit":   {"Q\x7f\xff\xff\xff", "08P01"},
		"negative length":            {"Q\xff\xff\xff\xff", "08P01"},
		"length below four":          {"Q\x00\x00\x00\x03", "08P01"},
		"copy data out of place":     {"d\x00\x00\x00\x05x" + "c\x00\x00\x00\x04" + queryFrame("selec"), "42601"},
		"text that is not UTF-8":     {queryFrame("select '\xff'"), "22021"},
		"deeply nested":              {queryFrame("select " + strings.Repeat("(", 100000) + "1"), "54001"},
		"many statements in a parse": {"P\x00\x00\x00\x11\x00select;;1\x00\x00\x00" + sync, "42601"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.client(t)
			hijacked, err := conn.Hijack()
			if err != nil {
				t.Fatal(err)
			}
			defer hijacked.Conn.Close()
			if err := hijacked.Conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := hijacked.Conn.Write([]byte(test.send)); err != nil {
				t.Fatal(err)
			}
			for {
				msg, err := hijacked.Frontend.Receive()
				if err != nil {
					t.Fatalf("no error was sent: %v", err)
				}
				if e, ok := msg.(*pgproto3.ErrorResponse); ok {
					if e.Code != test.code {
						t.Errorf("SQLSTATE %s (%s), want %s", e.Code, e.Message, test.code)
					}
					break
				}
			}
		})
	}
	wantRun(t, s.client(t), "SELECT 1", "SELECT 1: 1")
	s.idle(t)
}

func queryFrame(sql string) string {
	message, _ := (&pgproto3.Query{String: sql}).Encode(nil)
	return string(message)
}

// TestHalfAMessageHoldsNothingUp: the answers to what came before it go out, and the session's timeouts pass.
func TestHalfAMessageHoldsNothingUp(t *testing.T) {
	s := startStack(t, stackOptions{})
	conn := s.client(t)
	wantRun(t, conn, "SET idle_in_transaction_session_timeout = '200ms'", "SET")
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	if err := hijacked.Conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := hijacked.Conn.Write([]byte(queryFrame("BEGIN") + "Q\x00\x00\x00\x0fselect")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"BEGIN", "T", "25P03"} {
		msg, err := hijacked.Frontend.Receive()
		if err != nil {
			t.Fatalf("instead of %s: %v", want, err)
		}
		var got string
		switch msg := msg.(type) {
		case *pgproto3.CommandComplete:
			got = string(msg.CommandTag)
		case *pgproto3.ReadyForQuery:
			got = string(msg.TxStatus)
		case *pgproto3.ErrorResponse:
			got = msg.Code
		}
		if got != want {
			t.Errorf("got %#v, want %s", msg, want)
		}
	}
	s.idle(t)
}

// TestAfterTheFirstError: what follows an error in a series is discarded until Sync, a Query too, whichever message the error
// belongs to; a type that does not exist ends the session even there.
func TestAfterTheFirstError(t *testing.T) {
	s := startStack(t, stackOptions{})
	hijacked, err := s.client(t).Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	if err := hijacked.Conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const nowhere = "P\x00\x00\x00\x1d\x00select * from nowhere\x00\x00\x00" // only a node knows
	sent := nowhere + queryFrame("select 1") + "S\x00\x00\x00\x04" + nowhere + "F\x00\x00\x00\x04" + "y\x00\x00\x00\x04"
	if _, err := hijacked.Conn.Write([]byte(sent)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"42P01", "I", "42P01", "08P01"} {
		msg, err := hijacked.Frontend.Receive()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			got = msg.Code
		case *pgproto3.ReadyForQuery:
			got = string(msg.TxStatus)
		}
		if got != want {
			t.Fatalf("got %#v, want %s", msg, want)
		}
	}
}

// TestASeriesDoesNotHoldUpThePreviousAnswers: Postgres flushes at every ReadyForQuery, and a pipelining client may have sent the
// beginning of its next series before it waits for the answers to the last.
func TestASeriesDoesNotHoldUpThePreviousAnswers(t *testing.T) {
	s := startStack(t, stackOptions{})
	hijacked, err := s.client(t).Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	if err := hijacked.Conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := hijacked.Conn.Write([]byte("S\x00\x00\x00\x04" + "P\x00\x00\x00\x10\x00select 1\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	msg, err := hijacked.Frontend.Receive()
	if _, ready := msg.(*pgproto3.ReadyForQuery); err != nil || !ready {
		t.Fatalf("got %#v, %v", msg, err)
	}
}
