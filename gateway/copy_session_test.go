package gateway

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestCopy runs what is about sessions and transactions rather than data.
func TestCopy(t *testing.T) {
	rig := newCopyRig(t, 3)
	for name, test := range map[string]func(*testing.T, *copyRig){
		"out":                 testCopyOut,
		"out and in again":    testCopyOutAndIn,
		"refusals":            testCopyRefusals,
		"extended":            testCopyExtended,
		"block and savepoint": testCopyBlock,
		"other messages":      testCopyOtherMessages,
		"client vanishes":     testCopyVanished,
		"cancel":              testCopyCancel,
		"notices":             testCopyNotices,
		"trigger writes":      testCopyTrigger,
		"large and wrong":     testCopyLargeWrong,
		"node lost":           testCopyNodeLost,
		"row too long":        testCopyTooLong,
		"deferred constraint": testCopyDeferred,
	} {
		t.Run(name, func(t *testing.T) {
			rig.empty(t)
			test(t, rig)
			rig.idle(t)
		})
	}
}

// rows fills t with the same rows everywhere.
func (r *copyRig) rows(t *testing.T, n int) {
	t.Helper()
	var data strings.Builder
	for i := range n {
		fmt.Fprintf(&data, "name \"%d\"\t%d\ttwo\\nlines, and more\n", i, i)
	}
	c := textCase("COPY t FROM STDIN", data.String())
	if want, got := copyOn(t, r.plain, c), copyOn(t, r.url, c); got != want {
		t.Fatalf("%s, want %s", got, want)
	}
}

// sortedData sorts the CopyData lines, which come node by node.
func sortedData(text string) string {
	lines := strings.Split(text, "\n")
	isData := func(line string) bool { return strings.HasPrefix(line, "CopyData") }
	first := slices.IndexFunc(lines, isData)
	if first < 0 {
		return text
	}
	last := first
	for last < len(lines) && isData(lines[last]) {
		last++
	}
	slices.Sort(lines[first:last])
	return strings.Join(lines, "\n")
}

func testCopyOut(t *testing.T, r *copyRig) {
	for _, rows := range []int{0, 1, 50} {
		r.empty(t)
		r.rows(t, rows)
		for _, sql := range []string{
			"COPY t TO STDOUT",
			"COPY t (id, note) TO STDOUT",
			"COPY t TO STDOUT (FORMAT csv)",
			"COPY t TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)",
			"COPY t TO STDOUT (HEADER)",
			"COPY t TO STDOUT WITH CSV HEADER",
			"COPY (SELECT id, name FROM t WHERE id > 7) TO STDOUT",
			"COPY (SELECT 1 AS one, 'x' AS x) TO STDOUT (FORMAT csv, HEADER)",
			"COPY (SELECT name FROM t WHERE id = 0) TO STDOUT (FORMAT binary)",
			"COPY (UPDATE t SET note = 'new' WHERE id < 20 RETURNING id, note) TO STDOUT (HEADER)",
			"COPY (DELETE FROM t WHERE id = 3 RETURNING *) TO STDOUT",
			"SELECT 1; COPY t (id) TO STDOUT; SELECT 2",
			"BEGIN; COPY t (id) TO STDOUT; COMMIT",
			"COPY t (nix) TO STDOUT", "COPY nowhere TO STDOUT", "COPY (SELECT) TO STDOUT", "COPY t TO STDOUT (FORCE_NULL (id))",
			"COPY (SELECT 100 / (id - 7) FROM t) TO STDOUT",
		} {
			want, got := copyOn(t, r.plain, copyCase{sql: sql}), copyOn(t, r.url, copyCase{sql: sql})
			if strings.Contains(want, "division") { // how many rows came before it is chance
				want, got = want[strings.Index(want, "Error"):], got[max(0, strings.Index(got, "Error")):]
			}
			if sortedData(got) != sortedData(want) {
				t.Errorf("%d rows, %s\n--- Postgres\n%s\n--- gateway\n%s", rows, sql, want, got)
			}
		}
		plain, nodes := r.contents(t, "t", "id")
		if !slices.Equal(plain, nodes) {
			t.Errorf("Postgres holds %q, the nodes %q", plain, nodes)
		}
	}
}

