package gateway

import (
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
)

// ask runs a statement of the session's own on a branch and returns the first
// column of its first row, if it has one. What the node says beside that,
// notices and changed parameters, is for the client.
func (s *session) ask(b *participant.Branch, sql string) (string, error) {
	row, err := s.askRow(b, sql, false)
	if len(row) == 0 {
		return "", err
	}
	return string(row[0]), err
}

// askQuietly is ask for a branch whose notices repeat another's.
func (s *session) askQuietly(b *participant.Branch, sql string) (string, error) {
	row, err := s.askRow(b, sql, true)
	if len(row) == 0 {
		return "", err
	}
	return string(row[0]), err
}

// askRow is ask for the whole first row; quiet for a branch whose notices repeat
// another's.
func (s *session) askRow(b *participant.Branch, sql string, quiet bool) ([][]byte, error) {
	b.Query(sql)
	if err := b.Send(); err != nil {
		return nil, err
	}
	return s.readFirst(b, quiet)
}

// readRow reads the answer to a series of the session's own and returns its
// first row.
func (s *session) readRow(b *participant.Branch) ([][]byte, error) { return s.readFirst(b, false) }

// readFirst reads up to ReadyForQuery and returns the first row.
func (s *session) readFirst(b *participant.Branch, quiet bool) (first [][]byte, refused error) {
	for {
		frame, err := b.Receive()
		if err != nil {
			return nil, err
		}
		switch frame.Type() {
		case 'D':
			if first != nil {
				break
			}
			var row pgproto3.DataRow // in memory of its own: the frame's is used again
			if err := row.Decode(slices.Clone(frame.Body())); err != nil {
				return nil, err
			}
			first = row.Values
		case 'E':
			if refused == nil {
				refused = refusedBy(b, frame)
			}
		case 'N':
			if !quiet {
				s.client.sendRaw(frame.Raw())
			}
		case 'S':
			if !quiet {
				s.relayParameter(frame)
			}
		case 'Z':
			return first, refused
		}
	}
}
