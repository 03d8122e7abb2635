//go:build unix

package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// Superuser is the bootstrap role of every server.
const Superuser = "postgres"

// makeTemplate runs initdb into dir, unless it is there already, and gives it a name only when it is whole:
// what a crash leaves behind is thrown away by the next call.
func makeTemplate(ctx context.Context, b Binaries, a account, dir string) error {
	if err := checkMajor(dir, b); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := dir + ".tmp"
	if err := freshDir(tmp, a); err != nil {
		return err
	}
	if err := checkAccess(ctx, b, a, tmp); err != nil {
		return err
	}
	// C.UTF-8 sorts by code point like C but knows letters; not every system has it.
	locales := []string{"C.UTF-8", "C"}
	if runtime.GOOS == "darwin" {
		locales = locales[1:]
	}
	var err error
	for _, locale := range locales {
		if err = initdb(ctx, b, a, tmp, locale); err == nil {
			return os.Rename(tmp, dir)
		}
	}
	return err
}

func initdb(ctx context.Context, b Binaries, a account, dir, locale string) error {
	cmd := command(ctx, b, a, dir, "initdb", "--pgdata="+dir, "--username="+Superuser, "--auth=trust",
		"--encoding=UTF8", "--locale="+locale, "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb in %s: %w: %s", dir, err, tail(string(out)))
	}
	return nil
}

// command prepares a server program: as the account, in a directory it can stand in, with nothing in the
// environment that would change what Postgres does.
func command(ctx context.Context, b Binaries, a account, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.path(program), args...)
	cmd.Dir = dir
	cmd.SysProcAttr = a.attributes()
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG") {
			continue
		}
		cmd.Env = append(cmd.Env, kv)
	}
	// Messages in English, because some are looked at; macOS also needs LC_ALL set for its postmaster to start.
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	return cmd
}

// checkAccess lets the account run the server program in the directory. When that fails it says which
// directory on the way is closed, which Postgres itself would report much later and less plainly.
func checkAccess(ctx context.Context, b Binaries, a account, dir string) error {
	out, err := command(ctx, b, a, dir, "postgres", "--version").CombinedOutput()
	if err == nil {
		return nil
	}
	for _, path := range []string{dir, b.Dir} {
		if at := a.blockedAt(path); at != "" {
			return fmt.Errorf("Postgres runs as %s here, and that account may not pass %s on the way to %s: chmod a+x %s, or use another directory (below /var/lib or /tmp, for example)",
				a.name, at, path, at)
		}
	}
	return fmt.Errorf("cannot run %s in %s: %w: %s", b.path("postgres"), dir, err, tail(string(out)))
}

// checkMajor refuses a data directory that another major version made. A missing one is fs.ErrNotExist.
func checkMajor(data string, b Binaries) error {
	text, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil {
		return err
	}
	if have := strings.TrimSpace(string(text)); have != strconv.Itoa(b.Major) {
		return fmt.Errorf("%s was made by Postgres %s and cannot be used by %s in %s: name the directory of the version %s programs, or use another data directory",
			data, have, b.Version, b.Dir, have)
	}
	return nil
}

// freshDir makes an empty directory of the account's, readable by it alone as Postgres demands.
func freshDir(dir string, a account) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return a.give(dir)
}

// copyCluster makes a new data directory from the template, with a system identifier of its own.
func copyCluster(template, data string, a account) error {
	tmp := data + ".tmp"
	if err := freshDir(tmp, a); err != nil {
		return err
	}
	if err := copyTree(template, tmp, a); err != nil {
		return fmt.Errorf("copying %s to %s: %w", template, data, err)
	}
	if err := newIdentity(tmp); err != nil {
		return fmt.Errorf("giving %s an identity of its own: %w", data, err)
	}
	return os.Rename(tmp, data)
}

// copyTree copies directories and regular files; a cluster that was never started holds nothing else.
func copyTree(from, to string, a account) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			err = os.Mkdir(target, 0o700)
		case d.Type().IsRegular():
			err = copyFile(path, target)
		default:
			err = fmt.Errorf("%s is neither a file nor a directory", path)
		}
		if err != nil {
			return err
		}
		return a.give(target)
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// tail shortens a program's output to its last lines.
func tail(text string) string {
	lines := bytes.Split(bytes.TrimSpace([]byte(text)), []byte("\n"))
	if len(lines) > 12 {
		lines = lines[len(lines)-12:]
	}
	return string(bytes.Join(lines, []byte("\n")))
}

// errLocked is what lockFile reports when another process holds the lock.
var errLocked = errors.New("locked by another process")

// lockFile opens the file and takes an exclusive lock on it. The lock lives as long as the open file: it
// cannot be left behind by a process that was killed, and children do not inherit it.
func lockFile(path string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}
