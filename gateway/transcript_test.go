package gateway

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

var rewrite = flag.Bool("rewrite", false, "write what plain Postgres answers to testdata/postgres/*.want")

// judgedVersion is the server's major version the .want files were written with.
// Another version has other words; it is then the live server alone that judges.
const judgedVersion = "15"

// answered is what one line of a conversation was answered with.
type answered struct{ line, text string }

func renderAnswers(answers []answered) string {
	var b strings.Builder
	for _, a := range answers {
		b.WriteString("> " + a.line + "\n")
		for _, line := range strings.Split(strings.TrimSuffix(a.text, "\n"), "\n") {
			if line != "" {
				b.WriteString(strings.TrimRight(line, " ") + "\n")
			}
		}
	}
	return b.String()
}

// acceptedDifference is an entry of testdata/accepted-differences.txt.
type acceptedDifference struct {
	because           string
	postgres, gateway *regexp.Regexp
	used              bool
}

func readAccepted(t *testing.T) []*acceptedDifference {
	t.Helper()
	text, err := os.ReadFile("testdata/accepted-differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []*acceptedDifference
	for _, entry := range strings.Split(string(text), "\n\n") {
		d := &acceptedDifference{}
		for _, line := range strings.Split(entry, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch name {
			case "because":
				d.because = value
			case "postgres":
				d.postgres = regexp.MustCompile("(?s)^(?:" + value + ")\n$")
			case "gateway":
				d.gateway = regexp.MustCompile("(?s)^(?:" + value + ")\n$")
			}
		}
		if d.postgres == nil && d.gateway == nil && d.because == "" {
			continue // a comment
		}
		if d.postgres == nil || d.gateway == nil || d.because == "" {
			t.Fatalf("accepted-differences.txt: incomplete: %q", entry)
		}
		list = append(list, d)
	}
	return list
}

// compareAnswers reports each line that was answered differently, unless that
// is accepted.
func compareAnswers(t *testing.T, want, got []answered, accepted []*acceptedDifference) {
	t.Helper()
next:
	for i := range want {
		if want[i].text == got[i].text {
			continue
		}
		for _, d := range accepted {
			if d.postgres.MatchString(want[i].text) && d.gateway.MatchString(got[i].text) {
				d.used = true
				continue next
			}
		}
		t.Errorf("%s\n--- Postgres\n%s--- gateway\n%s", want[i].line, want[i].text, got[i].text)
	}
}

// startUp is the line "startup|version|name=value ...": a connection made by
// hand, with everything the server says to it but what must differ.
func (k *talk) startUp(words []string) {
	conn, err := net.Dial("tcp", net.JoinHostPort(k.config.Host, strconv.Itoa(int(k.config.Port))))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		k.t.Fatal(err)
	}
	version, err := strconv.ParseUint(words[1], 0, 32)
	if err != nil {
		k.t.Fatal(err)
	}
	parameters := map[string]string{"user": k.config.User, "database": k.config.Database}
	for _, word := range words[2:] {
		name, value, _ := strings.Cut(word, "=")
		parameters[name] = value
	}
	k.front = pgproto3.NewFrontend(conn, conn)
	k.front.Send(&pgproto3.StartupMessage{ProtocolVersion: uint32(version), Parameters: parameters})
	k.answers(0)
}

// cancel is the line "K|sql": a Query that runs until a cancel ends it.
func (k *talk) cancel(sql string) {
	k.front.Send(&pgproto3.Query{String: sql})
	if err := k.front.Flush(); err != nil {
		k.t.Fatal(err)
	}
	ended := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // again and again: the first may come before the statement runs
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				ctx, done := context.WithTimeout(context.Background(), patience)
				_ = k.conn.CancelRequest(ctx)
				done()
			}
		}
	}()
	k.answers(0)
	close(ended)
	<-stopped
}

// bindFormats is the line "F|portal|statement|parameter formats|result formats|
// parameter ...": a Bind with formats; a parameter x:... is given in hex.
func (k *talk) bindFormats(words []string) *pgproto3.Bind {
	codes := func(text string) (formats []int16) {
		for _, word := range strings.Fields(text) {
			n, err := strconv.ParseInt(word, 10, 16)
			if err != nil {
				k.t.Fatal(err)
			}
			formats = append(formats, int16(n))
		}
		return formats
	}
	msg := &pgproto3.Bind{
		DestinationPortal: words[1], PreparedStatement: words[2],
		ParameterFormatCodes: codes(words[3]), ResultFormatCodes: codes(words[4]),
	}
	for _, value := range words[5:] {
		switch {
		case value == "NULL":
			msg.Parameters = append(msg.Parameters, nil)
		case strings.HasPrefix(value, "x:"):
			data, err := hex.DecodeString(value[2:])
			if err != nil {
				k.t.Fatal(err)
			}
			msg.Parameters = append(msg.Parameters, data)
		default:
			msg.Parameters = append(msg.Parameters, []byte(value))
		}
	}
	return msg
}

// serverVersion is the major version of the server at url.
func serverVersion(t *testing.T, url string) string {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	major, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	return major
}

// checkRecorded compares plain Postgres's answers with those that are kept, or
// keeps them.
func checkRecorded(t *testing.T, file, recorded string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(file, []byte(recorded), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(fmt.Errorf("%w: run with -rewrite", err))
	}
	if string(kept) != recorded {
		t.Errorf("%s is not what Postgres %s answers: run with -rewrite and look at the change", file, judgedVersion)
	}
}
