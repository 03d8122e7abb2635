package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What cursors have in common with plain Postgres's is in
// testdata/postgres/cursors.txt. Here is what a plain server cannot judge:
// several nodes.

// wantConversation has a conversation with the gateway. Each line is followed by
// what must be answered, up to an empty line; "..." is any text.
func wantConversation(t *testing.T, s *stack, keys [3][2]string, script string) {
	t.Helper()
	script = strings.NewReplacer("@a", keys[0][0], "@b", keys[1][0]).Replace(script)
	var lines, want []string
	for _, exchange := range strings.Split(strings.TrimSpace(script), "\n\n") {
		line, answer, _ := strings.Cut(exchange, "\n")
		for line[0] == '>' { // a message that is not answered by itself
			lines, want = append(lines, line[1:]), append(want, "")
			line, answer, _ = strings.Cut(answer, "\n")
		}
		lines, want = append(lines, line), append(want, answer)
	}
	for i, a := range converse(t, s.url, strings.Join(lines, "\n")) {
		if !matches(strings.TrimSpace(a.text), want[i]) {
			t.Errorf("%s\n--- got\n%s--- want\n%s", a.line, a.text, want[i])
		}
	}
}

// matches compares a text with one in which "..." is any text of a line.
func matches(got, want string) bool {
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(gotLines) != len(wantLines) {
		return false
	}
	for i := range wantLines {
		start, end, open := strings.Cut(wantLines[i], "...")
		if !open && gotLines[i] != start || !strings.HasPrefix(gotLines[i], start) || !strings.HasSuffix(gotLines[i], end) {
			return false
		}
	}
	return true
}

func TestCursors(t *testing.T) {
	s := startStack(t, stackOptions{config: func(cfg *Config) { cfg.MaxPortals = 20 }})
	for _, conn := range s.direct {
		if _, err := conn.Exec(t.Context(), `CREATE FUNCTION opened() RETURNS refcursor LANGUAGE plpgsql AS
			$$ DECLARE c refcursor := 'made'; BEGIN OPEN c FOR SELECT generate_series(1, 3); RETURN c; END $$`); err != nil {
			t.Fatal(err)
		}
	}
	s.gateway.router.catalogs.Reload(t.Context())
	t.Run("a portal over several nodes is none of SQL's", func(t *testing.T) { cursorOverSeveral(t, s) })
	t.Run("cursors on several nodes", func(t *testing.T) { cursorsOnSeveral(t, s) })
	t.Run("locks taken by FETCH", func(t *testing.T) { cursorLocks(t, s) })
	t.Run("a function's cursor", func(t *testing.T) { cursorOfFunction(t, s) })
	t.Run("too many", func(t *testing.T) { cursorsTooMany(t, s) })
}

func cursorOverSeveral(t *testing.T, s *stack) {
	wantConversation(t, s, s.fill(t), `
Q|begin
CommandComplete BEGIN
ReadyForQuery T

>P||select id from accounts
>B|p|
>E|p|2
S
ParseComplete
BindComplete
DataRow ...
DataRow ...
PortalSuspended
ReadyForQuery T

Q|savepoint s
CommandComplete SAVEPOINT
ReadyForQuery T

Q|fetch p
Error ERROR 0A000 portal "p" cannot be used by SQL through the gateway ...
ReadyForQuery E

>E|p|1
S
Error ERROR 25P02 ...
ReadyForQuery E

Q|rollback to s
CommandComplete ROLLBACK
ReadyForQuery T

Q|move p
Error ERROR 0A000 portal "p" cannot be used by SQL through the gateway ...
ReadyForQuery E

Q|rollback to s
CommandComplete ROLLBACK
ReadyForQuery T

Q|update accounts set balance = 0 where current of p
Error ERROR 0A000 portal "p" cannot be used by SQL through the gateway ...
ReadyForQuery E

Q|rollback to s
CommandComplete ROLLBACK
ReadyForQuery T

Q|declare p cursor for select 1
Error ERROR 42P03 cursor "p" already exists ...
ReadyForQuery E

Q|rollback to s
CommandComplete ROLLBACK
ReadyForQuery T

>D|P|p
>E|p|1
S
RowDescription id:25:-1:-1:0
DataRow ...
PortalSuspended
ReadyForQuery T

Q|close p
CommandComplete CLOSE CURSOR
ReadyForQuery T

Q|declare p cursor for select balance from accounts where id = '@b'
CommandComplete DECLARE CURSOR
ReadyForQuery T

>E|p
S
DataRow "1000"
CommandComplete SELECT 1
ReadyForQuery T

Q|declare c cursor for select id from accounts
CommandComplete DECLARE CURSOR
ReadyForQuery T

Q|update accounts set balance = 0 where current of c
Error ERROR 0A000 portal "c" cannot be used by SQL through the gateway ...
ReadyForQuery E

Q|rollback to s
CommandComplete ROLLBACK
ReadyForQuery T

Q|declare c scroll cursor for select id from accounts
Error ERROR 0A000 a SCROLL cursor over several nodes is not supported ...
ReadyForQuery E

Q|rollback to s
CommandComplete ROLLBACK
ReadyForQuery T

Q|declare c cursor for select id from accounts
CommandComplete DECLARE CURSOR
ReadyForQuery T

Q|fetch 2 c
RowDescription id:25:-1:-1:0
DataRow ...
DataRow ...
CommandComplete FETCH 2
ReadyForQuery T

Q|fetch prior c
Error ERROR 0A000 going backward in a cursor over several nodes is not supported ...
ReadyForQuery E

Q|rollback
CommandComplete ROLLBACK
ReadyForQuery I
`)
	s.idle(t)
}

