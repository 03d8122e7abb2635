package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// lookPsql finds psql, or skips the test.
func lookPsql(t *testing.T) string {
	t.Helper()
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("no psql here")
	}
	return psql
}

// TestPsqlSameAsNode compares what depends on the server's other databases and
// roles with the node that answers it.
func TestPsqlSameAsNode(t *testing.T) {
	psql := lookPsql(t)
	s := startStack(t, stackOptions{})
	s.change(t)("CREATE FUNCTION public.twice(n int, OUT doubled int) LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'")
	file := filepath.Join(t.TempDir(), "node.sql")
	const script = `\l
\du
\dt
\dn
\dn+
\df
\df twice
\df+ twice
\sf twice
\dp accounts
\dv
\ds
\dT
\dx
\conninfo
\set VERBOSITY verbose
\dt+ accounts
\d
\dconfig work_mem
\timing off
select twice(21);
`
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile(`(?m)^You are connected .*$`)
	run := func(url string) string {
		cmd := exec.CommandContext(t.Context(), psql, "-X", "-a", "--no-password", "-f", file, url)
		cmd.Env = append(os.Environ(), "PGOPTIONS=-c search_path=public") // the node's role is named like our schema
		output, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		return address.ReplaceAllString(string(output), "connected")
	}
	want, got := run(s.set.URL("a")), run(s.url)
	if want != got || strings.Contains(got, "ERROR") {
		t.Errorf("--- node\n%s\n--- gateway\n%s", want, got)
	}
	s.idle(t)
}

// terminal is a psql that believes it has a person in front of it.
type terminal struct {
	t     *testing.T
	input io.Writer

	mu     sync.Mutex
	output bytes.Buffer
	seen   int // of output
}

func (term *terminal) Write(p []byte) (int, error) {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.output.Write(p)
}

// expect waits for a text behind what was expected before.
func (term *terminal) expect(text string) {
	term.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		term.mu.Lock()
		got := term.output.String()
		i := strings.Index(got[term.seen:], text)
		if i >= 0 {
			term.seen += i + len(text)
		}
		term.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(deadline) {
			term.t.Fatalf("%q does not come:\n%q", text, got[term.seen:])
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-term.t.Context().Done():
		}
	}
}

func (term *terminal) say(text string) {
	term.t.Helper()
	if _, err := io.WriteString(term.input, text); err != nil {
		term.t.Fatal(err)
	}
}

// startTerminal starts psql under script(1), which makes the terminal.
func startTerminal(t *testing.T, psql, url string) *terminal {
	t.Helper()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("no script here")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, script, "-qfec", psql+" -X --no-password '"+url+"'", "/dev/null")
	cmd.Env = append(os.Environ(), "TERM=dumb", "PAGER=cat", "PSQL_HISTORY=/dev/null", "INPUTRC=/dev/null")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, input: input}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = term, term, time.Second // psql outlives a killed script for a moment
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = input.Close()
		_ = cmd.Wait() // it has said what it had to say
	})
	return term
}

// TestPsqlInteractive types: prompts tell the transaction's state, names are
// completed, Ctrl-C ends a statement, \watch repeats one.
func TestPsqlInteractive(t *testing.T) {
	psql := lookPsql(t)
	s := startStack(t, stackOptions{})
	keys := s.fill(t)
	term := startTerminal(t, psql, s.url)
	term.expect("pgpact=> ")
	term.say("SELECT balance FROM acc\t")
	term.expect("accounts ")
	term.say("WHERE id = '" + keys[1][0] + "';\n")
	term.expect("1000")
	term.expect("pgpact=> ")
	term.say("UPDATE accounts SET bal\t")
	term.expect("balance ")
	term.say("= 7 WHERE id = '" + keys[1][0] + "';\n")
	term.expect("UPDATE 1")
	term.expect("pgpact=> ")
	term.say("\\d acc\t\n")
	term.expect("accounts_pkey")
	term.expect("pgpact=> ")
	term.say("BEGIN;\n")
	term.expect("pgpact=*> ")
	term.say("SELECT 1/0;\n")
	term.expect("division by zero")
	term.expect("pgpact=!> ")
	term.say("ROLLBACK;\n")
	term.expect("pgpact=> ")
	term.say("\\timing on\nSELECT 40 + 2 AS answer;\n")
	term.expect("42")
	term.expect("Time: ")
	term.expect("pgpact=> ")
	term.say("\\timing off\n")
	term.expect("pgpact=> ")
	term.say("SELECT 'seen' || 'again' \\watch 0.05\n")
	for range 3 {
		term.expect("seenagain")
	}
	term.say("\x03")
	term.expect("pgpact=> ")
	term.say("SELECT pg_sleep(60);\n")
	s.await(t, "a", "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
	term.say("\x03")
	term.expect("canceling statement due to user request")
	term.expect("pgpact=> ")
	term.say("\\q\n")
	s.idle(t)
}

// TestPsqlCopy: \copy from a file and to one, over all nodes.
func TestPsqlCopy(t *testing.T) {
	psql := lookPsql(t)
	s := startStack(t, stackOptions{})
	s.fill(t)
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from.csv"), filepath.Join(dir, "to.csv")
	var lines []string
	for i := range 500 {
		lines = append(lines, fmt.Sprintf("copied-%04d,%d", i, i))
	}
	text := strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(from, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), psql, "-X", "-v", "ON_ERROR_STOP=1", "--no-password", s.url)
	cmd.Stdin = strings.NewReader("delete from accounts;\n\\copy accounts from '" + from + "' (format csv)\n\\copy accounts to '" + to + "' (format csv)\n")
	output, err := cmd.CombinedOutput()
	if err != nil || string(output) != "DELETE 6\nCOPY 500\nCOPY 500\n" {
		t.Fatalf("%v\n%s", err, output)
	}
	copied, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(copied)), "\n")
	slices.Sort(got)
	if strings.Join(got, "\n")+"\n" != text {
		t.Errorf("%d rows came back, not the same", len(got))
	}
	s.idle(t)
}
