//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeInstallation makes a directory with programs that only tell a version.
func fakeInstallation(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s'\n", version)
	for _, program := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tempDir is free of symbolic links; on macOS the usual one is not.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNewestVersionWins(t *testing.T) {
	top := tempDir(t)
	var dirs []string
	for _, version := range []string{"12.22", "15.9", "17.2 (Debian 17.2-1)", "15.14", "9.6.24"} {
		dirs = append(dirs, fakeInstallation(t, filepath.Join(top, version[:4]+version[len(version)-1:]), version))
	}
	dirs = append(dirs, filepath.Join(top, "missing"), top)
	got, err := newest(dirs)
	if err != nil || got.Major != 17 || got.Version != "17.2" || got.Dir != dirs[2] {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := newest(append([]string{dirs[1]}, dirs[3])); err != nil || got.Version != "15.14" {
		t.Errorf("of two minors got %+v, %v", got, err)
	}
	beta := fakeInstallation(t, filepath.Join(top, "beta"), "18beta1")
	if got, err := newest([]string{dirs[2], beta}); err != nil || got.Major != 18 {
		t.Errorf("of a beta and 17 got %+v, %v", got, err)
	}
}

func TestNotFound(t *testing.T) {
	top := tempDir(t)
	old := fakeInstallation(t, filepath.Join(top, "old"), "12.22")
	_, none := newest(nil)
	_, tooOld := newest([]string{old})
	_, explicitOld := Find(old)
	_, explicitMissing := Find(filepath.Join(top, "missing"))
	for _, c := range []struct {
		err  error
		want []string
	}{
		{none, []string{"no Postgres server programs", "apt-get install postgresql", "brew install postgresql@17"}},
		{tooOld, []string{"12.22", old, "13 is the oldest"}},
		{explicitOld, []string{"12.22", old, "13 is the oldest"}},
		{explicitMissing, []string{filepath.Join(top, "missing"), "no such file", "apt-get install"}},
	} {
		var notFound *NotFoundError
		if !errors.As(c.err, &notFound) {
			t.Errorf("got %v, want a NotFoundError", c.err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(c.err.Error(), part) {
				t.Errorf("%q does not say %q", c.err, part)
			}
		}
	}
}

// An explicit directory wins over every other, also when it names the prefix above bin.
func TestExplicitWins(t *testing.T) {
	top := tempDir(t)
	dir := fakeInstallation(t, filepath.Join(top, "bin"), "13.1")
	for _, explicit := range []string{dir, top} {
		if got, err := Find(explicit); err != nil || got.Dir != dir || got.Major != 13 {
			t.Errorf("Find(%s): %+v, %v", explicit, got, err)
		}
	}
}

// A directory of links is followed to the installation behind it.
func TestLinksAreFollowed(t *testing.T) {
	top := tempDir(t)
	real := fakeInstallation(t, filepath.Join(top, "real"), "15.14")
	links := filepath.Join(top, "links")
	if err := os.Mkdir(links, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"postgres", "initdb"} {
		if err := os.Symlink(filepath.Join(real, program), filepath.Join(links, program)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Find(links); err != nil || got.Dir != real {
		t.Errorf("got %+v, %v, want %s", got, err, real)
	}
}
