package sqlparse

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// ReferenceConstraint is the name of the constraint, CHECK (true), by which a
// table is known as a reference table: the mark is a part of the table. It is
// dropped, renamed, dumped and copied with it, and any Postgres keeps it.
const ReferenceConstraint = "pgpact_reference"

// referenceMark is the mark as CREATE TABLE says it.
const referenceMark = "CONSTRAINT " + ReferenceConstraint + " CHECK (true)"

// ReferenceOption is a statement that says pgpact.reference as a storage
// parameter, which Postgres does not know: WITH (pgpact.reference) of CREATE
// TABLE, SET or RESET (pgpact.reference) of ALTER TABLE.
type ReferenceOption struct {
	// SQL says the same so that Postgres understands it: with the mark itself.
	// Places behind the mark are others than in the client's text.
	SQL string
	// Wrong is why there is no such text.
	Wrong string
	// Off: RESET, or the value false.
	Off bool
}

// isReferenceOption tells whether a storage parameter is ours.
func isReferenceOption(d *pgquery.DefElem) bool {
	return d.GetDefnamespace() == "pgpact" && d.GetDefname() == "reference"
}

// createReference reads WITH (pgpact.reference) of CREATE TABLE.
func (c *collector) createReference(s *pgquery.CreateStmt) {
	for _, n := range s.Options {
		if d := n.GetDefElem(); isReferenceOption(d) {
			option := &ReferenceOption{}
			on, valid := switched(d.Arg)
			switch option.Off = !on; {
			case !valid:
				option.Wrong = "its value must be a Boolean"
			case s.OfTypename != nil || s.Partbound != nil || len(s.InhRelations) > 0:
				option.Wrong = "the table must have columns of its own"
			default:
				option.SQL = markedCreate(c.text, on)
			}
			if option.SQL == "" && option.Wrong == "" {
				option.Wrong = "the statement cannot be rewritten"
			}
			c.facts.Reference = option
			return
		}
	}
}

// alterReference reads SET (pgpact.reference) and RESET of ALTER TABLE.
func (c *collector) alterReference(s *pgquery.AlterTableStmt) {
	for _, n := range s.Cmds {
		cmd := n.GetAlterTableCmd()
		for _, item := range cmd.GetDef().GetList().GetItems() {
			d := item.GetDefElem()
			if !isReferenceOption(d) {
				continue
			}
			option := &ReferenceOption{Off: cmd.Subtype == pgquery.AlterTableType_AT_ResetRelOptions}
			on, valid := switched(d.Arg)
			option.Off = option.Off || !on
			switch {
			case !valid:
				option.Wrong = "its value must be a Boolean"
			case len(s.Cmds) > 1 || len(cmd.GetDef().GetList().GetItems()) > 1:
				option.Wrong = "it must stand alone in ALTER TABLE"
			default:
				option.SQL = markedAlter(c.text, option.Off)
			}
			if option.SQL == "" && option.Wrong == "" {
				option.Wrong = "the statement cannot be rewritten"
			}
			c.facts.Reference = option
			return
		}
	}
}

// switched reads an option's value as Postgres reads a Boolean storage
// parameter; none means on.
func switched(n *pgquery.Node) (on, valid bool) {
	text := optionText(n)
	if t := n.GetTypeName(); t != nil { // a bare word
		_, text = qualified(t.Names)
	}
	switch strings.ToLower(text) {
	case "true", "on", "yes", "1":
		return true, true
	case "false", "off", "no", "0":
		return false, true
	}
	return false, false
}

