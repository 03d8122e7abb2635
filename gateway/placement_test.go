package gateway

import (
	"crypto/sha256"
	"strings"
	"testing"
)

func TestBucket(t *testing.T) {
	for _, key := range []string{"", "alice", "bob", "äöü", "42", strings.Repeat("x", 1000)} {
		sum := sha256.Sum256([]byte(key))
		want := (int(sum[0])*256 + int(sum[1]))
		for _, buckets := range []int{1, 2, 256, 65536} {
			if got := Bucket(key, buckets); got != want%buckets {
				t.Errorf("Bucket(%q, %d) = %d, want %d", key, buckets, got, want%buckets)
			}
		}
	}
	// Written down, for the data on disk depends on it.
	if got := Bucket("alice", 256); got != 216 {
		t.Errorf("alice is in bucket %d", got)
	}
}

func TestNewPlacement(t *testing.T) {
	nodes := testNodes(t, "a", "b")
	p, err := NewPlacement(nodes, []string{"a", "b", "b", "a"})
	if err != nil {
		t.Fatal(err)
	}
	for bucket, want := range []string{"a", "b", "b", "a"} {
		if got := p.OwnerOf(bucket).Name(); got != want {
			t.Errorf("bucket %d: %s", bucket, got)
		}
	}
	for _, key := range []string{"alice", "bob", "carol"} {
		if p.NodeFor(key) != p.OwnerOf(Bucket(key, 4)) {
			t.Errorf("%s is not on its bucket's node", key)
		}
	}
	for _, test := range []struct {
		name  string
		owner []string
		want  string
	}{
		{"not a power of two", []string{"a", "b", "a"}, "power of two"},
		{"none", nil, "power of two"},
		{"without a node", []string{"a", ""}, "bucket 1 has no node"},
		{"an unknown node", []string{"a", "z"}, `bucket 1 belongs to node "z"`},
	} {
		if _, err := NewPlacement(nodes, test.owner); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if _, err := NewPlacement(testNodes(t, "a", "a"), []string{"a"}); err == nil {
		t.Error("two nodes of one name were taken")
	}
	if _, err := NewPlacement(nil, []string{"a"}); err == nil {
		t.Error("no nodes were taken")
	}
}
