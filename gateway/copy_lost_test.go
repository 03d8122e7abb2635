package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// begunCopy begins a COPY and sends rows for all nodes, more than is gathered.
func begunCopy(t *testing.T, r *copyRig) *pgconn.HijackedConn {
	t.Helper()
	conn := dialRaw(t, r.url)
	conn.Frontend.Send(&pgproto3.Query{String: "COPY t FROM STDIN"})
	for i := range 100 {
		var data []byte
		for j := range 100 {
			data = fmt.Appendf(data, "%s\t%d\tx\n", strings.Repeat("n", 40), i*100+j)
		}
		conn.Frontend.Send(&pgproto3.CopyData{Data: data})
	}
	if err := conn.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, node := range r.nodes {
		r.await(t, node.Name(), "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%COPY t FROM%' AND state = 'active' AND pid <> pg_backend_pid()")
	}
	return conn
}

func testCopyVanished(t *testing.T, r *copyRig) {
	conn := begunCopy(t, r)
	_ = conn.Conn.Close()
	r.wantNone(t)
}

func testCopyCancel(t *testing.T, r *copyRig) {
	for _, block := range []bool{false, true} {
		client := r.client(t)
		if block {
			wantRun(t, client, "BEGIN", "BEGIN")
		}
		reader, writer := io.Pipe()
		result := make(chan error, 1)
		go func() {
			_, err := client.CopyFrom(context.Background(), reader, "COPY t FROM STDIN")
			result <- err
		}()
		var data []byte
		for i := range 20_000 {
			data = fmt.Appendf(data, "name\t%d\tx\n", i)
		}
		if _, err := writer.Write(data); err != nil {
			t.Fatal(err)
		}
		for _, node := range r.nodes {
			r.await(t, node.Name(), "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%COPY t FROM%' AND state = 'active' AND pid <> pg_backend_pid()")
		}
		if err := client.CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, _ = writer.Write([]byte("name\t90000\tx\n"))
		_ = writer.Close()
		if err := <-result; err == nil || errorText(err) != "ERROR 57014 canceling statement due to user request" {
			t.Errorf("cancelled COPY: %v", err)
		}
		if block {
			wantStatus(t, client, 'E')
			wantRun(t, client, "ROLLBACK", "ROLLBACK")
		}
		wantRun(t, client, "SELECT count(*) FROM t WHERE id = 1", "SELECT 1: 0")
		r.wantNone(t)
	}
}

// testCopyNotices: a node that says something about every row, more than any
// socket holds, is listened to while it is written to.
func testCopyNotices(t *testing.T, r *copyRig) {
	function := `CREATE OR REPLACE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN RAISE NOTICE 'row % %', NEW.id, repeat('x', 1500); RETURN NEW; END $$`
	trigger := "CREATE TRIGGER talks BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION talk()"
	for _, node := range r.nodes {
		r.exec(t, node.Name(), function, trigger)
	}
	defer func() {
		for _, node := range r.nodes {
			r.exec(t, node.Name(), "DROP TRIGGER talks ON t")
		}
	}()
	const rows = 20_000
	note := strings.Repeat("y", 3000)
	notices, misplaced := 0, ""
	client := r.client(t, func(config *pgconn.Config) {
		config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			notices++
			var id int
			if _, err := fmt.Sscanf(n.Message, "row %d", &id); err != nil || !strings.Contains(n.Where, fmt.Sprintf("COPY t, line %d:", id+1)) {
				misplaced = n.Message[:10] + n.Where
			}
		}
	})
	var data bytes.Buffer
	for i := range rows {
		fmt.Fprintf(&data, "n\t%d\t%s\n", i, note)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tag, err := client.CopyFrom(ctx, &data, "COPY t FROM STDIN")
	if err != nil || tag.RowsAffected() != rows || notices != rows || misplaced != "" {
		t.Errorf("%v, %v, %d notices, of another line: %q", tag, err, notices, misplaced)
	}
}