// cursorsOnSeveral moves money by WHERE CURRENT OF, and commits with cursors and
// portals left open on two nodes.
func cursorsOnSeveral(t *testing.T, s *stack) {
	keys := s.fill(t)
	a, b := keys[0][0], keys[1][0]
	wantConversation(t, s, keys, `
Q|begin
CommandComplete BEGIN
ReadyForQuery T

Q|declare c cursor for select * from accounts where id = '@a' for update
CommandComplete DECLARE CURSOR
ReadyForQuery T

>P||select id, g from accounts, generate_series(1, 5) g where id = $1
>B|p||@b
>E|p|2
S
ParseComplete
BindComplete
DataRow "@b" "1"
DataRow "@b" "2"
PortalSuspended
ReadyForQuery T

Q|declare d cursor for select * from accounts where id = '@b' for update
CommandComplete DECLARE CURSOR
ReadyForQuery T

Q|fetch c
RowDescription ...
DataRow "@a" "1000"
CommandComplete FETCH 1
ReadyForQuery T

Q|fetch d
RowDescription ...
DataRow "@b" "1000"
CommandComplete FETCH 1
ReadyForQuery T

Q|update accounts set balance = balance - 10 where current of c
CommandComplete UPDATE 1
ReadyForQuery T

Q|update accounts set balance = balance + 10 where current of d
CommandComplete UPDATE 1
ReadyForQuery T

Q|fetch p
RowDescription ...
DataRow "@b" "3"
CommandComplete FETCH 1
ReadyForQuery T

Q|commit
CommandComplete COMMIT
ReadyForQuery I

>E|p|1
S
Error ERROR 34000 portal "p" does not exist ...
ReadyForQuery I
`)
	s.wantBalances(t, map[string]int64{a: 990, b: 1010})
	s.idle(t)
}

// cursorLocks: a FETCH from a portal of SELECT FOR UPDATE locks; so its branch
// must be prepared with the one that writes, although the client has not
// executed anything there.
func cursorLocks(t *testing.T, s *stack) {
	keys := s.fill(t)
	coordinator, err := pgx.Connect(t.Context(), s.set.URL("coordinator"))
	if err != nil {
		t.Fatal(err)
	}
	defer coordinator.Close(t.Context())
	records := func() (n int) {
		err := coordinator.QueryRow(t.Context(),
			"SELECT count(*) FROM pgpact.transactions WHERE outcome = 'committed' AND participants @> '{a,b}'").Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := records()
	wantConversation(t, s, keys, `
Q|begin
CommandComplete BEGIN
ReadyForQuery T

>P||select balance from accounts where id = $1 for update
>B|p||@a
S
ParseComplete
BindComplete
ReadyForQuery T

Q|fetch p
RowDescription ...
DataRow "1000"
CommandComplete FETCH 1
ReadyForQuery T

Q|update accounts set balance = 1 where id = '@b'
CommandComplete UPDATE 1
ReadyForQuery T

Q|commit
CommandComplete COMMIT
ReadyForQuery I
`)
	if n := records(); n != before+1 {
		t.Errorf("%d decisions for a and b, want one", n-before)
	}
	s.idle(t)
}

// cursorOfFunction: what a function has opened is known to its node alone.
func cursorOfFunction(t *testing.T, s *stack) {
	keys := s.fill(t)
	conn := s.client(t)
	run(t, conn, "begin")
	wantRun(t, conn, "select opened() from accounts where id = '"+keys[1][0]+"'", "SELECT 1: made")
	wantRun(t, conn, "fetch 2 from made", "FETCH 2: 1 2")
	wantRun(t, conn, "close made", "CLOSE CURSOR")
	wantRun(t, conn, "fetch made", `ERROR 34000 cursor "made" does not exist`)
	run(t, conn, "rollback")
	// On two nodes nobody knows which is meant.
	run(t, conn, "begin")
	for _, key := range []string{keys[0][0], keys[1][0]} {
		wantRun(t, conn, "select balance from accounts where id = '"+key+"'", "SELECT 1: 1000")
	}
	wantRun(t, conn, "fetch made", `ERROR 34000 cursor "made" does not exist`)
	run(t, conn, "rollback")
	s.idle(t)
}

func cursorsTooMany(t *testing.T, s *stack) {
	conn := s.client(t)
	limit := s.gateway.cfg.MaxPortals
	run(t, conn, "begin")
	for i := range limit {
		wantRun(t, conn, fmt.Sprintf("declare c%d cursor for select 1", i), "DECLARE CURSOR")
	}
	wantRun(t, conn, "declare one_more cursor for select 1", fmt.Sprintf("ERROR 54000 too many portals (limit %d)", limit))
	run(t, conn, "rollback")
	s.idle(t)
}
