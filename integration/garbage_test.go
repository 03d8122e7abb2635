package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestGarbageOnThePort: what no client would send costs its sender the connection, within the startup timeout, and nobody else anything.
func TestGarbageOnThePort(t *testing.T) {
	const startupTimeout = 2 * time.Second
	d := deploy(t, harness.Options{}, fmt.Sprintf("startup_timeout: %v", startupTimeout))
	from, to := halves(t, d, "bystander")
	other := d.open(t, "a", "other", 1)[0]
	gateway, address := harness.Serve(t, d.config)
	where, err := url.Parse(address)
	must(t, err)

	// One session stands in the middle of a transaction all the time, and another works.
	waits, works := harness.Open(t, address), harness.Open(t, address)
	exec1(t, waits, "begin")
	exec1(t, waits, move(from, -visitAmount))
	before := residentMiB(t, gateway.PID())

	noise := make([]byte, 4096)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise) // never fails
	hello := startup("user", "pgpact", "database", "pgpact")
	for _, c := range []struct {
		name string
		sent []byte
		// more is what follows for as long as it is taken.
		more int
	}{
		{name: "random bytes", sent: noise},
		{name: "HTTP", sent: []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{name: "nothing"},
		{name: "half a startup packet", sent: hello[:len(hello)/2]},
		{name: "a startup packet of 2 GB", sent: []byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0}, more: 1 << 28},
		{name: "a startup packet of length 0", sent: make([]byte, 8)},
		{name: "startup with a protocol of the future", sent: []byte{0, 0, 0, 9, 0, 99, 0, 0, 0}},
		{name: "SSLRequest without end", sent: bytes.Repeat([]byte{0, 0, 0, 8, 4, 210, 22, 47}, 100)},
		{name: "GSSENCRequest without end", sent: bytes.Repeat([]byte{0, 0, 0, 8, 4, 210, 22, 48}, 100)},
		{name: "a query of 2 GB", sent: append(hello[:len(hello):len(hello)], 'Q', 0x7f, 0xff, 0xff, 0xff), more: 1 << 28},
		{name: "a query of negative length", sent: append(hello[:len(hello):len(hello)], 'Q', 0xff, 0xff, 0xff, 0xff), more: 1 << 20},
		{name: "a query of length 3", sent: append(hello[:len(hello):len(hello)], 'Q', 0, 0, 0, 3)},
		{name: "a message of no known type", sent: append(hello[:len(hello):len(hello)], 0, 0, 0, 0, 4)},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			answer := speak(t, where.Host, c.sent, c.more, startupTimeout+haste)
			t.Logf("ended after %v with %q", time.Since(began).Round(time.Millisecond), printable(answer))
			if told, err := transact(works, move(other, 1), move(to, 0)); told != knowsCommitted {
				t.Errorf("another session: %s, %v", told, err)
			}
		})
	}
	if after := residentMiB(t, gateway.PID()); after > before+200 {
		t.Errorf("the gateway has grown from %d to %d MiB", before, after)
	}
	exec1(t, waits, move(to, visitAmount))
	exec1(t, waits, "commit")
	must(t, moved(d, from, to, true))
}

// startup is a StartupMessage.
func startup(parameters ...string) []byte {
	body := binary.BigEndian.AppendUint32(nil, 196608)
	for _, p := range parameters {
		body = append(append(body, p...), 0)
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// speak sends bytes and returns what comes back before the other side ends the connection, which it must within the bound.
func speak(t *testing.T, address string, sent []byte, more int, within time.Duration) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(within)))
	go func() {
		_, _ = conn.Write(sent) // refused at some point, which is the point
		for chunk := make([]byte, 1<<20); more > 0; more -= len(chunk) {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}()
	answer, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
		t.Errorf("the connection is still open after %v", within)
	}
	return answer
}

var unprintable = regexp.MustCompile(`[^ -~]+`)

// printable is the end of an answer without its binary parts.
func printable(answer []byte) string {
	text := unprintable.ReplaceAllString(string(answer), " ")
	return text[max(0, len(text)-120):]
}

// residentMiB is the memory of a process.
func residentMiB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kib, err := strconv.Atoi(fields[1])
			must(t, err)
			return kib / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
