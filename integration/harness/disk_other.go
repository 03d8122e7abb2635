//go:build !linux

package harness

import (
	"errors"
	"testing"
)

var errNoMount = errors.New("small disks need Linux")

func newDisk(t testing.TB, _ string, _ int) disk {
	t.Helper()
	t.Fatal(errNoMount)
	return disk{}
}

func moveToDisk(string, string) (disk, error) { return disk{}, errNoMount }

func unmountDisk(string) error { return errNoMount }

func tryMount() error { return errNoMount }

func sweepDisks(func(string) bool) {}
