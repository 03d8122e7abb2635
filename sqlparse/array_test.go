package sqlparse

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParseArray: the answers are those of PostgreSQL 15 for
// SELECT unnest('...'::text[]).
func TestParseArray(t *testing.T) {
	tests := []struct {
		text    string
		want    []string
		hasNull bool
		bad     bool
	}{
		{text: "{}"},
		{text: " { } "},
		{text: "{a,b}", want: []string{"a", "b"}},
		{text: " { a , b c } ", want: []string{"a", "b c"}},
		{text: `{"a","b c",""}`, want: []string{"a", "b c", ""}},
		{text: `{ "a" , "b" }`, want: []string{"a", "b"}},
		{text: `{"a\"b","c\\d","e,f","{g}"}`, want: []string{`a"b`, `c\d`, "e,f", "{g}"}},
		{text: `{a\,b,c\"d,\ e\ }`, want: []string{"a,b", `c"d`, " e "}},
		{text: "{NULL,null,NuLl}", hasNull: true},
		{text: `{"NULL",\null,nulls,a}`, want: []string{"NULL", "null", "nulls", "a"}},
		{text: "{é,日本}", want: []string{"é", "日本"}},
		{text: "{1,-5}", want: []string{"1", "-5"}},
		{text: "", bad: true},
		{text: "a", bad: true},
		{text: "{", bad: true},
		{text: "{a", bad: true},
		{text: "{a,}", bad: true},
		{text: "{,a}", bad: true},
		{text: "{a}}", bad: true},
		{text: "{a} x", bad: true},
		{text: `{"a}`, bad: true},
		{text: `{a\`, bad: true},
		{text: `{"a\`, bad: true},
		{text: "{{a},{b}}", bad: true},
		{text: "[0:1]={a,b}", bad: true},
	}
	for _, test := range tests {
		got, hasNull, err := ParseArray(test.text)
		if (err != nil) != test.bad || hasNull != test.hasNull {
			t.Errorf("%s: null %v, error %v", test.text, hasNull, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.text, diff)
		}
	}
}

// FuzzParseArray: what was read and is written again, all quoted, reads back.
func FuzzParseArray(f *testing.F) {
	f.Add(`{a,"b c",NULL,\x}`)
	f.Fuzz(func(t *testing.T, text string) {
		elements, _, err := ParseArray(text)
		if err != nil || len(elements) == 0 {
			return
		}
		var quoted []string
		for _, e := range elements {
			quoted = append(quoted, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(e)+`"`)
		}
		again, hasNull, err := ParseArray("{" + strings.Join(quoted, ",") + "}")
		if err != nil || hasNull || !cmp.Equal(again, elements) {
			t.Errorf("%q: %q again %q, %v", text, elements, again, err)
		}
	})
}
