package sqlparse

import (
	"fmt"
	"sort"
	"strings"
)

// dump writes a statement's facts as short lines, the way the files in
// testdata/facts show them. What is at its zero value is left out.
func dump(s *Statement) string {
	var b strings.Builder
	dumpInto(&b, s, "")
	return b.String()
}

func dumpInto(b *strings.Builder, s *Statement, indent string) {
	line := func(format string, args ...any) {
		fmt.Fprintf(b, indent+format+"\n", args...)
	}
	f := s.Facts
	line("%s%s%s%s", f.Kind, word(f.Object != "", " "+f.Object), word(f.Analyze, " analyze"), word(f.ExplainFormat != "", " as "+f.ExplainFormat))
	for i, t := range f.Tables {
		name := t.Name
		if t.Schema != "" {
			name = t.Schema + "." + name
		}
		line("  table %d: %s%s%s%s", i, name, word(t.Alias != "", " as "+t.Alias), word(t.Target, " written"), word(i == f.Target, " (target)"))
	}
	for _, c := range f.Conditions {
		line("  %s = %s", columnName(c.Table, c.Candidates, c.Column), valueList(s, c.Values))
	}
	for _, j := range f.Joins {
		line("  %s = %s", columnName(j.LeftTable, j.LeftCandidates, j.LeftColumn), columnName(j.RightTable, j.RightCandidates, j.RightColumn))
	}
	for _, j := range f.OneWay {
		line("  %s -> %s", columnName(j.LeftTable, j.LeftCandidates, j.LeftColumn), columnName(j.RightTable, j.RightCandidates, j.RightColumn))
	}
	for _, c := range f.Changes {
		line("  %s", dumpChange(s, c))
	}
	if len(f.Functions) > 0 {
		var names []string
		for _, fn := range f.Functions {
			names = append(names, strings.TrimPrefix(fn.Schema+"."+fn.Name, "."))
		}
		line("  functions %s", strings.Join(names, " "))
	}
	if flags := dumpFlags(f); flags != "" {
		line("  %s", flags)
	}
	for _, lock := range f.Locks {
		line("  locks%s%s %s", word(lock.Share, " for share"), word(!lock.Waits, " without waiting"), strings.Join(lock.Of, ", "))
	}
	if r := f.Reference; r != nil {
		line("  reference%s%s%s", word(r.Off, " off"), word(r.SQL != "", " ["+r.SQL+"]"), word(r.Wrong != "", ": "+r.Wrong))
	}
	if t := f.Transaction; t != nil {
		line("  transaction%s", dumpTransaction(t))
	}
	if st := f.Setting; st != nil {
		line("  setting %s", dumpSetting(s, st))
	}
	if f.Prepared != "" {
		line("  name %s", f.Prepared)
	}
	if len(f.ExecuteArgs) > 0 {
		line("  args %s", valueList(s, f.ExecuteArgs))
	}
	if f.Direction != "" {
		line("  %s %d", f.Direction, f.Count)
	}
	if f.Copy != nil {
		dumpCopy(line, f.Copy)
		if f.Copy.Query != nil {
			line("  query [%s]:", f.Copy.Query.SQL)
			dumpInto(b, f.Copy.Query, indent+"    ")
		}
	}
	if f.Inner != nil {
		line("  inner [%s]:", f.Inner.SQL)
		dumpInto(b, f.Inner, indent+"    ")
	}
}

func word(condition bool, s string) string {
	if condition {
		return s
	}
	return ""
}

func columnName(table int, candidates []int, column string) string {
	if table >= 0 {
		return fmt.Sprintf("%d.%s", table, column)
	}
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(candidates), "[]"), " ", "|") + "." + column
}

func valueList(s *Statement, values []Value) string {
	var out []string
	for _, v := range values {
		out = append(out, dumpValue(s, v))
	}
	return strings.Join(out, ", ")
}

func dumpValue(s *Statement, v Value) string {
	var text string
	switch v.Kind {
	case ValueLiteral:
		text = s.Text(v)
		if !v.Numeric {
			text = "'" + text + "'"
		}
	case ValueParam:
		text = fmt.Sprintf("$%d", v.Param)
	case ValueNull:
		text = "NULL"
	case ValueDefault:
		text = "DEFAULT"
	case ValueOther:
		text = "?"
	}
	return text + word(v.Cast != "", "::"+v.Cast) + word(v.Array, "[]") + word(v.Listed, "!")
}

