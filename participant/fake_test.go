package participant_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
)

// fakeNode is a server that says what a test wants it to say to PREPARE TRANSACTION and its kin, and what a
// node says to everything else.
type fakeNode struct {
	listener net.Listener
	identity []string // columns of the identity question's row

	mu      sync.Mutex
	script  func(*fakeConn)
	cancels int
	cancel  chan struct{} // closed by the first cancel request
	conns   map[net.Conn]bool
	wg      sync.WaitGroup
}

// fakeConn is one connection of the fake node.
type fakeConn struct {
	net.Conn
	backend *pgproto3.Backend
	node    *fakeNode
}

// startFake starts a fake node; script answers every message that finishes a transaction.
func startFake(t testing.TB, script func(*fakeConn)) (*fakeNode, *participant.Node) {
	t.Helper()
	checkLeaks(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeNode{
		listener: listener, script: script, cancel: make(chan struct{}), conns: map[net.Conn]bool{},
		identity: []string{"cluster1", "a", "f", "7300000000000000000", "1", "10", "150000", "UTF8", "on", "on"},
	}
	f.wg.Go(f.accept)
	t.Cleanup(f.close)
	node, err := participant.Open(participant.Config{Name: "a", ClusterID: "cluster1", URL: "postgres://u@" + listener.Addr().String() + "/d?sslmode=disable"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	checkReturned(t, node)
	return f, node
}

func (f *fakeNode) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *fakeNode) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns[c] = true
		f.mu.Unlock()
		f.wg.Go(func() {
			defer c.Close()
			conn := &fakeConn{Conn: c, backend: pgproto3.NewBackend(c, c), node: f}
			if conn.startup() {
				conn.serve()
			}
		})
	}
}

func (c *fakeConn) startup() bool {
	msg, err := c.backend.ReceiveStartupMessage()
	if err != nil {
		return false
	}
	if _, ok := msg.(*pgproto3.CancelRequest); ok {
		c.node.mu.Lock()
		defer c.node.mu.Unlock()
		if c.node.cancels++; c.node.cancels == 1 {
			close(c.node.cancel)
		}
		return false
	}
	c.backend.Send(&pgproto3.AuthenticationOk{})
	c.backend.Send(&pgproto3.BackendKeyData{ProcessID: 42, SecretKey: []byte{1, 2, 3, 4}})
	return c.ready('I') == nil
}

// serve answers simple queries until the client is gone.
func (c *fakeConn) serve() {
	for {
		msg, err := c.backend.Receive()
		if err != nil {
			return
		}
		switch msg := msg.(type) {
		case *pgproto3.Sync:
			err = c.ready('I')
		case *pgproto3.Query:
			err = c.query(msg.String)
		}
		if err != nil {
			return
		}
	}
}

func (c *fakeConn) query(sql string) error {
	switch {
	case strings.Contains(sql, "PREPARE"), strings.HasPrefix(sql, "COMMIT"), strings.HasPrefix(sql, "ROLLBACK"):
		c.node.mu.Lock()
		script := c.node.script
		c.node.mu.Unlock()
		if script == nil {
			return errors.New("no script")
		}
		script(c)
		return c.backend.Flush()
	case strings.Contains(sql, "pg_control_system"):
		row := &pgproto3.DataRow{}
		for _, column := range c.node.identity {
			row.Values = append(row.Values, []byte(column))
		}
		c.backend.Send(row)
		c.tags("SELECT 1")
		return c.ready('I')
	case strings.HasPrefix(sql, "BEGIN"):
		c.tags("BEGIN", "UPDATE 1")
		return c.ready('T')
	default:
		c.tags("SET")
		return c.ready('I')
	}
}

func (c *fakeConn) tags(tags ...string) {
	for _, tag := range tags {
		c.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	}
}

func (c *fakeConn) warning(code, message string) {
	c.backend.Send(&pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: code, Message: message})
}

func (c *fakeConn) fail(severity, code string) {
	c.backend.Send(&pgproto3.ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: "made by a test"})
}

func (c *fakeConn) ready(status byte) error {
	c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: status})
	return c.backend.Flush()
}

// hangUp sends what is waiting, and raw bytes, and closes the connection.
func (c *fakeConn) hangUp(raw []byte) {
	_ = c.backend.Flush()
	_, _ = c.Write(raw)
	_ = c.Close()
}

// silence waits until the client has gone away.
func (c *fakeConn) silence() {
	_ = c.backend.Flush()
	_, _ = io.Copy(io.Discard, c.Conn)
}