// testCopyTrigger: what a trigger writes where no row goes is part of the
// transaction too.
func testCopyTrigger(t *testing.T, r *copyRig) {
	for _, node := range r.nodes {
		r.exec(t, node.Name(), `CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN INSERT INTO words VALUES ('began'); RETURN NULL; END $$`,
			"CREATE TRIGGER notes BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION note()")
	}
	defer func() {
		for _, node := range r.nodes {
			r.exec(t, node.Name(), "DROP TRIGGER notes ON t")
		}
	}()
	if text := copyOn(t, r.url, textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\tbad\n")); !strings.Contains(text, "23514") {
		t.Error(text)
	}
	var n int
	for _, node := range r.nodes {
		if err := r.direct[node.Name()].QueryRow(t.Context(), "SELECT count(*) FROM words").Scan(&n); err != nil || n > 0 {
			t.Errorf("%d, %v", n, err)
		}
	}
}

// testCopyLargeWrong: an error at the beginning of much data is told early, and
// the rest is not waited for.
func testCopyLargeWrong(t *testing.T, r *copyRig) {
	client := r.client(t)
	sent := 0
	endless := readerFunc(func(p []byte) (int, error) {
		n := copy(p, strings.Repeat(fmt.Sprintf("name\t%d\tbad\n", sent), 1))
		sent++
		return n, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := client.CopyFrom(ctx, endless, "COPY t FROM STDIN")
	if err == nil || !strings.Contains(errorText(err), "23514") {
		t.Errorf("%v after %d rows", err, sent)
	}
	r.wantNone(t)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func testCopyNodeLost(t *testing.T, r *copyRig) {
	conn := begunCopy(t, r)
	defer conn.Conn.Close()
	r.exec(t, "b", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%COPY t FROM%' AND state = 'active' AND pid <> pg_backend_pid()")
	conn.Frontend.Send(&pgproto3.CopyDone{})
	if err := conn.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	_, _ = copyAnswers(t, conn.Frontend)
	if text, _ := copyAnswers(t, conn.Frontend); !strings.Contains(text, `08006 node "b" ended the connection`) {
		t.Error(text)
	}
	r.wantNone(t)
}

func testCopyTooLong(t *testing.T, r *copyRig) {
	conn := dialRaw(t, r.url)
	defer conn.Conn.Close()
	// The race detector takes part in every byte.
	_ = conn.Conn.SetDeadline(time.Now().Add(2 * time.Minute))
	limit := r.gateway.server.cfg.MaxMessageSize
	conn.Frontend.Send(&pgproto3.Query{String: "COPY t FROM STDIN"})
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for range limit>>20 + 2 {
		conn.Frontend.Send(&pgproto3.CopyData{Data: piece})
	}
	if err := conn.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	_, _ = copyAnswers(t, conn.Frontend)
	if text, _ := copyAnswers(t, conn.Frontend); !strings.Contains(text, "54000 a row is longer than") {
		t.Error(text)
	}
}

// testCopyDeferred: what fails when the transaction commits fails all of it.
func testCopyDeferred(t *testing.T, r *copyRig) {
	for _, node := range r.nodes {
		r.exec(t, node.Name(), `CREATE OR REPLACE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN IF NEW.note = 'late' THEN RAISE EXCEPTION 'too late'; END IF; RETURN NULL; END $$`,
			"CREATE CONSTRAINT TRIGGER lates AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()")
	}
	defer func() {
		for _, node := range r.nodes {
			r.exec(t, node.Name(), "DROP TRIGGER lates ON t")
		}
	}()
	text := copyOn(t, r.url, textCase("COPY t FROM STDIN", "a\t1\tx\nb\t2\ty\nc\t3\tlate\nd\t4\tx\n"))
	if !strings.Contains(text, "P0001 too late") || strings.Contains(text, "CommandComplete") {
		t.Error(text)
	}
	r.wantNone(t)
}
