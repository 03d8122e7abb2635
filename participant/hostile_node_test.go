package participant_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/pgpact/pgpact/participant"
)

// TestHostileGreetings: a node, or somebody between it and us, that answers the first message with something else. There is no
// connection then, soon, and nothing of the answer is repeated to anybody (CVE-2021-23222, CVE-2024-10977).
func TestHostileGreetings(t *testing.T) {
	const tls, plain = "require", "disable"
	ok, ready := "R\x00\x00\x00\x08\x00\x00\x00\x00", "Z\x00\x00\x00\x05I"
	for name, test := range map[string]struct{ sslmode, answer string }{
		"S and more bytes":           {tls, "S" + "evil"},
		"S and a plaintext session":  {tls, "S" + ok + ready},
		"S and an error":             {tls, "S" + "E\x00\x00\x00\x0fMevil text\x00\x00"},
		"an error":                   {tls, "E\x00\x00\x00\x0fMevil text\x00\x00"},
		"N although TLS is required": {tls, "N" + ok + ready},
		"neither S nor N":            {tls, "\x00"},
		"nothing":                    {tls, ""},
		"a length of 3":              {plain, "R\x00\x00\x00\x03"},
		"a negative length":          {plain, "R\xff\xff\xff\xff"},
		"a length of 2 GB":           {plain, "R\x7f\xff\xff\xff"},
		"half a message":             {plain, "R\x00\x00\x00\x08\x00\x00"},
		"an unknown message":         {plain, "y\x00\x00\x00\x04"},
		"unknown authentication":     {plain, "R\x00\x00\x00\x08\x00\x00\x00\x63"},
		"SASL without mechanisms":    {plain, "R\x00\x00\x00\x09\x00\x00\x00\x0a\x00"},
		"SASL not ended":             {plain, "R\x00\x00\x00\x0a\x00\x00\x00\x0ax\x00"},
		"identity never told":        {plain, ok + ready},
		"an identity out of order":   {plain, ok + ready + "D\x00\x00\x00\x06\xff\xff"},
		"rows before authentication": {plain, "D\x00\x00\x00\x06\x00\x00" + ready},
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			node := greetingNode(t, test.sslmode, test.answer)
			began := time.Now()
			b, err := node.NewBranch(t.Context(), participant.Settings{}, []string{"BEGIN"})
			if err == nil {
				b.Release()
				t.Fatal("a connection was made")
			}
			if strings.Contains(err.Error(), "evil") {
				t.Errorf("the node's words are repeated: %v", err)
			}
			if took := time.Since(began); took > wait/2 {
				t.Errorf("noticed after %v", took)
			}
		})
	}
}

// greetingNode answers the first message of every connection and then reads until the other side has had enough.
func greetingNode(t *testing.T, sslmode, answer string) *participant.Node {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			first := make([]byte, 4096)
			_, _ = conn.Read(first)
			_, _ = io.WriteString(conn, answer)
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	node, err := participant.Open(participant.Config{
		Name: "a", ClusterID: "cluster1", ConnectTimeout: time.Second,
		URL: "postgres://u@" + listener.Addr().String() + "/d?sslmode=" + sslmode,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	return node
}

// TestMoreThanAGigabyteIsNotSent: a length that does not fit its field must not be sent with another (CVE-2024-27304). It copies
// a gigabyte, so it runs when PGPACT_TEST_FULL is set.
func TestMoreThanAGigabyteIsNotSent(t *testing.T) {
	if os.Getenv("PGPACT_TEST_FULL") == "" {
		t.Skip("SKIPPED: PGPACT_TEST_FULL is not set")
	}
	_, node := startFake(t, nil)
	b := newBranch(t, node, "BEGIN")
	must(t, b, "UPDATE x")
	text := make([]byte, 1<<30)
	b.Query(unsafe.String(&text[0], len(text)))
	err := b.Send()
	if _, lost := errors.AsType[*participant.LostError](err); !lost {
		t.Errorf("sent: %v", err)
	}
}
