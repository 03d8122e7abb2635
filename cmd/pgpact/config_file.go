package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// origin is where a value was written: a place in the file, or a variable.
type origin struct {
	file         string
	line, column int
	variable     string // of the environment; wins over the place
}

func (o origin) String() string {
	if o.variable != "" {
		return "environment variable " + o.variable
	}
	if o.line == 0 {
		return o.file
	}
	return fmt.Sprintf("%s:%d:%d", o.file, o.line, o.column)
}

// configError is one thing wrong with the configuration.
type configError struct {
	at  origin
	key string // empty: the file as a whole
	msg string
}

func (e *configError) Error() string {
	if e.key == "" {
		return e.at.String() + ": " + e.msg
	}
	return e.at.String() + ": " + e.key + ": " + e.msg
}

// loadConfig reads the file, then the environment, and checks the whole. All
// that is wrong is reported at once, joined: who edits a file wants the list.
func loadConfig(path string, environ []string) (*Config, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseConfig(path, source, environ)
}

func parseConfig(path string, source []byte, environ []string) (*Config, error) {
	cfg := defaultConfig()
	cfg.file = path
	r := &configReader{cfg: cfg, environ: environment(environ)}
	if r.readFile(source) {
		r.readEnvironment()
		r.checkWhole()
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return cfg, nil
}

// configReader gathers a configuration and what is wrong with it.
type configReader struct {
	cfg     *Config
	environ map[string]string
	errs    []error
}

func (r *configReader) refuse(at origin, key, format string, args ...any) {
	r.errs = append(r.errs, &configError{at: at, key: key, msg: fmt.Sprintf(format, args...)})
}

func (r *configReader) at(t *token.Token) origin {
	o := origin{file: r.cfg.file}
	if t != nil && t.Position != nil {
		o.line, o.column = t.Position.Line, t.Position.Column
	}
	return o
}

// readFile walks the tree rather than decoding it into a struct: only the tree
// knows the place of every key, also of those whose value is merely unwise.
func (r *configReader) readFile(source []byte) bool {
	file, err := parser.ParseBytes(source, 0)
	if err != nil {
		var syntax interface {
			GetToken() *token.Token
			GetMessage() string
		}
		if errors.As(err, &syntax) {
			r.refuse(r.at(syntax.GetToken()), "", "%s", syntax.GetMessage())
		} else {
			r.refuse(origin{file: r.cfg.file}, "", "not YAML")
		}
		return false
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			r.refuse(r.at(doc.Body.GetToken()), "", "a second YAML document: the configuration is one")
			return false
		}
		body = doc.Body
	}
	if body == nil {
		r.refuse(origin{file: r.cfg.file}, "", "the file is empty; `pgpact config example` prints one to start from")
		return false
	}
	pairs, ok := pairsOf(body)
	if !ok {
		r.refuse(r.at(body.GetToken()), "", "must be keys and values, like `slots: 64`")
		return false
	}
	r.readPairs("", pairs)
	return true
}

