package gateway

import (
	"fmt"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Wrong data of a COPY FROM STDIN. What is wrong with it is for a node to say: a
// row of which the gateway already knows that no Postgres takes it (no key, line
// ends mixed) goes to a node that will say so, its judge; if that node takes it
// after all, the gateway refuses.

// errMalformedRow stands for an error that the node should have raised.
var errMalformedRow = sqlError(pgerrcode.BadCopyFileFormat, "malformed data in COPY")

// refused has a node refuse the row; instead is what the client is told if it
// does not.
func (c *copyIn) refused(n *copyNode, p *piece, instead error) error {
	c.instead, c.judge = instead, n
	return n.addRow(c, p)
}

// refuse is a refusal of the gateway's own, of a row. What is wrong with rows
// before it has precedence.
func (c *copyIn) refuse(refusal error, p *piece) error {
	if pgErr, ok := refusal.(*pgconn.PgError); ok { //nolint:errorlint // made by our caller
		pgErr.Where = fmt.Sprintf("COPY %s, line %d", c.table.Name, c.line+p.lines(p.eol))
	}
	c.instead = refusal
	return nil
}

// refusedLine has a node refuse a row whose line end, or end marker, Postgres
// refuses whatever the table is.
func (c *copyIn) refusedLine(p *piece) error {
	judge := c.judgeOfLines()
	if p.eol == eolCR && len(p.data) > 0 && p.data[0] == '\n' {
		// Behind the \r of the judge's first line this would make it a \r\n. In
		// front of the \n that is wrong other bytes of the line change nothing: it
		// is refused before anybody looks at them.
		line := *p
		line.data = append([]byte{c.format.plainByte()}, p.data...)
		line.content++
		p = &line
	}
	return c.refused(judge, p, errMalformedRow)
}

// judgeOfLines is a node that knows the lines' ends, if there is any.
func (c *copyIn) judgeOfLines() *copyNode {
	if c.styled != nil {
		return c.styled
	}
	return c.first
}
