package participant_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/participant"
)

// beforePrepare are the tags of what stands before PREPARE TRANSACTION in the message of phase one.
var beforePrepare = []string{"SET CONSTRAINTS", "SET", "SET", "INSERT 0 1"}

// voteCase is one answer to a PREPARE, and what it is worth. The list is FACTS section 1's.
type voteCase struct {
	name     string
	answer   func(c *fakeConn)
	yes      bool
	prepared bool   // it may be prepared all the same
	state    string // SQLSTATE of the node's own error, if there is one
	lost     bool   // there is no answer
	says     string // part of the error's text
}

// refusal is an ERROR in the place of PREPARE TRANSACTION's tag.
func refusal(name, code string) voteCase {
	return voteCase{name: name, state: code, answer: func(c *fakeConn) {
		c.tags(beforePrepare...)
		c.fail("ERROR", code)
		_ = c.ready('I')
	}}
}

func voteCases() []voteCase {
	return []voteCase{
		{name: "yes", yes: true, prepared: true, answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
			_ = c.ready('I')
		}},
		{name: "a cancel after the tag", prepared: true, state: "57014", answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
			c.fail("ERROR", "57014")
			_ = c.ready('I')
		}},
		{name: "tag ROLLBACK", says: `"ROLLBACK"`, answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "ROLLBACK")...)
			_ = c.ready('I')
		}},
		{name: "tag ROLLBACK alone", says: `"ROLLBACK"`, answer: func(c *fakeConn) {
			c.tags("ROLLBACK")
			_ = c.ready('I')
		}},
		{name: "WARNING 25P01 and tag ROLLBACK", answer: func(c *fakeConn) {
			c.tags(beforePrepare...)
			c.warning("25P01", "there is no transaction in progress")
			c.tags("ROLLBACK")
			_ = c.ready('I')
		}},
		{name: "WARNING 25P01 and tag PREPARE TRANSACTION", prepared: true, says: "25P01", answer: func(c *fakeConn) {
			c.tags(beforePrepare...)
			c.warning("25P01", "there is no transaction in progress")
			c.tags("PREPARE TRANSACTION")
			_ = c.ready('I')
		}},
		{name: "WARNING 01000 of a cancelled standby wait", prepared: true, says: "01000", answer: func(c *fakeConn) {
			c.tags(beforePrepare...)
			c.warning("01000", "canceling wait for synchronous replication due to user request")
			c.tags("PREPARE TRANSACTION")
			_ = c.ready('I')
		}},
		{name: "WARNING after the tag", prepared: true, says: "01000", answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
			c.warning("01000", "late")
			_ = c.ready('I')
		}},
		refusal("gid in use", "42710"),
		refusal("all slots in use", "53200"),
		refusal("disabled", "55000"),
		refusal("temporary object", "0A000"),
		refusal("deferred constraint", "23503"),
		refusal("serialization", "40001"),
		refusal("cancelled", "57014"),
		{name: "error after the tag", prepared: true, state: "XX000", answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
			c.fail("ERROR", "XX000")
			_ = c.ready('I')
		}},
		{name: "the tag in another's place", prepared: true, answer: func(c *fakeConn) {
			c.tags("PREPARE TRANSACTION")
			_ = c.ready('I')
		}},
		{name: "one tag too many", prepared: true, answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION", "SET")...)
			_ = c.ready('I')
		}},
		{name: "another spelling", answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION ")...)
			_ = c.ready('I')
		}},
		{name: "still in a block", prepared: true, answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
			_ = c.ready('T')
		}},
		{name: "nothing but ReadyForQuery", says: `[]`, answer: func(c *fakeConn) { _ = c.ready('I') }},
		{name: "FATAL", lost: true, prepared: true, answer: func(c *fakeConn) {
			c.fail("FATAL", "57P01")
			c.hangUp(nil)
		}},
		{name: "FATAL after the tag", lost: true, prepared: true, answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
			c.fail("FATAL", "57P01")
			c.hangUp(nil)
		}},
		{name: "tag without ReadyForQuery", lost: true, prepared: true, answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
			c.hangUp(nil)
		}},
		{name: "half a message", lost: true, prepared: true, answer: func(c *fakeConn) {
			c.tags(beforePrepare...)
			c.hangUp([]byte("C\x00\x00\x00\x18PREPARE TRANS"))
		}},
		{name: "half a header", lost: true, prepared: true, answer: func(c *fakeConn) {
			c.hangUp([]byte("C\x00\x00"))
		}},
		{name: "a length outside the protocol", lost: true, prepared: true, answer: func(c *fakeConn) {
			c.hangUp([]byte("C\x00\x00\x00\x03"))
		}},
		{name: "a length of 2 GB", lost: true, prepared: true, answer: func(c *fakeConn) {
			c.hangUp([]byte("D\x7f\xff\xff\xff\x00"))
		}},
		{name: "a malformed ReadyForQuery", lost: true, prepared: true, answer: func(c *fakeConn) {
			c.tags(append(beforePrepare, "PREPARE TRANSACTION")...)
			_ = c.backend.Flush()
			_, _ = c.Write([]byte("Z\x00\x00\x00\x04"))
			c.silence()
		}},
		{name: "COPY", lost: true, prepared: true, answer: func(c *fakeConn) {
			_, _ = c.Write([]byte("G\x00\x00\x00\x07\x00\x00\x00"))
			c.silence()
		}},
	}
}

