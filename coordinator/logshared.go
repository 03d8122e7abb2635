package coordinator

import (
	"context"
	"fmt"
	"time"
)

// The connection that recovery, settling and questions share. The decider and
// the lock on the epoch have their own.

// statementBound is longer than any statement may take on the server
// (logSetupSQL); it is for a server that does not answer at all.
const statementBound = 12 * time.Second

// do runs f on the shared connection, connecting if necessary. Waiting for those
// before it follows ctx: a database that hangs holds each caller as long as that
// caller wants to wait, not as long as all of them together.
func (l *decisionLog) do(ctx context.Context, f func(ctx context.Context, c *logConn) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.connectTimeout+statementBound)
	defer cancel()
	select {
	case l.busy <- struct{}{}:
		defer func() { <-l.busy }()
	case <-ctx.Done():
		return fmt.Errorf("decision database: busy: %w", context.Cause(ctx))
	}
	if l.conn == nil || !l.conn.fit() {
		c, err := l.connect(ctx, "decisions")
		if err != nil {
			return err
		}
		c.again = l.again
		l.conn, l.again = c, true
		l.made.Add(1)
	}
	return f(ctx, l.conn)
}

// query is do for one statement.
func (l *decisionLog) query(ctx context.Context, sql string, args ...string) (rows [][]string, err error) {
	err = l.do(ctx, func(ctx context.Context, c *logConn) error {
		rows, err = c.exec(ctx, sql, args...)
		return err
	})
	return rows, err
}

func (l *decisionLog) close() {
	l.busy <- struct{}{} // whoever has it is bounded
	defer func() { <-l.busy }()
	if l.conn != nil {
		l.conn.close()
		l.conn = nil
	}
}
