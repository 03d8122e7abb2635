package gateway

import (
	"strings"
	"testing"
)

func TestVerifiers(t *testing.T) {
	v, err := NewVerifier(alicesPassword)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseVerifier(v.String())
	if err != nil || again.String() != v.String() {
		t.Errorf("%s, %v", again, err)
	}
	parts := strings.Split(v.String(), "$")
	for _, text := range []string{
		"", "s3cret", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096", parts[0] + "$" + parts[1],
		strings.Replace(v.String(), "4096", "0", 1), strings.Replace(v.String(), "4096", "-1", 1), strings.Replace(v.String(), "4096", "10000001", 1),
		strings.Replace(v.String(), "4096", "99999999999999999999", 1), v.String()[:len(v.String())-5], v.String() + "x", "SCRAM-SHA-1" + v.String()[13:],
	} {
		if got, err := ParseVerifier(text); err == nil {
			t.Errorf("%q was accepted: %s", text, got)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error repeats it: %v", err)
		}
	}
}