func testCopyOutAndIn(t *testing.T, r *copyRig) {
	for _, options := range []string{"FORMAT text", "HEADER", "FORMAT csv", "FORMAT csv, HEADER", "FORMAT csv, HEADER, QUOTE '|', DELIMITER E'\\t'", "FORMAT binary"} {
		for _, rows := range []int{0, 1, 2, 3000} {
			r.empty(t)
			r.rows(t, rows)
			conn := r.client(t)
			var data bytes.Buffer
			tag, err := conn.CopyTo(t.Context(), &data, "COPY t TO STDOUT ("+options+")")
			if err != nil || tag.RowsAffected() != int64(rows) {
				t.Fatalf("%s, %d rows: %v, %v", options, rows, tag, err)
			}
			r.onPlain(t, "TRUNCATE t")
			plain, err := pgconn.Connect(t.Context(), r.plain)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := plain.CopyFrom(t.Context(), &data, "COPY t FROM STDIN ("+options+")"); err != nil {
				t.Errorf("%s, %d rows: %v", options, rows, err)
			}
			_ = plain.Close(context.Background())
			want, got := r.contents(t, "t", "id")
			if !slices.Equal(want, got) || len(want) != rows {
				t.Errorf("%s, %d rows: Postgres holds %d rows, the nodes %d", options, rows, len(want), len(got))
			}
		}
	}
}

func testCopyRefusals(t *testing.T, r *copyRig) {
	for sql, code := range map[string]string{
		"COPY t TO '/tmp/x'":                                         "42501",
		"COPY t FROM '/tmp/x'":                                       "42501",
		"COPY t FROM PROGRAM 'id'":                                   "42501",
		"COPY t TO PROGRAM 'id'":                                     "42501",
		"COPY pgpact.branches FROM STDIN":                            "42501",
		"COPY pgpact.branches TO STDOUT":                             "42501",
		"COPY (SELECT * FROM pgpact.node) TO STDOUT":                 "42501",
		"COPY pg_class FROM STDIN":                                   "42501",
		"COPY t FROM STDIN (FREEZE)":                                 "0A000",
		"COPY t FROM STDIN (ENCODING 'LATIN1')":                      "0A000",
		"COPY t TO STDOUT (ENCODING 'LATIN1')":                       "0A000",
		"COPY (SELECT count(*) FROM t) TO STDOUT":                    "0A000",
		"COPY (SELECT * FROM t ORDER BY id) TO STDOUT":               "0A000",
		"COPY t FROM STDIN WHERE pg_advisory_lock(id) IS NOT NULL":   "0A000",
		"COPY t FROM STDIN (ON_ERROR ignore)":                        "0A000",
		"COPY (INSERT INTO t VALUES (1, 2, 'x')) TO STDOUT":          "0A000",
		"COPY t FROM STDIN WHERE id IN (SELECT n FROM numbers)":      "0A000",
		"COPY t FROM STDIN WHERE nonsense(id)":                       "42883",
		"COPY (SELECT 1; SELECT 2) TO STDOUT":                        "42601",
		"BEGIN; DECLARE c CURSOR FOR COPY t TO STDOUT":               "42601",
		"EXPLAIN COPY t TO STDOUT":                                   "42601",
		"COPY (SELECT * FROM pgpact.node) TO STDOUT (FORMAT binary)": "42501",
	} {
		text := copyOn(t, r.url, copyCase{sql: sql, data: []string{"x\t1\ty\n"}})
		if !strings.Contains(text, "Error ERROR "+code) || strings.Contains(text, "CopyData") {
			t.Errorf("%s: want %s\n%s", sql, code, text)
		}
	}
	// A key that would be stored otherwise than it is written.
	for data, want := range map[string]string{"ab \n": "CommandComplete COPY 1", "abc \n": "0A000"} {
		if text := copyOn(t, r.url, textCase("COPY codes (code) FROM STDIN", "x\n"+data)); want != "0A000" && strings.Contains(text, "0A000") ||
			want == "0A000" && !strings.Contains(text, `0A000 value for the shard key "code" of table public.codes is longer than character varying(3)`) ||
			want == "0A000" && !strings.Contains(text, "COPY codes, line 2") {
			t.Errorf("%q: %s", data, text)
		}
	}
}

