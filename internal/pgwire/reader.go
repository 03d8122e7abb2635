// Package pgwire reads and writes the frames of the PostgreSQL wire protocol
// (type byte, length, body) without interpreting them. Both sides of the
// gateway need that: rows pass from a node to a client as bytes, and only the
// few messages that change a state are decoded, with pgproto3's types.
//
// Source: PostgreSQL documentation, "Message Formats" (protocol-message-formats).
package pgwire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// HeaderLen is the length of a frame's header: the type byte and the length,
// which counts itself but not the type byte.
const HeaderLen = 5

// ErrFrameTooLong is returned for a frame whose length field lies outside the
// protocol (below 4) or beyond the reader's limit. The stream cannot be
// resynchronised after it: the connection must be closed.
var ErrFrameTooLong = errors.New("invalid message length")

// keepBody is the largest body buffer a Reader holds on to between frames, so
// that one big message does not cost an idle connection its memory for ever.
const keepBody = 64 << 10

// Frame is one message. Its bytes are valid until the next call of Next on the
// reader that returned it.
type Frame struct {
	raw []byte
}

// Type is the message's type byte.
func (f Frame) Type() byte { return f.raw[0] }

// Body is the message without its header.
func (f Frame) Body() []byte { return f.raw[HeaderLen:] }

// Raw is the whole message as it was on the wire, header included.
func (f Frame) Raw() []byte { return f.raw }

// NewFrame makes a frame from a complete message, header included. It is for
// messages built in memory, such as a rewritten error.
func NewFrame(raw []byte) Frame { return Frame{raw: raw} }

// Reader reads frames from a buffered reader.
type Reader struct {
	br      *bufio.Reader
	maxBody int
	pending int // bytes of the last frame still to be discarded from br
	body    []byte
}

// NewReader reads frames from br and refuses bodies longer than maxBody bytes
// before anything is allocated for them.
func NewReader(br *bufio.Reader, maxBody int) *Reader {
	return &Reader{br: br, maxBody: maxBody}
}

// Limit changes the longest body that is accepted from the next frame on.
func (r *Reader) Limit(maxBody int) { r.maxBody = maxBody }

// Next returns the next frame. It returns io.EOF only between frames; a stream
// that ends inside one gives io.ErrUnexpectedEOF.
func (r *Reader) Next() (Frame, error) {
	r.discardLast()
	header, err := r.br.Peek(HeaderLen)
	if err != nil {
		if errors.Is(err, io.EOF) && len(header) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	length := int64(binary.BigEndian.Uint32(header[1:]))
	if length < 4 || length-4 > int64(r.maxBody) {
		return Frame{}, fmt.Errorf("%w: message type %q, length %d", ErrFrameTooLong, header[0], int32(length))
	}
	total := int(length) + 1

	// The usual frame lies wholly in the buffer and is handed out in place.
	if total <= r.br.Size() {
		raw, err := r.br.Peek(total)
		if err != nil {
			return Frame{}, unexpected(err)
		}
		r.pending = total
		return Frame{raw: raw}, nil
	}
	raw, err := r.readLong(total)
	if err != nil {
		return Frame{}, unexpected(err)
	}
	return Frame{raw: raw}, nil
}

// readLong reads a frame that does not fit the buffer. Memory is taken as bytes
// arrive, not as the length field promises them: a header alone costs nothing.
func (r *Reader) readLong(total int) ([]byte, error) {
	raw := r.body[:0]
	for len(raw) < total {
		step := min(total-len(raw), max(keepBody, len(raw)))
		raw = slices.Grow(raw, step)
		n, err := io.ReadFull(r.br, raw[len(raw):len(raw)+step])
		raw = raw[:len(raw)+n]
		if err != nil {
			return nil, err
		}
	}
	if cap(raw) <= 2*keepBody {
		r.body = raw
	} else {
		r.body = nil // the frame keeps its own alive as long as it is used
	}
	return raw, nil
}

// PeekType tells the type of the next frame if at least its first byte has
// already been received, without waiting and without consuming it. The frame
// last returned by Next becomes invalid.
func (r *Reader) PeekType() (byte, bool) {
	r.discardLast()
	if r.br.Buffered() == 0 {
		return 0, false
	}
	b, err := r.br.Peek(1)
	if err != nil {
		return 0, false
	}
	return b[0], true
}

// Await waits for the first byte of the next frame and consumes nothing, so that
// an error, a deadline's for instance, leaves the stream as it was. The frame
// last returned by Next becomes invalid.
func (r *Reader) Await() error {
	r.discardLast()
	_, err := r.br.Peek(1)
	return err
}

// Buffered is the number of received bytes that Next has not returned yet.
func (r *Reader) Buffered() int { return r.br.Buffered() - r.pending }

// Complete tells whether Next returns without waiting: a whole frame has been
// received, or a header that it refuses. Part of a frame may be all there will
// be for a long time.
func (r *Reader) Complete() bool {
	if r.Buffered() < HeaderLen {
		return false
	}
	header, err := r.br.Peek(r.pending + HeaderLen) // it is there: nothing moves
	if err != nil {
		return false
	}
	length := int64(binary.BigEndian.Uint32(header[r.pending+1:]))
	return length < 4 || length-4 > int64(r.maxBody) || length+1 <= int64(r.Buffered())
}

func (r *Reader) discardLast() {
	if r.pending > 0 {
		_, _ = r.br.Discard(r.pending) // they were peeked: they are there
		r.pending = 0
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
