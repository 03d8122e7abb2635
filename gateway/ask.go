package gateway

import (
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
)

// ask runs a statement of the session's own on a branch and returns the first
// column of its first row, if it has one. What the node says beside that,
// notices and changed parameters, is for the client.
func (s *session) ask(b *participant.Branch, sql string) (string, error) {
	return s.askOne(b, sql, false)
}

// askQuietly is ask for a branch whose notices repeat another's.
func (s *session) askQuietly(b *participant.Branch, sql string) (string, error) {
	return s.askOne(b, sql, true)
}

func (s *session) askOne(b *participant.Branch, sql string, quiet bool) (value string, err error) {
	b.Query(sql)
	if err := b.Send(); err != nil {
		return "", err
	}
	var refused error
	seen := false
	for {
		frame, err := b.Receive()
		if err != nil {
			return "", err
		}
		switch frame.Type() {
		case 'D':
			var row pgproto3.DataRow
			if err := row.Decode(frame.Body()); err != nil {
				return "", err
			}
			if !seen && len(row.Values) > 0 {
				value, seen = string(row.Values[0]), true
			}
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
			return value, refused
		}
	}
}
