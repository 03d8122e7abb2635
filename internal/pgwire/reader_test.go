package pgwire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"
)

func frame(t byte, body []byte) []byte {
	n := len(body) + 4
	return append([]byte{t, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

func TestReaderReturnsFramesOfEverySize(t *testing.T) {
	sizes := []int{0, 1, 10, 15, 16, 17, 100, 5000}
	var stream []byte
	for i, n := range sizes {
		stream = append(stream, frame(byte('a'+i), bytes.Repeat([]byte{byte(i)}, n))...)
	}
	r := NewReader(bufio.NewReaderSize(bytes.NewReader(stream), 16), 5000)
	for i, n := range sizes {
		f, err := r.Next()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if f.Type() != byte('a'+i) || len(f.Body()) != n || len(f.Raw()) != n+HeaderLen {
			t.Fatalf("frame %d: type %q, %d bytes, want %d", i, f.Type(), len(f.Body()), n)
		}
		for _, b := range f.Body() {
			if b != byte(i) {
				t.Fatalf("frame %d: body byte %d", i, b)
			}
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("at the end: %v, want io.EOF", err)
	}
}

func TestReaderRefusesLengthsBeforeAllocating(t *testing.T) {
	for _, length := range []uint32{0, 3, 105, 1 << 31, 1<<32 - 1} {
		head := []byte{'Q', byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}
		r := NewReader(bufio.NewReader(bytes.NewReader(head)), 100)
		if _, err := r.Next(); !errors.Is(err, ErrFrameTooLong) {
			t.Errorf("length %d: %v, want ErrFrameTooLong", length, err)
		}
	}
}

func TestReaderTellsATornFrameFromAnEnd(t *testing.T) {
	whole := frame('Q', []byte("select 1\x00"))
	for cut := 1; cut < len(whole); cut++ {
		r := NewReader(bufio.NewReader(bytes.NewReader(whole[:cut])), 100)
		if _, err := r.Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("cut at %d: %v, want io.ErrUnexpectedEOF", cut, err)
		}
	}
}

func TestPeekTypeDoesNotWaitNorConsume(t *testing.T) {
	r := NewReader(bufio.NewReader(bytes.NewReader(append(frame('B', nil), frame('S', nil)...))), 100)
	if _, ok := r.PeekType(); ok {
		t.Fatal("nothing has been received yet")
	}
	if f, err := r.Next(); err != nil || f.Type() != 'B' {
		t.Fatal(f, err)
	}
	if b, ok := r.PeekType(); !ok || b != 'S' {
		t.Fatalf("peeked %q, %v", b, ok)
	}
	if f, err := r.Next(); err != nil || f.Type() != 'S' {
		t.Fatal(f, err)
	}
}
