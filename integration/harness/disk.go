package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A disk is a small file system of its own, so that it can be filled. It is mounted on this machine and handed to a container as a
// directory, so that what is on it survives a restart of the container.
type disk struct{ dir string }

// DiskPart is what of a server is on a disk of its own.
type DiskPart string

// A full Data disk fails what needs more of it: statements, and of the commits those that have to extend a file. A full WAL disk is the
// end of the server (PANIC), which cannot be started again before there is space.
const (
	Data DiskPart = "data"
	WAL  DiskPart = "WAL"
)

// Sizes are several times what a test's server uses.
var diskSizes = map[DiskPart]string{Data: "160m", WAL: "128m"}

// gatewayDisk is the size of the disk with a gateway's log, working directory and temporary directory.
const gatewayDisk = "64m"

// smallWAL keeps the WAL far below its disk's size (two segments are the least that Postgres takes), and little of it in reserve.
var smallWAL = map[string]string{"min_wal_size": "32MB", "max_wal_size": "32MB", "wal_recycle": "off"}

const (
	containerData = "/var/lib/postgresql/data"
	containerWAL  = "/var/lib/postgresql/wal"
	// postgresUser is the number of the account postgres in the images.
	postgresUser = 999
)

// DisksWhy says why there are no small disks here, nil if there can be.
func DisksWhy() error { return tryMount() }

// fill leaves no block free. What the server frees afterwards is taken with the next call.
func (d disk) fill() error {
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// Coarse first, then to the last page.
	for _, size := range []int{1 << 20, 4 << 10} {
		block := make([]byte, size)
		for err == nil {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		err = nil
	}
	return nil
}

// free ends fill.
func (d disk) free() error {
	if err := os.Remove(d.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d disk) filler() string { return filepath.Join(d.dir, "filler") }

// FillDisk leaves no space on the disk of one part of the server. Of WAL not even in the segment that is being written: the next record
// finds no room. It must be a server of a cluster with Options.SmallDisks.
func (s *Server) FillDisk(t testing.TB, part DiskPart) {
	t.Helper()
	var super *pgx.Conn
	if part == WAL { // connected before: on a full disk it might not be possible any more
		super = s.OpenSuper(t)
	}
	check(t, s.disks[part].fill())
	if part == WAL {
		if err := s.useUpSegment(super); err != nil && !super.IsClosed() { // a server that has met the full disk by itself has ended
			t.Fatalf("use up the WAL of server %s: %v", s.name, err)
		}
	}
}

// useUpSegment goes on to the end of the last WAL segment that there is.
func (s *Server) useUpSegment(super *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	for {
		var last string
		if _, err := super.Exec(ctx, "select pg_logical_emit_message(false, 'full', 'a record')"); err != nil {
			return err
		}
		if err := super.QueryRow(ctx, "select pg_walfile_name(pg_switch_wal())").Scan(&last); err != nil {
			return err
		}
		names, err := filepath.Glob(filepath.Join(s.disks[WAL].dir, strings.Repeat("[0-9A-F]", 24)))
		if err != nil {
			return err
		}
		for i := range names {
			names[i] = filepath.Base(names[i])
		}
		if len(names) == 0 || slices.Max(names) <= last {
			return nil
		}
	}
}

// FreeDisk gives the space back and returns when the server answers; one that has ended is started.
func (s *Server) FreeDisk(t testing.TB) {
	t.Helper()
	for _, d := range s.disks {
		check(t, d.free())
	}
	err := Poll(bound, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		if err := s.start(ctx); err != nil { // nothing is done to one that runs
			return err
		}
		return s.answers(0)
	})
	if err != nil {
		t.Fatalf("server %s has space again and does not answer: %v\n%s", s.name, err, s.tail())
	}
}

// HasDisks tells whether FillDisk can be used.
func (s *Server) HasDisks() bool { return s.disks != nil }

// Ended waits until the server has ended by itself.
func (s *Server) Ended(t testing.TB) {
	t.Helper()
	Eventually(t, bound, "the end of server "+s.name, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		running, err := s.running(ctx)
		if err == nil && running {
			err = fmt.Errorf("it runs")
		}
		return err
	})
}

// FillDisk leaves no space where the gateway's log and temporary files are.
func (s *Site) FillDisk(t testing.TB) { t.Helper(); check(t, s.disk.fill()) }

// FreeDisk ends FillDisk.
func (s *Site) FreeDisk(t testing.TB) { t.Helper(); check(t, s.disk.free()) }
