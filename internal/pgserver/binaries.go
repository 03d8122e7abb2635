//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// OldestMajor is the oldest Postgres that pgpact works with.
const OldestMajor = 13

// Binaries is a directory with the programs of one Postgres server installation.
type Binaries struct {
	Dir     string // holds postgres and initdb
	Major   int    // 15
	Version string // "15.14", as the server spells it
}

// NotFoundError says that no usable server programs were found, and what to install.
type NotFoundError struct {
	Explicit string     // the directory that was asked for; empty when all known places were searched
	TooOld   []Binaries // installations that were found but are older than OldestMajor
	Reason   error      // why the explicit directory cannot be used; may be nil
}

// Error implements error.
func (e *NotFoundError) Error() string {
	var b strings.Builder
	switch {
	case e.Explicit != "" && e.Reason != nil:
		fmt.Fprintf(&b, "no Postgres server programs in %s: %v", e.Explicit, e.Reason)
	case len(e.TooOld) > 0:
		fmt.Fprintf(&b, "Postgres %s in %s is too old, %d is the oldest that works", e.TooOld[0].Version, e.TooOld[0].Dir, OldestMajor)
	default:
		b.WriteString("no Postgres server programs (postgres, initdb) found in PATH, by pg_config or in the usual places")
	}
	b.WriteString("; install them (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17) or name their directory")
	return b.String()
}

// Unwrap gives the reason why an explicit directory was refused.
func (e *NotFoundError) Unwrap() error { return e.Reason }

// usualPlaces are the globs under which packagers put the server programs: Debian and Ubuntu, the
// project's own RPMs, Alpine, a build from source, Homebrew on both kinds of Mac, Postgres.app.
var usualPlaces = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/usr/local/pgsql/bin",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// Find locates the server programs. A directory named explicitly is used or refused, nothing else is
// looked at then; otherwise PATH, pg_config and the usual places are searched and the newest version wins.
func Find(explicit string) (Binaries, error) {
	if explicit != "" {
		return findExplicit(explicit)
	}
	return newest(candidates())
}

// findExplicit accepts the directory itself or the prefix above its bin directory.
func findExplicit(dir string) (Binaries, error) {
	b, err := inspect(dir)
	if err != nil {
		if below, belowErr := inspect(filepath.Join(dir, "bin")); belowErr == nil {
			b, err = below, nil
		}
	}
	if err != nil {
		return Binaries{}, &NotFoundError{Explicit: dir, Reason: err}
	}
	if b.Major < OldestMajor {
		return Binaries{}, &NotFoundError{Explicit: dir, TooOld: []Binaries{b}}
	}
	return b, nil
}

// candidates lists directories worth inspecting, in order of preference among equal versions.
func candidates() []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	if out, err := output("pg_config", "--bindir"); err == nil {
		dirs = append(dirs, strings.TrimSpace(out))
	}
	for _, glob := range usualPlaces {
		found, _ := filepath.Glob(glob) // the only error is a malformed pattern, and these are constants
		dirs = append(dirs, found...)
	}
	return dirs
}

// newest inspects the directories and picks the newest version that is new enough.
func newest(dirs []string) (Binaries, error) {
	var best Binaries
	var tooOld []Binaries
	for _, dir := range dirs {
		b, err := inspect(dir)
		switch {
		case err != nil: // a client-only installation, or a dangling link
		case b.Major < OldestMajor:
			tooOld = append(tooOld, b)
		case best.Dir == "" || newer(b, best):
			best = b
		}
	}
	if best.Dir == "" {
		return Binaries{}, &NotFoundError{TooOld: tooOld}
	}
	return best, nil
}

// newer compares by major version, then by minor.
func newer(a, b Binaries) bool {
	if a.Major != b.Major {
		return a.Major > b.Major
	}
	return a.minor() > b.minor()
}

// minor is 14 in "15.14" and 0 in "18beta1".
func (b Binaries) minor() int {
	_, after, _ := strings.Cut(b.Version, ".")
	n, _ := strconv.Atoi(after)
	return n
}

// path names one program of the installation.
func (b Binaries) path(program string) string { return filepath.Join(b.Dir, program) }

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// inspect says what is installed in dir. Both programs must be there: Debian's postgresql-client and
// Homebrew's libpq bring neither.
func inspect(dir string) (Binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Binaries{}, err
	}
	for _, program := range []string{"postgres", "initdb"} {
		info, err := os.Stat(filepath.Join(dir, program))
		if err != nil {
			return Binaries{}, err
		}
		if info.IsDir() || info.Mode()&0o111 == 0 {
			return Binaries{}, fmt.Errorf("%s is not a program", filepath.Join(dir, program))
		}
	}
	out, err := output(filepath.Join(dir, "postgres"), "--version")
	if err != nil {
		return Binaries{}, err
	}
	// A directory of links to some of the programs (Debian machines often have them in /usr/local/bin): use
	// the place they lead to, where all of them are.
	if real, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
		if _, err := os.Stat(filepath.Join(filepath.Dir(real), "initdb")); err == nil {
			dir = filepath.Dir(real)
		}
	}
	m := versionPattern.FindStringSubmatch(out)
	if m == nil {
		return Binaries{}, fmt.Errorf("cannot read a version in %q", strings.TrimSpace(out))
	}
	major, err := strconv.Atoi(m[2])
	if err != nil {
		return Binaries{}, err
	}
	return Binaries{Dir: dir, Major: major, Version: m[1]}, nil
}

// output runs a program that only prints something about itself.
func output(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}
