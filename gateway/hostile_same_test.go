package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// message is a raw message with a right length.
func message(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))) + body
}

const (
	copyBinary  = "copy accounts from stdin (format binary)"
	signature   = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	emptySeries = "P\x00\x00\x00\x08\x00\x00\x00\x00B\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00"
)

// wrongMessages are conversations with something wrong in them about which Postgres has an opinion.
func wrongMessages() map[string]string {
	sync := message('S', "")
	copying := func(sql string, then ...string) string {
		return message('Q', sql+"\x00") + strings.Join(then, "") + sync
	}
	inSeries := func(sql string, then ...string) string {
		return message('P', "\x00"+sql+"\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x00") +
			message('E', "\x00\x00\x00\x00\x00") + strings.Join(then, "") + sync
	}
	return map[string]string{
		"unknown type":                  message('y', "") + sync,
		"unknown type while skipping":   message('B', "\x00x\x00\x00\x00\x00\x00\x00\x00") + message('y', "") + sync,
		"length 3":                      "Q\x00\x00\x00\x03" + sync,
		"length 0":                      "S\x00\x00\x00\x00" + sync,
		"query without zero":            message('Q', "select 1") + sync,
		"query with a zero inside":      message('Q', "select 1\x00;\x00") + sync,
		"Sync with a body":              message('S', "x") + sync,
		"Flush with a body":             message('H', "x") + sync,
		"Parse cut short":               message('P', "\x00select 1\x00\x00") + sync,
		"Parse with too few OIDs":       message('P', "\x00select 1\x00\x00\x02\x00\x00\x00\x17") + sync,
		"Parse with bytes behind":       message('P', "\x00select 1\x00\x00\x00x") + sync,
		"Bind with a length of -2":      emptySeries[:9] + message('B', "\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00") + sync,
		"Bind with a huge length":       message('P', "\x00select $1\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x01\x7f\xff\xff\xff\x00\x00") + sync,
		"Bind with bytes behind":        message('P', "\x00select 1\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x00x") + sync,
		"Bind with too many parameters": message('P', "\x00select 1\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01x\x00\x00") + sync,
		"Bind with format 2":            message('P', "\x00select $1\x00\x00\x00") + message('B', "\x00\x00\x00\x01\x00\x02\x00\x01\x00\x00\x00\x01x\x00\x00") + sync,
		"Bind with result format 2":     message('P', "\x00select 1\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x02") + message('E', "\x00\x00\x00\x00\x00") + sync,
		"Bind with two result formats":  message('P', "\x00select 1\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + sync,
		"Describe of neither":           message('D', "x\x00") + sync,
		"Close of neither":              message('C', "x\x00") + sync,
		"Execute cut short":             message('E', "\x00\x00") + sync,
		"Execute of nothing":            message('E', "nothing\x00\x00\x00\x00\x00") + sync,
		"text that is not UTF-8":        message('Q', "select '\xff'\x00") + sync,
		"a parameter that is not UTF-8": message('P', "\x00select $1::text\x00\x00\x00") + message('B', "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\xff\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + sync,
		"COPY messages out of place":    message('d', "x") + message('c', "") + message('f', "x\x00") + sync,
		"Query behind a failed Parse":   message('P', "\x00select * from nowhere\x00\x00\x00") + message('Q', "select 1\x00") + sync,

		"COPY: data without end":            copying("copy accounts from stdin", message('d', "zz"), message('c', "")),
		"COPY: too many columns":            copying("copy accounts from stdin", message('d', "zz\t1\t2\n"), message('c', "")),
		"COPY: failed by the client":        copying("copy accounts from stdin", message('d', "zz\t1\n"), message('f', "no\x00")),
		"COPY: failed without zero":         copying("copy accounts from stdin", message('f', "no")),
		"COPY: a Query inside":              copying("copy accounts from stdin", message('Q', "select 1\x00")),
		"COPY: Sync and Flush inside":       copying("copy accounts from stdin", message('S', ""), message('H', ""), message('f', "no\x00")),
		"COPY: not UTF-8":                   copying("copy accounts from stdin", message('d', "\xff\t1\n"), message('c', "")),
		"COPY: no signature":                copying(copyBinary, message('d', strings.Repeat("x", 30)), message('c', "")),
		"COPY: half a signature":            copying(copyBinary, message('d', "PGCOPY"), message('c', "")),
		"COPY: nothing behind it":           copying(copyBinary, message('d', signature), message('c', "")),
		"COPY: a huge header extension":     copying(copyBinary, message('d', signature[:15]+"\x7f\xff\xff\xff"), message('c', "")),
		"COPY: a negative header extension": copying(copyBinary, message('d', signature[:15]+"\xff\xff\xff\xff"), message('c', "")),
		"COPY: three fields of two":         copying(copyBinary, message('d', signature+"\x00\x03"), message('c', "")),
		"COPY: -2 fields":                   copying(copyBinary, message('d', signature+"\xff\xfe"), message('c', "")),
		"COPY: a field of length -2":        copying(copyBinary, message('d', signature+"\x00\x02\xff\xff\xff\xfe"), message('c', "")),
		"COPY: a field of 2 GB":             copying(copyBinary, message('d', signature+"\x00\x02\x7f\xff\xff\xffab"), message('c', "")),
		"COPY: a field cut short":           copying(copyBinary, message('d', signature+"\x00\x02\x00\x00\x00\x09ab"), message('c', "")),
		"COPY: a bigint of three bytes":     copying(copyBinary, message('d', signature+"\x00\x02\x00\x00\x00\x02zz\x00\x00\x00\x03\x00\x00\x01\xff\xff"), message('c', "")),
		"COPY: data behind the trailer":     copying(copyBinary, message('d', signature+"\xff\xff"+"x"), message('c', "")),
		"COPY: in a series, failed":         inSeries("copy accounts from stdin", message('f', "no\x00")),
		"COPY: in a series, wrong":          inSeries("copy accounts from stdin", message('d', "zz\n"), message('c', "")),
	}
}

// otherAnswers are the differences from Postgres that are meant: what the gateway answers instead.
var otherAnswers = map[string]string{
	// Postgres closes and tells its log; a word to the client harms nobody.
	"length 0": "FATAL 08P01",
	"length 3": "FATAL 08P01",
	// The wrong format code is known at Bind; Postgres looks at it when the portal runs.
	"Bind with result format 2": "ParseComplete ERROR 22023 ready I",
}

// TestWrongMessagesAreAnsweredAsByPostgres: message types, SQLSTATEs, severities and status bytes of the answers are those of a
// plain server, and so is the moment at which the connection ends.
func TestWrongMessagesAreAnsweredAsByPostgres(t *testing.T) {
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	plain, _ := s.set.NewDatabase(t, "coordinator")
	s.fillPlain(t, plain, keys)
	for name, sent := range wrongMessages() {
		t.Run(name, func(t *testing.T) {
			want, got := sendRaw(t, plain, sent), sendRaw(t, s.url, sent)
			if other, meant := otherAnswers[name]; meant {
				if want == other {
					t.Errorf("Postgres answers %s too: no difference", want)
				}
				want = other
			}
			if got != want {
				t.Errorf("sent %q\nwanted %s\n   got %s", sent, want, got)
			}
		})
	}
	s.idle(t)
}

// sendRaw sends bytes on a connection of its own, closes that direction, and writes down what comes back until the end.
func sendRaw(t *testing.T, url, sent string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	if err := hijacked.Conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(hijacked.Conn, sent); err != nil {
		t.Fatal(err)
	}
	if half, ok := hijacked.Conn.(*net.TCPConn); ok {
		if err := half.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	var words []string
	for {
		msg, err := hijacked.Frontend.Receive()
		if err != nil {
			if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
				words = append(words, "silence")
			}
			return strings.Join(words, " ")
		}
		switch msg := msg.(type) {
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		case *pgproto3.ErrorResponse:
			words = append(words, msg.Severity+" "+msg.Code)
		case *pgproto3.ReadyForQuery:
			words = append(words, "ready "+string(msg.TxStatus))
		default:
			words = append(words, strings.TrimPrefix(fmt.Sprintf("%T", msg), "*pgproto3."))
		}
	}
}
