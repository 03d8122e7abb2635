package gateway

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// hostileStartup are the parameters of sessions that send anything at all: whatever they happen to run ends by itself.
var hostileStartup = []string{"user", "carol", "database", "pgpact", "options", "-c statement_timeout=1s -c lock_timeout=300ms"}

// corpus is well-formed input: whole conversations, of the transcripts and of our own, with every type of message in them.
func corpus(t testing.TB, keys [3][2]string) [][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/postgres/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	text := ownConversations
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text += "\n\n" + string(content)
	}
	text = strings.NewReplacer("@a", keys[0][0], "@b", keys[1][0], "@c", keys[2][0]).Replace(text)
	var all [][]byte
	for _, conversation := range conversations(text) {
		var sent []byte
		for _, line := range strings.Split(conversation, "\n") {
			if !tooStrong.MatchString(line) {
				sent = append(sent, encodeLine(line)...)
			}
		}
		if len(sent) > 0 {
			all = append(all, sent)
		}
	}
	return all
}

// tooStrong is SQL that would harm the other sessions of a test, as it may: they share the tables. And what sleeps, or lifts the
// bound of hostileStartup: both together once made a session look as if it hung.
var tooStrong = regexp.MustCompile(`(?i)\b(drop|create|alter|truncate|lock|vacuum|analyze|reindex|cluster|grant|revoke)|sleep|statement_timeout`)

const ownConversations = `
Q|begin
Q|update accounts set balance = balance - 1 where id = '@a'
Q|update accounts set balance = balance + 1 where id = '@b'
Q|commit

Q|begin; savepoint s; update accounts set balance = -1 where id = '@a'
Q|rollback to s
Q|select count(*) from accounts where id = '@a'
Q|rollback

P|q|select $1::int4 + 1
D|S|q
B|p|q|41
D|P|p
E|p|1
H
E|p|0
C|P|p
C|S|q
S
X

P||update accounts set balance = balance + $2 where id = $1
B|||@a|1
D|P|
E|
B|||@b|-1
E|
S

Q|declare c cursor for select * from accounts
Q|fetch 2 from c
Q|set application_name = 'x'; show application_name
Q|prepare p1 as select 1; execute p1; deallocate all
Q|discard all
Q|listen x
F
Q|select 1/0; select 2
d|1	2
c
f|no
Q|copy accounts from stdin
d|zz	1
f|no
Q|copy (select 1) to stdout
`

// encodeLine is the message of a transcript's line, nil for a line that is none (the transcripts may say more than messages).
func encodeLine(line string) []byte {
	words := strings.Split(line, "|")
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	var msg pgproto3.FrontendMessage
	switch words[0] {
	case "Q":
		msg = &pgproto3.Query{String: word(1)}
	case "P":
		parse := &pgproto3.Parse{Name: word(1), Query: word(2)}
		for _, oid := range strings.Fields(word(3)) {
			n, _ := strconv.ParseUint(oid, 10, 32)
			parse.ParameterOIDs = append(parse.ParameterOIDs, uint32(n))
		}
		msg = parse
	case "B":
		bind := &pgproto3.Bind{DestinationPortal: word(1), PreparedStatement: word(2)}
		for _, value := range words[min(len(words), 3):] {
			bind.Parameters = append(bind.Parameters, []byte(value))
		}
		msg = bind
	case "D", "C":
		if len(word(1)) != 1 {
			return nil
		}
		if msg = (&pgproto3.Describe{ObjectType: word(1)[0], Name: word(2)}); words[0] == "C" {
			msg = &pgproto3.Close{ObjectType: word(1)[0], Name: word(2)}
		}
	case "E":
		rows, _ := strconv.Atoi(word(2))
		msg = &pgproto3.Execute{Portal: word(1), MaxRows: uint32(rows)}
	case "S":
		msg = &pgproto3.Sync{}
	case "H":
		msg = &pgproto3.Flush{}
	case "F":
		msg = &pgproto3.FunctionCall{Function: 1}
	case "d":
		msg = &pgproto3.CopyData{Data: []byte(word(1) + "\n")}
	case "c":
		msg = &pgproto3.CopyDone{}
	case "f":
		msg = &pgproto3.CopyFail{Message: word(1)}
	case "X":
		msg = &pgproto3.Terminate{}
	default:
		return nil
	}
	frame, err := msg.Encode(nil)
	if err != nil {
		panic(err) // of our own making
	}
	return frame
}

// frameSource makes messages out of a corpus: as they are, mutated, or of random bytes.
type frameSource struct {
	rng    *rand.Rand
	frames [][]byte // of the corpus, single, without Terminate
}

func newFrameSource(rng *rand.Rand, corpus [][]byte) *frameSource {
	s := &frameSource{rng: rng}
	for _, sent := range corpus {
		for len(sent) > 0 {
			size := int(binary.BigEndian.Uint32(sent[1:])) + 1
			if sent[0] != 'X' {
				s.frames = append(s.frames, sent[:size])
			}
			sent = sent[size:]
		}
	}
	return s
}

var syncFrame = []byte("S\x00\x00\x00\x04")

// next is the next message. In one of 300 its own header is wrong, or its type, which ends the session.
func (s *frameSource) next() []byte {
	frame := s.frames[s.rng.IntN(len(s.frames))]
	switch n := s.rng.IntN(300); {
	case n == 0:
		frame = s.mutate(slices.Clone(frame), 0)
	case n < 50:
		return syncFrame
	case n < 150: // as it is
	case n < 270:
		frame = s.mutate(slices.Clone(frame), 5)
		binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-1))
	default:
		kinds := "QPBEDCSHFdcf"
		frame = append([]byte{kinds[s.rng.IntN(len(kinds))], 0, 0, 0, 0}, s.random(s.rng.IntN(64))...)
		binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-1))
	}
	return frame
}

func (s *frameSource) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rng.Uint32() >> (8 * s.rng.IntN(4))) // zeros are frequent among the high bytes of nothing else
	}
	return b
}

// mutate changes bytes from an offset on: some are flipped, or made extreme, or dropped, or doubled.
func (s *frameSource) mutate(frame []byte, from int) []byte {
	for range 1 + s.rng.IntN(3) {
		if len(frame) <= from {
			return append(frame, s.random(1)...)
		}
		at := from + s.rng.IntN(len(frame)-from)
		switch s.rng.IntN(5) {
		case 0:
			frame[at] ^= 1 << s.rng.IntN(8)
		case 1:
			frame[at] = []byte{0, 1, 0x7f, 0x80, 0xff, '\'', ';', '$', '\\', '('}[s.rng.IntN(10)]
		case 2:
			frame = slices.Delete(frame, at, min(len(frame), at+1+s.rng.IntN(4)))
		case 3:
			frame = slices.Insert(frame, at, s.random(1+s.rng.IntN(4))...)
		default:
			frame = slices.Insert(frame, at, slices.Clone(frame[at:min(len(frame), at+8)])...)
		}
	}
	for len(frame) < 5 {
		frame = append(frame, 0)
	}
	return frame
}