// testCopyExtended: Sync behind Execute comes in the middle of COPY, as libpq
// sends it.
func testCopyExtended(t *testing.T, r *copyRig) {
	start := func(sql string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'},
			&pgproto3.Execute{}, &pgproto3.Sync{}}
	}
	data := func(text string) pgproto3.FrontendMessage { return &pgproto3.CopyData{Data: []byte(text)} }
	end := []pgproto3.FrontendMessage{&pgproto3.CopyDone{}, &pgproto3.Sync{}}
	for name, messages := range map[string][]pgproto3.FrontendMessage{
		"in":            append(append(start("COPY t FROM STDIN"), data("a\t1\tx\nb\t2\ty\nc\t3\tz\n"), &pgproto3.Flush{}), end...),
		"in, wrong":     append(append(start("COPY t FROM STDIN"), data("a\t1\tx\nb\ttwo\ty\nc\t3\tz\n"), data("d\t4\tz\n")), end...),
		"in, failed":    append(start("COPY t FROM STDIN"), data("a\t1\tx\n"), &pgproto3.CopyFail{Message: "no"}, &pgproto3.Sync{}),
		"out":           start("COPY (SELECT 1) TO STDOUT"),
		"out of nobody": start("COPY nowhere TO STDOUT"),
		"not at all":    append(start("COPY nowhere FROM STDIN"), &pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Sync{}),
		"twice": {&pgproto3.Parse{Query: "COPY (SELECT 1) TO STDOUT"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Execute{},
			&pgproto3.Sync{}},
		"in a pipeline": append(append([]pgproto3.FrontendMessage{&pgproto3.Parse{Query: "INSERT INTO t VALUES ('i', 50, 'x')"},
			&pgproto3.Bind{}, &pgproto3.Execute{}}, start("COPY t FROM STDIN")...), append([]pgproto3.FrontendMessage{data("a\t1\tx\nb\t2\tbad\n")}, end...)...),
		"described": {&pgproto3.Parse{Name: "c", Query: "COPY t FROM STDIN"}, &pgproto3.Describe{ObjectType: 'S', Name: "c"}, &pgproto3.Sync{}},
	} {
		t.Run(name, func(t *testing.T) {
			r.empty(t)
			var texts [2]string
			for i, url := range []string{r.plain, r.url} {
				conn := dialRaw(t, url)
				for _, msg := range messages {
					conn.Frontend.Send(msg)
				}
				// Whatever became of it, the session goes on.
				conn.Frontend.Send(&pgproto3.Query{String: "SELECT 'still here'"})
				if err := conn.Frontend.Flush(); err != nil {
					t.Fatal(err)
				}
				for !strings.Contains(texts[i], "still here") {
					text, copying := copyAnswers(t, conn.Frontend)
					texts[i] += text
					if copying {
						texts[i] += "COPY\n"
					}
				}
				_ = conn.Conn.Close()
			}
			if texts[0] != texts[1] {
				t.Errorf("--- Postgres\n%s\n--- gateway\n%s", texts[0], texts[1])
			}
			if plain, nodes := r.contents(t, "t", "id"); !slices.Equal(plain, nodes) {
				t.Errorf("Postgres holds %q, the nodes %q", plain, nodes)
			}
		})
	}
}

