package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// copyTables stand on every node and on the plain server that judges.
const copyTables = `
CREATE TABLE IF NOT EXISTS t(name text NOT NULL, id int PRIMARY KEY, note text CHECK (note <> 'bad'));
CREATE TABLE IF NOT EXISTS words(word text PRIMARY KEY);
CREATE TABLE IF NOT EXISTS tokens(token uuid PRIMARY KEY, n int DEFAULT 7, twice int GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE IF NOT EXISTS numbers(n bigint PRIMARY KEY, v varchar(5));
CREATE TABLE IF NOT EXISTS codes(code varchar(3) PRIMARY KEY, n int)`

const copyTableNames = "t, words, tokens, numbers, codes, accounts"

// copyRig is a gateway and a plain server with the same tables.
type copyRig struct {
	*stack
	plain string
}

// newCopyRig places all keys on the first n nodes.
func newCopyRig(t *testing.T, n int) *copyRig {
	t.Helper()
	s := startStack(t, stackOptions{config: func(config *Config) {
		owners := make([]string, DefaultBuckets)
		for i := range owners {
			owners[i] = config.Nodes[i%n].Name()
		}
		var err error
		config.Nodes = config.Nodes[:n]
		if config.Placement, err = NewPlacement(config.Nodes, owners); err != nil {
			t.Fatal(err)
		}
	}})
	rig := &copyRig{stack: s}
	rig.plain, _ = s.set.NewDatabase(t, "coordinator")
	for _, node := range s.nodes {
		s.exec(t, node.Name(), copyTables, "ALTER TABLE t OWNER TO "+rigOwner(t, s), "ALTER TABLE words OWNER TO "+rigOwner(t, s),
			"ALTER TABLE tokens OWNER TO "+rigOwner(t, s), "ALTER TABLE numbers OWNER TO "+rigOwner(t, s), "ALTER TABLE codes OWNER TO "+rigOwner(t, s))
	}
	rig.onPlain(t, copyTables+`; CREATE TABLE IF NOT EXISTS accounts(id text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0))`)
	return rig
}

// rigOwner is the role that the gateway uses at the nodes.
func rigOwner(t *testing.T, s *stack) string {
	t.Helper()
	var owner string
	err := s.direct["a"].QueryRow(t.Context(), "SELECT tableowner FROM pg_tables WHERE tablename = 'accounts'").Scan(&owner)
	if err != nil {
		t.Fatal(err)
	}
	return owner
}

func (s *stack) exec(t *testing.T, node string, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := s.direct[node].Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func (r *copyRig) onPlain(t *testing.T, sql string) []*pgconn.Result {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), r.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return results
}

// empty empties all tables.
func (r *copyRig) empty(t *testing.T) {
	t.Helper()
	for _, node := range r.nodes {
		r.exec(t, node.Name(), "TRUNCATE "+copyTableNames)
	}
	r.onPlain(t, "TRUNCATE "+copyTableNames)
}

// contents are the rows of a table on the plain server, and on the nodes
// together. That each is on its key's node is checked as well.
func (r *copyRig) contents(t *testing.T, table, key string) (plain, nodes []string) {
	t.Helper()
	sql := fmt.Sprintf("SELECT %s::text, x::text FROM %s x", key, table)
	for _, row := range r.onPlain(t, sql)[0].Rows {
		plain = append(plain, string(row[1]))
	}
	for _, node := range r.nodes {
		rows, err := r.direct[node.Name()].Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var key, row string
			if err := rows.Scan(&key, &row); err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, row)
			if owner := r.gateway.router.placement.NodeFor(key).Name(); owner != node.Name() {
				t.Errorf("%s: key %q is on %s, it belongs to %s", table, key, node.Name(), owner)
			}
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
	}
	slices.Sort(plain)
	slices.Sort(nodes)
	return plain, nodes
}

