package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The judge of hostile conversations. It knows nothing of SQL: from the bytes a client sent and the bytes it got, it says
// whether the answers are well-formed, each answers its message, every Query and Sync ends in exactly one ReadyForQuery, and
// the status bytes agree with the tags and errors before them (PostgreSQL documentation, "Message Flow").

// clientFrame is one message a client sent. A bad one ends the session: its length is impossible, it is cut short or of no type.
type clientFrame struct {
	kind  byte
	bad   bool
	empty bool // has no body
}

// clientFrames splits what a client sent as the gateway must.
func clientFrames(sent []byte, limit int) []clientFrame {
	var frames []clientFrame
	for len(sent) > 0 {
		if len(sent) < 5 {
			return append(frames, clientFrame{kind: sent[0], bad: true})
		}
		length := uint64(binary.BigEndian.Uint32(sent[1:]))
		if length < 4 || length-4 > uint64(limit) || length+1 > uint64(len(sent)) {
			return append(frames, clientFrame{kind: sent[0], bad: true})
		}
		if strings.IndexByte("QFXBCDEHPSdcf", sent[0]) < 0 {
			return append(frames, clientFrame{kind: sent[0], bad: true})
		}
		frames = append(frames, clientFrame{kind: sent[0], empty: length == 4})
		sent = sent[length+1:]
	}
	return frames
}

// trial walks through both directions at once.
type trial struct {
	frames   []clientFrame
	answers  *pgproto3.Frontend
	rest     *bytes.Reader
	status   byte // of the last ReadyForQuery
	skipping bool
	columns  int // of the last RowDescription, -1 when there was none

	// since the last ReadyForQuery
	failed bool
	tags   []string

	ended bool // FATAL was said, or the stream is over
	fatal *pgproto3.ErrorResponse
	copy  bool // a COPY has begun: which message an answer belongs to is not to be seen from outside
}

// judgeConversation returns what is wrong with the answers, "" for nothing. The answers begin behind the greeting.
func judgeConversation(sent, got []byte, limit int) string {
	rest := bytes.NewReader(got)
	j := &trial{frames: clientFrames(sent, limit), rest: rest, answers: pgproto3.NewFrontend(rest, io.Discard), status: 'I'}
	for i, frame := range j.frames {
		if wrong := j.frame(frame, j.frames[i:]); wrong != "" {
			return fmt.Sprintf("message %d (%q): %s", i, frame.kind, wrong)
		}
		if j.copy {
			return j.loosely()
		}
		if j.ended {
			break
		}
	}
	if !j.ended {
		if msg, err := j.next(); err == nil {
			return fmt.Sprintf("an answer to nothing: %T", msg)
		} else if err != io.EOF {
			return err.Error()
		}
	}
	return ""
}

// next is the next message that is no ParameterStatus, notice or notification: those may come at any time.
func (j *trial) next() (pgproto3.BackendMessage, error) {
	for {
		if j.rest.Len() == 0 && j.answers.ReadBufferLen() == 0 {
			j.ended = true
			return nil, io.EOF
		}
		msg, err := j.answers.Receive()
		if err != nil {
			return nil, fmt.Errorf("malformed answer: %w", err)
		}
		switch msg := msg.(type) {
		case *pgproto3.ParameterStatus, *pgproto3.NoticeResponse, *pgproto3.NotificationResponse:
			continue
		case *pgproto3.ErrorResponse:
			j.failed = true
			if msg.Severity == "FATAL" || msg.Severity == "PANIC" {
				j.ended, j.fatal = true, msg
				if left := j.rest.Len() + j.answers.ReadBufferLen(); left > 0 {
					return nil, fmt.Errorf("%d bytes after FATAL", left)
				}
			}
		case *pgproto3.CommandComplete:
			j.tags = append(j.tags, string(msg.CommandTag))
		case *pgproto3.CopyInResponse, *pgproto3.CopyBothResponse:
			j.copy = true
		}
		return msg, nil
	}
}

