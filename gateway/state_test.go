package gateway

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTransitions holds the table to what must be true of every entry.
func TestTransitions(t *testing.T) {
	for state := range stateCount {
		for event := range eventCount {
			step := transitions[state][event]
			if step.refusal != nil {
				if step.next != 0 || step.ending != goesOn || step.chain || step.warning != nil {
					t.Errorf("state %d, event %d: a refusal changes nothing: %+v", state, event, step)
				}
				continue
			}
			switch {
			case state == idle && step.ending != goesOn:
				t.Errorf("event %d ends a transaction that does not exist", event)
			case state != idle && step.next == idle && step.ending == goesOn:
				t.Errorf("state %d, event %d: the transaction is left behind", state, event)
			case step.ending != goesOn && step.next != idle && !step.chain:
				t.Errorf("state %d, event %d: goes on in a block that has ended", state, event)
			case state == failed && step.ending == commits:
				t.Errorf("event %d commits a failed transaction", event)
			case step.chain && step.next != inBlock:
				t.Errorf("state %d, event %d: AND CHAIN begins no block", state, event)
			}
		}
		if refusal := transitions[state][onError].refusal; refusal != nil {
			t.Errorf("state %d refuses an error", state)
		}
	}
}

func TestSplitIdentifiers(t *testing.T) {
	for list, want := range map[string][]string{
		"":                            nil,
		`"$user", public`:             {"$user", "public"},
		`Public,"Mixed ""Case"""  `:   {"public", `Mixed "Case"`},
		`a , b,c`:                     {"a", "b", "c"},
		`""`:                          {""},
		`"unterminated`:               {"unterminated"},
		` "with, comma" , pg_catalog`: {"with, comma", "pg_catalog"},
	} {
		if got := splitIdentifiers(list); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", list, got, want)
		}
	}
}

func TestParseOptions(t *testing.T) {
	got := map[string]string{}
	if err := parseOptions(`-c a=1  --search-path=x -cB=two\ words -c c=back\\slash`, got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "1", "search_path": "x", "b": "two words", "c": `back\slash`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"-c", "x", "-x y", "-c novalue", "--novalue"} {
		if err := parseOptions(bad, got); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestTimeoutSetting(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"0": 0, "50": 50 * time.Millisecond, "5s": 5 * time.Second, "2min": 2 * time.Minute, "1h": time.Hour, "1d": 24 * time.Hour,
		"-1": 0, "soon": 0,
	} {
		if got := timeoutSetting(value, true); got != want {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
	}
}

func TestMergeTags(t *testing.T) {
	var m merge
	m.begin(2)
	for _, tag := range []string{"INSERT 0 5\x00", "INSERT 0 7\x00"} {
		if err := m.addTag([]byte(tag)); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.fullTag(m.count); got != "INSERT 0 12" {
		t.Error(got)
	}
	if err := m.addTag([]byte("UPDATE 1\x00")); err == nil {
		t.Error("tags of different statements were merged")
	}
	m.begin(1)
	if err := m.addTag([]byte("CREATE TABLE\x00")); err != nil || m.fullTag(m.count) != "CREATE TABLE" {
		t.Errorf("%q, %v", m.fullTag(m.count), err)
	}
}

func TestShifted(t *testing.T) {
	err := sqlError("42601", "x")
	err.Position = 3
	if got, _ := clientError(shifted(err, "SELECT 'ä';")); got.Position != 14 {
		t.Errorf("position %d, want 14: characters are counted, not bytes", got.Position)
	}
	if err.Position != 3 {
		t.Error("the error itself was changed")
	}
	if got, _ := clientError(shifted(sqlError("42601", "x"), "SELECT 1;")); got.Position != 0 {
		t.Errorf("an error without a position got %d", got.Position)
	}
}
