package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// Bounds of a chunk beside its rows, and of one row, in bytes: a quote that is
// never closed makes the rest of a file one row.
const (
	maxChunkBytes = 8 << 20
	maxRowBytes   = 32 << 20
)

// csvFile is a CSV file that is cut into chunks of whole rows. It is read
// twice: once for its digest, once for its rows.
type csvFile struct {
	size    int64
	digest  []byte   // SHA-256 of all of it
	columns []string // of the header, nil without one

	file   *os.File
	in     *bufio.Reader
	again  hash.Hash // of what has been read the second time
	offset int64     // of the next chunk
	line   int       // of the next chunk, from 1
}

// csvChunk is some rows.
type csvChunk struct {
	offset int64
	line   int
	rows   int // 0: the file has ended
	data   []byte
}

func openCSV(path string, header bool) (*csvFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &csvFile{file: file, again: sha256.New(), line: 1}
	if err := f.begin(header); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (f *csvFile) begin(header bool) error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a file: it has to be read twice, so a pipe will not do")
	}
	first := sha256.New()
	if f.size, err = io.Copy(first, f.file); err != nil {
		return err
	}
	f.digest = first.Sum(nil)
	if _, err := f.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f.in = bufio.NewReaderSize(io.TeeReader(f.file, f.again), 1<<20)
	if !header {
		return nil
	}
	chunk, err := f.next(1)
	if err != nil {
		return err
	}
	if f.columns, err = csv.NewReader(bytes.NewReader(chunk.data)).Read(); err != nil {
		return fmt.Errorf("the header: %w", err)
	}
	return nil
}

func (f *csvFile) close() { f.file.Close() }

// changed tells, at the end of the file, whether it has been read differently
// the second time.
func (f *csvFile) changed() bool { return !bytes.Equal(f.again.Sum(nil), f.digest) }

// next cuts off up to rows rows. A line end within quotes ends no row; a
// doubled quote counts twice, so the number of quotes before a row's end is
// even, as COPY counts too.
func (f *csvFile) next(rows int) (csvChunk, error) {
	chunk := csvChunk{offset: f.offset, line: f.line}
	rowBegins, quoted := 0, false
	for chunk.rows < rows && rowBegins < maxChunkBytes {
		part, err := f.in.ReadSlice('\n')
		chunk.data = append(chunk.data, part...)
		if bytes.Count(part, []byte{'"'})%2 == 1 {
			quoted = !quoted
		}
		if len(chunk.data)-rowBegins > maxRowBytes {
			return chunk, fmt.Errorf("the row from line %d on has more than %d bytes: is there a quote that is not closed?",
				f.line+bytes.Count(chunk.data[:rowBegins], []byte{'\n'}), maxRowBytes)
		}
		ended := errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !ended:
			return chunk, err
		case !quoted && !ended, ended && len(chunk.data) > rowBegins:
			chunk.rows++
			rowBegins = len(chunk.data)
		}
		if ended {
			break
		}
	}
	f.offset += int64(len(chunk.data))
	f.line += bytes.Count(chunk.data, []byte{'\n'})
	return chunk, nil
}
