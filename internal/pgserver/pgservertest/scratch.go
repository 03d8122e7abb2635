package pgservertest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// makeScratch makes the directory of one set of servers, where files are kept in
// memory if that can be had: a test that kills a server's processes finds there
// what it would find on a disk, and an fsync costs nothing. The name has the
// process's number, by which what a killed one has left is found.
//
// Not tb.TempDir: its parents are closed to the account that root's children
// change to.
func makeScratch() (string, error) {
	parent := os.TempDir()
	if memory := memoryDir(); memory != "" && os.Getenv("TMPDIR") == "" {
		parent = memory
		sweepScratch(parent)
	}
	dir, err := os.MkdirTemp(parent, fmt.Sprintf("pgpact-test-%d-", os.Getpid()))
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// sweepScratch removes what processes have left that are gone. A server that is
// still there ends by itself when it finds its files gone.
func sweepScratch(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, "pgpact-test-*"))
	for _, dir := range left {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), "pgpact-test-"), "-")
		pid, err := strconv.Atoi(number)
		if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		_ = os.RemoveAll(dir)
	}
}
