package pgservertest

import "syscall"

const (
	tmpfsMagic = 0x01021994
	// memoryNeeded is what a package's servers may come to, several times over.
	memoryNeeded = 8 << 30
)

// memoryDir is a directory whose files are in memory and which has room for the
// servers of several packages, or "".
func memoryDir() string {
	const dir = "/dev/shm"
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) != nil || fs.Type != tmpfsMagic || fs.Bavail*uint64(fs.Bsize) < memoryNeeded {
		return ""
	}
	return dir
}
