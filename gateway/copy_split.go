package gateway

import "github.com/jackc/pgerrcode"

// splitter cuts the data of a COPY FROM STDIN, which comes in pieces of any
// size, into header and rows. It finds their ends where CopyReadLineText and
// NextCopyFrom of copyfromparse.c find them; each byte is looked at once, so
// that data in pieces of one byte costs no more than it should.
type splitter struct {
	format  *copyFormat
	columns int // fields of a binary row
	limit   int // bytes of a row

	// buf[start:] has not been returned yet, buf[start:at] has been looked at.
	buf       []byte
	start, at int
	carry     []byte // memory for what is kept from one feed to the next
	kept      bool   // buf is carry
	eof       bool   // there is no more
	done      bool   // the last piece has been returned: all that follows is ignored
	headed    bool   // the header, if there is one, has been returned

	eol     lineEnd // of the lines so far
	special [256]bool
	// of the CSV row under way
	inQuote, lastEscape bool
	returns, newlines   int // in quotes
	// of the binary row under way
	fields int // still to come, -1 before the row's first bytes
}

type lineEnd uint8

const (
	eolUnknown lineEnd = iota
	eolNL
	eolCR
	eolCRNL
)

// piece is a header or a row.
type piece struct {
	data    []byte // with its line end; valid until the next feed
	content int    // length of data without line end and marker
	header  bool
	marker  bool // it ends with \., the end of the data
	// wrong: Postgres refuses the piece, or its line end, whatever the table is.
	wrong bool
	// The line numbers it takes: Postgres counts \n in quotes as lines, or \r
	// while it does not know the lines' ends.
	returns, newlines int
	ends              bool    // there is a line end
	eol               lineEnd // of the lines before
}

// lines is how many line numbers Postgres gives the piece if the lines before
// had these ends.
func (p *piece) lines(before lineEnd) uint64 {
	if before == eolNL {
		return 1 + uint64(p.newlines)
	}
	return 1 + uint64(p.returns)
}

func newSplitter(format *copyFormat, columns, limit int) *splitter {
	s := &splitter{format: format, columns: columns, limit: limit, fields: -1}
	s.headed = !format.header && format.kind != binaryFormat
	s.special['\n'], s.special['\r'], s.special['\\'] = true, true, true
	if format.kind == csvFormat {
		s.special[format.quote], s.special[format.escape] = true, true
	}
	return s
}

// feed adds data, which may be changed once next has returned false.
func (s *splitter) feed(data []byte) {
	switch {
	case s.done:
	case !s.kept:
		s.buf = data
	default:
		s.carry = append(s.buf, data...) // buf is carry, from its beginning: see keep
		s.buf = s.carry
	}
}

// end says that there is no more data.
func (s *splitter) end() { s.eof = true }

// next returns the next piece; false when it needs more data, or at the end.
func (s *splitter) next() (p piece, ok bool, err error) {
	if s.done {
		return piece{}, false, nil
	}
	switch s.format.kind {
	case textFormat:
		p, ok = s.nextText()
	case csvFormat:
		p, ok = s.nextCSV()
	default:
		p, ok, err = s.nextBinary()
	}
	if !ok && err == nil && !s.done {
		if len(s.buf)-s.start > s.limit {
			err = s.tooLong()
		}
		s.keep()
	}
	return p, ok, err
}

func (s *splitter) tooLong() error {
	return sqlErrorf(pgerrcode.ProgramLimitExceeded, "a row is longer than %d bytes", s.limit)
}

// keepCarry is how much memory is kept for the next beginning of a row.
const keepCarry = 256 << 10

// keep moves what has not been returned to memory of the splitter's own.
func (s *splitter) keep() {
	rest := s.buf[s.start:]
	if s.kept && s.start == 0 && len(rest) > 0 {
		return
	}
	s.at -= s.start
	s.start = 0
	s.kept = len(rest) > 0
	if !s.kept {
		s.buf = nil
		if cap(s.carry) > keepCarry {
			s.carry = nil
		}
		return
	}
	s.carry = append(s.carry[:0], rest...) // may overlap: it moves to the front
	s.buf = s.carry
}

// peek returns the byte at i; at the end of all data it is 0, as in Postgres.
func (s *splitter) peek(i int) (c byte, ok bool) {
	if i < len(s.buf) {
		return s.buf[i], true
	}
	return 0, s.eof
}

// cut returns buf[start:end] as a piece, of which the last bytes from content
// on are no data.
func (s *splitter) cut(content, end int, wrong bool) (piece, bool) {
	end = min(end, len(s.buf))
	p := piece{
		data: s.buf[s.start:end], content: min(content, end) - s.start, wrong: wrong, header: !s.headed,
		returns: s.returns, newlines: s.newlines, ends: end > content,
	}
	s.start, s.at, s.headed = end, end, true
	s.inQuote, s.lastEscape, s.returns, s.newlines = false, false, 0, 0
	s.fields = -1
	if wrong {
		s.done = true
	}
	return p, true
}

