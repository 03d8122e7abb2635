//go:build unix

package clustertest

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"
)

// Proxy stands between a client and one server, and can lose what is between them.
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	cut     bool
	losing  []byte        // lose the answer to the next request that holds this
	lost    chan struct{} // closed when that has happened
	conns   map[net.Conn]bool
	serving sync.WaitGroup
}

// NewProxy starts a proxy in front of the address. It is closed when the test ends.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{listener: listener, target: target, conns: map[net.Conn]bool{}}
	p.serving.Go(p.accept)
	tb.Cleanup(func() {
		_ = listener.Close()
		p.Cut()
		p.serving.Wait()
	})
	return p
}

// Through is the URL with the proxy in place of the server.
func (p *Proxy) Through(url string) string {
	return strings.Replace(url, p.target, p.listener.Addr().String(), 1)
}

// Cut ends every connection, and refuses new ones until Mend.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		_ = c.Close()
	}
}

// Mend lets connections be made again.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// LoseAnswer has the answer to the next request that holds the text get lost after the server has given it
// whole (to ReadyForQuery), and its connection end. The channel is closed when that has happened.
func (p *Proxy) LoseAnswer(request string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.losing, p.lost = []byte(request), make(chan struct{})
	return p.lost
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(client, server) {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		link := &link{proxy: p, client: client, server: server}
		p.serving.Go(link.requests)
		p.serving.Go(link.answers)
	}
}

// keep remembers the connections, for Cut; false when there are to be none.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

// link is one connection through the proxy.
type link struct {
	proxy          *Proxy
	client, server net.Conn

	mu   sync.Mutex
	lost chan struct{} // not nil: the answer under way is to be lost
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
	l.proxy.mu.Lock()
	delete(l.proxy.conns, l.client)
	delete(l.proxy.conns, l.server)
	l.proxy.mu.Unlock()
}

func (l *link) requests() {
	defer l.close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.client.Read(buffer)
		if err != nil {
			return
		}
		l.proxy.mu.Lock()
		if l.proxy.losing != nil && bytes.Contains(buffer[:n], l.proxy.losing) {
			l.mu.Lock()
			l.lost = l.proxy.lost
			l.mu.Unlock()
			l.proxy.losing = nil
		}
		l.proxy.mu.Unlock()
		if _, err := l.server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// readyForQuery is how every answer ends outside a transaction block.
var readyForQuery = []byte("Z\x00\x00\x00\x05I")

func (l *link) answers() {
	defer l.close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.server.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		lost := l.lost
		l.mu.Unlock()
		if lost != nil {
			if bytes.HasSuffix(buffer[:n], readyForQuery) {
				close(lost)
				return
			}
			continue
		}
		if _, err := l.client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
