package gateway

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// declaredTests are the names of all tests of the repository.
func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
	declared := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, found := range declaration.FindAllSubmatch(source, -1) {
			declared[string(found[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return declared
}

var testName = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`)

// TestSecurityTableNamesRealTests: docs/security-tests.md promises tests by name; each must exist.
func TestSecurityTableNamesRealTests(t *testing.T) {
	table, err := os.ReadFile("../docs/security-tests.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := declaredTests(t)
	promised := testName.FindAllString(string(table), -1)
	if len(promised) < 30 {
		t.Errorf("the table names %d tests", len(promised))
	}
	for _, name := range promised {
		if !declared[name] {
			t.Errorf("%s does not exist", name)
		}
	}
}

// TestGuaranteesNameRealTests: every claim of docs/guarantees.md is held by tests, and they exist.
func TestGuaranteesNameRealTests(t *testing.T) {
	document, err := os.ReadFile("../docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := declaredTests(t)
	claims := 0
	for line := range strings.Lines(string(document)) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| ---") || strings.HasPrefix(line, "| Claim") {
			continue
		}
		claims++
		names := testName.FindAllString(line, -1)
		if len(names) == 0 {
			t.Errorf("no test holds this claim: %s", line)
		}
		for _, name := range names {
			if !declared[name] {
				t.Errorf("%s does not exist: %s", name, line)
			}
		}
	}
	if claims < 15 {
		t.Errorf("the document makes %d claims", claims)
	}
}
