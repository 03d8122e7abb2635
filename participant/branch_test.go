package participant_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// extended runs one statement with Parse, Bind, Describe, Execute and Sync.
func extended(b *participant.Branch, sql string, parameters ...string) (reply, error) {
	b.StartSeries()
	b.Parse(&pgproto3.Parse{Query: sql})
	values := make([][]byte, len(parameters))
	for i, p := range parameters {
		values[i] = []byte(p)
	}
	b.Bind(&pgproto3.Bind{Parameters: values})
	b.Describe(&pgproto3.Describe{ObjectType: 'P'})
	b.Execute(&pgproto3.Execute{})
	b.Sync()
	if err := b.Send(); err != nil {
		return reply{}, err
	}
	return receive(b)
}

// forms are the two ways to send a statement.
var forms = map[string]func(*participant.Branch, string) (reply, error){
	"simple":   query,
	"extended": func(b *participant.Branch, sql string) (reply, error) { return extended(b, sql) },
}

// A two-message BEGIN cannot happen: a refused BEGIN takes the statement with it, which never runs in
// autocommit. (As two messages it did: FACTS section 7.)
func TestRefusedBeginRunsNothing(t *testing.T) {
	for form, send := range forms {
		for _, begin := range []string{"BEGIN ISOLATION LEVEL RUBBISH", "BEGIN; SET LOCAL work_mem='rubbish'", "BEGIN|SET LOCAL work_mem='rubbish'", "BEGIN|SAVEPOINT a|ROLLBACK TO b"} {
			t.Run(form+" "+begin, func(t *testing.T) {
				cluster, node := newNode(t, nil)
				b := newBranch(t, node, split(begin)...)
				r, err := send(b, "INSERT INTO accounts VALUES('x',1)")
				if err != nil {
					t.Fatal(err)
				}
				if r.err == nil || len(r.tags) != 0 {
					t.Errorf("it was not refused: %+v", r)
				}
				if b.Open() && !b.Failed() {
					t.Error("the block is open")
				}
				b.Rollback()
				if n := cluster.Value("a", "SELECT count(*) FROM accounts"); n != "0" {
					t.Errorf("%s rows: the statement ran", n)
				}
			})
		}
	}
}

func split(opening string) []string {
	var parts []string
	for part := ""; opening != ""; {
		part, opening = opening, ""
		for i := range part {
			if part[i] == '|' {
				part, opening = part[:i], part[i+1:]
				break
			}
		}
		parts = append(parts, part)
	}
	return parts
}

// BEGIN READ ONLY is taken, and refuses what writes; nothing of it is committed.
func TestReadOnlyBegin(t *testing.T) {
	for form, send := range forms {
		t.Run(form, func(t *testing.T) {
			cluster, node := newNode(t, nil)
			b := newBranch(t, node, "BEGIN READ ONLY")
			r, err := send(b, "INSERT INTO accounts VALUES('x',1)")
			if err != nil || r.err == nil || r.err.Code != "25006" || !b.Failed() {
				t.Errorf("%v, %v, failed %v", r.err, err, b.Failed())
			}
			b.Rollback()
			if n := cluster.Value("a", "SELECT count(*) FROM accounts"); n != "0" {
				t.Errorf("%s rows", n)
			}
		})
	}
}

// The caller sees the answer to its own statement, and nothing of the opening.
func TestOpeningIsHidden(t *testing.T) {
	opening := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SAVEPOINT one", "SELECT pg_catalog.set_config('work_mem','7MB',true)", "SAVEPOINT two"}
	for form, want := range map[string]string{"simple": "TDCZ", "extended": "12TDCZ"} {
		t.Run(form, func(t *testing.T) {
			_, node := newNode(t, nil)
			b := newBranch(t, node, opening[0])
			for _, sql := range opening[1:] {
				b.AddOpening(sql)
			}
			const sql = "SELECT current_setting('work_mem'), current_setting('transaction_isolation')"
			r, err := forms[form](b, sql)
			if err != nil || r.err != nil {
				t.Fatalf("%v, %v", err, r.err)
			}
			if r.types != want || len(r.rows) != 1 || r.rows[0] != "7MB|repeatable read" || r.tags[0] != "SELECT 1" {
				t.Errorf("%+v", r)
			}
			if !b.Open() {
				t.Error("not open")
			}
			// The second statement has no opening any more, and the savepoints are there.
			if r, err = forms[form](b, sql); err != nil || r.types != want {
				t.Errorf("%+v, %v", r, err)
			}
			must(t, b, "ROLLBACK TO one")
			if r := must(t, b, "SHOW work_mem"); r.rows[0] != "4MB" {
				t.Errorf("work_mem after ROLLBACK TO: %v", r.rows)
			}
			b.Rollback()
		})
	}
}

// What the opening itself warns of reaches the client; a parameter that changes is seen.
func TestOpeningsNoticesPass(t *testing.T) {
	_, node := newNode(t, nil)
	b := newBranch(t, node, "BEGIN", "BEGIN", "SET LOCAL application_name='seen'")
	r := must(t, b, "SELECT 1")
	if len(r.notices) != 1 || r.notices[0].Code != "25001" {
		t.Errorf("notices %v", r.notices)
	}
	if got := b.Conn().Parameters()["application_name"]; got != "seen" {
		t.Errorf("application_name is %q", got)
	}
	b.Rollback()
}