// Every answer to a PREPARE that there is, against a node that gives it; only one of them is a yes.
func TestVote(t *testing.T) {
	for _, test := range voteCases() {
		t.Run(test.name, func(t *testing.T) {
			_, node := startFake(t, test.answer)
			b := newBranch(t, node, "BEGIN")
			must(t, b, "UPDATE x")
			v, err := vote(t, b, newGID(node), wait)
			checkVote(t, test, b, v, err)
		})
	}
}

func checkVote(t *testing.T, test voteCase, b *participant.Branch, v participant.Vote, err error) {
	t.Helper()
	lost, isLost := errors.AsType[*participant.LostError](err)
	if isLost != test.lost || (err != nil) != test.lost {
		t.Fatalf("error %v", err)
	}
	if v.Yes != test.yes || v.Prepared != test.prepared {
		t.Errorf("yes %v, prepared %v", v.Yes, v.Prepared)
	}
	switch {
	case test.lost:
		if lost.Node != "a" || b.Lost() == nil {
			t.Errorf("lost %v, branch %v", lost, b.Lost())
		}
	case test.yes:
		if v.Err != nil {
			t.Error(v.Err)
		}
	case v.Err == nil:
		t.Error("a no without a reason")
	default:
		if got := participant.SQLState(v.Err); got != test.state {
			t.Errorf("SQLSTATE %q of %v", got, v.Err)
		}
		if !strings.Contains(v.Err.Error(), test.says) {
			t.Errorf("%v does not say %s", v.Err, test.says)
		}
	}
}

// Silence: the statement is cancelled, and if that is not answered either, the connection is given up. Either
// way it ends at the deadline.
func TestVoteSilence(t *testing.T) {
	f, node := startFake(t, (*fakeConn).silence)
	b := newBranch(t, node, "BEGIN")
	must(t, b, "UPDATE x")
	began := time.Now()
	v, err := vote(t, b, newGID(node), 200*time.Millisecond)
	checkVote(t, voteCase{lost: true, prepared: true}, b, v, err)
	if took := time.Since(began); took < 190*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	select {
	case <-f.cancel:
	case <-time.After(wait):
		t.Error("no cancel request arrived")
	}
}

// A cancel that is answered with an ordinary refusal keeps the connection.
func TestVoteAfterCancel(t *testing.T) {
	f, node := startFake(t, func(c *fakeConn) {
		<-c.node.cancel
		c.fail("ERROR", "57014")
		_ = c.ready('I')
	})
	b := newBranch(t, node, "BEGIN")
	must(t, b, "UPDATE x")
	v, err := vote(t, b, newGID(node), 2*time.Second)
	checkVote(t, voteCase{state: "57014"}, b, v, err)
	f.mu.Lock()
	if f.cancels != 1 {
		t.Errorf("%d cancel requests", f.cancels)
	}
	f.script = func(c *fakeConn) {
		c.tags("ROLLBACK PREPARED")
		_ = c.ready('I')
	}
	f.mu.Unlock()
	gid := newGID(node)
	if err := b.SendRollbackPrepared(gid); err != nil {
		t.Fatal(err)
	}
	if err := b.ReceiveFinish(false, time.Now().Add(wait)); err != nil {
		t.Error(err)
	}
}

// finishCase is one answer to COMMIT PREPARED.
type finishCase struct {
	name   string
	answer func(c *fakeConn)
	want   error  // by errors.Is
	state  string // or by SQLSTATE
	says   string // or by text
	lost   bool
	done   bool
}

func finishCases() []finishCase {
	refused := func(code string) func(*fakeConn) {
		return func(c *fakeConn) {
			c.fail("ERROR", code)
			_ = c.ready('I')
		}
	}
	return []finishCase{
		{name: "done", done: true, answer: func(c *fakeConn) { c.tags("COMMIT PREPARED"); _ = c.ready('I') }},
		{name: "a timeout after the tag", done: true, answer: func(c *fakeConn) {
			c.tags("COMMIT PREPARED")
			c.fail("ERROR", "57014")
			_ = c.ready('I')
		}},
		{name: "unknown gid", want: participant.ErrGIDUnknown, answer: refused("42704")},
		{name: "busy", want: participant.ErrBusy, answer: refused("55000")},
		{name: "not the owner", state: "42501", answer: refused("42501")},
		{name: "another database", state: "0A000", answer: refused("0A000")},
		{name: "another tag", says: `"ROLLBACK PREPARED"`, answer: func(c *fakeConn) { c.tags("ROLLBACK PREPARED"); _ = c.ready('I') }},
		{name: "no tag", says: `""`, answer: func(c *fakeConn) { _ = c.ready('I') }},
		{name: "a cancelled standby wait", want: participant.ErrUnconfirmed, answer: func(c *fakeConn) {
			c.warning("01000", "canceling wait for synchronous replication due to user request")
			c.tags("COMMIT PREPARED")
			_ = c.ready('I')
		}},
		{name: "FATAL", lost: true, answer: func(c *fakeConn) { c.fail("FATAL", "57P01"); c.hangUp(nil) }},
		{name: "half a message", lost: true, answer: func(c *fakeConn) { c.hangUp([]byte("C\x00\x00\x00\x14COMMIT")) }},
		{name: "tag without ReadyForQuery", lost: true, answer: func(c *fakeConn) { c.tags("COMMIT PREPARED"); c.hangUp(nil) }},
		{name: "silence", lost: true, answer: (*fakeConn).silence},
	}
}

