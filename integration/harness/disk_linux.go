package harness

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// mountSource names our mounts, with their owner: what a killed run has left is told from what another one uses.
const mountSource = "pgpact-test:"

// newDisk mounts an empty file system of a size, which belongs to an account. It is gone when the test ends.
func newDisk(t testing.TB, size string, uid int) disk {
	t.Helper()
	d, err := mountDisk(size, uid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmountDisk(d.dir); err != nil {
			t.Errorf("unmount %s: %v", d.dir, err)
		}
	})
	return d
}

func mountDisk(size string, uid int) (disk, error) {
	dir, err := os.MkdirTemp("", "pgpact-disk-")
	if err != nil {
		return disk{}, err
	}
	if err := mountAt(dir, size, uid); err != nil {
		_ = os.Remove(dir)
		return disk{}, err
	}
	return disk{dir: dir}, nil
}

func mountAt(dir, size string, uid int) error {
	options := fmt.Sprintf("size=%s,mode=0700,uid=%d,gid=%d", size, uid, uid)
	if err := syscall.Mount(mountSource+owner(), dir, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mount a small file system: %w", err)
	}
	return nil
}

// moveToDisk puts a small file system in the place of a directory, with everything that is in it, until unmountDisk.
func moveToDisk(dir, size string) (disk, error) {
	var stat syscall.Stat_t
	if err := syscall.Stat(dir, &stat); err != nil {
		return disk{}, err
	}
	before := dir + ".before"
	if err := os.Rename(dir, before); err != nil {
		return disk{}, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return disk{}, err
	}
	if err := mountAt(dir, size, int(stat.Uid)); err != nil {
		return disk{}, err
	}
	if output, err := exec.Command("cp", "-a", before+"/.", dir).CombinedOutput(); err != nil {
		return disk{}, fmt.Errorf("%w: %s", err, output)
	}
	return disk{dir: dir}, os.RemoveAll(before)
}

// unmountDisk is lazy: a container that is just ending may still hold the mount.
func unmountDisk(dir string) error {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(dir)
}

// tryMount finds out once whether this machine lets us mount.
var tryMount = sync.OnceValue(func() error {
	d, err := mountDisk("1m", 0)
	if err != nil {
		return err
	}
	return unmountDisk(d.dir)
})

// sweepDisks unmounts what owners that match have left.
func sweepDisks(match func(owner string) bool) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) { // one within another first
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[0], mountSource) || !match(strings.TrimPrefix(fields[0], mountSource)) {
			continue
		}
		if err := unmountDisk(fields[1]); err != nil {
			fmt.Fprintln(os.Stderr, "sweep:", err)
		}
	}
}
