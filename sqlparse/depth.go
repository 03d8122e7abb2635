package sqlparse

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// maxHeight bounds the height of a syntax tree. The C code that turns a tree
// into protobuf recurses on the thread's stack, without the depth check that
// Postgres has, and a stack overflow there kills the process: measured, it
// takes up to 700 bytes for each token that can add a level, out of 8 MiB.
// Postgres itself gives up at similar depths (max_stack_depth).
const maxHeight = 3000

// checkDepth refuses a text whose tree could be higher than maxHeight. A tree
// is never higher than its text has tokens, so short texts need no look.
//
// It must be called before the parser. If the text cannot even be scanned, the
// parser is bound to fail as well, and then builds no tree to recurse into; the
// grammar itself needs no stack (bison's own is bounded, "memory exhausted").
func checkDepth(sql string) *SyntaxError {
	if len(sql) <= maxHeight {
		return nil
	}
	result, err := pgquery.Scan(sql)
	if err != nil {
		return nil //nolint:nilerr // the parser says it better
	}
	if treeHeight(result.Tokens) > maxHeight {
		return tooComplex()
	}
	return nil
}

// level is the inside of one pair of parentheses, brackets or CASE ... END.
type level struct {
	isCase bool
	item   int // height that the current list item may have
	most   int // of the items so far
	// between counts BETWEENs whose AND has not come yet: that AND makes no
	// list of its neighbours.
	between int
}

func (l *level) separate() { l.most, l.item = max(l.most, l.item), 0 }

func (l *level) height() int { return max(l.most, l.item) + 1 }

// heightGauge bounds the height of the tree of a text from above. Every token
// may add a level to the list item it stands in (1+1+1 leans left, NOT NOT NOT
// right), a closed pair of parentheses adds the height of its inside. Items
// between commas and semicolons are siblings, and so are the arms of AND and
// OR, which the grammar flattens, and those of CASE. Set operations and joins
// nest although commas and ANDs stand between them: all of a statement's are
// counted, wherever they are.
//
// Words may be labels ("SELECT a.end", "SELECT 1 case"). After a dot or AS
// they are taken as such. Elsewhere a label ends its item, so that nothing is
// lost if it is taken for an opening CASE (the level stays open and counts), a
// separator, or an END (which closes nothing but a CASE).
type heightGauge struct {
	levels  []level
	nesting int // joins and set operations of this statement
	atomic  bool
	highest int // of the statements before
}

func treeHeight(tokens []*pgquery.ScanToken) int {
	g := heightGauge{levels: []level{{}}}
	previous := pgquery.Token_NUL
	for _, t := range tokens {
		if t.Token == pgquery.Token_SQL_COMMENT || t.Token == pgquery.Token_C_COMMENT {
			continue
		}
		label := previous == pgquery.Token_ASCII_46 || previous == pgquery.Token_AS
		previous = t.Token
		g.token(t.Token, label)
		if g.levels[len(g.levels)-1].item > maxHeight || len(g.levels) > maxHeight {
			break
		}
	}
	return max(g.highest, g.total())
}

func (g *heightGauge) total() int {
	sum := g.nesting
	for i := range g.levels {
		sum += g.levels[i].height()
	}
	return sum
}

func (g *heightGauge) token(t pgquery.Token, label bool) {
	top := &g.levels[len(g.levels)-1]
	switch t {
	case pgquery.Token_ASCII_40, pgquery.Token_ASCII_91: // ( [
		g.levels = append(g.levels, level{})
		return
	case pgquery.Token_ASCII_41, pgquery.Token_ASCII_93: // ) ]
		g.pop(false)
		return
	case pgquery.Token_ASCII_44: // ,
		top.separate()
		return
	case pgquery.Token_ASCII_59: // ;
		top.separate()
		if len(g.levels) == 1 && !g.atomic {
			g.highest, g.nesting = max(g.highest, g.total()), 0
		}
		return
	case pgquery.Token_UNION, pgquery.Token_INTERSECT, pgquery.Token_EXCEPT, pgquery.Token_JOIN:
		g.nesting++
		top.separate()
		return
	case pgquery.Token_ATOMIC: // a routine's body may define a routine
		g.atomic = true
		g.nesting += 16
	}
	if !label && g.word(t, top) {
		return
	}
	top.item++
}

// word handles the words that open, close or separate; false for all others.
func (g *heightGauge) word(t pgquery.Token, top *level) bool {
	switch t {
	case pgquery.Token_CASE:
		g.levels = append(g.levels, level{isCase: true})
		return true
	case pgquery.Token_END_P:
		g.pop(true)
		return true
	case pgquery.Token_WHEN, pgquery.Token_THEN, pgquery.Token_ELSE:
		if top.isCase {
			top.separate()
			return true
		}
	case pgquery.Token_OR:
		top.separate()
		return true
	case pgquery.Token_BETWEEN:
		top.between++
	case pgquery.Token_AND:
		if top.between == 0 {
			top.separate()
			return true
		}
		top.between--
	}
	return false
}

// pop closes the innermost level if it is of that sort.
func (g *heightGauge) pop(isCase bool) {
	last := len(g.levels) - 1
	if last == 0 || g.levels[last].isCase != isCase {
		return
	}
	height := g.levels[last].height()
	g.levels = g.levels[:last]
	g.levels[last-1].item += height
}
