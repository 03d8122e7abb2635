package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,CgoFiles", Module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.String())
	}
	var all []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles)+len(p.CgoFiles) > 0 {
			all = append(all, p)
		}
	}
}

// Tests may import what helps them; this is about what is built.
func TestTable(t *testing.T) {
	all := packages(t)
	used := map[string]bool{}
	for _, p := range all {
		name := strings.TrimPrefix(p.ImportPath, Module+"/")
		rule, ok := ruleFor(name)
		if !ok {
			t.Errorf("package %s is not in the table of internal/imports: say there what it may import, and why", name)
			continue
		}
		used[rule.Package] = true
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles) {
			for _, path := range importsOf(t, filepath.Join(p.Dir, file)) {
				if err := rule.judge(file, path); err != nil {
					t.Errorf("%s/%s: %v", name, file, err)
				}
			}
		}
	}
	for _, rule := range Table() {
		// The rooms that must be there; the others may go.
		if !used[rule.Package] {
			t.Errorf("the table has a rule for %s, and there is no such package", rule.Package)
		}
	}
}

func importsOf(t *testing.T, path string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, spec := range f.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, `"`))
	}
	return paths
}

func ruleFor(name string) (Rule, bool) {
	for _, rule := range Table() {
		if matches(rule.Package, name) {
			return rule, true
		}
	}
	return Rule{}, false
}

// judge says whether file may import path.
func (r Rule) judge(file, path string) error {
	for narrowed, files := range r.Files {
		if within(narrowed, path) && !slices.Contains(files, file) {
			return fmt.Errorf("imports %s, which is for %v only: %s", path, files, r.Why)
		}
	}
	if ours, ok := strings.CutPrefix(path, Module+"/"); ok {
		if !slices.ContainsFunc(r.Ours, func(pattern string) bool { return matches(pattern, ours) }) {
			return fmt.Errorf("imports our %s: %s", ours, r.Why)
		}
		return nil
	}
	// A dot in the first element is what modules have and the standard library
	// has not.
	first, _, _ := strings.Cut(path, "/")
	if strings.Contains(first, ".") && !slices.ContainsFunc(r.Others, func(module string) bool { return within(module, path) }) {
		return fmt.Errorf("imports %s: %s", path, r.Why)
	}
	return nil
}

func within(module, path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func matches(pattern, name string) bool {
	prefix, all := strings.CutSuffix(pattern, "...")
	return pattern == name || all && (strings.HasPrefix(name, prefix) || name+"/" == prefix)
}

func TestConnectors(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, Module+"/")
		allowed, held := Connectors()[name]
		if !held {
			continue
		}
		found := 0
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if !connects(f) {
				continue
			}
			found++
			if !slices.Contains(allowed, file) {
				t.Errorf("%s/%s makes connections; in this package only %v may", name, file, allowed)
			}
		}
		if found < len(allowed) {
			t.Errorf("%s: of %v only %d make connections", name, allowed, found)
		}
	}
}

// connects tells whether a file calls pgconn.Connect, ConnectConfig or
// ConnectWithOptions.
func connects(f *ast.File) bool {
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := selector.X.(*ast.Ident); ok && x.Name == "pgconn" && strings.HasPrefix(selector.Sel.Name, "Connect") &&
			!strings.HasSuffix(selector.Sel.Name, "Error") {
			found = true
		}
		return true
	})
	return found
}

// The test itself can fail: these imports are refused, each for its rule.
func TestJudge(t *testing.T) {
	for _, test := range []struct {
		name, file, path string
		allowed          bool
	}{
		{"gateway", "query.go", Module + "/sqlparse", true},
		{"gateway", "query.go", Module + "/migrations", false},
		{"gateway", "frontend.go", psqlWire, true},
		{"gateway", "listener.go", psqlWire, false},
		{"gateway", "query.go", pgQuery, false},
		{"coordinator", "commit.go", Module + "/participant", true},
		{"coordinator", "commit.go", Module + "/gateway", false},
		{"coordinator", "commit.go", Module + "/sqlparse", false},
		{"participant", "conn.go", Module + "/coordinator", false},
		{"participant", "conn.go", Module + "/internal/pgwire", true},
		{"participant", "conn.go", pgx, false},
		{"gateway", "observer.go", Module + "/internal/metrics", false},
		{"coordinator", "observer.go", prom + "/prometheus", false},
		{"internal/metrics", "metrics.go", prom + "/prometheus", true},
		{"internal/metrics", "metrics.go", pgx, false},
		{"gateway", "trace.go", otelTrace, true},
		{"gateway", "query.go", otelTrace, false},
		{"gateway", "trace.go", otel + "/sdk/trace", false},
		{"coordinator", "commit.go", otelTrace, false},
		{"sqlparse", "parse.go", Module + "/participant", false},
		{"sqlparse", "parse.go", pgQuery, true},
		{"sqlparse", "parse.go", "net", true},
		{"migrations", "migrate.go", Module + "/coordinator", false},
		{"cmd/pgpact", "serve.go", Module + "/internal/pgserver", true},
		{"cmd/pgpact", "serve.go", goose, false},
		{"internal/pgserver/pgservertest", "x.go", Module + "/internal/pgserver", true},
		{"internal/pgserver", "x.go", Module + "/gateway", false},
	} {
		rule, ok := ruleFor(test.name)
		if !ok {
			t.Errorf("no rule for %s", test.name)
			continue
		}
		if err := rule.judge(test.file, test.path); (err == nil) != test.allowed {
			t.Errorf("%s/%s imports %s: %v", test.name, test.file, test.path, err)
		}
	}
	if _, ok := ruleFor("gatewayx"); ok {
		t.Error("gatewayx has a rule")
	}
}
