package sqlparse

import (
	"sort"
	"strings"
	"sync"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxCached is the longest text that is cached.
const maxCached = 8 << 10

// cache is a least-recently-used map bounded in entries and, since facts grow
// with their text, in bytes of keys.
type cache[V any] struct {
	mu     sync.Mutex
	lru    *simplelru.LRU[string, V]
	bytes  int
	budget int
}

func newCache[V any](size int) *cache[V] {
	size = max(size, 1)
	c := &cache[V]{budget: size << 10}
	// The constructor fails for sizes below one only.
	c.lru, _ = simplelru.NewLRU(size, func(key string, _ V) { c.bytes -= len(key) })
	return c
}

func (c *cache[V]) get(key string) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Get(key)
}

func (c *cache[V]) add(key string, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.lru.Contains(key) {
		c.bytes += len(key)
	}
	c.lru.Add(key, v)
	for c.bytes > c.budget && c.lru.Len() > 1 {
		c.lru.RemoveOldest()
	}
}

// shape is a text as the second cache sees it: the key, which is every token
// but the constants' values, and where the constants and statements are.
//
// Why two texts with equal keys may share facts: the grammar sees token classes
// and the text of every token except constants; a constant's value reaches an
// action only through the token. A key is stored only when each of its constants
// turned up in the tree as a plain constant node (A_Const) of a statement kind
// whose facts come from expressions. The actions that make such nodes copy the
// value and look at nothing but its class, and the facts refer to it by
// position. A constant used in any other way (the precision of float(24), which
// can even be a syntax error) leaves no such node, and the text is then cached
// by its exact text only.
type shape struct {
	key       []byte
	constants []constantToken
	segments  []segment // of the text between semicolons, those with tokens
}

type constantToken struct {
	start, end int
	class      tokenClass
}

// segment is one statement's extent, as Statement.SQL has it.
type segment struct{ start, end int }

var shapes = sync.Pool{New: func() any { return new(shape) }}

// read fills the shape from a text; false if the scanner declines.
func (sh *shape) read(sql string) bool {
	sh.key, sh.constants, sh.segments = sh.key[:0], sh.constants[:0], sh.segments[:0]
	s := scanner{text: sql}
	from, last := 0, -1
	for {
		class, start, end := s.next()
		switch {
		case class == tokenDecline:
			return false
		case class.isConstant():
			sh.constants = append(sh.constants, constantToken{start, end, class})
			// Control characters: the scanner lets none through elsewhere.
			sh.key = append(sh.key, byte(class))
		case class == tokenSemicolon || class == tokenEnd:
			if last >= 0 {
				sh.segment(sql, from, last, start)
			}
			if class == tokenEnd {
				return true
			}
			from, last = end, -1
			sh.key = append(sh.key, ';', ' ')
			continue
		default:
			sh.key = append(sh.key, sql[start:end]...)
		}
		// White space and comments of any length are one space: it keeps apart
		// what the tokens' own spelling would not.
		sh.key = append(sh.key, ' ')
		last = end
	}
}

func (sh *shape) segment(sql string, from, lastToken, end int) {
	start, end := trim(sql, from, end)
	sh.segments = append(sh.segments, segment{start, cutLineComment(sql, lastToken, end)})
}

// lookupKey is the key without a copy, for a look-up only.
func (sh *shape) lookupKey() string { return unsafe.String(unsafe.SliceData(sh.key), len(sh.key)) }

// pattern is what statements of one key have in common.
type pattern struct {
	parts []part
}

type part struct {
	facts *Facts
	slots []slot
}

// slot tells where a literal is taken from: the n-th constant of the text.
type slot struct {
	constant int
	negative bool // a minus sign before it is part of the constant
}

// makePattern returns what may be cached under the shape's key, nil if nothing
// may.
func makePattern(sql string, sh *shape, statements []Statement, collectors []*collector) *pattern {
	if len(statements) != len(sh.segments) {
		return nil
	}
	pat := &pattern{parts: make([]part, len(statements))}
	covered := make([]bool, len(sh.constants))
	for i, st := range statements {
		if seg := sh.segments[i]; !patternKind(st.Kind) || st.Start != seg.start || st.Start+len(st.SQL) != seg.end {
			return nil
		}
		for _, location := range collectors[i].constants {
			if s, ok, known := sh.slot(sql, location); ok {
				covered[s.constant] = true
			} else if !known {
				return nil
			}
		}
		p := part{facts: st.Facts}
		for _, l := range collectors[i].literals {
			s, ok, _ := sh.slot(sql, l.location)
			if !ok {
				return nil
			}
			p.slots = append(p.slots, s)
		}
		pat.parts[i] = p
	}
	for _, c := range covered {
		if !c {
			return nil
		}
	}
	return pat
}

// patternKind: the kinds whose facts come from expressions alone, and those
// that cannot hold a constant.
func patternKind(k Kind) bool {
	switch k {
	case Select, Insert, Update, Delete, Begin, Commit, Rollback, Savepoint, RollbackTo, Release:
		return true
	}
	return false
}

// slot finds the constant token of a node by its location, which is the minus
// sign's when the grammar has folded one into the constant. known is false when
// there is a sign but not a number right behind it, as in -(-5). A location
// that is no constant's belongs to a node the grammar made up itself.
func (sh *shape) slot(sql string, location int32) (s slot, ok, known bool) {
	at := int(location)
	if at < 0 || at >= len(sql) {
		return slot{}, false, true
	}
	i := sort.Search(len(sh.constants), func(i int) bool { return sh.constants[i].start >= at })
	if i < len(sh.constants) && sh.constants[i].start == at {
		return slot{constant: i}, true, true
	}
	if sql[at] != '-' {
		return slot{}, false, true
	}
	between := scanner{text: sql, pos: at + 1}
	if !between.space() || i == len(sh.constants) || sh.constants[i].class == tokenString || between.pos != sh.constants[i].start {
		return slot{}, false, false
	}
	return slot{constant: i, negative: true}, true, true
}

// statements makes the statements of another text with the pattern's key.
func (pat *pattern) statements(sql string, sh *shape) []Statement {
	out := make([]Statement, len(pat.parts))
	total := 0
	for _, p := range pat.parts {
		total += len(p.slots)
	}
	texts := make([]string, 0, total)
	for i, p := range pat.parts {
		first := len(texts)
		for _, s := range p.slots {
			texts = append(texts, sh.constants[s.constant].text(sql, s.negative))
		}
		seg := sh.segments[i]
		out[i] = Statement{SQL: sql[seg.start:seg.end], Start: seg.start, Facts: p.facts}
		if len(p.slots) > 0 {
			out[i].Literals = texts[first:len(texts):len(texts)]
		}
	}
	return out
}

// text is a constant token's value, as collector.constant reads it from the
// tree.
func (t constantToken) text(sql string, negative bool) string {
	token := sql[t.start:t.end]
	if t.class != tokenString {
		return decimal(token, negative)
	}
	token = token[1 : len(token)-1]
	if strings.Contains(token, "''") {
		return strings.ReplaceAll(token, "''", "'")
	}
	return token
}
