//go:build unix

package pgserver

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
)

// Ports are taken below the range that systems hand out for outgoing connections (Linux from 32768, others
// from 49152). A port inside it can be taken by any client while its server is down for a restart; a client
// that tries to reach the server can even connect to itself.
const (
	lowestPort  = 15000
	highestPort = 32000
)

// choosePort prefers the remembered port, if there is one and it is free.
func choosePort(remembered int) (int, error) {
	if remembered != 0 && portFree(remembered) {
		return remembered, nil
	}
	for range 1000 {
		if port := lowestPort + rand.IntN(highestPort-lowestPort); portFree(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free port on 127.0.0.1")
}

// portFree tries to listen. Another process may still be quicker than Postgres afterwards; then Start tries
// another port.
func portFree(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func (s *Server) portFile() string { return s.data + ".port" }

func (s *Server) rememberedPort() int {
	text, err := os.ReadFile(s.portFile())
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || port < 1 || port > 65535 {
		return 0
	}
	return port
}

func (s *Server) rememberPort(port int) error {
	return os.WriteFile(s.portFile(), []byte(strconv.Itoa(port)+"\n"), 0o644)
}
