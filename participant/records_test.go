package participant_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpact/pgpact/participant"
)

// A branch record bears its transaction's key, whatever it is made of, and the gid of the prepared branch its tag.
func TestBranchRecordBearsTheKey(t *testing.T) {
	_, node := newNode(t, nil)
	keys := []string{"order-42", `it's a "key" \ of`, "日本 😀", "$1 {a,b}", strings.Repeat("x", 200)}
	for i, key := range append(keys, "") {
		record := participant.BranchRecord{Participants: []string{"a", "b"}, Role: "o'brien", Key: key}
		gid := newGID(node)
		if key != "" {
			gid.KeyTag = participant.KeyTag(record.Role, key)
		} else {
			record.Role = ""
		}
		b := newBranch(t, node, "BEGIN")
		must(t, b, "INSERT INTO accounts VALUES('k"+strconv.Itoa(i)+"',1)")
		if err := b.SendPrepare(gid, record); err != nil {
			t.Fatal(err)
		}
		if vote, err := b.ReceiveVote(time.Now().Add(wait)); err != nil || !vote.Yes {
			t.Fatalf("%+v, %v", vote, err)
		}
		prepared, err := node.ListPrepared(t.Context())
		if err != nil || len(prepared) != 1 || prepared[0].GID != gid {
			t.Errorf("%+v, %v", prepared, err)
		}
		if err := node.CommitPrepared(t.Context(), gid); err != nil {
			t.Fatal(err)
		}
		found, err := node.BranchRecords(t.Context(), []participant.ID{gid.ID})
		if diff := cmp.Diff(map[participant.ID]participant.BranchRecord{gid.ID: record}, found); diff != "" || err != nil {
			t.Errorf("%s, %v", diff, err)
		}
		if key == "" {
			continue
		}
		if found, err = node.RecordsOfKey(t.Context(), record.Role, key); len(found) != 1 || err != nil {
			t.Errorf("by key: %v, %v", found, err)
		}
		if found, err = node.RecordsOfKey(t.Context(), "another", key); len(found) != 0 || err != nil {
			t.Errorf("by another role's key: %v, %v", found, err)
		}
	}
	// One at a time, in some order: each once, and none without a key.
	var after participant.KeyedRecord
	seen := map[string]bool{}
	for {
		page, err := node.KeyedRecords(t.Context(), after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		after = page[0]
		if seen[after.Key] || after.Role != "o'brien" {
			t.Fatalf("%+v after %v", after, seen)
		}
		seen[after.Key] = true
	}
	if len(seen) != len(keys) {
		t.Errorf("%d of %d keys", len(seen), len(keys))
	}
}
