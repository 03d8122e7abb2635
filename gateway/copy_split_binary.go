package gateway

import "encoding/binary"

// The binary format, as far as it says where rows end.

// maxAllocSize is Postgres's own limit for a value.
const maxAllocSize = 1<<30 - 1

func (s *splitter) nextBinary() (piece, bool, error) {
	if !s.headed {
		return s.nextBinaryHeader()
	}
	if s.fields < 0 {
		if len(s.buf)-s.start < 2 {
			s.done = s.eof // a single byte at the end is nothing to Postgres
			return piece{}, false, nil
		}
		fields := int(int16(binary.BigEndian.Uint16(s.buf[s.start:])))
		switch {
		case fields == -1:
			p, ok := s.trailer()
			return p, ok, nil
		case fields != s.columns:
			p, ok := s.cut(s.start, s.start+2, true)
			return p, ok, nil
		}
		s.fields, s.at = fields, s.start+2
	}
	for s.fields > 0 {
		if len(s.buf)-s.at < 4 {
			return s.incomplete()
		}
		length := int(int32(binary.BigEndian.Uint32(s.buf[s.at:])))
		switch {
		case length < -1, length >= maxAllocSize:
			p, ok := s.cut(s.at+4, s.at+4, true)
			return p, ok, nil
		case len(s.buf)-s.at-4 < length:
			return s.incomplete()
		}
		s.at += 4 + max(length, 0)
		s.fields--
	}
	p, ok := s.cut(s.at, s.at, false)
	return p, ok, nil
}

// incomplete: the rest of a row or header is still to come, or missing.
func (s *splitter) incomplete() (piece, bool, error) {
	if !s.eof {
		return piece{}, false, nil
	}
	p, ok := s.cut(len(s.buf), len(s.buf), true)
	return p, ok, nil
}

func (s *splitter) nextBinaryHeader() (piece, bool, error) {
	all := s.buf[s.start:]
	if len(all) < binaryHeader {
		return s.incomplete()
	}
	extension := int(int32(binary.BigEndian.Uint32(all[binaryHeader-4:])))
	switch {
	case !isBinaryHeader(all) || extension < 0:
		p, ok := s.cut(s.start+binaryHeader, s.start+binaryHeader, true)
		return p, ok, nil
	case len(all)-binaryHeader < extension:
		return s.incomplete()
	}
	end := s.start + binaryHeader + extension
	p, ok := s.cut(end, end, false)
	return p, ok, nil
}

// trailer looks behind the end of the rows: more data is an error. The trailer
// itself is no piece: each node is given its own.
func (s *splitter) trailer() (piece, bool) {
	if len(s.buf)-s.start > 2 {
		return s.cut(s.start, s.start+3, true)
	}
	s.done = s.eof
	return piece{}, false
}
