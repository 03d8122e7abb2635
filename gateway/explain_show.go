package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgerrcode"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// What EXPLAIN shows: the gateway's own part, and the nodes' plans under it.

// explanation is the gateway's own part, named as FORMAT JSON names it.
type explanation struct {
	Nodes   []string
	AnyNode bool           `json:"Any Node,omitempty"` // another would have done as well
	Keys    []explainedKey `json:",omitempty"`
	// Reference are the reference tables: the same rows are on every node.
	Reference []string `json:",omitempty"`
	Commit    string
	Merge     string `json:",omitempty"`
	Combine   string `json:",omitempty"` // the query by which one node combines partial results
}

// explainedKey is one value that a shard key is held to, or, without one, a
// table of which the rows of all keys are looked at.
type explainedKey struct {
	Table  string
	Column string
	Value  *string `json:",omitempty"`
	Bucket *int    `json:",omitempty"`
	Node   string  `json:",omitempty"`
}

// maxExplainedKeys is how many key values the text names, each on a line. JSON
// has them all.
const maxExplainedKeys = 20

// showExplained makes the rows of the answer.
func (s *session) showExplained(x *execution, plans []nodePlan) ([]string, error) {
	own := s.explanationOf(x, plans)
	if x.st.ExplainFormat == "json" {
		text, err := own.json(plans)
		return []string{text}, err
	}
	lines := own.text()
	for i := range plans {
		plan := &plans[i]
		head := "Node " + plan.node
		if plan.rows >= 0 {
			head += fmt.Sprintf(" (%d of the rows)", plan.rows)
		}
		lines = append(lines, head)
		if plan.query != "" {
			lines = append(lines, indented("  Query: "+plan.query)...)
		}
		for _, line := range plan.lines {
			lines = append(lines, "  "+line)
		}
	}
	return lines, nil
}

func (s *session) explanationOf(x *execution, plans []nodePlan) *explanation {
	r := x.explained.route
	own := &explanation{AnyNode: r.anyNode}
	for i := range plans {
		own.Nodes = append(own.Nodes, plans[i].node)
	}
	for i := range r.keys {
		k := &r.keys[i]
		shown := explainedKey{Table: k.table.String(), Column: k.table.key().Name}
		if k.node != nil {
			shown.Value, shown.Bucket, shown.Node = &k.key, &k.bucket, k.node.Name()
		}
		own.Keys = append(own.Keys, shown)
	}
	for _, t := range r.references {
		own.Reference = append(own.Reference, t.String())
	}
	switch tracked := s.block != nil && s.block.t != nil && s.block.t.Tracked(); {
	case !r.wouldWrite:
		own.Commit = "nothing to commit, it only reads"
	case tracked || s.writers() > 1:
		own.Commit = "two phases"
	default:
		own.Commit = "one phase"
	}
	if r.multi() {
		own.Merge = x.mergeInWords(plans)
	}
	if x.plan != nil && x.plan.split.Aggregated {
		own.Combine = x.plan.final
	}
	return own
}

// mergeInWords says what is done with the nodes' answers, and where.
func (x *execution) mergeInWords(plans []nodePlan) string {
	const here = ", by the gateway"
	inner := x.st.Inner
	switch {
	case x.explained.route.reference != nil:
		return "none, the first node answers and the others must have done the same"
	case x.plan != nil && x.plan.split.Aggregated:
		return "partial results of all nodes, combined by node " + plans[0].node
	case x.plan != nil:
		words := "rows of one node after another"
		if len(x.plan.keys) > 0 {
			words = "sorted rows as a stream, by " + strings.Join(x.sortInWords(), ", ")
		}
		if x.plan.split.Offset != nil {
			words += ", then OFFSET"
		}
		if x.plan.split.Limit != nil {
			words += ", then LIMIT"
		}
		return words + here
	case inner.Kind == sqlparse.Select:
		return "rows of one node after another" + here
	case inner.Returning && x.parts != nil:
		return "rows in the order of VALUES, row counts added up" + here
	case inner.Returning:
		return "rows of one node after another, row counts added up" + here
	}
	return "row counts added up" + here
}

