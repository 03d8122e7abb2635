package pgwire

import (
	"bufio"
	"io"
	"testing"
)

// Complete must be true exactly when Next would not wait, byte by byte of a stream.
func TestComplete(t *testing.T) {
	for _, test := range []struct {
		stream string
		from   int // number of bytes from which on it is complete
	}{
		{"S\x00\x00\x00\x04", 5},
		{"Q\x00\x00\x00\x08abcd", 9},
		{"Q\x00\x00\x00\x03", 5},         // refused
		{"Q\x7f\xff\xff\xff", 5},         // refused
		{"Q\x00\x00\x00\x40abcdefgh", 0}, // larger than the buffer: never
	} {
		in, out := io.Pipe()
		r := NewReader(bufio.NewReaderSize(in, 32), 100)
		go func() { // a first frame, so that there is one to be discarded
			_, _ = out.Write([]byte("S\x00\x00\x00\x04"))
			for i := range len(test.stream) {
				_, _ = out.Write([]byte{test.stream[i]})
			}
		}()
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			if want := test.from > 0 && n >= test.from; r.Complete() != want || r.Buffered() != n {
				t.Errorf("%q: after %d bytes complete is %v, %d buffered", test.stream, n, !want, r.Buffered())
			}
			if n == len(test.stream) {
				break
			}
			if _, err := r.br.Peek(r.pending + n + 1); err != nil {
				t.Fatal(err)
			}
		}
		_ = in.Close()
	}
}