// rest returns what is left at the end of all data.
func (s *splitter) rest() (piece, bool) {
	if !s.eof {
		return piece{}, false
	}
	s.done = true
	if s.start == len(s.buf) {
		return piece{}, false
	}
	eol := s.eol
	p, ok := s.cut(len(s.buf), len(s.buf), false)
	p.eol = eol
	return p, ok
}

// begun is what there is of the row under way.
func (s *splitter) begun() []byte {
	if s.done {
		return nil
	}
	return s.buf[s.start:]
}

func (s *splitter) nextText() (piece, bool) {
	for s.at < len(s.buf) {
		c := s.buf[s.at]
		if !s.special[c] {
			s.at++
			continue
		}
		if c != '\\' {
			return s.lineEnd(c)
		}
		next, ok := s.peek(s.at + 1)
		switch {
		case !ok:
			return piece{}, false
		case next == '.':
			p, ok, _ := s.endMarker(true)
			return p, ok
		}
		s.at = min(s.at+2, len(s.buf)) // \ and a line end are data
	}
	return s.rest()
}

// lineEnd deals with \r or \n at s.at. Mixing line ends is an error.
func (s *splitter) lineEnd(c byte) (p piece, ok bool) {
	before, length, wrong := s.eol, 1, false
	switch {
	case c == '\n':
		wrong = s.eol == eolCR || s.eol == eolCRNL
		s.eol = eolNL
	case s.eol == eolUnknown || s.eol == eolCRNL:
		next, known := s.peek(s.at + 1)
		switch {
		case !known:
			return piece{}, false
		case next == '\n':
			s.eol, length = eolCRNL, 2
		case s.eol == eolCRNL:
			wrong = true
		default:
			s.eol = eolCR
		}
	default:
		wrong = s.eol == eolNL
	}
	p, ok = s.cut(s.at, s.at+length, wrong)
	p.eol = before
	return p, ok
}

// endMarker looks at the \. at s.at, which in text ends the data or is an error,
// and in CSV does so only if a line end follows. known is false if more data is
// needed to tell.
func (s *splitter) endMarker(text bool) (p piece, ok, known bool) {
	after := s.at + 2
	c, known := s.peek(after)
	if !known {
		return piece{}, false, false
	}
	wrong := false
	if s.eol == eolCRNL {
		if c == '\r' {
			after++
			if c, known = s.peek(after); !known {
				return piece{}, false, false
			}
		} else {
			wrong = true
		}
	}
	if wrong || c != '\r' && c != '\n' {
		if !text {
			return piece{}, false, true
		}
		wrong = true
	}
	switch s.eol {
	case eolNL, eolCRNL:
		wrong = wrong || c != '\n'
	case eolCR:
		wrong = wrong || c != '\r'
	}
	// Half a character would be another error than the one that Postgres finds.
	behind := after + characterLength(c)
	if _, known = s.peek(behind - 1); !known {
		return piece{}, false, false
	}
	eol := s.eol
	p, ok = s.cut(s.at, behind, wrong)
	p.eol, p.marker, s.done = eol, true, true
	return p, ok, true
}

// characterLength is how many bytes Postgres expects of a character of UTF-8 that
// begins with c, as pg_utf_mblen.
func characterLength(c byte) int {
	switch {
	case c&0xe0 == 0xc0:
		return 2
	case c&0xf0 == 0xe0:
		return 3
	case c&0xf8 == 0xf0:
		return 4
	}
	return 1
}

func (s *splitter) nextCSV() (piece, bool) {
	escape := s.format.escape
	for s.at < len(s.buf) {
		c := s.buf[s.at]
		if !s.special[c] {
			s.lastEscape = false
			s.at++
			continue
		}
		next, known := s.peek(s.at + 1)
		if !known && (c == '\r' || c == '\\') {
			return piece{}, false
		}
		if c == '\\' && next == '.' && s.at == s.start && s.format.dotEnds {
			p, ok, known := s.endMarker(false)
			if ok || !known {
				return p, ok
			}
		}
		// Where the quote is the escape too, each of them just turns quoting on
		// and off.
		if s.inQuote && c == escape && escape != s.format.quote {
			s.lastEscape = !s.lastEscape
		}
		if c == s.format.quote && !s.lastEscape {
			s.inQuote = !s.inQuote
		}
		if c != escape || escape == s.format.quote {
			s.lastEscape = false
		}
		switch {
		case c != '\r' && c != '\n':
		case !s.inQuote:
			return s.lineEnd(c)
		case c == '\r':
			s.returns++
		default:
			s.newlines++
		}
		s.at++
	}
	return s.rest()
}
