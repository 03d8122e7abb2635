package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ran is what a command said and its exit code.
type ran struct {
	code      int
	out, errs string
}

func runCommand(t *testing.T, args ...string) ran {
	t.Helper()
	var out, errs strings.Builder
	code := run(t.Context(), args, &out, &errs)
	return ran{code, out.String(), errs.String()}
}

// wantRun wants the exit code, and a pattern in what was said.
func (r ran) want(t *testing.T, code int, pattern string) {
	t.Helper()
	if said := r.out + r.errs; r.code != code || !regexp.MustCompile(pattern).MatchString(said) {
		t.Errorf("exit %d, %q; want %d and %s", r.code, said, code, pattern)
	}
}

// The commands on a real gateway with two nodes; alice and bob live apart.
func TestClientCommands(t *testing.T) {
	t.Parallel()
	dir := demoDir(t)
	d := startDemo(t, dir, "--accounts", "0")
	at := func(args ...string) []string { return append(args, "--url", d.url) }

	t.Run("money", func(t *testing.T) {
		const id = `\(transaction \d+/\d+\)`
		first := runCommand(t, at("transfer", "alice", "bob", "100", "--key", `it's \ a key`)...)
		first.want(t, 0, `^done: 100 from alice to bob `+id)
		again := runCommand(t, at("transfer", "alice", "bob", "100", "--key", `it's \ a key`)...)
		if again.code != 0 || again.out != strings.Replace(first.out, "done", "already done", 1) {
			t.Errorf("again: exit %d, %q after %q", again.code, again.out, first.out)
		}
		wantBalances(t, dir, "a900", "b1100")

		made := runCommand(t, at("transfer", "bob", "alice", "100")...)
		made.want(t, 0, `^done: 100 from bob to alice `+id)
		key := regexp.MustCompile(`--key (\S+) is safe`).FindStringSubmatch(made.errs)
		if key == nil {
			t.Fatalf("no key was said: %q", made.errs)
		}
		runCommand(t, at("transfer", "bob", "alice", "100", "--key", key[1])...).want(t, 0, `^already done: .*`+id)
		runCommand(t, at("credit", "alice", "7")...).want(t, 0, `^done: credit alice by 7 `)
		runCommand(t, at("debit", "bob", "7")...).want(t, 0, `^done: debit bob by 7 `)
		runCommand(t, at("debit", "bob", "994")...).want(t, exitFailure, `account "bob" has less than 994.*23514`)
		runCommand(t, at("transfer", "bob", "alice", "994", "--key", "too much")...).want(t, exitFailure, `account "bob" has less than 994`)
		runCommand(t, at("transfer", "alice", "nobody", "1")...).want(t, exitFailure, `there is no account "nobody"`)
		runCommand(t, at("credit", "alice", "9223372036854775807")...).want(t, exitFailure, `22003`)
		wantBalances(t, dir, "a1007", "b993")
		// What was refused has not used up its key.
		runCommand(t, at("transfer", "bob", "alice", "993", "--key", "too much")...).want(t, 0, `^done: `)
		wantBalances(t, dir, "a2000", "b0")
	})
	t.Run("balance", func(t *testing.T) {
		got := runCommand(t, at("balance", "bob", "alice", "bob")...)
		if diff := cmp.Diff(ran{0, "bob    0\nalice  2000\n", ""}, got, cmp.AllowUnexported(ran{})); diff != "" {
			t.Error(diff)
		}
		got = runCommand(t, at("balance", "--json")...)
		if diff := cmp.Diff(ran{0, `[{"account":"alice","balance":2000},{"account":"bob","balance":0}]` + "\n", ""}, got, cmp.AllowUnexported(ran{})); diff != "" {
			t.Error(diff)
		}
		got = runCommand(t, at("balance", "alice", "nobody")...)
		if diff := cmp.Diff(ran{1, "alice  2000\n", "pgpact: there is no account \"nobody\"\n"}, got, cmp.AllowUnexported(ran{})); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("buy", func(t *testing.T) { clientBuys(t, d.url) })
	t.Run("json", func(t *testing.T) {
		var result clientResult
		r := runCommand(t, at("debit", "bob", "1", "--json", "--key", "j")...)
		if err := json.Unmarshal([]byte(r.out), &result); err != nil || r.code != exitFailure {
			t.Fatalf("exit %d, %q, %v", r.code, r.out, err)
		}
		if result.Error == "" || !strings.Contains(r.errs, result.Error) {
			t.Errorf("%q on stdout, %q on stderr", result.Error, r.errs)
		}
		result.Error = ""
		if diff := cmp.Diff(clientResult{Command: "debit", Status: "refused", Key: "j", Amount: 1, SQLState: "23514"}, result); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("load", func(t *testing.T) { clientLoads(t, d.url, dir) })
}

// A purchase is whole or not there.
func clientBuys(t *testing.T, url string) {
	at := func(args ...string) []string { return append(args, "--url", url) }
	runCommand(t, at("buy", "alice", "sku-0001", "60", "--price", "2", "--key", "b1")...).want(t, 0, `^done: order `+orderID("b1")+`, 60 of sku-0001 for alice, paid 120 `)
	runCommand(t, at("buy", "alice", "sku-0001", "60", "--price", "2", "--key", "b1")...).want(t, 0, `^already done: order `+orderID("b1"))
	runCommand(t, at("buy", "alice", "sku-0001", "41")...).want(t, exitFailure, `article "sku-0001" has less than 41`)
	runCommand(t, at("buy", "bob", "sku-0001", "1")...).want(t, exitFailure, `account "bob" has less than 1`)
	runCommand(t, at("buy", "alice", "sku-none", "1")...).want(t, exitFailure, `there is no article "sku-none"`)
	runCommand(t, at("buy", "alice", "sku-0001", "40")...).want(t, 0, `^done: .*paid 40 `)
	got := query(t, url, `SELECT balance::text FROM accounts WHERE id = 'alice'; SELECT quantity::text FROM stock WHERE sku = 'sku-0001';
		SELECT quantity || ' for ' || amount FROM orders WHERE customer = 'alice' ORDER BY amount; SELECT count(*)::text FROM orders`)
	if diff := cmp.Diff([]string{"1840", "0", "40 for 40", "60 for 120", "2"}, got); diff != "" {
		t.Error(diff)
	}
	// Forgotten keys: the order itself is in the way.
	if id := orderID("b1"); !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) || id == orderID("b2") {
		t.Errorf("order id %s", id)
	}
}

// A load is stopped in its middle, killed, and resumed.
func clientLoads(t *testing.T, url, dir string) {
	path := filepath.Join(t.TempDir(), "accounts.csv")
	const rows, perChunk = 950, 100
	var text strings.Builder
	text.WriteString("balance,id\n")
	for i := range rows {
		fmt.Fprintf(&text, "%d,\"load %04d\nsecond \"\"line\"\"\"\n", i, i)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"load", path, "--header", "--chunk", fmt.Sprint(perChunk), "--url", url}
	count := func() string {
		return query(t, url, `SELECT count(*) || ' ' || coalesce(sum(balance), 0) FROM accounts WHERE id LIKE 'load ____
second "line"'`)[0]
	}

	// Somebody is about to insert a row of the fourth chunk, so the load waits there.
	blocker := clientBlocker(t, dir, "load 0350\nsecond \"line\"")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	killed := exec.Command(program, args...)
	killed.Env = append(os.Environ(), asProgram+"=1")
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "three chunks", func() bool { return strings.HasPrefix(count(), "300 ") })
	if err := killed.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := killed.Wait(); err == nil {
		t.Error("the load was not killed")
	}
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	var result loadResult
	r := runCommand(t, append(args, "--json")...)
	if err := json.Unmarshal([]byte(r.out), &result); err != nil || r.code != 0 {
		t.Fatalf("exit %d, %q, %q, %v", r.code, r.out, r.errs, err)
	}
	result.Seconds = 0
	if diff := cmp.Diff(loadResult{Command: "load", Status: "done", Table: "accounts", Loaded: 650, Already: 300}, result); diff != "" {
		t.Error(diff)
	}
	want := fmt.Sprintf("%d %d", rows, rows*(rows-1)/2)
	if got := count(); got != want {
		t.Errorf("%s rows and sum, want %s", got, want)
	}
	runCommand(t, args...).want(t, 0, `^already done: 0 rows loaded .* 950 rows had been loaded before`)
	runCommand(t, append(args, "--key", "twice")...).want(t, exitFailure, `in the chunk from line 2 on: .*23505`)
	if got := count(); got != want {
		t.Errorf("in the end %s rows and sum, want %s", got, want)
	}
	if strings.Contains(r.errs, "#") {
		t.Errorf("a bar, and no terminal: %q", r.errs)
	}

	// Wrong data end the load at their chunk, and leave nothing of it.
	if err := os.WriteFile(path, []byte("wrong 1,1\nwrong 2,2\nwrong 3,-3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runCommand(t, "load", path, "--chunk", "2", "--url", url).want(t, exitFailure, `(?s)2 rows loaded.*in the chunk from line 3 on: .*23514`)
	if err := os.WriteFile(path, []byte("end 1,1\n\\.\nend 2,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runCommand(t, "load", path, "--url", url).want(t, exitFailure, `in the chunk from line 1 on: `)
	if got := query(t, url, "SELECT id FROM accounts WHERE id LIKE 'wrong%' OR id LIKE 'end%' ORDER BY id COLLATE \"C\""); strings.Join(got, " ") != "wrong 1 wrong 2" {
		t.Errorf("there are %v", got)
	}
}

// clientBlocker inserts an account on its node and does not commit.
func clientBlocker(t *testing.T, dir, id string) pgx.Tx {
	t.Helper()
	cfg, err := loadConfig(filepath.Join(dir, demoConfigName), nil)
	if err != nil {
		t.Fatal(err)
	}
	owners, err := placement(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range cfg.Nodes {
		if node.Name != ownerOf(owners, id) {
			continue
		}
		conn, err := pgx.Connect(t.Context(), node.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeConn(conn) })
		tx, err := conn.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), "INSERT INTO accounts VALUES ($1, 0)", id)
		}
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	t.Fatal("a key without a node")
	return nil
}

// Where no gateway answers, a key that is new has not been used, and of one
// that was given nobody knows.
func TestClientsWithoutGateway(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	t.Setenv(urlVariable, "postgres://pgpact:s3cret@"+address+"/pgpact")
	for _, test := range []struct {
		code int
		args []string
	}{
		{exitNotDone, []string{"credit", "alice", "1"}},
		{exitUnknown, []string{"credit", "alice", "1", "--key", "k"}},
		{exitNotDone, []string{"balance"}},
	} {
		r := runCommand(t, append(test.args, "--timeout", "300ms")...)
		r.want(t, test.code, regexp.QuoteMeta(address))
		if strings.Contains(r.out+r.errs, "s3cret") {
			t.Errorf("%v tells the password: %q", test.args, r.errs)
		}
	}
}

func TestClientUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"transfer", "a", "b"}, {"transfer", "a", "a", "1"}, {"transfer", "a", "b", "0"}, {"transfer", "a", "b", "1.5"}, {"credit", "a", "-1"},
		{"debit", "a", "9223372036854775808"}, {"debit", "a", "1", "--key", ""}, {"debit", "a", "1", "--key", strings.Repeat("k", 201)},
		{"buy", "a", "s", "1", "--price", "-1"}, {"buy", "a", "s", "9223372036854775807", "--price", "2"},
		{"balance", "--url", "mysql://u:s3cret@h/d"}, {"balance", "--url", ""}, {"balance", "--timeout", "0"},
		{"load"}, {"load", "x", "--chunk", "0"}, {"load", "x", "--table", ""}, {"load", "x", "--key", ""},
	} {
		r := runCommand(t, args...)
		r.want(t, exitUsage, "^pgpact: ")
		if strings.Contains(r.errs, "s3cret") {
			t.Errorf("%v tells the password: %q", args, r.errs)
		}
	}
}

func TestClientRefusals(t *testing.T) {
	for code, want := range map[string]bool{"08007": false, "08006": false, "40001": false, "40P01": false, "55P03": false, "57P01": false,
		"53300": false, "23514": true, "23505": true, "42501": true, "28000": true, "0A000": true, "55000": true} {
		if got := isRefusal(fmt.Errorf("x: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}
	if isRefusal(errors.New("lost")) || !isRefusal(fmt.Errorf("x: %w", refusalf("no"))) {
		t.Error("others")
	}
}

// Chunks are whole rows, and together the file.
func TestCSVChunks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.csv")
	text := "a,1\r\n\"b\nb\",2\n\"c\"\"\n\"\"c\",3\nd,4"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := openCSV(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer file.close()
	var got []csvChunk
	for {
		chunk, err := file.next(2)
		if err != nil {
			t.Fatal(err)
		}
		if chunk.rows == 0 {
			break
		}
		got = append(got, chunk)
	}
	want := []csvChunk{{0, 1, 2, []byte(text[:13])}, {13, 4, 2, []byte(text[13:])}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(csvChunk{})); diff != "" {
		t.Error(diff)
	}
	if file.changed() {
		t.Error("changed")
	}
	if _, err := openCSV(t.TempDir(), false); err == nil {
		t.Error("a directory was opened")
	}
}

func TestProgressLine(t *testing.T) {
	want := "[###############...............]  50 %  1000 rows  500 rows/s"
	if got := progressLine(50, 100, 1000, 2*time.Second); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
