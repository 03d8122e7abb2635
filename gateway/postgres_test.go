package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// The judge is Postgres: the same messages are sent to the gateway and to a
// plain server with the same tables, and what comes back must be the same,
// message by message. testdata/postgres holds the conversations.

// TestSameAsPostgres runs every conversation of testdata/postgres on both.
func TestSameAsPostgres(t *testing.T) {
	s := startStack(t, stackOptions{})
	plain, _ := s.set.NewDatabase(t, "coordinator")
	files, err := filepath.Glob("testdata/postgres/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	accepted := readAccepted(t)
	recordable := serverVersion(t, plain) == judgedVersion
	exchanges := 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// @a and @b are keys on different nodes.
			keys := s.fill(t)
			script := strings.NewReplacer("@a", keys[0][0], "@b", keys[1][0], "@c", keys[2][0]).Replace(string(text))
			back := strings.NewReplacer(keys[0][0], "@a", keys[1][0], "@b", keys[2][0], "@c")
			var recorded strings.Builder
			s.fillPlain(t, plain, keys)
			for _, conversation := range conversations(script) {
				want := converseWith(t, plain, conversation, func(sql string) { execute(t, plain, sql) })
				got := converseWith(t, s.url, conversation, s.change(t))
				compareAnswers(t, want, got, accepted)
				recorded.WriteString(back.Replace(renderAnswers(want)) + "\n")
				for _, a := range want {
					exchanges += strings.Count(a.text, "ReadyForQuery")
				}
			}
			if recordable {
				checkRecorded(t, strings.TrimSuffix(file, ".txt")+".want", recorded.String())
			}
			s.idle(t)
		})
	}
	if exchanges < 120 {
		t.Errorf("%d exchanges, want 120 at least", exchanges)
	}
	for _, d := range accepted {
		if !d.used {
			t.Errorf("accepted difference that is none any more: %s", d.because)
		}
	}
}

// fillPlain gives the plain database the accounts that the nodes have together.
func (s *stack) fillPlain(t *testing.T, url string, keys [3][2]string) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	sql := `CREATE TABLE IF NOT EXISTS accounts(id text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0)); TRUNCATE accounts`
	for _, pair := range keys {
		for _, key := range pair {
			sql += fmt.Sprintf("; INSERT INTO accounts VALUES ('%s', 1000)", key)
		}
	}
	if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// conversations splits a file at its empty lines; # begins a comment.
func conversations(text string) []string {
	var found []string
	for _, part := range strings.Split(text, "\n\n") {
		var lines []string
		for _, line := range strings.Split(part, "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		if len(lines) > 0 {
			found = append(found, strings.Join(lines, "\n"))
		}
	}
	return found
}

// converse sends the lines of a conversation on a connection of its own and
// writes down the answers. Messages are held until a line that is answered at
// once (Q, S, H) is reached, so that they arrive together.
func converse(t *testing.T, url, script string) []answered {
	t.Helper()
	return converseWith(t, url, script, nil)
}

// execute runs SQL on a connection of its own.
func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// change returns what runs SQL on all nodes, and has the gateway take note of
// it, as it does by itself within a second.
func (s *stack) change(t *testing.T) func(sql string) {
	return func(sql string) {
		t.Helper()
		for _, node := range s.nodes {
			execute(t, s.set.SuperURL(node.Name()), sql)
		}
		s.gateway.catalogs.Reload(t.Context())
	}
}

// converseWith is converse with what a line A does.
func converseWith(t *testing.T, url, script string, aside func(sql string)) []answered {
	t.Helper()
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	if err := hijacked.Conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	talk := &talk{t: t, front: hijacked.Frontend, conn: conn, nc: hijacked.Conn, config: config, aside: aside}
	var answers []answered
	for _, line := range strings.Split(script, "\n") {
		talk.out.Reset()
		talk.line(line)
		answers = append(answers, answered{line: line, text: talk.out.String()})
	}
	return answers
}

type talk struct {
	t      *testing.T
	front  *pgproto3.Frontend
	conn   *pgconn.PgConn // for CancelRequest
	nc     net.Conn
	config *pgconn.Config
	aside  func(sql string)
	out    strings.Builder
}