func testCopyBlock(t *testing.T, r *copyRig) {
	good := copyCase{sql: "COPY t FROM STDIN", data: []string{"a\t1\tx\nb\t2\ty\nc\t3\tz\nd\t4\tz\n"}}
	bad := copyCase{sql: "COPY t FROM STDIN", data: []string{"e\t11\tx\nf\t12\ty\ng\t13\tbad\nh\t14\tz\n"}}
	failing := copyCase{sql: "COPY t FROM STDIN", data: bad.data[:1], fail: "no"}
	for _, steps := range [][]copyCase{
		{{sql: "BEGIN"}, good, {sql: "COMMIT"}},
		{{sql: "BEGIN"}, good, {sql: "ROLLBACK"}},
		{{sql: "BEGIN"}, bad, good, {sql: "COMMIT"}},
		{{sql: "BEGIN"}, {sql: "INSERT INTO t VALUES ('z', 100, 'z')"}, {sql: "SAVEPOINT s"}, bad, {sql: "SELECT 1"}, {sql: "ROLLBACK TO s"}, good,
			{sql: "SAVEPOINT s2"}, failing, {sql: "ROLLBACK TO s2"}, {sql: "UPDATE t SET note = 'seen' WHERE id IN (1, 2, 3, 4)"}, {sql: "COMMIT"}},
		{{sql: "BEGIN"}, {sql: "SAVEPOINT s"}, good, {sql: "ROLLBACK TO s"}, {sql: "COPY t TO STDOUT"}, {sql: "COMMIT"}},
		{{sql: "BEGIN ISOLATION LEVEL REPEATABLE READ"}, good, {sql: "COPY t (id) TO STDOUT"}, {sql: "COMMIT"}},
	} {
		r.empty(t)
		var texts [2]string
		for i, url := range []string{r.plain, r.url} {
			conn := dialRaw(t, url)
			for _, step := range steps {
				texts[i] += sortedData(copyOver(t, conn, step))
			}
			_ = conn.Conn.Close()
		}
		if texts[0] != texts[1] {
			t.Errorf("%v\n--- Postgres\n%s\n--- gateway\n%s", steps, texts[0], texts[1])
		}
		if plain, nodes := r.contents(t, "t", "id"); !slices.Equal(plain, nodes) {
			t.Errorf("%v: Postgres holds %q, the nodes %q", steps, plain, nodes)
		}
	}
}

func testCopyOtherMessages(t *testing.T, r *copyRig) {
	for _, msg := range []pgproto3.FrontendMessage{&pgproto3.Query{String: "SELECT 1"}, &pgproto3.Terminate{}, &pgproto3.Parse{Query: "SELECT 1"}} {
		var texts [2]string
		for i, url := range []string{r.plain, r.url} {
			conn := dialRaw(t, url)
			conn.Frontend.Send(&pgproto3.Query{String: "COPY t FROM STDIN"})
			conn.Frontend.Send(&pgproto3.CopyData{Data: []byte("a\t1\tx\nb\t2\ty\nc\t3\tz\n")})
			conn.Frontend.Send(msg)
			if err := conn.Frontend.Flush(); err != nil {
				t.Fatal(err)
			}
			for {
				answer, err := conn.Frontend.Receive()
				if err != nil {
					break
				}
				if e, ok := answer.(*pgproto3.ErrorResponse); ok {
					texts[i] += e.Severity + " " + e.Code + " " + e.Message + "\n"
				} else {
					texts[i] += fmt.Sprintf("%T\n", answer)
				}
			}
			_ = conn.Conn.Close()
		}
		if texts[0] != texts[1] {
			t.Errorf("%T\n--- Postgres\n%s\n--- gateway\n%s", msg, texts[0], texts[1])
		}
	}
	r.wantNone(t)
}

// wantNone checks that t is empty on all nodes.
func (r *copyRig) wantNone(t *testing.T) {
	t.Helper()
	r.idle(t)
	if _, nodes := r.contents(t, "t", "id"); len(nodes) > 0 {
		t.Errorf("%d rows are there", len(nodes))
	}
}