// pairsOf returns the pairs of a mapping.
func pairsOf(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// readPairs reads a mapping whose keys begin with prefix.
func (r *configReader) readPairs(prefix string, pairs []*ast.MappingValueNode) {
	fields := r.cfg.fields()
	for _, pair := range pairs {
		name := pair.Key.GetToken().Value
		key := prefix + name
		if read, ok := map[string]func(*ast.MappingValueNode){
			"nodes": r.readNodes, "rules": r.readRules, "verifiers": r.readVerifiers,
		}[key]; ok {
			read(pair)
			continue
		}
		if f, ok := findField(fields, key); ok {
			r.readValue(f, key, pair)
			continue
		}
		if hasPrefix(fields, key+".") {
			inner, ok := pairsOf(pair.Value)
			if !ok {
				r.refuse(r.at(pair.Key.GetToken()), key, "must be a mapping, with keys of its own on the lines below")
				continue
			}
			r.readPairs(key+".", inner)
			continue
		}
		r.refuse(r.at(pair.Key.GetToken()), key, "unknown key%s", suggestion(key, fields))
	}
}

func findField(fields []field, key string) (field, bool) {
	for _, f := range fields {
		if f.key == key {
			return f, true
		}
	}
	return field{}, false
}

func hasPrefix(fields []field, prefix string) bool {
	for _, f := range fields {
		if strings.HasPrefix(f.key, prefix) {
			return true
		}
	}
	return false
}

// readValue sets one key from the file.
func (r *configReader) readValue(f field, key string, pair *ast.MappingValueNode) {
	at := r.at(pair.Value.GetToken())
	if _, missing := pair.Value.(*ast.NullNode); missing { // it has no place of its own
		at = r.at(pair.Key.GetToken())
	}
	value, err := scalar(pair.Value)
	if items, isList := pair.Value.(*ast.SequenceNode); isList && holdsNames(key) {
		value, err = r.joinList(key, items)
	}
	if err != nil {
		r.refuse(at, key, "%v", err)
		return
	}
	if f.secret {
		if value, err = r.expand(value); err != nil {
			r.refuse(at, key, "%v", err)
			return
		}
	}
	if err := f.set(value); err != nil {
		r.refuse(at, key, "%v", err)
		return
	}
	r.cfg.origins[key] = at
}

// holdsNames tells whether the value of a key may be a list of names.
func holdsNames(key string) bool {
	return key == "users" || strings.HasPrefix(key, "rules[") && (strings.HasSuffix(key, "].user") || strings.HasSuffix(key, "].database"))
}

// joinList makes of a YAML list the text that the environment would hold, so
// that both go through one setter.
func (r *configReader) joinList(key string, items *ast.SequenceNode) (string, error) {
	var values []string
	for _, item := range items.Values {
		value, err := scalar(item)
		if err != nil {
			return "", err
		}
		if value == "" || strings.Contains(value, ",") {
			return "", fmt.Errorf("%q: a name here is not empty and holds no comma", value)
		}
		values = append(values, value)
	}
	return strings.Join(values, ","), nil
}

// scalar is the text of a plain value, as it was written: 010 stays 010, and
// what it means is up to the key.
func scalar(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n"), nil
	case *ast.NullNode:
		return "", errors.New(`has no value; leave the key out for the default`)
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode, *ast.AliasNode, *ast.AnchorNode, *ast.TagNode:
		return "", errors.New("must be a single plain value")
	}
	return n.GetToken().Value, nil
}

// readNodes reads the list of nodes.
func (r *configReader) readNodes(pair *ast.MappingValueNode) {
	at := r.at(pair.Key.GetToken())
	r.cfg.origins["nodes"] = at
	items, ok := pair.Value.(*ast.SequenceNode)
	if !ok {
		r.refuse(at, "nodes", "must be a list: lines that begin with `- name: a`")
		return
	}
	for i, item := range items.Values {
		prefix := fmt.Sprintf("nodes[%d]", i)
		pairs, ok := pairsOf(item)
		if !ok {
			r.refuse(r.at(item.GetToken()), prefix, "must have the keys name and url")
			continue
		}
		r.readNode(prefix, r.at(pairs[0].Key.GetToken()), pairs)
	}
}

func (r *configReader) readNode(prefix string, at origin, pairs []*ast.MappingValueNode) {
	var node NodeConfig
	seen := len(r.errs)
	fields := node.nodeFields()
	given := map[string]bool{}
	for _, pair := range pairs {
		name := pair.Key.GetToken().Value
		given[name] = true
		f, ok := findField(fields, name)
		if !ok {
			r.refuse(r.at(pair.Key.GetToken()), prefix+"."+name, "unknown key%s", suggestion(name, fields))
			continue
		}
		r.readValue(f, prefix+"."+name, pair)
	}
	for _, f := range fields {
		// A url may still come from the environment.
		if !given[f.key] && f.key != "url" {
			r.refuse(at, prefix+"."+f.key, "is missing")
		}
	}
	r.cfg.origins[prefix] = at
	// A node whose entry is already refused would only cause further complaints,
	// but it counts: the ones behind it keep their index.
	if len(r.errs) > seen && node.Name == "" {
		node.Name = fmt.Sprintf("#%d", len(r.cfg.Nodes)+1)
	}
	r.cfg.Nodes = append(r.cfg.Nodes, node)
}

// suggestion names the known key that an unknown one was probably meant to be.
func suggestion(key string, fields []field) string {
	best, bestDistance := "", len(key)/3+2
	for _, f := range fields {
		if d := editDistance(key, f.key); d < bestDistance {
			best, bestDistance = f.key, d
		}
	}
	if best == "" {
		return "; `pgpact config example` shows all of them"
	}
	return "; did you mean " + best + "?"
}

// editDistance is Levenshtein's: how many letters must be changed, added or
// removed.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