// markedCreate takes the option out of CREATE TABLE, by the places of its
// tokens, and puts the mark behind the columns. It is "" if they are not where
// they should be.
func markedCreate(text string, on bool) string {
	tokens := scanTokens(text)
	open := next(tokens, 0, pgquery.Token_ASCII_40)
	if open < 0 {
		return ""
	}
	closing := matching(tokens, open)
	if closing < 0 {
		return ""
	}
	with := closing + 1
	for ; ; with++ {
		if with = next(tokens, with, pgquery.Token_WITH); with < 0 || with+1 >= len(tokens) {
			return ""
		}
		if tokens[with+1].Token == pgquery.Token_ASCII_40 {
			break
		}
	}
	end := matching(tokens, with+1)
	if end < 0 {
		return ""
	}
	options := withoutReference(text, tokens[with+2:end])
	if options != "" {
		options = text[tokens[with].Start:tokens[with+2].Start] + options + ")"
	}
	mark := ""
	if on {
		if mark = referenceMark; closing > open+1 {
			mark = ", " + mark
		}
	}
	at := tokens[closing].Start
	return text[:at] + mark + text[at:tokens[with].Start] + options + text[tokens[end].End:]
}

// withoutReference are the other options of a list.
func withoutReference(text string, tokens []*pgquery.ScanToken) string {
	var kept []string
	depth, first := 0, 0
	for i := 0; i <= len(tokens); i++ {
		if i < len(tokens) {
			switch tokens[i].Token {
			case pgquery.Token_ASCII_40:
				depth++
			case pgquery.Token_ASCII_41:
				depth--
			}
			if depth > 0 || tokens[i].Token != pgquery.Token_ASCII_44 {
				continue
			}
		}
		if item := tokens[first:i]; len(item) > 0 {
			if namespace := text[item[0].Start:item[0].End]; len(item) < 3 || tokens[first+1].Token != pgquery.Token_ASCII_46 ||
				!strings.EqualFold(namespace, "pgpact") && namespace != `"pgpact"` {
				kept = append(kept, text[item[0].Start:item[len(item)-1].End])
			}
		}
		first = i + 1
	}
	return strings.Join(kept, ", ")
}

// markedAlter puts adding or dropping the mark in the place of SET or RESET.
func markedAlter(text string, off bool) string {
	tokens := scanTokens(text)
	if len(tokens) < 3 {
		return ""
	}
	open := next(tokens, 0, pgquery.Token_ASCII_40)
	if open < 1 || tokens[open-1].Token != pgquery.Token_SET && tokens[open-1].Token != pgquery.Token_RESET {
		return ""
	}
	end := matching(tokens, open)
	if end < 0 {
		return ""
	}
	action := "ADD " + referenceMark
	if off {
		action = "DROP CONSTRAINT " + ReferenceConstraint
	}
	return text[:tokens[open-1].Start] + action + text[tokens[end].End:]
}

// next is the first token of the kind at or behind a place, -1 for none.
func next(tokens []*pgquery.ScanToken, from int, kind pgquery.Token) int {
	for i := from; i >= 0 && i < len(tokens); i++ {
		if tokens[i].Token == kind {
			return i
		}
	}
	return -1
}

// RowHash is a statement that writes with one more column behind those that it
// returns: a hash of the whole row that it has written or deleted.
//
// text ends with the statement: nothing but a semicolon, white space and
// comments stands behind it.
func (s *Statement) RowHash(text string) (string, bool) {
	at := strings.LastIndex(text, s.SQL)
	if at < 0 || s.Target < 0 {
		return "", false
	}
	name := s.Tables[s.Target].Alias
	if name == "" {
		name = s.Tables[s.Target].Name
	}
	joint := "\nRETURNING "
	if s.Returning {
		joint = ",\n"
	}
	return text[:at+len(s.SQL)] + joint + RowHashOf(name), true
}

// RowHashOf is the expression that hashes a row of what goes by the name.
func RowHashOf(name string) string {
	return `pg_catalog.hashtextextended(ROW("` + strings.ReplaceAll(name, `"`, `""`) + `".*)::pg_catalog.text, 0)`
}

// Expression reads an expression, such as a column's default, and returns the
// facts of a SELECT of nothing else.
func Expression(text string) (*Facts, error) {
	statements, _, err := parse("SELECT " + text)
	if err != nil {
		return nil, err
	}
	if len(statements) != 1 {
		return nil, &SyntaxError{Message: "not one expression"}
	}
	return statements[0].Facts, nil
}
