//go:build unix && !linux

package pgserver

import (
	"strconv"
	"strings"
	"syscall"
)

// endWithParent does nothing here: only Linux can be asked to end a child with its parent. A server that
// outlives us is found by the next Start on its directory.
func endWithParent(*syscall.SysProcAttr) {}

// alive says whether the process runs.
func alive(pid int) bool {
	if pid <= 0 || syscall.Kill(pid, 0) == syscall.ESRCH {
		return false
	}
	state, err := output("ps", "-o", "stat=", "-p", strconv.Itoa(pid))
	return err == nil && !strings.HasPrefix(strings.TrimSpace(state), "Z")
}

// stopped says whether a SIGSTOP has taken effect.
func stopped(pid int) bool {
	state, err := output("ps", "-o", "stat=", "-p", strconv.Itoa(pid))
	return err == nil && strings.HasPrefix(strings.TrimSpace(state), "T")
}

// children lists the processes that pid started.
func children(pid int) []int {
	out, err := output("ps", "-A", "-o", "pid=,ppid=")
	if err != nil {
		return nil
	}
	var pids []int
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(fields[0]); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// serves says whether the process is a postmaster on this data directory. Every postmaster of ours is
// started with -D, so its command line tells.
func serves(pid int, data string) bool {
	out, err := output("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid))
	return err == nil && strings.Contains(out, "postgres") && strings.Contains(out, data)
}

// orphans lists nothing here: backends cannot be told apart by their command line. They end by themselves
// when they notice that their postmaster is gone, and Start waits for that.
func orphans(string) []int { return nil }