func dumpChange(s *Statement, c Change) string {
	out := fmt.Sprintf("%s of %d", c.Kind, c.Table)
	if c.Assigned != nil {
		out += " sets " + strings.Join(c.Assigned, " ")
	}
	if c.InsertColumns != nil {
		out += " columns " + strings.Join(c.InsertColumns, " ")
	}
	for _, row := range c.InsertRows {
		out += " (" + valueList(s, row) + ")"
	}
	out += word(c.InsertSelect, " select") + word(c.DefaultValues, " defaults") + word(c.OnConflict, " conflict")
	if on := c.Conflict; on != nil {
		out += word(on.Columns != nil, "("+strings.Join(on.Columns, " ")+")") + word(on.Expressions, "(?)") +
			word(on.Constraint != "", " constraint="+on.Constraint) + word(on.Update, " update")
	}
	if c.Source != nil {
		out += " from"
	}
	for _, column := range c.Source {
		switch {
		case column.Star:
			out += fmt.Sprintf(" %d.*", column.Table)
		case column.Column != "":
			out += " " + columnName(column.Table, column.Candidates, column.Column)
		default:
			out += " " + dumpValue(s, column.Value)
		}
	}
	return out
}

func dumpFlags(f *Facts) string {
	flags := []string{
		word(f.Writes, "writes"), word(f.Locking, "locking"), word(f.Returns, "returns"), word(f.Returning, "returning"),
		word(f.Subquery, "subquery"), word(f.CTE, "cte"), word(f.Join, "join"), word(f.SetOperation, "setop"),
		word(f.GroupBy, "group"), word(f.Having, "having"), word(f.Distinct, "distinct"), word(f.OrderBy, "order"),
		word(f.Limit, "limit"), word(f.Window, "window"), word(f.Temp, "temp"), word(f.Unlogged, "unlogged"),
		word(f.Chooses, "chooses"), word(f.ChoosesInside, "inside"), word(f.SessionValue != "", "session-value="+f.SessionValue),
		word(f.Cursor.Hold, "hold"), word(f.Cursor.Binary, "binary"), word(f.Cursor.Scroll, "scroll"), word(f.Cursor.NoScroll, "noscroll"),
		word(f.Cursor.Insensitive, "insensitive"), word(f.All, "all"), word(f.Concurrently, "concurrently"),
		word(f.CurrentOf != "", "current-of="+f.CurrentOf), word(f.Params > 0, fmt.Sprintf("params=%d", f.Params)),
	}
	return strings.Join(strings.Fields(strings.Join(flags, " ")), " ")
}

func dumpTransaction(t *TransactionControl) string {
	out := word(t.Start, " start") + word(t.Isolation != "", " isolation="+t.Isolation)
	if t.ReadOnly != nil {
		out += fmt.Sprintf(" readonly=%v", *t.ReadOnly)
	}
	if t.Deferrable != nil {
		out += fmt.Sprintf(" deferrable=%v", *t.Deferrable)
	}
	return out + word(t.Chain, " chain") + word(t.Savepoint != "", " savepoint="+t.Savepoint) +
		word(t.GID != "", " gid="+t.GID) + word(t.Snapshot != "", " snapshot="+t.Snapshot)
}

func dumpSetting(s *Statement, st *Setting) string {
	out := st.Name + word(st.Local, " local") + word(st.Default, " default") + word(st.All, " all") +
		word(st.Current, " current") + word(st.Transaction, " transaction") + word(st.Characteristics, " characteristics") +
		word(st.Deferred, " deferred") + word(st.Constraints != nil, " "+strings.Join(st.Constraints, ","))
	return out + word(st.Value != nil, " = "+valueList(s, st.Value)) + word(st.ValueText != "", " ["+st.ValueText+"]")
}

func dumpCopy(line func(string, ...any), c *Copy) {
	var options []string
	for k, v := range c.Options {
		options = append(options, k+"="+v)
	}
	sort.Strings(options)
	line("  copy%s%s%s%s columns=%s options=%s", word(c.From, " from"), word(c.Stdio, " stdio"), word(c.Program, " program"),
		word(c.File != "", " "+c.File), strings.Join(c.Columns, ","), strings.Join(options, ","))
}
