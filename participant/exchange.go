package participant

import (
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/internal/pgwire"
)

// Exchanges of our own with a node: one simple query, everything of its answer.

// exchange runs sql as one simple query, collecting rows (first result only),
// tags and the first error. It is for our own statements, whose results are
// small.
func (c *Conn) exchange(sql string) (answer, error) {
	c.append(&pgproto3.Query{String: sql})
	if err := c.Send(); err != nil {
		return answer{}, err
	}
	return c.collect()
}

// Ask runs one statement of our own, outside of any transaction, and returns the
// one value it results in. What the node refuses is a *pgconn.PgError.
func (c *Conn) Ask(sql string) (string, error) {
	c.SetDeadline(time.Now().Add(c.node.cfg.ConnectTimeout))
	defer c.SetDeadline(time.Time{})
	a, err := c.exchange(sql)
	switch {
	case err != nil:
		return "", err
	case a.err != nil:
		return "", a.err
	case len(a.rows) != 1 || len(a.rows[0]) != 1:
		return "", c.fail(fmt.Errorf("%d rows in answer to %s", len(a.rows), sql))
	}
	return a.rows[0][0], nil
}

// answer is what a simple query of our own came to.
type answer struct {
	rows     [][]string // "" for null: our own statements have none that matter
	tags     []string
	warnings []warning
	err      *pgconn.PgError
	from     *Identity // who answered, on the node's own connection
}

// warning is a NoticeResponse with the number of tags that preceded it.
type warning struct {
	after  int
	notice *pgconn.PgError
}

// lastTag is the tag of the last statement that completed.
func (a answer) lastTag() string {
	if len(a.tags) == 0 {
		return ""
	}
	return a.tags[len(a.tags)-1]
}

// collect reads up to and including ReadyForQuery. The error is a lost
// connection; what the server refused is in the answer.
func (c *Conn) collect() (answer, error) {
	var a answer
	for {
		frame, err := c.Receive()
		if err != nil {
			return a, err
		}
		switch frame.Type() {
		case 'D':
			row, err := decodeRow(frame.Body())
			if err != nil {
				return a, c.fail(err)
			}
			a.rows = append(a.rows, row)
		case 'C':
			var msg pgproto3.CommandComplete
			if err := msg.Decode(frame.Body()); err != nil {
				return a, c.fail(err)
			}
			a.tags = append(a.tags, string(msg.CommandTag))
		case 'E', 'N':
			pgErr, err := DecodeError(frame.Body())
			if err != nil {
				return a, c.fail(err)
			}
			if frame.Type() == 'N' {
				a.warnings = append(a.warnings, warning{after: len(a.tags), notice: pgErr})
			} else if a.err == nil {
				a.err = pgErr
			}
		case 'Z':
			return a, nil
		case 'G', 'W':
			return a, c.fail(errors.New("unexpected COPY"))
		case 'T', 'I', 'S', 'A': // nothing to us
		default:
			// No answer to a simple query: the two ends do not mean the same exchange.
			return a, c.fail(fmt.Errorf("unexpected message of type %q", frame.Type()))
		}
	}
}

func decodeRow(body []byte) ([]string, error) {
	var msg pgproto3.DataRow
	if err := msg.Decode(body); err != nil {
		return nil, err
	}
	row := make([]string, len(msg.Values))
	for i, v := range msg.Values {
		row[i] = string(v)
	}
	return row, nil
}

// DecodeError reads the body of an ErrorResponse or NoticeResponse.
func DecodeError(body []byte) (*pgconn.PgError, error) {
	var msg pgproto3.ErrorResponse
	if err := msg.Decode(body); err != nil {
		return nil, err
	}
	return pgconn.ErrorResponseToPgError(&msg), nil
}

// fatal tells whether an ErrorResponse ends the connection.
func fatal(frame pgwire.Frame) bool {
	pgErr, err := DecodeError(frame.Body())
	return err != nil || pgErr.SeverityUnlocalized != "ERROR"
}
