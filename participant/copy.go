package participant

import (
	"errors"
	"os"
	"sync"
	"time"
)

// Feed is the way of the data of a COPY FROM STDIN to the node. Writing and
// reading go on at the same time: a node that has much to say (a notice for
// every row) stops reading until somebody listens, so that whoever only writes
// waits for ever.
//
// It lives from the node's CopyInResponse to its ReadyForQuery. In between,
// Branch.Send must not be used: with a cancel under way it would ask for an
// empty round trip (Sync), which a node in the middle of COPY does not answer.
type Feed struct {
	conn   *Conn
	chunks chan []byte   // for the writer
	spare  chan []byte   // chunks written, to be filled again
	done   chan struct{} // closed when the writer has ended

	mu      sync.Mutex
	waiting bool  // Write waits for the node or for the writer
	failed  error // the writer's first
}

// tlsPause is how long bytes that may be nothing but TLS's own business are
// waited for before a chunk is written.
const tlsPause = time.Millisecond

// StartFeed begins to feed the COPY under way. Stop must follow.
func (b *Branch) StartFeed() *Feed {
	f := &Feed{conn: b.conn, chunks: make(chan []byte, 1), spare: make(chan []byte, 2), done: make(chan struct{})}
	go f.write()
	return f
}

// write is the writer. Of the connection it touches nothing but the socket.
func (f *Feed) write() {
	defer close(f.done)
	for chunk := range f.chunks {
		f.mu.Lock()
		failed := f.failed
		f.mu.Unlock()
		if failed == nil {
			_, failed = f.conn.nc.Write(chunk)
		}
		select {
		case f.spare <- chunk:
		default:
		}
		f.mu.Lock()
		f.failed = failed
		if f.waiting {
			_ = f.conn.nc.SetReadDeadline(longAgo) // wakes Write, and nobody else
		}
		f.mu.Unlock()
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// Spare returns a chunk that has been written and may be filled again, or nil.
func (f *Feed) Spare() []byte {
	select {
	case chunk := <-f.spare:
		return chunk[:0]
	default:
		return nil
	}
}

// Write hands over a chunk, which must be whole messages. If the node has sent
// something it returns false instead: the caller receives that first, and may
// try again. In COPY a node sends only what matters: an error, a notice.
func (f *Feed) Write(chunk []byte) (taken bool, err error) {
	c := f.conn
	if c.err != nil {
		return false, c.err
	}
	if c.Buffered() {
		return false, nil
	}
	if !Alive(c.nc) {
		if arrived, err := f.await(time.Now().Add(tlsPause)); arrived || err != nil {
			return false, err
		}
	}
	for {
		select {
		case f.chunks <- chunk:
			return true, nil
		default:
		}
		if arrived, err := f.awaitRoom(); arrived || err != nil {
			return false, err
		}
	}
}

// awaitRoom waits until the writer can take a chunk (it returns false) or the
// node has sent something (true).
func (f *Feed) awaitRoom() (arrived bool, err error) {
	f.mu.Lock()
	f.waiting = true
	_ = f.conn.nc.SetReadDeadline(f.conn.deadline) // undoes an earlier waking
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.waiting = false
		_ = f.conn.nc.SetReadDeadline(f.conn.deadline)
		f.mu.Unlock()
	}()
	if len(f.chunks) < cap(f.chunks) { // the writer was done before it could see that it is waited for
		return false, nil
	}
	return f.arrival()
}

// await waits until the node has sent something, or the time.
func (f *Feed) await(until time.Time) (arrived bool, err error) {
	_ = f.conn.nc.SetReadDeadline(until)
	defer func() { _ = f.conn.nc.SetReadDeadline(f.conn.deadline) }()
	return f.arrival()
}

func (f *Feed) arrival() (bool, error) {
	err := f.conn.in.Await()
	if err == nil {
		return true, nil
	}
	deadline := f.conn.deadline
	if errors.Is(err, os.ErrDeadlineExceeded) && (deadline.IsZero() || time.Now().Before(deadline)) {
		return false, nil
	}
	return false, f.conn.fail(err)
}

// Stop ends the feed, after the node's ReadyForQuery or the loss of the
// connection. What is still to be written is written: a node that is out of
// COPY reads and drops it.
func (f *Feed) Stop() {
	close(f.chunks)
	<-f.done
	if f.failed != nil {
		_ = f.conn.fail(f.failed)
	}
}
