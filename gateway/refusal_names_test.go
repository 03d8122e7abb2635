package gateway

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every refusal has a name of its own: what has none would be counted as one.
func TestRefusalsHaveNames(t *testing.T) {
	named := map[string]bool{}
	table, err := os.ReadFile("refusal_names.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^\t(refused\w+):`).FindAllStringSubmatch(string(table), -1) {
		named[found[1]] = true
	}
	files, err := parser.ParseDir(token.NewFileSet(), ".", func(info os.FileInfo) bool { return !strings.HasSuffix(info.Name(), "_test.go") }, 0) //nolint:staticcheck // no types are needed
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(files["gateway"], func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			if i < len(spec.Values) && isRefusal(spec.Values[i]) {
				declared++
				if !named[name.Name] {
					t.Errorf("%s has no name in refusal_names.go", name.Name)
				}
			}
		}
		return true
	})
	if declared < 50 {
		t.Errorf("only %d refusals found in the source", declared)
	}
	for kind, refusal := range refusedRelationKinds {
		if refusalNames[refusal] == "" {
			t.Errorf("the refusal of relations of kind %c has no name", kind)
		}
	}
	seen := map[string]bool{}
	for _, name := range refusalNames {
		if seen[name] {
			t.Errorf("two refusals are called %q", name)
		}
		seen[name] = true
	}
}

func isRefusal(value ast.Expr) bool {
	literal, ok := value.(*ast.CompositeLit)
	if !ok {
		return false
	}
	name, ok := literal.Type.(*ast.Ident)
	return ok && name.Name == "refusal"
}
