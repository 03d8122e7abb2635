package drivers

import (
	"fmt"
	"sort"
	"strings"
	"testing"
)

// columns are the sections every driver is asked for, in the order of the table; doc.go says what they do.
var columns = []string{
	"connect", "parameters", "prepared", "transfer", "check", "savepoint", "batch", "cursor", "copy", "cancel", "errors", "reconnect", "introspect",
}

// outcome is what became of one section.
type outcome struct {
	equal          bool
	plain, gateway string
}

// result is what became of one driver.
type result struct {
	driver, version string
	sections        map[string]outcome
	rows            []string // what is wrong in the tables afterwards
	rowsCompared    bool     // also with those of the plain server
}

// known finds a difference on the list.
func known(driver, section string) *knownDifference {
	for _, candidate := range acceptedDifferences() {
		if (candidate.driver == "" || candidate.driver == driver) && (candidate.section == "" || candidate.section == section) {
			return &candidate
		}
	}
	return nil
}

// judge fails the test for every difference that is not accepted, and for every accepted one that is none.
func (r result) judge(t *testing.T) {
	t.Helper()
	for _, section := range r.order() {
		o, listed := r.sections[section], known(r.driver, section)
		switch {
		case o.equal && listed != nil:
			t.Errorf("section %s is the same now: take it off the list in accepted_test.go (%s)", section, listed.reason)
		case !o.equal && listed != nil:
			t.Logf("section %s differs, as accepted (%s; - plain, + gateway):\n%s", section, listed.reason, difference(o.plain, o.gateway))
		case !o.equal:
			t.Errorf("section %s differs (- plain, + gateway):\n%s", section, difference(o.plain, o.gateway))
		}
	}
	if len(r.rows) > 0 {
		t.Errorf("the rows afterwards (%d lines):\n%s", len(r.rows), strings.Join(r.rows[:min(len(r.rows), 20)], "\n"))
	}
}

// sameRows says that the script must have left the same rows: no section that writes did something else.
func (r result) sameRows() bool {
	for section, o := range r.sections {
		if listed := known(r.driver, section); !o.equal && (listed == nil || !listed.readsOnly) {
			return false
		}
	}
	return true
}

// difference shows two texts line by line, what only one of them has marked by - (plain) or + (gateway).
func difference(plain, gateway string) string {
	a, b := strings.Split(plain, "\n"), strings.Split(gateway, "\n")
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	common[len(a)] = make([]int, len(b)+1)
	for i := len(a) - 1; i >= 0; i-- {
		common[i] = make([]int, len(b)+1)
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var text strings.Builder
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			fmt.Fprintf(&text, "- %s\n", a[i])
			i++
		default:
			fmt.Fprintf(&text, "+ %s\n", b[j])
			j++
		}
	}
	return text.String()
}

// order is that of the columns, then whatever else was printed.
func (r result) order() []string {
	var names, others []string
	known := map[string]bool{}
	for _, column := range columns {
		known[column] = true
		if _, has := r.sections[column]; has {
			names = append(names, column)
		}
	}
	for section := range r.sections {
		if !known[section] {
			others = append(others, section)
		}
	}
	sort.Strings(others)
	return append(names, others...)
}

// mark is one cell: "ok", "differs" with the number of its reason, or "–" where the driver has nothing like it.
func (r result) mark(section string) string {
	o, has := r.sections[section]
	switch {
	case !has:
		return "–"
	case o.equal:
		return "ok"
	default:
		return "**differs**"
	}
}

// table is the result in Markdown.
func table(all []result) string {
	var text strings.Builder
	fmt.Fprintf(&text, "| driver | version | %s | rows |\n|---|---|%s---|\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, r := range all {
		fmt.Fprintf(&text, "| %s | %s |", r.driver, r.version)
		for _, column := range columns {
			fmt.Fprintf(&text, " %s |", r.mark(column))
		}
		rows := "ok"
		if len(r.rows) > 0 {
			rows = "**wrong**"
		} else if !r.rowsCompared {
			rows = "(ok)"
		}
		fmt.Fprintf(&text, " %s |\n", rows)
	}
	return text.String()
}

// document is docs/compatibility.md. Nothing in it depends on the run but the results and the versions, so that a run that finds the same
// leaves the file as it was.
func document(all []result) string {
	var text strings.Builder
	text.WriteString(`# Drivers

Written by the test run (` + "`make drivers`" + `, package integration/drivers); do not edit.

Each driver ran one script against a plain PostgreSQL server and against the gateway with two nodes. **ok**: it printed the same, to the
letter, errors included. **rows**: afterwards the nodes together held exactly the rows of the plain server, each on its own node, and nothing
was left prepared; **(ok)**: each on its own node and nothing left prepared, but not compared, because a section did something else. **–**: the
driver has nothing of the kind.

`)
	text.WriteString(table(all))
	text.WriteString(`
What the columns mean: **connect** in the driver's default way; **parameters** of int, bigint, text, uuid, numeric, timestamptz, bytea, json,
null and arrays, in and out; **prepared** statements used again with keys of both nodes; **transfer** between the nodes, committed; **check**: one
that a constraint refuses (23514) and the failed block after it; **savepoint** recovery; **batch** or pipeline; **cursor** or fetch size;
**copy** in and out; **cancel** of a running statement (57014); the fields of **errors** and notices; **reconnect**; **introspect**: what an ORM
or a shell asks about tables. psql was also tried on a terminal: prompts, tab completion, Ctrl-C.
`)
	text.WriteString(differences(all))
	return text.String()
}

// differences lists what is not equal, by reason, because many drivers share one.
func differences(all []result) string {
	var reasons []string
	where := map[string][]string{}
	for _, r := range all {
		for _, section := range r.order() {
			if r.sections[section].equal {
				continue
			}
			reason := "A defect, not accepted: the test fails."
			if listed := known(r.driver, section); listed != nil {
				reason = listed.reason
			}
			if where[reason] == nil {
				reasons = append(reasons, reason)
			}
			where[reason] = append(where[reason], r.driver+" ("+section+")")
		}
	}
	if len(reasons) == 0 {
		return ""
	}
	var text strings.Builder
	text.WriteString("\n## Differences\n\n")
	for _, reason := range reasons {
		fmt.Fprintf(&text, "- %s\n  %s\n", reason, strings.Join(where[reason], ", "))
	}
	return text.String()
}