// copyCase is a COPY FROM STDIN with its data.
type copyCase struct {
	sql  string
	data []string // CopyData messages
	fail string   // CopyFail with this message instead of CopyDone
}

// copyOn runs the case and writes down all answers.
func copyOn(t *testing.T, url string, c copyCase) string {
	t.Helper()
	conn := dialRaw(t, url)
	defer conn.Conn.Close()
	return copyOver(t, conn, c)
}

func dialRaw(t *testing.T, url string) *pgconn.HijackedConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	if err := hijacked.Conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return hijacked
}

func copyOver(t *testing.T, conn *pgconn.HijackedConn, c copyCase) string {
	t.Helper()
	front := conn.Frontend
	front.Send(&pgproto3.Query{String: c.sql})
	if err := front.Flush(); err != nil {
		t.Fatal(err)
	}
	text, copying := copyAnswers(t, front)
	for copying {
		for _, data := range c.data {
			front.Send(&pgproto3.CopyData{Data: []byte(data)})
		}
		if c.fail != "" {
			front.Send(&pgproto3.CopyFail{Message: c.fail})
		} else {
			front.Send(&pgproto3.CopyDone{})
		}
		if err := front.Flush(); err != nil {
			t.Fatal(err)
		}
		var more string
		more, copying = copyAnswers(t, front)
		text += more
	}
	return text
}

// copyAnswers reads up to ReadyForQuery, or to CopyInResponse.
func copyAnswers(t *testing.T, front *pgproto3.Frontend) (text string, copying bool) {
	t.Helper()
	var out strings.Builder
	for {
		msg, err := front.Receive()
		if err != nil {
			t.Fatalf("%v after:\n%s", err, out.String())
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyInResponse:
			fmt.Fprintf(&out, "CopyIn %d %v\n", msg.OverallFormat, msg.ColumnFormatCodes)
			return out.String(), true
		case *pgproto3.CopyOutResponse:
			fmt.Fprintf(&out, "CopyOut %d %v\n", msg.OverallFormat, msg.ColumnFormatCodes)
		case *pgproto3.CopyData:
			fmt.Fprintf(&out, "CopyData %q\n", msg.Data)
		case *pgproto3.ErrorResponse:
			fmt.Fprintf(&out, "%s context %q\n", describeAnswer(msg), msg.Where)
		case *pgproto3.NoticeResponse:
			fmt.Fprintf(&out, "%s context %q\n", describeAnswer(msg), msg.Where)
		default:
			out.WriteString(describeAnswer(msg) + "\n")
		}
		if _, done := msg.(*pgproto3.ReadyForQuery); done {
			return out.String(), false
		}
	}
}

// bytewise is data in messages of one byte.
func bytewise(data string) []string { return strings.Split(data, "") }

func textCase(sql, data string) copyCase { return copyCase{sql: sql, data: []string{data}} }

// binaryData is data in binary format: rows of fields, nil for NULL.
func binaryData(trailer bool, rows ...[]any) string {
	out := string(binarySignature) + "\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, row := range rows {
		out += string([]byte{byte(len(row) >> 8), byte(len(row))})
		for _, field := range row {
			text, ok := field.(string)
			if !ok {
				out += "\xff\xff\xff\xff"
				continue
			}
			n := len(text)
			out += string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + text
		}
	}
	if trailer {
		out += "\xff\xff"
	}
	return out
}