// line sends one message. The words of a line are separated by "|":
//
//	Q|sql              Query, and everything up to ReadyForQuery
//	P|name|sql|oid ... Parse
//	B|portal|statement|parameter ...  Bind; a parameter is text, or NULL
//	D|S|name           Describe; D|P|name
//	E|portal|rows      Execute
//	C|S|name           Close
//	S                  Sync, and everything up to ReadyForQuery
//	H|n                Flush, and n messages
//	F|...              Bind with formats: bindFormats
//	K|sql              Query, and a cancel
//	R|n|line~line      these lines n times
//	A|sql              somebody else changes the tables
//	W                  everything up to the connection's end, or for two seconds
//	startup|version|name=value ...
func (k *talk) line(line string) {
	words := strings.Split(line, "|")
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch words[0] {
	case "F":
		k.front.Send(k.bindFormats(words))
	case "K":
		k.cancel(word(1))
	case "R":
		parts := strings.SplitN(line, "|", 3)
		n, err := strconv.Atoi(parts[1])
		if err != nil {
			k.t.Fatal(err)
		}
		for range n {
			for _, again := range strings.Split(parts[2], "~") {
				k.line(again)
			}
		}
	case "A":
		k.aside(word(1))
	case "W":
		if err := k.nc.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			k.t.Fatal(err)
		}
		k.answers(1 << 20)
	case "startup":
		k.startUp(words)
	case "Q":
		k.front.Send(&pgproto3.Query{String: word(1)})
		k.answers(0)
	case "P":
		msg := &pgproto3.Parse{Name: word(1), Query: word(2)}
		for _, oid := range strings.Fields(word(3)) {
			n, err := strconv.ParseUint(oid, 10, 32)
			if err != nil {
				k.t.Fatal(err)
			}
			msg.ParameterOIDs = append(msg.ParameterOIDs, uint32(n))
		}
		k.front.Send(msg)
	case "B":
		msg := &pgproto3.Bind{DestinationPortal: word(1), PreparedStatement: word(2)}
		for _, value := range words[min(len(words), 3):] {
			if value == "NULL" {
				msg.Parameters = append(msg.Parameters, nil)
			} else {
				msg.Parameters = append(msg.Parameters, []byte(value))
			}
		}
		k.front.Send(msg)
	case "D":
		k.front.Send(&pgproto3.Describe{ObjectType: word(1)[0], Name: word(2)})
	case "E":
		rows, _ := strconv.Atoi(word(2))
		k.front.Send(&pgproto3.Execute{Portal: word(1), MaxRows: uint32(rows)})
	case "C":
		k.front.Send(&pgproto3.Close{ObjectType: word(1)[0], Name: word(2)})
	case "S":
		k.front.Send(&pgproto3.Sync{})
		k.answers(0)
	case "H":
		k.front.Send(&pgproto3.Flush{})
		n, err := strconv.Atoi(word(1))
		if err != nil {
			k.t.Fatal(err)
		}
		k.answers(n)
	default:
		k.t.Fatalf("no such line: %q", line)
	}
}

// answers reads n messages, or with 0 everything up to ReadyForQuery.
func (k *talk) answers(n int) {
	if err := k.front.Flush(); err != nil {
		fmt.Fprintf(&k.out, "write failed: %v\n", err)
		return
	}
	for i := 0; n == 0 || i < n; i++ {
		msg, err := k.front.Receive()
		if err != nil {
			if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
				k.out.WriteString("nothing comes\n")
			} else {
				k.out.WriteString("the connection is closed\n")
			}
			return
		}
		switch msg.(type) {
		case *pgproto3.AuthenticationOk, *pgproto3.BackendKeyData:
			continue
		}
		k.out.WriteString(describeAnswer(msg) + "\n")
		if _, done := msg.(*pgproto3.ReadyForQuery); done && n == 0 {
			return
		}
	}
}

// describeAnswer writes a message down without what must differ: OIDs of tables
// and places in Postgres's source.
func describeAnswer(msg pgproto3.BackendMessage) string {
	switch msg := msg.(type) {
	case *pgproto3.RowDescription:
		text := "RowDescription"
		for _, f := range msg.Fields {
			text += fmt.Sprintf(" %s:%d:%d:%d:%d", f.Name, f.DataTypeOID, f.DataTypeSize, f.TypeModifier, f.Format)
		}
		return text
	case *pgproto3.DataRow:
		text := "DataRow"
		for _, value := range msg.Values {
			text += fmt.Sprintf(" %q", value)
		}
		return text
	case *pgproto3.ErrorResponse:
		return "Error " + errorFields(msg)
	case *pgproto3.NoticeResponse:
		return "Notice " + errorFields((*pgproto3.ErrorResponse)(msg))
	case *pgproto3.CommandComplete:
		return "CommandComplete " + string(msg.CommandTag)
	case *pgproto3.ReadyForQuery:
		return "ReadyForQuery " + string(msg.TxStatus)
	case *pgproto3.ParameterStatus:
		if msg.Name == "session_authorization" {
			return "ParameterStatus session_authorization" // the stack's clients are not the plain server's
		}
		return "ParameterStatus " + msg.Name + "=" + msg.Value
	case *pgproto3.ParameterDescription:
		return fmt.Sprintf("ParameterDescription %v", msg.ParameterOIDs)
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", msg), "*pgproto3.")
}

func errorFields(e *pgproto3.ErrorResponse) string {
	return fmt.Sprintf("%s %s %s | detail %q hint %q position %d | table %q constraint %q",
		e.Severity, e.Code, e.Message, e.Detail, e.Hint, e.Position, e.TableName, e.ConstraintName)
}
