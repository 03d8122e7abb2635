package participant_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// servers serve every test of the package; each test has databases of its own.
var servers *clustertest.Servers

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	s, stop, err := clustertest.NewServers(context.Background(), 1, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	servers = s
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// wait bounds what is waited for in these tests.
const wait = 10 * time.Second

// newNode makes a cluster of one node and returns it; at the end of the test no connection may be in use and
// no goroutine left.
func newNode(t *testing.T, change func(*participant.Config)) (*clustertest.Cluster, *participant.Node) {
	t.Helper()
	checkLeaks(t)
	cluster := clustertest.Start(t, 1, clustertest.Options{Servers: servers, Node: change})
	node := cluster.Nodes[0]
	checkReturned(t, node)
	return cluster, node
}

func checkLeaks(t testing.TB) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		// A server that was started again has a goroutine that waits for its end.
		if err := goleak.Find(leaks, goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait")); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
}

func checkReturned(t testing.TB, node *participant.Node) {
	t.Cleanup(func() {
		if n := node.Stats().InUse; n != 0 && !t.Failed() {
			t.Errorf("%d connections still in use", n)
		}
	})
}

// sequence gives every transaction of these tests its number.
var sequence atomic.Int64

func newGID(node *participant.Node) participant.GID {
	return participant.GID{Cluster: node.ClusterID(), ID: participant.ID{Epoch: 77, Sequence: sequence.Add(1)}, Node: node.Name()}
}

// newBranch begins a branch, released when the test ends.
func newBranch(t *testing.T, node *participant.Node, opening ...string) *participant.Branch {
	t.Helper()
	return newBranchWith(t, node, participant.Settings{}, opening...)
}

func newBranchWith(t *testing.T, node *participant.Node, settings participant.Settings, opening ...string) *participant.Branch {
	t.Helper()
	b, err := node.NewBranch(context.Background(), settings, opening)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return b
}

// reply is everything a caller gets in answer to one exchange.
type reply struct {
	types   string // the type bytes of the frames, in order
	rows    []string
	tags    []string
	notices []*pgconn.PgError
	err     *pgconn.PgError
}

// receive reads an exchange's answer to its end.
func receive(b *participant.Branch) (r reply, err error) {
	for {
		frame, err := b.Receive()
		if err != nil {
			return r, err
		}
		r.types += string(frame.Type())
		switch frame.Type() {
		case 'D':
			var row pgproto3.DataRow
			if err := row.Decode(frame.Body()); err != nil {
				return r, err
			}
			values := make([]string, len(row.Values))
			for i, v := range row.Values {
				values[i] = string(v)
			}
			r.rows = append(r.rows, strings.Join(values, "|"))
		case 'C':
			r.tags = append(r.tags, strings.TrimRight(string(frame.Body()), "\x00"))
		case 'E', 'N':
			pgErr, err := participant.DecodeError(frame.Body())
			if err != nil {
				return r, err
			}
			if frame.Type() == 'N' {
				r.notices = append(r.notices, pgErr)
			} else {
				r.err = pgErr
			}
		case 'Z':
			return r, nil
		}
	}
}

// query runs one simple query in a branch.
func query(b *participant.Branch, sql string) (reply, error) {
	b.Query(sql)
	if err := b.Send(); err != nil {
		return reply{}, err
	}
	return receive(b)
}

// must is query for a statement that may not fail.
func must(t *testing.T, b *participant.Branch, sql string) reply {
	t.Helper()
	r, err := query(b, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if r.err != nil {
		t.Fatalf("%s: %v", sql, r.err)
	}
	return r
}

// vote prepares the branch and returns its vote.
func vote(t *testing.T, b *participant.Branch, gid participant.GID, bound time.Duration) (participant.Vote, error) {
	t.Helper()
	if err := b.SendPrepare(gid, participant.BranchRecord{Participants: []string{gid.Node}}); err != nil {
		t.Fatal(err)
	}
	return b.ReceiveVote(time.Now().Add(bound))
}

// mustVote is vote for a connection that may not be lost.
func mustVote(t *testing.T, b *participant.Branch, gid participant.GID) participant.Vote {
	t.Helper()
	v, err := vote(t, b, gid, wait)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func timeout(t *testing.T, bound time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), bound)
}

// run runs SQL over a connection of its own.
func run(ctx context.Context, url, sql string) error {
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql).ReadAll()
	return err
}