func int4(n int32) string {
	return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// copyCases are compared with Postgres in every message and in what the tables
// hold afterwards.
var copyCases = map[string]copyCase{
	"plain":                 textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\nc\t3\tz\n"),
	"nothing":               {sql: "COPY t FROM STDIN"},
	"empty message":         {sql: "COPY t FROM STDIN", data: []string{"", "a\t1\tx\n", ""}},
	"no last line end":      textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty"),
	"bytewise":              {sql: "COPY t FROM STDIN", data: bytewise("a\t1\tx\nb\\t\t2\ty\\\nz\nc\t3\t\\N\n")},
	"columns":               textCase("COPY t (id, name) FROM STDIN", "1\ta\n2\tb\n"),
	"end marker":            textCase("COPY t FROM STDIN", "a\t1\tx\n\\.\nb\t2\ty\nrubbish\n"),
	"end marker and more":   {sql: "COPY t FROM STDIN", data: []string{"a\t1\tx\n\\.\n", "b\t2\ty\n", "c"}},
	"end marker, no line":   textCase("COPY t FROM STDIN", "a\t1\tx\n\\."),
	"end marker in a line":  textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\\.\n"),
	"corrupt by character":  textCase("COPY words FROM STDIN", "0\na\\.日b\nc\n"),
	"corrupt at the end":    {sql: "COPY words FROM STDIN", data: bytewiseRaw("0\r\na\\.\ré\r\nc")},
	"corrupt marker":        textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\n\\.x\n"),
	"marker of other style": textCase("COPY t FROM STDIN", "a\t1\tx\r\nb\t2\ty\r\n\\.\n"),
	"marker with \\r\\n":    {sql: "COPY t FROM STDIN", data: bytewise("a\t1\tx\r\nb\t2\ty\r\n\\.\r\n")},
	"crlf":                  {sql: "COPY t FROM STDIN", data: bytewise("a\t1\tx\r\nb\t2\ty\r\n")},
	"cr":                    textCase("COPY t FROM STDIN", "a\t1\tx\rb\t2\ty\rc\t3\tz"),
	"newline after cr":      textCase("COPY t FROM STDIN", "a\t1\tx\rb\t2\ty\nc\t3\tz\r"),
	"newlines behind cr":    textCase("COPY words FROM STDIN (HEADER)", "word\ra\rb\rc\r\n\nd\re\r"),
	"csv newline behind cr": textCase("COPY words FROM STDIN (FORMAT csv, QUOTE 'x', ESCAPE 'y')", "0\ra\r\n1"),
	"newline after crlf":    textCase("COPY t FROM STDIN", "a\t1\tx\r\nb\t2\ty\nc\t3\tz\r\n"),
	"cr after newline":      textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\nc\t3\tz\r\nd\t4\tz\n"),
	"cr after crlf":         textCase("COPY t FROM STDIN", "a\t1\tx\r\nb\t2\ty\r\nc\t3\tz\rd\t4\tz\r\n"),
	"escapes":               textCase("COPY words FROM STDIN", "a\\tb\n\\x41\\x4g\\xg\n\\101\\7\\0601\n\\b\\f\\n\\r\\v\\q\\\\N\n\\\\.\n\\.x\\\n"),
	"escapes of words":      textCase("COPY words FROM STDIN", "a\\tb\n\\x41\\x4g\\xg\n\\101\\7\\0601\n\\b\\f\\n\\r\\v\\q\\\\N\n\\\\.\ntwo\\\nlines\n"),
	"backslash at the end":  textCase("COPY words FROM STDIN", "a\nb\\"),
	"empty words":           textCase("COPY words FROM STDIN", "\na\n"),
	"zero byte by escape":   textCase("COPY words FROM STDIN", "a\nx\\0y\n"),
	"not UTF-8 by escape":   textCase("COPY words FROM STDIN", "a\n\\xff\\xfe\n"),
	"not UTF-8":             textCase("COPY words FROM STDIN", "a\nb\nx\xffy\nc\n"),
	"null key":              textCase("COPY t FROM STDIN", "a\t1\tx\nb\t\\N\ty\nc\t3\tz\n"),
	"null elsewhere":        textCase("COPY t FROM STDIN", "a\t1\t\\N\n\\N\t2\ty\n"),
	"missing columns":       textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\nc\n"),
	"missing last column":   textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\n"),
	"extra column":          textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\tz\n"),
	"empty line":            textCase("COPY t FROM STDIN", "a\t1\tx\n\nb\t2\ty\n"),
	"no number":             textCase("COPY t FROM STDIN", "a\t1\tx\nb\ttwo\ty\nc\t3\tz\n"),
	"number out of range":   textCase("COPY t FROM STDIN", "a\t1\tx\nb\t99999999999\ty\n"),
	"numbers":               textCase("COPY numbers FROM STDIN", "1\ta\n 2\tb\n+3\tc\n-0004\td\n0\te\n"),
	"too long elsewhere":    textCase("COPY numbers FROM STDIN", "1\tabcde\n2\tabcdefg\n"),
	"check":                 textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\nc\t3\tbad\nd\t4\tz\n"),
	"duplicate":             textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\nc\t3\tz\nd\t1\tz\n"),
	"duplicate and worse":   textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\nc\t1\tz\nd\t4\tz\ne\tfive\tz\n"),
	"two wrong rows":        textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\tbad\nc\t3\tbad\nd\t4\tbad\ne\t5\tbad\n"),
	"uuids":                 textCase("COPY tokens (token) FROM STDIN", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\n{A0EEBC99-9C0B4EF8BB6D6BB9BD380A12}\na0eebc999c0b4ef8bb6d6bb9bd380a13\n"),
	"no uuid":               textCase("COPY tokens (token, n) FROM STDIN", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\t1\na0ee\t2\n"),
	"generated column":      textCase("COPY tokens FROM STDIN", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\t1\n"),
	"generated named":       textCase("COPY tokens (token, twice) FROM STDIN", "x\n"),
	"too long key":          textCase("COPY codes FROM STDIN", "abc\t1\nabcd\t2\n"),
	"csv":                   textCase("COPY t FROM STDIN (FORMAT csv)", "a,1,x\n\"b,\"\"q\"\"\",2,\"two\nlines\"\nc,3,\n"),
	"csv bytewise":          {sql: "COPY t FROM STDIN (FORMAT csv)", data: bytewise("a,1,x\r\n\"b,\"\"q\"\"\",2,\"two\r\nlines\"\r\nc,3,\"\"\r\n")},
	"csv lines are counted": textCase("COPY t FROM STDIN (FORMAT csv)", "a,1,\"x\ny\nz\"\nb,2,\"\n\n\"\nc,3,z\nd,4,z\ne,five,z\n"),
	"csv first line":        textCase("COPY t FROM STDIN (FORMAT csv)", "a,1,\"x\ry\nz\n\"\nb,2,\"\n\r\n\"\nc,3,z\nd,4,z\ne,five,z\n"),
	"csv header":            textCase("COPY t FROM STDIN (FORMAT csv, HEADER)", "name,id,\"no\nte\"\na,1,x\nb,2,y\nc,three,z\n"),
	"csv header match":      textCase("COPY t FROM STDIN (FORMAT csv, HEADER match)", "name,id,note\na,1,x\nb,2,y\nc,3,z\n"),
	"header does not match": textCase("COPY t FROM STDIN (FORMAT csv, HEADER MATCH)", "name,ident,note\na,1,x\n"),
	"header only":           textCase("COPY t FROM STDIN (FORMAT csv, HEADER)", "name,id,note\n"),
	"header and nothing":    {sql: "COPY t FROM STDIN (FORMAT csv, HEADER)"},
	"text header":           textCase("COPY t FROM STDIN (HEADER)", "name\tid\tnote\na\t1\tx\nb\t2\ty\n"),
	"csv end marker":        textCase("COPY t FROM STDIN (FORMAT csv)", "a,1,x\n\\.\nb,2,y\n"),
	"csv no end marker":     textCase("COPY words FROM STDIN (FORMAT csv)", "\\.x\n\\.y\\.\n\"\\.\"\n\\."),
	"csv unterminated":      textCase("COPY t FROM STDIN (FORMAT csv)", "a,1,x\nb,2,y\nc,\"3\nd,4,z\n"),
	"csv late unterminated": textCase("COPY t FROM STDIN (FORMAT csv)", "a,1,x\nb,2,y\nc,3,\"z\nd,4,z\n"),
	"csv unquoted cr":       textCase("COPY t FROM STDIN (FORMAT csv)", "a,1,x\nb,2\r,y\n"),
	"csv options":           textCase("COPY t FROM STDIN (FORMAT csv, DELIMITER '|', QUOTE '''', ESCAPE '\\', NULL 'nil')", "'a\\'|\\\\'|1|nil\nb|'2'|'nil'\n"),
	"csv null key":          textCase("COPY t FROM STDIN (FORMAT csv)", "a,1,x\nb,,y\n"),
	"csv quoted null key":   textCase("COPY words FROM STDIN (FORMAT csv, NULL 'x')", "\"x\"\ny\n"),
	"force null":            textCase("COPY words FROM STDIN (FORMAT csv, NULL 'x', FORCE_NULL (word))", "\"y\"\n\"x\"\n"),
	"force not null":        textCase("COPY words FROM STDIN (FORMAT csv, FORCE_NOT_NULL (word))", "a\n\nb\n"),
	"old syntax":            textCase("COPY t FROM STDIN WITH CSV HEADER DELIMITER ';' NULL 'x'", "name;id;note\na;1;x\n"),
	"text options":          textCase("COPY t FROM STDIN (DELIMITER '|', NULL '')", "a\\|b|1|\nc|2|\\N\n"),
	"where":                 textCase("COPY t FROM STDIN WHERE id > 1 AND length(name) = 1", "a\t1\tx\nb\t2\ty\ncc\t3\tz\nd\t4\tz\n"),
	"utf8":                  textCase("COPY words FROM STDIN (ENCODING 'UTF-8')", "é\nß\n日本\n"),
	"binary":                textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(true, []any{"a", int4(1), "x"}, []any{"b", int4(-2), nil}, []any{"c", int4(3), ""})),
	"binary bytewise":       {sql: "COPY BINARY t FROM STDIN", data: bytewiseRaw(binaryData(true, []any{"a", int4(1), "x"}, []any{"b", int4(-2), nil}))},
	"binary no trailer":     textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(false, []any{"a", int4(1), "x"}, []any{"b", int4(2), "y"})),
	"binary no rows":        textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(true)),
	"binary nothing":        {sql: "COPY t FROM STDIN (FORMAT binary)"},
	"binary rubbish":        textCase("COPY t FROM STDIN (FORMAT binary)", "a\t1\tx\nb\t2\ty\nc\t3\tz\n"),
	"binary after trailer":  textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(true, []any{"a", int4(1), "x"}, []any{"b", int4(2), "y"})+"x"),
	"binary cut short":      textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(false, []any{"a", int4(1), "x"}, []any{"b", int4(2), "y"})+"\x00\x03\x00\x00\x00\x05ab"),
	"binary one byte more":  textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(false, []any{"a", int4(1), "x"})+"\x00"),
	"binary fields":         textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(true, []any{"a", int4(1), "x"}, []any{"b", int4(2)})),
	"binary length":         textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(false, []any{"a", int4(1), "x"})+"\x00\x03\xff\xff\xff\xfe"),
	"binary int of 3 bytes": textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(true, []any{"a", int4(1), "x"}, []any{"b", "abc", "y"})),
	"binary null key":       textCase("COPY t FROM STDIN (FORMAT binary)", binaryData(true, []any{"a", int4(1), "x"}, []any{"b", nil, "y"})),
	"binary bad flags":      textCase("COPY t FROM STDIN (FORMAT binary)", string(binarySignature)+"\x00\x02\x00\x00\x00\x00\x00\x00\xff\xff"),
	"binary extension":      textCase("COPY t FROM STDIN (FORMAT binary)", string(binarySignature)+"\x00\x00\x00\x00\x00\x00\x00\x02xy"+binaryData(true, []any{"a", int4(1), "x"})[binaryHeader:]),
	"fails":                 {sql: "COPY t FROM STDIN", data: []string{"a\t1\tx\nb\t2\ty\nc\t3"}, fail: "no more"},
	"fails at once":         {sql: "COPY t FROM STDIN", fail: "no more"},
	"fails behind an error": {sql: "COPY t FROM STDIN", data: []string{"a\t1\tx\nb\ttwo\ty\nc\t3\tz\n"}, fail: "no more"},
	"csv fails":             {sql: "COPY t FROM STDIN (FORMAT csv)", data: []string{"a,1,\"x\n\n\"\nb,2,y\nc,3,z\n"}, fail: "no more"},
	"unknown table":         textCase("COPY nowhere FROM STDIN", "x\n"),
	"unknown column":        textCase("COPY t (nix) FROM STDIN", "x\n"),
	"column twice":          textCase("COPY t (id, id) FROM STDIN", "x\n"),
	"wrong option":          textCase("COPY t FROM STDIN (DELIMITER 'ab')", "x\n"),
	"unknown option":        textCase("COPY t FROM STDIN (nonsense)", "x\n"),
	"option twice":          textCase("COPY t FROM STDIN (FORMAT csv, FORMAT text)", "x\n"),
	"quote in text":         textCase("COPY t FROM STDIN (QUOTE '*')", "x\n"),
	"no key column":         textCase("COPY t (name, note) FROM STDIN", "a\tx\nb\ty\n"),
	"no key column, no row": {sql: "COPY t (name, note) FROM STDIN"},
	"several statements":    textCase("COPY words FROM STDIN; COPY words FROM STDIN; SELECT 1", "a"),
	"several, good":         textCase("INSERT INTO t VALUES ('z', 100, 'z'); COPY t FROM STDIN; SELECT 1", "a\t1\tx\nb\t2\ty\n"),
	"read only":             textCase("BEGIN READ ONLY; COPY t FROM STDIN", "a\t1\tx\n"),
	"in a block":            textCase("BEGIN; COPY t FROM STDIN; COMMIT", "a\t1\tx\nb\t2\ty\nc\t3\tz\n"),
	"in a block, wrong":     textCase("BEGIN; COPY t FROM STDIN; COMMIT", "a\t1\tx\nb\t2\ty\nc\tthree\tz\n"),
}