// frame judges the answers to one message; left are this and the following messages.
func (j *trial) frame(frame clientFrame, left []clientFrame) string {
	switch {
	case frame.bad, frame.kind == 'X':
		return j.last()
	case j.skipping && frame.kind != 'S':
		return ""
	}
	j.skipping = false
	switch frame.kind {
	case 'Q':
		return j.query(left)
	case 'S', 'F':
		return j.sync(left)
	case 'H', 'd', 'c', 'f':
		if frame.kind != 'H' || frame.empty {
			return ""
		}
	}
	want := map[byte]string{'P': "*pgproto3.ParseComplete", 'B': "*pgproto3.BindComplete", 'C': "*pgproto3.CloseComplete"}[frame.kind]
	msg, err := j.next()
	switch {
	case err == io.EOF:
		return j.over(left)
	case err != nil:
		return err.Error()
	}
	if _, failed := msg.(*pgproto3.ErrorResponse); failed {
		j.skipping = true
		return j.fatality(left)
	}
	switch frame.kind {
	case 'H':
		return fmt.Sprintf("a Flush with a body is answered by %T", msg)
	case 'D':
		return j.description(msg, left)
	case 'E':
		return j.execution(msg, left)
	}
	if got := fmt.Sprintf("%T", msg); got != want {
		return "answered by " + got
	}
	return ""
}

// last judges the end of a session: nothing, or one FATAL and nothing behind it.
func (j *trial) last() string {
	msg, err := j.next()
	if err == io.EOF {
		return ""
	}
	if err != nil {
		return err.Error()
	}
	if j.fatal == nil {
		return fmt.Sprintf("answered by %T", msg)
	}
	if j.fatal.Code != "08P01" {
		return "FATAL " + j.fatal.Code + " " + j.fatal.Message
	}
	return ""
}

// fatality judges a FATAL where none was asked for. Limits of the session's own making may end it. Replies that are owed to a
// series when its next message is a bad one are not sent: the connection is over anyhow.
func (j *trial) fatality(left []clientFrame) string {
	if j.fatal == nil || slices.Contains([]string{"57P05", "25P03", "25P04", "57P01"}, j.fatal.Code) {
		return ""
	}
	for _, frame := range left {
		if frame.bad && j.fatal.Code == "08P01" {
			return ""
		}
		if strings.IndexByte("PBDdcf", frame.kind) < 0 {
			break
		}
	}
	return fmt.Sprintf("FATAL %s %s in answer to it", j.fatal.Code, j.fatal.Message)
}

// over judges a stream that ends before a message is answered: fine only if no answer was due before the client went away.
func (j *trial) over(left []clientFrame) string {
	if j.fatal != nil {
		return ""
	}
	for _, frame := range left {
		switch {
		case frame.bad || frame.kind == 'X':
			return ""
		case frame.kind == 'S' || frame.kind == 'Q' && !j.skipping:
			return "no answer"
		}
	}
	return ""
}

func (j *trial) query(left []clientFrame) string {
	j.columns = -1
	for done := false; ; {
		msg, err := j.next()
		if err == io.EOF {
			return j.over(left)
		}
		if err != nil {
			return err.Error()
		}
		if ready, ok := msg.(*pgproto3.ReadyForQuery); ok {
			return j.ready(ready)
		}
		if done {
			return fmt.Sprintf("%T after an error", msg)
		}
		switch msg := msg.(type) {
		case *pgproto3.RowDescription:
			j.columns = len(msg.Fields)
		case *pgproto3.DataRow:
			if len(msg.Values) != j.columns {
				return fmt.Sprintf("a row of %d values under %d columns", len(msg.Values), j.columns)
			}
		case *pgproto3.CommandComplete:
			j.columns = -1
		case *pgproto3.EmptyQueryResponse, *pgproto3.CopyOutResponse, *pgproto3.CopyData, *pgproto3.CopyDone:
		case *pgproto3.CopyInResponse:
			return ""
		case *pgproto3.ErrorResponse:
			if j.fatal != nil {
				return j.fatality(left)
			}
			done = true
		default:
			return fmt.Sprintf("answered by %T", msg)
		}
	}
}

