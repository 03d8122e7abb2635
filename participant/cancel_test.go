package participant_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// A cancel aimed at a statement that is just ending never hits the next one. (Without waiting for the cancel
// connection's EOF and one empty round trip, 45 of 400 did.)
func TestCancelNeverHitsTheNextStatement(t *testing.T) {
	_, node := newNode(t, nil)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	b := newBranch(t, node)
	hit := 0
	for range 300 {
		// The cancel is on its way while the statement ends: sometimes before, sometimes after.
		b.Query("SELECT pg_sleep(0.002)")
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
		asked := make(chan struct{})
		timer := time.AfterFunc(time.Duration(random.IntN(3000))*time.Microsecond, func() {
			b.Conn().Cancel()
			close(asked)
		})
		r, err := receive(b)
		if err != nil {
			t.Fatal(err)
		}
		if r.err != nil {
			hit++
		}
		if timer.Stop() {
			b.Conn().Cancel()
		} else {
			<-asked // or it would rightly be taken for one of the next statement
		}
		if r, err = query(b, "SELECT pg_sleep(0.001)"); err != nil || r.err != nil {
			t.Fatalf("the next statement was hit: %v, %v", r.err, err)
		}
	}
	t.Logf("%d of 300 cancels hit what they were aimed at", hit)
}

// A cancelled connection is not given to another session.
func TestCancelledConnectionIsNotReused(t *testing.T) {
	_, node := newNode(t, nil)
	b, err := node.NewBranch(t.Context(), participant.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	must(t, b, "SELECT 1")
	b.Conn().Cancel()
	b.Release()
	if s := node.Stats(); s.Idle != 0 {
		t.Errorf("%+v", s)
	}
}

// After ForbidCancel, and after the release, nothing is sent for a client's wish.
func TestForbiddenCancelIsNotSent(t *testing.T) {
	f, node := startFake(t, func(c *fakeConn) {
		c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
		_ = c.ready('I')
	})
	b, err := node.NewBranch(t.Context(), participant.Settings{}, []string{"BEGIN"})
	if err != nil {
		t.Fatal(err)
	}
	must(t, b, "UPDATE x")
	if v := mustVote(t, b, newGID(node)); !v.Yes {
		t.Fatalf("%+v", v)
	}
	b.ForbidCancel()
	b.Conn().Cancel()
	conn := b.Conn()
	b.Release()
	conn.Cancel()
	node.Close() // waits for cancel requests under way
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancels != 0 {
		t.Errorf("%d cancel requests", f.cancels)
	}
}

// A node that hangs cannot hold up for ever a statement that has to wait for a cancel to be over.
func TestQuiesceIsBounded(t *testing.T) {
	f, _ := startFake(t, (*fakeConn).silence)
	config := participant.Config{Name: "a", ClusterID: "cluster1", ConnectTimeout: 300 * time.Millisecond,
		URL: "postgres://u@" + f.listener.Addr().String() + "/d?sslmode=disable"}
	node, err := participant.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	b := newBranch(t, node)
	b.Query("COMMIT") // never answered
	if err := b.Send(); err != nil {
		t.Fatal(err)
	}
	b.Conn().Cancel()
	b.Query("SELECT 1")
	began := time.Now()
	if err := b.Send(); err == nil || b.Lost() == nil {
		t.Errorf("sent: %v", err)
	}
	if took := time.Since(began); took > wait {
		t.Errorf("it took %s", took)
	}
}