// bytewiseRaw is bytewise for data that is not UTF-8.
func bytewiseRaw(data string) []string {
	var messages []string
	for i := range len(data) {
		messages = append(messages, data[i:i+1])
	}
	return messages
}

// TestCopyFromAsPostgres: the same data gives the same messages, row for row and
// error for error, and the same rows.
func TestCopyFromAsPostgres(t *testing.T) {
	rig := newCopyRig(t, 3)
	for name, c := range copyCases {
		t.Run(name, func(t *testing.T) {
			rig.compare(t, c)
		})
	}
	rig.idle(t)
}

var copyKeys = map[string]string{"t": "id", "words": "word", "tokens": "token", "numbers": "n", "codes": "code"}

// compare runs the case on both and holds the answers and tables together.
func (r *copyRig) compare(t *testing.T, c copyCase) {
	t.Helper()
	r.empty(t)
	want, got := copyOn(t, r.plain, c), copyOn(t, r.url, c)
	if got != want {
		t.Errorf("%s\n%q\n--- Postgres\n%s\n--- gateway\n%s", c.sql, c.data, want, got)
	}
	for table, key := range copyKeys {
		if !strings.Contains(c.sql, table) {
			continue
		}
		plain, nodes := r.contents(t, table, key)
		if !slices.Equal(plain, nodes) {
			t.Errorf("%s\n%q\n%s holds on Postgres\n%q\non the nodes\n%q", c.sql, c.data, table, plain, nodes)
		}
	}
}
