package participant_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pgpact/pgpact/participant"
)

func idGenerator() *rapid.Generator[participant.ID] {
	return rapid.Custom(func(t *rapid.T) participant.ID {
		return participant.ID{Epoch: rapid.Int64Min(1).Draw(t, "epoch"), Sequence: rapid.Int64Min(1).Draw(t, "sequence")}
	})
}

// A gid has exactly one text, and the longest one fits.
func TestGIDRoundTrip(t *testing.T) {
	name := rapid.StringMatching(`[a-z0-9_-]{1,63}`)
	rapid.Check(t, func(t *rapid.T) {
		gid := participant.GID{Cluster: rapid.StringMatching(`[a-z0-9]{1,32}`).Draw(t, "cluster"), ID: idGenerator().Draw(t, "id"), Node: name.Draw(t, "node"),
			After: rapid.IntRange(0, 1<<20).Draw(t, "after")}
		if rapid.Bool().Draw(t, "keyed") {
			gid.KeyTag = participant.KeyTag(rapid.String().Draw(t, "role"), rapid.String().Draw(t, "key"))
		}
		text := gid.String()
		if len(text) > participant.MaxGIDLength {
			t.Fatalf("%d bytes: %s", len(text), text)
		}
		if got, ok := participant.ParseGID(text); !ok || got != gid {
			t.Fatalf("%q read as %+v, %v", text, got, ok)
		}
		id, err := participant.ParseID(gid.ID.String())
		if err != nil || id != gid.ID {
			t.Fatalf("%q read as %v, %v", gid.ID.String(), id, err)
		}
	})
}

// Whatever is read is what would have been written: nobody else's gid is taken for ours (invariant I7).
func TestParseGIDTakesOnlyItsOwnSpelling(t *testing.T) {
	pieces := rapid.SampledFrom([]string{"pgpact", "/", "1", "0", "-1", "+1", "01", "9223372036854775807", "9223372036854775808", "a", "A", "é", " ", "'", "\x00", ""})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(pieces, 0, 12).Draw(t, "pieces"), "")
		if gid, ok := participant.ParseGID(text); ok && gid.String() != text {
			t.Fatalf("%q was read as %+v, which is written %q", text, gid, gid.String())
		}
		if id, err := participant.ParseID(text); err == nil && id.String() != text {
			t.Fatalf("%q was read as %+v", text, id)
		}
	})
	for _, text := range []string{
		"", "pgpact/", "pgpact/c/1/2", "pgpact/c/1/2/a/b", "pgpact/c/1/2/a/", "pgpact/c/1/2/a/0", "pgpact/c/1/2/a/01", "pgpact/c/1/2/a/-1", "pgpact/c/1/2/a/1/1",
		"pgpact/c/1/2/a/1048577", "pgpact/c/1/2/a/k", "pgpact/c/1/2/a/kabcdefghijkl", "pgpact/c/1/2/a/kabcdefghijklmn", "pgpact/c/1/2/a/kabcdefghijklM",
		"pgpact/c/1/2/a/xabcdefghijklm", "pgpact/c/1/2/a/kabcdefghijkl1", "pgpact/c/1/2/a/kabcdefghijklm/1", "pgpact/c/1/2/a/1/1/kabcdefghijklm",
		"pgpact/c/1/2/a/kabcdefghijklm/kabcdefghijklm", "pgpact/c/1/2/a/0/kabcdefghijklm", "pgpact//1/2/a", "pgpact/c/1/2/", "pgpact/c/01/2/a", "pgpact/c/+1/2/a", "pgpact/c/1/0/a",
		"pgpact/c/-1/2/a", "PGPACT/c/1/2/a", "pgpact/C/1/2/a", "pgpact/c/1/2/a'", "pgpact/c/1/9223372036854775808/a", " pgpact/c/1/2/a", "spqr/c/1/2/a",
	} {
		if gid, ok := participant.ParseGID(text); ok {
			t.Errorf("%q was read as %+v", text, gid)
		}
	}
}

func TestIDsAreOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOf(idGenerator()).Draw(t, "ids")
		slices.SortFunc(ids, func(a, b participant.ID) int {
			switch {
			case a.Less(b):
				return -1
			case b.Less(a):
				return 1
			case a != b:
				t.Fatalf("%v and %v have no order", a, b)
			}
			return 0
		})
		for i := 1; i < len(ids); i++ {
			if a, b := ids[i-1], ids[i]; a.Epoch > b.Epoch || a.Epoch == b.Epoch && a.Sequence > b.Sequence {
				t.Fatalf("%v before %v", a, b)
			}
		}
	})
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "node-1": true, "n_1": true, strings.Repeat("x", 63): true,
		"": false, strings.Repeat("x", 64): false, "A": false, "a/b": false, "a'b": false, "a b": false, "é": false, "a\x00": false,
	} {
		if got := participant.ValidName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
