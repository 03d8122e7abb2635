package participant_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
)

// FuzzNode: a node that answers with anything at all (CVE-2026-6666's kind). Its bytes are read as the answer to a client's
// statement and as the vote; neither may panic or hang, and the vote is yes only for the one answer that means it.
func FuzzNode(f *testing.F) {
	var answer atomic.Pointer[[]byte] // the script runs on the fake node's goroutine
	_, node := startFake(f, func(c *fakeConn) { c.hangUp(*answer.Load()) })
	for _, seed := range nodeAnswers() {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, prepare bool) {
		answer.Store(&data)
		b, err := node.NewBranch(t.Context(), participant.Settings{}, []string{"BEGIN"})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		must(t, b, "UPDATE x")
		defer func() {
			if b.Conn().Buffered() && b.StillWhole() {
				t.Errorf("%q: what is left of it would be the next statement's answer", data)
			}
			b.Conn().Abandon(errors.New("the fake node has hung up")) // lest the next input meets it
		}()
		if !prepare {
			// The connection is closed behind the answer, so this ends.
			if _, err := query(b, "COMMIT"); err == nil && !bytes.Contains(data, []byte("Z\x00\x00\x00\x05")) {
				t.Errorf("%q was taken for a whole answer", data)
			}
			return
		}
		if err := b.SendPrepare(newGID(node), participant.BranchRecord{Participants: []string{"a", "b"}}); err != nil {
			t.Fatal(err)
		}
		v, err := b.ReceiveVote(time.Now().Add(wait))
		_, lost := errors.AsType[*participant.LostError](err)
		switch {
		case err != nil && !lost:
			t.Errorf("%q: an error of another kind: %v", data, err)
		case v.Yes && (err != nil || v.Err != nil):
			t.Errorf("%q: yes, and %v, %v", data, err, v.Err)
		case err == nil && v.Yes != meansYes(data):
			t.Errorf("%q: the vote is %+v", data, v)
		case err == nil && !v.Yes && v.Err == nil:
			t.Errorf("%q: a no without a reason", data)
		}
	})
}

// meansYes is the rule in other words than the code's: five tags, these, in this order, nothing else but what a server may say
// at any time, no notice behind the fourth, and an idle connection.
func meansYes(data []byte) bool {
	var tags []string
	for len(data) >= 5 {
		length := int(binary.BigEndian.Uint32(data[1:])) + 1
		if length < 5 || length > len(data) {
			return false
		}
		kind, body := data[0], data[5:length]
		data = data[length:]
		switch kind {
		case 'C':
			tags = append(tags, string(bytes.TrimSuffix(body, []byte{0})))
		case 'N':
			if len(tags) >= 4 {
				return false
			}
		case 'S', 'A', 'T', 'I':
		case 'Z':
			return string(body) == "I" && slices.Equal(tags, append(slices.Clone(beforePrepare), "PREPARE TRANSACTION"))
		default:
			return false
		}
	}
	return false
}

// nodeAnswers are seeds: the yes, and answers that are nearly it.
func nodeAnswers() [][]byte {
	frames := func(messages ...pgproto3.BackendMessage) []byte {
		var out []byte
		for _, m := range messages {
			var err error
			if out, err = m.Encode(out); err != nil {
				panic(err) // made here, of nothing that cannot be encoded
			}
		}
		return out
	}
	var prefix []pgproto3.BackendMessage
	for _, tag := range beforePrepare {
		prefix = append(prefix, &pgproto3.CommandComplete{CommandTag: []byte(tag)})
	}
	after := func(messages ...pgproto3.BackendMessage) []byte {
		return frames(append(slices.Clone(prefix), messages...)...)
	}
	prepared := &pgproto3.CommandComplete{CommandTag: []byte("PREPARE TRANSACTION")}
	idle := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	warning := &pgproto3.NoticeResponse{Severity: "WARNING", Code: "01000", Message: "canceling wait"}
	failure := &pgproto3.ErrorResponse{Severity: "ERROR", Code: "40001", Message: "no", Position: 7}
	yes := after(prepared, idle)
	seeds := [][]byte{
		yes,
		after(&pgproto3.CommandComplete{CommandTag: []byte("ROLLBACK")}, idle),
		after(prepared, &pgproto3.ReadyForQuery{TxStatus: 'T'}),
		after(prepared, &pgproto3.ReadyForQuery{TxStatus: 'x'}),
		after(warning, prepared, idle), after(prepared, warning, idle), after(failure, idle), after(prepared, failure, idle),
		append(frames(warning), yes...),
		append(frames(&pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"}), yes...),
		after(prepared, prepared, idle), after(prepared), frames(prepared, idle), frames(idle),
		append(slices.Clone(yes), frames(failure, idle)...),
		after(&pgproto3.DataRow{Values: [][]byte{[]byte("x"), nil}}, prepared, idle),
		after(&pgproto3.CopyInResponse{}, prepared, idle), after(&pgproto3.ParseComplete{}, prepared, idle),
		after(&pgproto3.NotificationResponse{Channel: "c"}, prepared, idle),
		[]byte("D\x00\x00\x00\x06\xff\xff"), []byte("D\x00\x00\x00\x0a\x00\x01\xff\xff\xff\xfe"),
		[]byte("D\x00\x00\x00\x0a\x00\x01\x7f\xff\xff\xff"), []byte("C\x00\x00\x00\x04"), []byte("E\x00\x00\x00\x04"),
		[]byte("E\x00\x00\x00\x08SERR"), []byte("S\x00\x00\x00\x05x"), []byte("Z\x00\x00\x00\x04"), []byte("Z\x00\x00\x00\x00"),
		[]byte("C\xff\xff\xff\xff"), []byte("C\x7f\xff\xff\xff"), []byte("C\x00\x00"), nil,
	}
	noRecord := bytes.Replace(yes, []byte("INSERT 0 1"), []byte("INSERT 0 0"), 1)
	return append(seeds, noRecord)
}
