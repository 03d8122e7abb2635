package sqlparse

// Life of an UPDATE, station 5: the text becomes facts.

import (
	"strings"
	"sync"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Statement is one statement of a text with its facts.
type Statement struct {
	// SQL is the statement's own text, to be sent on verbatim: without the
	// semicolon and without white space around it. Comments in front and block
	// comments behind stay; a line comment behind is cut, so that text may be
	// appended.
	SQL    string
	Start  int // byte offset of SQL within the parsed text (of Inner: within the statement's)
	*Facts     // shared between executions: read-only
	// Literals are the texts of the constants that Facts refers to.
	Literals []string
}

// Text is the text of a ValueLiteral: of a string constant its value, of a
// number the plain decimal. For other values it is "".
func (s *Statement) Text(v Value) string {
	if v.Kind != ValueLiteral {
		return ""
	}
	return s.Literals[v.Literal]
}

// Parser reads SQL and caches facts by normalized text. It is safe for
// concurrent use.
type Parser struct {
	texts    *cache[[]Statement] // by exact text
	patterns *cache[*pattern]    // by text without its constants
	// large is held while a large text is read: up to 300 MB go to one of the
	// largest allowed, and several at once could be too many.
	large sync.Mutex
}

// largeText is from how many bytes on texts are read one at a time.
const largeText = 256 << 10

// NewParser returns a parser that remembers about cacheSize texts with
// parameters and as many patterns of texts with constants. At most 8 KiB of
// memory go to one of them, on average 1 KiB of text.
func NewParser(cacheSize int) *Parser {
	return &Parser{texts: newCache[[]Statement](cacheSize), patterns: newCache[*pattern](cacheSize)}
}

// Parse splits sql into its statements. A text of nothing but white space,
// comments and semicolons has none. The error, if any, is a *SyntaxError and
// stands for the whole text: Postgres parses all of a message before it runs
// the first statement. The statements may be shared with other callers and
// must not be changed; they keep sql in memory.
func (p *Parser) Parse(sql string) ([]Statement, error) {
	if len(sql) > maxCached {
		if len(sql) > largeText {
			p.large.Lock()
			defer p.large.Unlock()
		}
		statements, _, err := parse(sql)
		return statements, err
	}
	if statements, ok := p.texts.get(sql); ok {
		return statements, nil
	}
	sh := shapes.Get().(*shape)
	defer shapes.Put(sh)
	// Without constants the exact text serves as well, and costs no reading.
	regular := sh.read(sql) && len(sh.constants) > 0
	if regular {
		// A pattern promises that the grammar accepts the text; that its bytes
		// are characters at all is still to be seen.
		if pat, ok := p.patterns.get(sh.lookupKey()); ok && checkText(sql) == nil {
			return pat.statements(sql, sh), nil
		}
	}
	statements, collectors, err := parse(sql)
	if err != nil {
		return nil, err
	}
	if regular {
		if pat := makePattern(sql, sh, statements, collectors); pat != nil {
			p.patterns.add(string(sh.key), pat)
			return statements, nil
		}
	}
	p.texts.add(sql, statements)
	return statements, nil
}

// parse reads a text with the real grammar.
func parse(sql string) ([]Statement, []*collector, error) {
	if err := checkSize(sql); err != nil {
		return nil, nil, err
	}
	if err := checkText(sql); err != nil {
		return nil, nil, err
	}
	if err := checkDepth(sql); err != nil {
		return nil, nil, err
	}
	tree, err := pgquery.Parse(sql)
	if err != nil {
		return nil, nil, parseError(err)
	}
	statements := make([]Statement, 0, len(tree.Stmts))
	collectors := make([]*collector, 0, len(tree.Stmts))
	for _, raw := range tree.Stmts {
		// A statement reaches from the semicolon before it to its own; length 0
		// means up to the end of the text.
		start, end := int(raw.StmtLocation), len(sql)
		if raw.StmtLen > 0 {
			end = start + int(raw.StmtLen)
		}
		start, end = trim(sql, start, end)
		if strings.Contains(sql[start:end], "--") {
			if tokens := scanTokens(sql[start:end]); len(tokens) > 0 {
				end = cutLineComment(sql, start+endOf(tokens), end)
			}
		}
		c := collect(raw.Stmt, sql[start:end], sql)
		statements = append(statements, Statement{SQL: sql[start:end], Start: start, Facts: c.facts, Literals: c.texts()})
		collectors = append(collectors, c)
	}
	return statements, collectors, nil
}

// space is what the scanner skips between tokens.
const space = " \t\n\r\f\v"

// trim leaves white space out of an extent.
func trim(sql string, start, end int) (int, int) {
	text := strings.TrimRight(sql[start:end], space)
	end = start + len(text)
	return end - len(strings.TrimLeft(text, space)), end
}

// cutLineComment moves end back to the last token's if a line comment stands
// behind it.
func cutLineComment(sql string, lastToken, end int) int {
	if strings.Contains(sql[lastToken:end], "--") {
		return lastToken
	}
	return end
}