// sortInWords names what rows are merged by.
func (x *execution) sortInWords() []string {
	var words []string
	for i, key := range x.plan.keys {
		word := fmt.Sprintf("pgpact_sort_%d", i+1) // as the node's query calls it
		if key.column < x.plan.visible {
			word = string(x.combined.description.fields[key.column].Name)
		}
		if key.desc {
			word += " DESC"
		}
		switch {
		case key.nullsFirst && !key.desc:
			word += " NULLS FIRST"
		case !key.nullsFirst && key.desc:
			word += " NULLS LAST"
		}
		words = append(words, word)
	}
	return words
}

// text is the gateway's part for FORMAT TEXT.
func (own *explanation) text() []string {
	nodes := strings.Join(own.Nodes, ", ")
	if own.AnyNode {
		nodes = "any, for instance " + nodes
	}
	lines := []string{"pgpact", "  Nodes: " + nodes}
	values := 0
	for i := range own.Keys {
		k := &own.Keys[i]
		name := k.Table + "." + k.Column
		if k.Value == nil {
			lines = append(lines, "  Key: any "+name)
			continue
		}
		if values++; values <= maxExplainedKeys {
			line := fmt.Sprintf("  Key: %s = %s (bucket %d, node %s)", name, participant.QuoteLiteral(*k.Value), *k.Bucket, k.Node)
			lines = append(lines, indented(line)...)
		}
	}
	for _, name := range own.Reference {
		lines = append(lines, "  Reference: "+name+" (the same rows on every node)")
	}
	if more := values - maxExplainedKeys; more > 0 {
		lines = append(lines, fmt.Sprintf("  Key: and %d more values", more))
	}
	lines = append(lines, "  Commit: "+own.Commit)
	if own.Merge != "" {
		lines = append(lines, "  Merge: "+own.Merge)
	}
	if own.Combine != "" {
		lines = append(lines, indented("  Combine: "+own.Combine)...)
	}
	return lines
}

// indented breaks a text into lines, as a row of EXPLAIN is one line.
func indented(text string) []string { return strings.Split(text, "\n") }

// json is the whole document of FORMAT JSON: an array with one object. With one
// node that is the node's own, where programs that read plans look for "Plan";
// with several there is one such object for each under "Nodes". The nodes' own
// members pass as the bytes that they are.
func (own *explanation) json(plans []nodePlan) (string, error) {
	mine, err := marshal(own)
	if err != nil {
		return "", err
	}
	if len(plans) == 1 {
		members := `"pgpact":` + mine
		if plans[0].query != "" {
			query, err := marshal(plans[0].query)
			if err != nil {
				return "", err
			}
			members += `,"Query":` + query
		}
		return document(plans[0].lines, members)
	}
	var nodes []string
	for i := range plans {
		node, err := plans[i].json()
		if err != nil {
			return "", err
		}
		nodes = append(nodes, node)
	}
	return indentJSON(`[{"pgpact":` + mine + `,"Nodes":[` + strings.Join(nodes, ",") + `]}]`)
}

// json is one node's object.
func (plan *nodePlan) json() (string, error) {
	head := struct {
		Node  string
		Rows  *int   `json:",omitempty"`
		Query string `json:",omitempty"`
	}{Node: plan.node, Query: plan.query}
	if plan.rows >= 0 {
		head.Rows = &plan.rows
	}
	members, err := marshal(head)
	if err != nil {
		return "", err
	}
	text, err := document(plan.lines, strings.Trim(members, "{}"))
	return strings.Trim(text, "[] \n"), err
}

// document puts members in front of those of the object that a node has
// answered with, an array around it. A query that rules have rewritten to none
// or several has another number of objects: they become the member "Plans".
func document(lines []string, members string) (string, error) {
	text := strings.Join(lines, "\n")
	var objects []json.RawMessage
	if err := json.Unmarshal([]byte(text), &objects); err != nil {
		return "", sqlErrorf(pgerrcode.InternalError, "a node's plan is no JSON array: %v", err)
	}
	if len(objects) != 1 || !bytes.HasPrefix(objects[0], []byte("{")) || bytes.Equal(bytes.Trim(objects[0], "{} \n"), nil) {
		return indentJSON("[{" + members + `,"Plans":` + text + "}]")
	}
	return indentJSON("[{" + members + "," + string(objects[0][1:]) + "]")
}

// indentJSON lays a document out as Postgres does.
func indentJSON(text string) (string, error) {
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(text), "", "  "); err != nil {
		return "", err
	}
	return out.String(), nil
}

// marshal is json.Marshal with < and > as they are.
func marshal(v any) (string, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return strings.TrimSuffix(out.String(), "\n"), err
}
