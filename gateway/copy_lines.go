package gateway

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// lineMap knows which line of the client's data a line of a node's is. A node
// names lines by its own count, and every row it has been sent may still turn
// out to be wrong, as far as the node lags behind. So each row costs a byte or
// two, and of rows that no node can still be at, the oldest are forgotten.
type lineMap struct {
	chunks               []lineChunk
	nodeLine, clientLine uint64 // the last ones that are taken
}

// lineChunk are rows behind the lines from which it counts: for each row how
// many lines of the client's were skipped before it and, if they are not one,
// how many lines it takes at the node and at the client.
type lineChunk struct {
	nodeLine, clientLine uint64
	data                 []byte
}

const (
	lineChunkSize = 64 << 10
	// maxLineChunks is more rows than fit between the gateway and a node, in the
	// buffers of both and of their sockets.
	maxLineChunks = 96
)

// add records that the next row at the node stands at the client behind the
// line clientBefore, and how many lines it takes there and here.
func (m *lineMap) add(clientBefore, clientLines, nodeLines uint64) {
	last := len(m.chunks) - 1
	if last < 0 || len(m.chunks[last].data) > lineChunkSize-3*binary.MaxVarintLen64 {
		if len(m.chunks) == maxLineChunks {
			m.chunks = slices.Delete(m.chunks, 0, 1)
		}
		m.chunks = append(m.chunks, lineChunk{nodeLine: m.nodeLine, clientLine: m.clientLine})
		last = len(m.chunks) - 1
	}
	data := m.chunks[last].data
	skipped := (clientBefore - m.clientLine) << 1
	if clientLines == 1 && nodeLines == 1 {
		data = binary.AppendUvarint(data, skipped)
	} else {
		data = binary.AppendUvarint(data, skipped|1)
		data = binary.AppendUvarint(data, clientLines)
		data = binary.AppendUvarint(data, nodeLines)
	}
	m.chunks[last].data = data
	m.nodeLine += nodeLines
	m.clientLine = clientBefore + clientLines
}

// client is the client's line that is the node's. Beyond the last row, where a
// node is that waits for more, it is the line behind clientEnd. ok is false for
// a line that is forgotten.
func (m *lineMap) client(line, clientEnd uint64) (client uint64, ok bool) {
	if line > m.nodeLine {
		return clientEnd + (line - m.nodeLine), true
	}
	at := len(m.chunks) - 1
	for at >= 0 && m.chunks[at].nodeLine >= line {
		at--
	}
	if at < 0 {
		return 0, false
	}
	node, client, data := m.chunks[at].nodeLine, m.chunks[at].clientLine, m.chunks[at].data
	next := func() uint64 {
		value, n := binary.Uvarint(data)
		data = data[max(n, 0):]
		return value
	}
	for len(data) > 0 {
		skipped, clientLines, nodeLines := next(), uint64(1), uint64(1)
		if skipped&1 == 1 {
			clientLines, nodeLines = next(), next()
		}
		client += skipped >> 1
		if line <= node+nodeLines {
			// The number counts up while a row's lines are read: mostly it is that
			// of the last.
			if line == node+nodeLines {
				return client + clientLines, true
			}
			return client + min(line-node, clientLines), true
		}
		node += nodeLines
		client += clientLines
	}
	return 0, false
}

// cutCopyContext finds the line number in an error's context: "COPY accounts,
// line 3, column id: ..." begins a line of it, in whatever language.
func cutCopyContext(where, table string) (before string, line uint64, after string, ok bool) {
	prefix := "COPY " + table + ", "
	at := 0
	if !strings.HasPrefix(where, prefix) {
		if at = strings.Index(where, "\n"+prefix) + 1; at == 0 {
			return "", 0, "", false
		}
	}
	start := at + len(prefix)
	first := strings.IndexAny(where[start:], "0123456789")
	if first < 0 {
		return "", 0, "", false
	}
	start += first
	end := start
	for end < len(where) && where[end] >= '0' && where[end] <= '9' {
		end++
	}
	line, err := strconv.ParseUint(where[start:end], 10, 64)
	return where[:start], line, where[end:], err == nil
}
