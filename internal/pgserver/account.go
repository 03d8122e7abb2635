//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who the server programs run as. Postgres refuses to run as root (docs: "Server Administration,
// The PostgreSQL User Account"), so root gives the data to another account and starts its children as that;
// everybody else runs them as themselves.
type account struct {
	name     string
	uid, gid uint32
	drop     bool // we are root and must change to it
}

// chooseAccount picks the account. owned is an existing data directory or empty: its owner, if not root,
// goes first, so that root can go on with a directory that a person made earlier.
func chooseAccount(owned string) (account, error) {
	uid := uint32(os.Geteuid())
	if uid != 0 {
		if owned != "" {
			if have, _, err := ownerOf(owned); err == nil && have != uid {
				return account{}, fmt.Errorf("%s belongs to user id %d and we are %d: Postgres would refuse it; run as its owner or as root, or use another directory", owned, have, uid)
			}
		}
		return account{uid: uid, gid: uint32(os.Getegid())}, nil
	}
	if owned != "" {
		if uid, gid, err := ownerOf(owned); err == nil && uid != 0 {
			return account{name: "user id " + strconv.Itoa(int(uid)), uid: uid, gid: gid, drop: true}, nil
		}
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		if a, err := lookup(name); err == nil {
			return a, nil
		}
	}
	return account{}, errors.New("we are root, Postgres refuses to run as root, and this machine has neither a user postgres nor nobody to run it as")
}

func lookup(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	// macOS writes nobody as -2; both spellings mean the same 32 bits.
	uid, err := strconv.ParseInt(u.Uid, 10, 64)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.ParseInt(u.Gid, 10, 64)
	if err != nil {
		return account{}, err
	}
	return account{name: "user " + name, uid: uint32(uid), gid: uint32(gid), drop: true}, nil
}

// attributes are how a child of this account is started.
func (a account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a.drop {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// give makes path the account's.
func (a account) give(path string) error {
	if !a.drop {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// blockedAt names the first directory on the way to path that the account cannot pass, or "". It reads mode
// bits only, so it is used to explain a refusal that was seen, not to predict one: access lists may differ.
func (a account) blockedAt(path string) string {
	if path != "/" && path != "." {
		if above := a.blockedAt(filepath.Dir(path)); above != "" {
			return above
		}
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return ""
	}
	uid, gid, err := ownerOf(path)
	if err != nil {
		return ""
	}
	bit := fs.FileMode(0o001)
	switch {
	case uid == a.uid:
		bit = 0o100
	case gid == a.gid:
		bit = 0o010
	}
	if info.Mode()&bit == 0 {
		return path
	}
	return ""
}

// ownerOf says whose a file is.
func ownerOf(path string) (uid, gid uint32, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("%s: no owner known", path)
	}
	return st.Uid, st.Gid, nil
}
