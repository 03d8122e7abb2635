//go:build unix

package pgserver

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// A copied cluster has the system identifier of the cluster it was copied from. pgpact tells servers apart
// by it (DESIGN section 4: a decision database whose identifier changed has been restored), so servers that
// share one would look like one server. Postgres's own pg_createsubscriber faces the same and does the
// same: it writes a new identifier into pg_control and into the WAL.

// controlSearch bounds where pg_control's checksum is looked for. The checksum is the last field of a struct
// whose size differs between versions (PG13 to PG18: 280 to 300 bytes); it is the place where the checksum
// of all bytes before it stands.
const controlSearch = 512

// longHeaderIdentifier is the offset of xlp_sysid in a WAL segment's first page header
// (XLogLongPageHeaderData; the same since PG 9.3). Page headers bear no checksum.
const longHeaderIdentifier = 24

var (
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
	segmentName = regexp.MustCompile(`^[0-9A-F]{24}$`)
)

// newIdentity gives a cluster that was never started a new system identifier.
func newIdentity(data string) error {
	identifier, err := newSystemIdentifier()
	if err != nil {
		return err
	}
	control := filepath.Join(data, "global", "pg_control")
	if err := patch(control, func(page []byte) error { return setControlIdentifier(page, identifier) }); err != nil {
		return err
	}
	wal := filepath.Join(data, "pg_wal")
	entries, err := os.ReadDir(wal)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !segmentName.MatchString(e.Name()) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(wal, e.Name()), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], identifier)
		_, err = f.WriteAt(b[:], longHeaderIdentifier)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// newSystemIdentifier makes an identifier as Postgres does, seconds in the upper half, but with a random
// lower half: several copies are made in one second by one process.
func newSystemIdentifier() (uint64, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return uint64(time.Now().Unix())<<32 | uint64(binary.NativeEndian.Uint32(b[:])), nil
}

// setControlIdentifier replaces pg_control's first field and its checksum.
func setControlIdentifier(page []byte, identifier uint64) error {
	limit := min(controlSearch, len(page)-4)
	for at := 8; at <= limit; at += 4 {
		if binary.NativeEndian.Uint32(page[at:]) != crc32.Checksum(page[:at], castagnoli) {
			continue
		}
		binary.NativeEndian.PutUint64(page, identifier)
		binary.NativeEndian.PutUint32(page[at:], crc32.Checksum(page[:at], castagnoli))
		return nil
	}
	return errors.New("pg_control holds no checksum where one is expected")
}

// patch rewrites a small file in place, keeping owner and mode.
func patch(path string, edit func([]byte) error) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := edit(content); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}
