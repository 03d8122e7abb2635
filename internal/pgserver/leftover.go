//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// postmasterFile is what postmaster.pid says (docs: "Database File Layout"; the lines are named in Postgres's
// src/include/utils/pidfile.h).
type postmasterFile struct {
	pid    int // 0: no file
	status string
}

func readPostmaster(data string) postmasterFile {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return postmasterFile{}
	}
	lines := strings.Split(string(text), "\n")
	var f postmasterFile
	f.pid, _ = strconv.Atoi(strings.TrimSpace(lines[0]))
	if len(lines) >= 8 {
		f.status = strings.TrimSpace(lines[7])
	}
	return f
}

// readyAs says whether the file is this postmaster's and it accepts connections: as a primary, or as a standby
// that can be read from.
func (f postmasterFile) readyAs(pid int) bool {
	return f.pid == pid && (f.status == "ready" || f.status == "standby")
}

// clearLeftover ends what an earlier life of ours left running on the data directory. We hold the
// directory's lock, so no other pgpact is using it. The leftover is replaced, never adopted: it is not our
// child, so we could neither wait for it nor have the kernel end it with us.
func (s *Server) clearLeftover(ctx context.Context) error {
	pid := readPostmaster(s.data).pid
	if pid > 0 && alive(pid) && serves(pid, s.data) {
		s.set.progress("stopping server %s that was left running (process %d)", s.name, pid)
		gone := func() bool { return !alive(pid) || !serves(pid, s.data) }
		if !stopPostmaster(ctx, pid, gone) {
			return fmt.Errorf("process %d was left running on %s and cannot be ended", pid, s.data)
		}
	}
	if err := s.clearOrphans(ctx); err != nil {
		return err
	}
	// Postgres believes a pid file whose process exists, whatever that process is (a zombie, or somebody who
	// was given the number since), and would refuse to start. Where the process does not exist the file is
	// left to Postgres, which finds its old shared memory by it.
	pid = readPostmaster(s.data).pid
	if pid > 0 && syscall.Kill(pid, 0) != syscall.ESRCH && !(alive(pid) && serves(pid, s.data)) {
		err := os.Remove(filepath.Join(s.data, "postmaster.pid"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// clearOrphans ends backends whose postmaster is gone. They end by themselves as soon as they notice;
// one in the middle of a long computation notices late.
func (s *Server) clearOrphans(ctx context.Context) error {
	if waitUntil(ctx, 2*time.Second, func() bool { return len(orphans(s.data)) == 0 }) {
		return nil
	}
	left := orphans(s.data)
	killAll(left)
	if !waitUntil(ctx, killBound, func() bool { return noneAlive(left) }) {
		return fmt.Errorf("processes %v were left running on %s and cannot be ended", left, s.data)
	}
	return nil
}
