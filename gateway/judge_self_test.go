package gateway

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestJudgeSeesWhatIsWrong holds the judge of hostile conversations itself: it passes what Postgres would say, and nothing that
// differs from it by one message.
func TestJudgeSeesWhatIsWrong(t *testing.T) {
	tag := func(s string) pgproto3.BackendMessage { return &pgproto3.CommandComplete{CommandTag: []byte(s)} }
	ready := func(status byte) pgproto3.BackendMessage { return &pgproto3.ReadyForQuery{TxStatus: status} }
	failure := &pgproto3.ErrorResponse{Severity: "ERROR", Code: "42601"}
	fatal := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01"}
	internal := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "XX000"}
	row := &pgproto3.DataRow{Values: [][]byte{nil}}
	one := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("a")}}}
	parsed, bound := &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}
	type answers []pgproto3.BackendMessage
	for name, test := range map[string]struct {
		sent  string // types of messages without a body, ! for an impossible length
		got   answers
		wrong bool
	}{
		"query":                     {"Q", answers{one, row, tag("SELECT 1"), ready('I')}, false},
		"begin and commit":          {"QQ", answers{tag("BEGIN"), ready('T'), tag("COMMIT"), ready('I')}, false},
		"failed block":              {"QQQ", answers{tag("BEGIN"), ready('T'), failure, ready('E'), tag("ROLLBACK"), ready('I')}, false},
		"series":                    {"PBES", answers{parsed, bound, row, tag("SELECT 1"), ready('I')}, false},
		"skipped until Sync":        {"PBEQS", answers{failure, ready('I')}, false},
		"unfinished series":         {"PBE", nil, false},
		"bad length":                {"Q!", answers{tag("SET"), ready('I'), fatal}, false},
		"no answer":                 {"Q", nil, true},
		"no ReadyForQuery":          {"Q", answers{tag("SELECT 1")}, true},
		"two ReadyForQuery":         {"Q", answers{tag("SELECT 1"), ready('I'), ready('I')}, true},
		"answer to nothing":         {"", answers{tag("SELECT 1")}, true},
		"no answer to Sync":         {"PS", answers{parsed}, true},
		"error and success":         {"Q", answers{failure, tag("SELECT 1"), ready('I')}, true},
		"row without columns":       {"Q", answers{row, tag("SELECT 1"), ready('I')}, true},
		"Parse answered by Bind's":  {"PS", answers{bound, ready('I')}, true},
		"skipped message answered":  {"PQS", answers{failure, tag("SET"), ready('I'), ready('I')}, true},
		"block from nowhere":        {"Q", answers{tag("SELECT 1"), ready('T')}, true},
		"error in a block forgiven": {"QQ", answers{tag("BEGIN"), ready('T'), failure, ready('T')}, true},
		"block lost":                {"QQ", answers{tag("BEGIN"), ready('T'), tag("SELECT 1"), ready('I')}, true},
		"no such status":            {"Q", answers{tag("BEGIN"), ready('x')}, true},
		"FATAL for no reason":       {"Q", answers{internal}, true},
		"XX000 at a bad length":     {"!", answers{internal}, true},
		"more after FATAL":          {"!", answers{fatal, ready('I')}, true},
		"ends before Sync":          {"QS", answers{tag("SET"), ready('I')}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var sent, got []byte
			for _, kind := range []byte(test.sent) {
				length := byte(4)
				if kind == '!' {
					length = 3
				}
				sent = append(sent, kind, 0, 0, 0, length)
			}
			for _, msg := range test.got {
				got = slices.Concat(got, mustEncode(t, msg))
			}
			if verdict := judgeConversation(sent, got, 1000); (verdict != "") != test.wrong {
				t.Errorf("verdict %q", verdict)
			}
		})
	}
	if verdict := judgeConversation([]byte("Q\x00\x00\x00\x04"), []byte("C\x00\x00\x00\x09SEL"), 1000); verdict == "" {
		t.Error("half an answer is passed")
	}
}

func mustEncode(t *testing.T, msg pgproto3.BackendMessage) []byte {
	t.Helper()
	frame, err := msg.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}
