package sqlparse

import "testing"

func TestSettingCalls(t *testing.T) {
	for sql, want := range map[string]int{
		"select set_config('a', 'b', false)":                                         1,
		"SELECT pg_catalog.set_config('search_path', '', false)":                     1,
		"select current_setting('jit') as cur, set_config('jit', 'off', false) as n": 2,
		"select set_config($1, $2::text, $3)":                                        1,
		"select set_config('a', null, 'f'::bool), set_config('a', 'x', 'true')":      2,
		"select current_setting('a', true)":                                          1,
		"select set_config('a', 5, false)":                                           0,
		"select set_config('a', 'b' || 'c', false)":                                  0,
		"select set_config('a', 'b', false), 1":                                      0,
		"select other.set_config('a', 'b', false)":                                   0,
		"select set_config('a', 'b', false) from accounts":                           0,
		"select set_config('a', 'b', false) where true":                              0,
		"select set_config('a', 'b')":                                                0,
		"select set_config('a', 'b', 1)":                                             0,
		"select set_config('a', 'b'::name, false)":                                   0,
		"select set_config('a', 'b', false) union select 'x'":                        0,
		"insert into t select set_config('a', 'b', false)":                           0,
	} {
		statements, err := NewParser(10).Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(statements[0].SettingCalls); got != want {
			t.Errorf("%s: %d calls, want %d", sql, got, want)
		}
	}
	on := map[bool]string{true: "select set_config('a', 'b', true)", false: "select set_config('a', 'b', false)"}
	for want, sql := range on {
		statements, err := NewParser(10).Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		if call := statements[0].SettingCalls[0]; call.On != want || call.Flag.Kind != ValueOther || statements[0].Text(call.Value) != "b" {
			t.Errorf("%s: %+v", sql, call)
		}
	}
}