// Error positions count characters of the client's own statement, whatever stands in front of it.
func TestErrorPositions(t *testing.T) {
	for form, send := range forms {
		for name, opening := range map[string][]string{
			"autocommit": nil, "block": {"BEGIN"},
			"multi-byte opening": {"BEGIN", "SET LOCAL my.note='é中𝄞'", "SAVEPOINT \"é\""},
		} {
			t.Run(form+" "+name, func(t *testing.T) {
				_, node := newNode(t, nil)
				for _, test := range []struct {
					sql      string
					code     string
					position int32
				}{
					{"SELEC 1", "42601", 1},
					{"SELECT 'é中𝄞' FROM nowhere", "42P01", 19},
					{"SELECT nothing", "42703", 8},
					{"SELECT 1/0", "22012", 0},
				} {
					b := newBranch(t, node, opening...)
					r, err := send(b, test.sql)
					if err != nil || r.err == nil {
						t.Fatalf("%q: %v, %v", test.sql, r.err, err)
					}
					if r.err.Code != test.code || r.err.Position != test.position {
						t.Errorf("%q: %s at %d, want %s at %d", test.sql, r.err.Code, r.err.Position, test.code, test.position)
					}
					b.Rollback()
				}
			})
		}
	}
}

// An error in our own opening has no position in the client's statement.
func TestErrorInOpeningHasNoPosition(t *testing.T) {
	for form, send := range forms {
		_, node := newNode(t, nil)
		b := newBranch(t, node, "BEGIN", "SELECT nothing")
		r, err := send(b, "SELECT 1")
		if err != nil || r.err == nil || r.err.Code != "42703" || r.err.Position != 0 {
			t.Errorf("%s: %v at %d, %v", form, r.err, r.err.Position, err)
		}
		b.Rollback()
	}
}

// A block that ends without anybody ending it dooms the branch: what ran in it is gone, or worse.
func TestBlockThatEndsUnexpectedlyDoomsTheBranch(t *testing.T) {
	for _, smuggled := range []string{"COMMIT", "ROLLBACK", "COMMIT; SELECT 1"} {
		_, node := newNode(t, nil)
		b := newBranch(t, node, "BEGIN")
		must(t, b, "INSERT INTO accounts VALUES('x',1)")
		_, err := query(b, smuggled)
		if _, lost := errors.AsType[*participant.LostError](err); !lost || b.Lost() == nil {
			t.Errorf("%s: %v", smuggled, err)
		}
	}
}

// In autocommit a statement must not leave a block behind.
func TestAutocommitThatOpensABlockIsLost(t *testing.T) {
	_, node := newNode(t, nil)
	b := newBranch(t, node)
	if _, err := query(b, "BEGIN"); err == nil || b.Lost() == nil {
		t.Errorf("%v", err)
	}
}

func TestOnePhaseCommit(t *testing.T) {
	cluster, node := newNode(t, nil)
	deferred(cluster, "IF NEW.a<0 THEN RAISE 'negative'; END IF; RAISE NOTICE 'done';")
	for _, test := range []struct {
		sql       string
		committed bool
		state     string
	}{{"INSERT INTO d VALUES(1)", true, ""}, {"INSERT INTO d VALUES(-1)", false, "P0001"}} {
		b := newBranch(t, node, "BEGIN")
		must(t, b, test.sql)
		answer := commit(t, b)
		if answer.Committed != test.committed || (answer.Err != nil) != (test.state != "") || b.Open() {
			t.Errorf("%s: %+v", test.sql, answer)
		}
		if test.committed && (len(answer.Notices) != 1 || answer.Notices[0].Message != "done") {
			t.Errorf("notices %v", answer.Notices)
		}
	}
	// A failed block says ROLLBACK to COMMIT, and no error.
	b := newBranch(t, node, "BEGIN")
	must(t, b, "INSERT INTO d VALUES(2)")
	if _, err := query(b, "SELECT 1/0"); err != nil {
		t.Fatal(err)
	}
	if answer := commit(t, b); answer.Committed || answer.Err != nil {
		t.Errorf("a failed block: %+v", answer)
	}
	if got := cluster.Value("a", "SELECT string_agg(a::text,',') FROM d"); got != "1" {
		t.Errorf("rows %s", got)
	}
}

func commit(t *testing.T, b *participant.Branch) participant.CommitAnswer {
	t.Helper()
	if err := b.SendCommit(); err != nil {
		t.Fatal(err)
	}
	answer, err := b.ReceiveCommit(time.Now().Add(wait))
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// A branch that is released with an open block is rolled back, and its connection is not given to anybody.
func TestReleaseOfAnOpenBlockRollsBack(t *testing.T) {
	cluster, node := newNode(t, nil)
	for _, outstanding := range []bool{false, true} {
		b, err := node.NewBranch(t.Context(), participant.Settings{}, []string{"BEGIN"})
		if err != nil {
			t.Fatal(err)
		}
		must(t, b, "INSERT INTO accounts VALUES('x',1)")
		if outstanding {
			b.Query("SELECT pg_sleep(60)")
			if err := b.Send(); err != nil {
				t.Fatal(err)
			}
			b.Rollback() // only closing ends a statement that nobody waits for
		}
		pid := b.Conn().PID()
		b.Release()
		if s := node.Stats(); s.Idle != 0 || s.InUse != 0 {
			t.Errorf("%+v", s)
		}
		clustertest.WaitFor(t, "the server process is gone", wait, func() bool {
			// It notices the closed socket when it answers. A cancel that came before its
			// statement had begun was for nothing: another one, then.
			cluster.SuperExec("a", fmt.Sprintf("SELECT pg_cancel_backend(%d)", pid))
			return cluster.Value("a", fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid=%d", pid)) == "0"
		})
		if n := cluster.Value("a", "SELECT count(*) FROM accounts"); n != "0" {
			t.Errorf("%s rows", n)
		}
	}
}
