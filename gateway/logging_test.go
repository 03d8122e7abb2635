package gateway

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// taken returns the lines with this message, and empties the log.
func (b *logBuffer) taken(t *testing.T, message string) (lines []map[string]any) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.text.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		if fields["msg"] == message {
			lines = append(lines, fields)
		}
	}
	b.text.Reset()
	return lines
}

func TestSlowStatementsAndCommits(t *testing.T) {
	log := &logBuffer{}
	s := startStack(t, stackOptions{config: func(c *Config) { c.Logger = slog.New(slog.NewJSONHandler(log, nil)) }})
	conn, err := pgx.Connect(t.Context(), s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// Two keys on two nodes: the values are what must not be seen.
	write := func() {
		t.Helper()
		for _, sql := range []string{"BEGIN", "INSERT INTO accounts VALUES('" + s.key("a", 901) + "', 4711) /* hunter2 */ ON CONFLICT (id) DO UPDATE SET balance = 4711",
			"INSERT INTO accounts VALUES('" + s.key("b", 901) + "', 4711) ON CONFLICT (id) DO UPDATE SET balance = 4711", "COMMIT"} {
			if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	if lines := log.taken(t, "slow statement"); len(lines) > 0 {
		t.Errorf("logged although nothing was asked for: %v", lines)
	}
	for _, test := range []struct {
		text StatementText
		want string
	}{
		{TextNone, ""},
		{TextRedacted, "INSERT INTO accounts VALUES(?, ?) ON CONFLICT (id) DO UPDATE SET balance = ?"},
		{TextFull, "4711) /* hunter2 */ ON CONFLICT"},
	} {
		s.gateway.SetLogging(Logging{SlowStatement: time.Nanosecond, Statements: test.text})
		write()
		lines := log.taken(t, "slow statement")
		if len(lines) != 4 {
			t.Fatalf("%s: %d lines: %v", test.text, len(lines), lines)
		}
		line := lines[1]
		text, _ := line["text"].(string)
		if !strings.Contains(text, test.want) || (test.want == "") != (text == "") {
			t.Errorf("%s: text %q, want %q", test.text, text, test.want)
		}
		if line["statement"] != "insert" || line["session"] == nil || line["user"] != "carol" || line["took"] == nil || line["ok"] != true {
			t.Errorf("%s: %v", test.text, line)
		}
		if nodes, _ := line["nodes"].([]any); len(nodes) != 1 || nodes[0] != "a" {
			t.Errorf("%s: nodes %v", test.text, line["nodes"])
		}
	}
	s.gateway.SetLogging(Logging{SlowCommit: time.Nanosecond})
	write()
	lines := log.taken(t, "slow commit")
	if len(lines) != 1 {
		t.Fatalf("%d lines: %v", len(lines), lines)
	}
	for _, field := range []string{"session", "transaction", "took", "prepare", "decide", "commit_prepared", "slowest_node"} {
		if v := lines[0][field]; v == nil || v == "" || v == 0.0 {
			t.Errorf("%s is %v in %v", field, v, lines[0])
		}
	}
}

func TestUnknownOutcomeIsLogged(t *testing.T) {
	log := &logBuffer{}
	s := startStack(t, stackOptions{config: func(c *Config) { c.Logger = slog.New(slog.NewJSONHandler(log, nil)) }})
	keys := s.fill(t)
	conn := s.client(t)
	done := make(chan string)
	go func() {
		done <- run(t, conn, "UPDATE accounts SET balance = 4711 WHERE id = '"+keys[0][0]+"' AND pg_sleep(60) IS NOT NULL")
	}()
	s.await(t, "a", "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
	s.terminate(t, "a", "wait_event = 'PgSleep'")
	if got := <-done; !strings.HasPrefix(got, "ERROR 08007 ") {
		t.Fatalf("told %q", got)
	}
	lines := log.taken(t, "outcome unknown")
	if len(lines) != 1 {
		t.Fatalf("%d lines: %v", len(lines), lines)
	}
	reason, _ := lines[0]["error"].(string)
	if lines[0]["session"] == nil || lines[0]["user"] == nil || lines[0]["transaction"] != nil || !strings.Contains(reason, `node "a"`) || strings.Contains(reason, "4711") {
		t.Errorf("%v", lines[0])
	}
}

func TestCutText(t *testing.T) {
	if got := cutText("short"); got != "short" {
		t.Errorf("%q", got)
	}
	got := cutText(strings.Repeat("é", maxLoggedText))
	if len(got) > maxLoggedText+4 || !strings.HasSuffix(got, " ...") || !utf8.ValidString(got) {
		t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
	}
}
