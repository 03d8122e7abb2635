package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress is a bar that is drawn over itself; nil draws nothing.
type progress struct {
	out   io.Writer
	size  int64 // bytes of all
	began time.Time
	drawn time.Time
}

// newProgress is nil unless out is a terminal: in a log, a bar is rubbish.
func newProgress(out io.Writer, size int64) *progress {
	file, ok := out.(*os.File)
	if !ok {
		return nil
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return &progress{out: out, size: size, began: time.Now()}
}

// advance draws, at most ten times a second, that done bytes of the file and
// by them rows rows of this run are there.
func (p *progress) advance(done, rows int64) {
	if p == nil || time.Since(p.drawn) < 100*time.Millisecond && done < p.size {
		return
	}
	p.drawn = time.Now()
	fmt.Fprint(p.out, "\r"+progressLine(done, p.size, rows, time.Since(p.began))+"\x1b[K")
}

// end leaves the bar's line.
func (p *progress) end() {
	if p != nil && !p.drawn.IsZero() {
		fmt.Fprintln(p.out)
	}
}

const barWidth = 30

func progressLine(done, size, rows int64, took time.Duration) string {
	share := 1.0
	if size > 0 {
		share = min(float64(done)/float64(size), 1)
	}
	full := int(share * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f %%  %d rows  %.0f rows/s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		share*100, rows, float64(rows)/max(took.Seconds(), 0.001))
}