// Every answer to COMMIT PREPARED, on the branch's own connection and on recovery's.
func TestFinish(t *testing.T) {
	for _, test := range finishCases() {
		check := func(t *testing.T, err error) {
			t.Helper()
			_, lost := errors.AsType[*participant.LostError](err)
			switch {
			case test.done != (err == nil), test.lost != lost:
				t.Errorf("%v", err)
			case test.want != nil && !errors.Is(err, test.want), participant.SQLState(err) != test.state && test.want == nil:
				t.Errorf("%v", err)
			case err != nil && !strings.Contains(err.Error(), test.says):
				t.Errorf("%v does not say %s", err, test.says)
			}
		}
		t.Run(test.name, func(t *testing.T) {
			_, node := startFake(t, test.answer)
			b := newBranch(t, node, "BEGIN")
			must(t, b, "UPDATE x")
			if err := b.SendCommitPrepared(newGID(node)); err != nil {
				t.Fatal(err)
			}
			check(t, b.ReceiveFinish(true, time.Now().Add(time.Second)))
			ctx, cancel := timeout(t, time.Second)
			defer cancel()
			check(t, node.CommitPrepared(ctx, newGID(node)))
		})
	}
}

// The tag of COMMIT is the outcome. A server takes note of a cancel or a timeout as late as after its line in the log.
func TestCommitTag(t *testing.T) {
	for _, test := range []struct {
		name      string
		answer    func(c *fakeConn)
		committed bool
		state     string
		lost      bool
	}{
		{"committed", func(c *fakeConn) { c.tags("COMMIT"); _ = c.ready('I') }, true, "", false},
		{"a cancel after the tag", func(c *fakeConn) { c.tags("COMMIT"); c.fail("ERROR", "57014"); _ = c.ready('I') }, true, "", false},
		{"lost after the tag", func(c *fakeConn) { c.tags("COMMIT"); c.hangUp(nil) }, true, "", false},
		{"a FATAL after the tag", func(c *fakeConn) { c.tags("COMMIT"); c.fail("FATAL", "57P01"); c.hangUp(nil) }, true, "", false},
		{"a cancel instead of the tag", func(c *fakeConn) { c.fail("ERROR", "57014"); _ = c.ready('I') }, false, "57014", false},
		{"rolled back", func(c *fakeConn) { c.tags("ROLLBACK"); _ = c.ready('I') }, false, "", false},
		{"lost before the tag", func(c *fakeConn) { c.hangUp(nil) }, false, "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, node := startFake(t, test.answer)
			b := newBranch(t, node, "BEGIN")
			must(t, b, "UPDATE x")
			if err := b.SendCommit(); err != nil {
				t.Fatal(err)
			}
			answer, err := b.ReceiveCommit(time.Now().Add(wait))
			state := ""
			if answer.Err != nil {
				state = answer.Err.Code
			}
			if answer.Committed != test.committed || state != test.state || (err != nil) != test.lost {
				t.Errorf("%+v, %v", answer, err)
			}
		})
	}
}

// A statement in autocommit that is a simple query has committed when its tag comes; in a series it commits at Sync, and may fail there.
func TestAutocommitTag(t *testing.T) {
	late := func(c *fakeConn) {
		c.tags("COMMIT PREPARED") // any statement with an answer from the script will do
		c.fail("ERROR", "57014")
		_ = c.ready('I')
	}
	for _, test := range []struct {
		name    string
		opening []string
		refused bool
	}{{"autocommit", nil, false}, {"block", []string{"BEGIN"}, true}} {
		t.Run(test.name, func(t *testing.T) {
			_, node := startFake(t, late)
			b := newBranch(t, node, test.opening...)
			if test.refused {
				must(t, b, "UPDATE x")
			}
			b.Query("COMMIT PREPARED 'x'")
			if err := b.Send(); err != nil {
				t.Fatal(err)
			}
			refused := false
			for {
				frame, err := b.Receive()
				if frame.Type() == 'E' {
					refused = true
				}
				if err != nil || frame.Type() == 'Z' {
					break
				}
			}
			if refused != test.refused {
				t.Errorf("refused: %v", refused)
			}
		})
	}
}
