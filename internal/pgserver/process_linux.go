package pgserver

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// endWithParent asks the kernel to interrupt the child (Postgres: fast shutdown) when the thread that
// started it is gone. The thread, not the process: see startProcess, which pins one.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }

// alive says whether the process runs. A zombie does not: it holds no memory and no port, and where the
// first process of a container reaps nobody it stays for ever.
func alive(pid int) bool {
	if pid <= 0 || syscall.Kill(pid, 0) == syscall.ESRCH {
		return false
	}
	_, state, ok := stat(pid)
	return ok && state != "Z" && state != "X"
}

// stopped says whether a SIGSTOP has taken effect.
func stopped(pid int) bool {
	_, state, ok := stat(pid)
	return ok && state == "T"
}

// stat reads the parent and the state of a process.
func stat(pid int) (parent int, state string, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, "", false
	}
	// The second field is the command in parentheses and may itself hold blanks and parentheses.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 2 {
		return 0, "", false
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[0], err == nil
}

// children lists the processes that pid started and that have not ended.
func children(pid int) []int {
	return processes(func(p int) bool {
		parent, state, ok := stat(p)
		return ok && parent == pid && state != "Z"
	})
}

// serves says whether the process is a Postgres on this data directory: all of a server's processes,
// postmaster and backends, have it as their working directory.
func serves(pid int, data string) bool {
	cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil && cwd == data && isPostgres(pid)
}

func isPostgres(pid int) bool {
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return err == nil && strings.HasPrefix(string(comm), "postgres")
}

// orphans lists the processes of a server whose postmaster may be gone already.
func orphans(data string) []int {
	return processes(func(p int) bool { return serves(p, data) })
}

func processes(match func(pid int) bool) []int {
	names, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil && match(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
