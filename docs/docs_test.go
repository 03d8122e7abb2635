// Package docs tests the pages of this directory: what they refer to is there.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fence = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	code  = regexp.MustCompile("`[^`\n]*`")
	link  = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	title = regexp.MustCompile(`(?m)^#+ +(.+)$`)
)

// anchor is GitHub's name for a heading.
func anchor(heading string) string {
	var out strings.Builder
	for _, c := range strings.ToLower(heading) {
		switch {
		case c == ' ':
			out.WriteByte('-')
		case c == '-' || c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c):
			out.WriteRune(c)
		}
	}
	return out.String()
}

func anchors(t *testing.T, path string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, heading := range title.FindAllStringSubmatch(fence.ReplaceAllString(read(t, path), ""), -1) {
		found[anchor(heading[1])] = true
	}
	return found
}

// Every link of every page leads to a file that is there, and to a heading in it.
func TestLinks(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"*.md", "adr/*.md", "../*.md", "../bench/*.md", "../examples/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	links := 0
	for _, page := range pages {
		text := code.ReplaceAllString(fence.ReplaceAllString(read(t, page), ""), "")
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			target := match[1]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			file, heading, _ := strings.Cut(target, "#")
			path := page
			if file != "" {
				path = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s is not there", page, target)
			} else if heading != "" && strings.HasSuffix(path, ".md") && !anchors(t, path)[heading] {
				t.Errorf("%s: %s: %s has no such heading", page, target, path)
			}
		}
	}
	if len(pages) < 25 || links < 60 {
		t.Errorf("%d links in %d pages: there are more than that", links, len(pages))
	}
}

// The index has every page.
func TestIndex(t *testing.T) {
	index := read(t, "README.md")
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%v, %v", pages, err)
	}
	for _, page := range pages {
		if page != "README.md" && !strings.Contains(index, "]("+page+")") {
			t.Errorf("the index has no %s", page)
		}
	}
}

// GitHub draws what it can read, and shows an error box for the rest: the kind of
// a diagram is its first line, and in a sequence everybody who speaks is introduced.
func TestDiagrams(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```mermaid\n(.*?)^```$").FindAllStringSubmatch(read(t, "commit.md"), -1)
	if len(blocks) < 3 {
		t.Fatalf("%d diagrams", len(blocks))
	}
	arrow := regexp.MustCompile(`^\s*(\w+)\s*--?>>\s*(\w+): \S`)
	for _, block := range blocks {
		lines := strings.Split(strings.TrimSpace(block[1]), "\n")
		if kind, _, _ := strings.Cut(lines[0], " "); kind != "flowchart" && kind != "sequenceDiagram" && kind != "stateDiagram-v2" {
			t.Errorf("a diagram of the kind %q", kind)
		}
		if lines[0] != "sequenceDiagram" {
			continue
		}
		introduced := map[string]bool{}
		open := 0
		for _, line := range lines[1:] {
			words := strings.Fields(line)
			switch {
			case words[0] == "participant":
				introduced[words[1]] = true
			case words[0] == "par":
				open++
			case words[0] == "end":
				open--
			case words[0] == "and" || words[0] == "Note":
			default:
				said := arrow.FindStringSubmatch(line)
				if said == nil || !introduced[said[1]] || !introduced[said[2]] {
					t.Errorf("not understood: %s", line)
				}
			}
		}
		if open != 0 {
			t.Error("a par without its end")
		}
	}
}
