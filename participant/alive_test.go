package participant_test

import (
	"net"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
	"github.com/pgpact/pgpact/participant"
)

// Alive never waits, not even for somebody else's Read of the connection, and sees what has come.
func TestAlive(t *testing.T) {
	checkLeaks(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, event := range []string{"bytes", "end"} {
		t.Run(event, func(t *testing.T) {
			client, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			if !participant.Alive(client) {
				t.Error("not alive when nothing has happened")
			}
			if event == "bytes" {
				_, _ = server.Write([]byte("E"))
			} else {
				_ = server.Close()
			}
			clustertest.WaitFor(t, "it is seen", wait, func() bool { return !participant.Alive(client) })
		})
	}
	t.Run("a read under way", func(t *testing.T) {
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = client.Read(make([]byte, 1))
		}()
		answer := make(chan bool, 1)
		go func() {
			for range 1000 { // the read is under way for most of them
				if !participant.Alive(client) {
					answer <- false
					return
				}
			}
			answer <- true
		}()
		select {
		case alive := <-answer:
			if !alive {
				t.Error("not alive")
			}
		case <-time.After(wait):
			t.Error("it waits for the read")
		}
		_ = client.Close()
		<-read
		if participant.Alive(client) {
			t.Error("alive after Close")
		}
	})
}
