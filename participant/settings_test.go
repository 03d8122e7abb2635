package participant_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pgpact/pgpact/participant"
)

// awkward are texts that were misread somewhere once (FACTS section 6, "interpolated literals").
var awkward = []string{"", "a", "it's", `back\slash`, `\'; DROP TABLE accounts; --`, `\\`, `\`, `'`, `''`, `"`, `$$x$$`, "line\nbreak", "tab\t", "é中𝄞", `E'\''`, "/* ", "--"}

func TestQuoteLiteralIsReadAlikeByTheServer(t *testing.T) {
	_, node := newNode(t, nil)
	b := newBranch(t, node)
	for _, standard := range []string{"on", "off"} {
		must(t, b, "SET standard_conforming_strings="+standard+"; SET escape_string_warning=on")
		check := func(text string) string {
			r, err := query(b, "SELECT"+" "+participant.QuoteLiteral(text)+" COLLATE \"C\"")
			switch {
			case err != nil:
				return err.Error()
			case r.err != nil:
				return r.err.Error()
			case len(r.notices) > 0:
				return r.notices[0].Message
			case r.rows[0] != text:
				return r.rows[0]
			}
			return ""
		}
		for _, text := range awkward {
			if wrong := check(text); wrong != "" {
				t.Errorf("standard_conforming_strings=%s: %q: %s", standard, text, wrong)
			}
		}
		rapid.Check(t, func(t *rapid.T) {
			text := strings.ReplaceAll(strings.ToValidUTF8(rapid.String().Draw(t, "text"), ""), "\x00", "")
			if wrong := check(text); wrong != "" {
				t.Fatalf("standard_conforming_strings=%s: %q: %s", standard, text, wrong)
			}
		})
	}
	b.Conn().Taint()
}

func TestQuoteIdentifierIsReadAlikeByTheServer(t *testing.T) {
	_, node := newNode(t, nil)
	b := newBranch(t, node)
	for _, name := range awkward {
		if name == "" {
			continue // not an identifier
		}
		r := must(t, b, "SELECT j FROM (SELECT to_json(x) AS j, x."+participant.QuoteIdentifier(name)+" FROM (SELECT 1 AS "+participant.QuoteIdentifier(name)+") x) y")
		want := must(t, b, "SELECT json_build_object("+participant.QuoteLiteral(name)+"::text, 1)::jsonb")
		got := must(t, b, "SELECT "+participant.QuoteLiteral(r.rows[0])+"::jsonb")
		if got.rows[0] != want.rows[0] {
			t.Errorf("%q came back as %s", name, got.rows[0])
		}
	}
}

func TestSettingsAreImmutable(t *testing.T) {
	values := map[string]string{"work_mem": "8MB"}
	s := participant.NewSettings(values)
	values["work_mem"] = "1GB"
	changed := s.With("datestyle", "German").Without("work_mem")
	if v, _ := s.Get("work_mem"); v != "8MB" {
		t.Errorf("work_mem is %q", v)
	}
	if _, ok := s.Get("datestyle"); ok {
		t.Error("With changed its receiver")
	}
	if _, ok := changed.Get("work_mem"); ok {
		t.Error("Without left it")
	}
	if s.Key() != participant.NewSettings(map[string]string{"work_mem": "8MB"}).Key() || s.Key() == changed.Key() || changed.Key() == "" {
		t.Errorf("keys %q, %q", s.Key(), changed.Key())
	}
	if k := s.Without("work_mem").Key(); k != (participant.Settings{}).Key() {
		t.Errorf("no settings have key %q", k)
	}
}

// The difference between what a connection carries and what it must carry is applied when it is taken,
// whatever is in the values.
func TestSettingsFollowTheSession(t *testing.T) {
	_, node := newNode(t, nil)
	show := func(settings participant.Settings) string {
		b, err := node.NewBranch(t.Context(), settings, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		return must(t, b, "SELECT current_setting('work_mem'), current_setting('my.own',true), current_setting('datestyle')").rows[0]
	}
	plain := show(participant.Settings{})
	german := participant.NewSettings(map[string]string{"my.own": `it's \ "quoted"`, "datestyle": "German"})
	if got, want := show(german), `4MB|it's \ "quoted"|German, DMY`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := show(german.With("work_mem", "9MB").Without("datestyle")), `9MB|it's \ "quoted"|`; !strings.HasPrefix(got, want) || strings.Contains(got, "German") {
		t.Errorf("%q, want %q...", got, want)
	}
	if got := show(participant.Settings{}); got != plain {
		t.Errorf("%q, want %q", got, plain)
	}
	if s := node.Stats(); s.Idle != 1 {
		t.Errorf("%+v: one connection should have served all", s)
	}
	// A refused value is the node's own error, and costs nothing but that.
	_, err := node.NewBranch(t.Context(), german.With("work_mem", "rubbish"), nil)
	if participant.SQLState(err) != "22023" {
		t.Errorf("a bad value: %v", err)
	}
	if got := show(participant.Settings{}); got != plain {
		t.Errorf("after a bad value: %q, want %q", got, plain)
	}
}