// sync judges the answer to Sync, and to a function call, which has the same form: perhaps an error, and ReadyForQuery.
func (j *trial) sync(left []clientFrame) string {
	msg, err := j.next()
	if _, failed := msg.(*pgproto3.ErrorResponse); failed && err == nil && j.fatal == nil {
		msg, err = j.next()
	}
	switch {
	case err == io.EOF:
		return j.over(left)
	case err != nil:
		return err.Error()
	case j.fatal != nil:
		return j.fatality(left)
	}
	ready, ok := msg.(*pgproto3.ReadyForQuery)
	if !ok {
		return fmt.Sprintf("answered by %T", msg)
	}
	return j.ready(ready)
}

func (j *trial) description(msg pgproto3.BackendMessage, left []clientFrame) string {
	if _, statement := msg.(*pgproto3.ParameterDescription); statement {
		var err error
		if msg, err = j.next(); err == io.EOF {
			return j.over(left)
		} else if err != nil {
			return err.Error()
		}
	}
	switch msg := msg.(type) {
	case *pgproto3.RowDescription, *pgproto3.NoData:
		return ""
	default:
		return fmt.Sprintf("answered by %T", msg)
	}
}

func (j *trial) execution(msg pgproto3.BackendMessage, left []clientFrame) string {
	for {
		switch msg.(type) {
		case *pgproto3.CommandComplete, *pgproto3.EmptyQueryResponse, *pgproto3.PortalSuspended, *pgproto3.CopyInResponse:
			return ""
		case *pgproto3.ErrorResponse:
			j.skipping = true
			return j.fatality(left)
		case *pgproto3.DataRow, *pgproto3.CopyOutResponse, *pgproto3.CopyData, *pgproto3.CopyDone:
		default:
			return fmt.Sprintf("answered by %T", msg)
		}
		var err error
		if msg, err = j.next(); err == io.EOF {
			return j.over(left)
		} else if err != nil {
			return err.Error()
		}
	}
}

// ready judges the status byte by what was said since the last one.
func (j *trial) ready(msg *pgproto3.ReadyForQuery) string {
	status, before := msg.TxStatus, j.status
	moved := func(verbs ...string) bool {
		return slices.ContainsFunc(j.tags, func(tag string) bool {
			return slices.ContainsFunc(verbs, func(verb string) bool { return strings.HasPrefix(tag, verb) })
		})
	}
	ends := moved("COMMIT", "ROLLBACK", "PREPARE TRANSACTION")
	want := before
	if before == 'T' && j.failed {
		want = 'E'
	}
	wrong := strings.IndexByte("ITE", status) < 0 || !ends && !moved("BEGIN", "START TRANSACTION") && status != want
	text := fmt.Sprintf("status %c after %c, tags %q, failed %v", status, before, j.tags, j.failed)
	j.status, j.failed, j.tags = status, false, j.tags[:0]
	if wrong {
		return text
	}
	return ""
}

// loosely judges the rest of a conversation that contains COPY FROM STDIN: well-formed, and no ReadyForQuery too many.
func (j *trial) loosely() string {
	due := 0
	for _, frame := range j.frames {
		if frame.kind == 'Q' || frame.kind == 'S' || frame.kind == 'F' {
			due++
		}
	}
	for {
		msg, err := j.next()
		if err == io.EOF {
			return ""
		}
		if err != nil {
			return err.Error()
		}
		if _, ready := msg.(*pgproto3.ReadyForQuery); ready {
			if due--; due < 0 {
				return "ReadyForQuery that nobody asked for"
			}
		}
	}
}
