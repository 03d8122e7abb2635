package admin

import "testing"

func TestJudge(t *testing.T) {
	up, down := Check{OK: true}, Check{Reason: "refused"}
	log, noLog := Check{Name: "decision database", Needed: true, OK: true}, Check{Name: "decision database", Needed: true, Reason: "refused"}
	for _, test := range []struct {
		name   string
		checks []Check
		reason string // "" for ready
	}{
		{"all", []Check{log, up, up, up}, ""},
		{"a majority of three", []Check{log, up, down, up}, ""},
		{"a minority of three", []Check{log, down, down, up}, "1 of 3 nodes answer, and a majority (2) is needed"},
		{"half of two is none", []Check{log, up, down}, "1 of 2 nodes answer, and a majority (2) is needed"},
		{"the only node", []Check{log, up}, ""},
		{"not the only node", []Check{log, down}, "0 of 1 nodes answer, and a majority (1) is needed"},
		{"no decisions", []Check{noLog, up, up}, "decision database: refused"},
		{"nothing", []Check{noLog, down, down}, "decision database: refused"},
		{"a reason that names its check itself", []Check{{Name: "decision database", Needed: true, Reason: "decision database: refused"}, up}, "decision database: refused"},
	} {
		if h := judge(test.checks); h.OK != (test.reason == "") || h.Reason != test.reason {
			t.Errorf("%s: %v %q, want %q", test.name, h.OK, h.Reason, test.reason)
		}
	}
}
