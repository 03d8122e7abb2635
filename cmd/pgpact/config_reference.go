package main

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newConfigReferenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reference",
		Short: "Print what every key means, as Markdown",
		Long: "Prints docs/configuration.md: every key with its default, the variable that sets it,\n" +
			"and whether SIGHUP can change it. `pgpact config example` is the same to start from.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), configReference())
			return err
		},
	}
}

// keysDoc is what the example says of keys that share a comment.
type keysDoc struct {
	section string // the heading above it, for the first key below that
	keys    []string
	values  []string // as the example shows them
	text    []string // the comment's lines, without #
}

// configReference is the example turned inside out: there the comments explain
// what is between them, here the keys are headings.
func configReference() string {
	var out strings.Builder
	intro, docs := readExample(exampleConfig)
	out.WriteString("# Configuration\n\n")
	out.WriteString("<!-- Made by `pgpact config reference` from cmd/pgpact/pgpact.example.yaml, and a test wants it so: do not edit. -->\n\n")
	writeText(&out, intro)
	out.WriteString("\nChanging a key needs a restart, unless it says that SIGHUP will do. `pgpact config test` says what is wrong with a file.\n")
	reloaded := reloadedKeys()
	for _, d := range docs {
		if d.section != "" {
			fmt.Fprintf(&out, "\n## %s\n", d.section)
		}
		if len(d.keys) > 0 {
			fmt.Fprintf(&out, "\n### %s\n", strings.Join(d.keys, ", "))
		}
		out.WriteString("\n")
		writeText(&out, d.text)
		for i, key := range d.keys {
			if facts := keyFacts(key, d.values[i], reloaded); len(facts) > 0 {
				fmt.Fprintf(&out, "\n- `%s`: %s\n", key, strings.Join(facts, "; "))
			}
		}
	}
	return out.String()
}

// keyFacts is what is known of a key beside its comment.
func keyFacts(key, value string, reloaded []string) (facts []string) {
	if key == "coordinator.url" {
		facts = append(facts, "no default")
	} else if value != "" {
		facts = append(facts, "default `"+value+"`")
	}
	if _, single := findField(new(Config).fields(), key); single {
		facts = append(facts, "environment `"+envName(key)+"`")
	}
	if slices.Contains(reloaded, key) {
		facts = append(facts, "SIGHUP changes it")
	}
	return facts
}

// reloadedKeys are those that SIGHUP can change.
func reloadedKeys() (keys []string) {
	for _, hook := range (&service{}).reloadHooks(&slog.LevelVar{}) {
		keys = append(keys, hook.keys...)
	}
	return keys
}

// readExample takes the example apart: its first comment, and what follows.
func readExample(example string) (intro []string, docs []keysDoc) {
	var text []string
	section, prefix := "", ""
	first := true
	for line := range strings.Lines(example) {
		line = strings.TrimRight(line, "\n")
		inner := strings.TrimLeft(line, " ")
		comment, isComment := strings.CutPrefix(inner, "#")
		key, value, isKey := strings.Cut(inner, ":")
		switch {
		case isComment && strings.HasPrefix(comment, " --- "):
			if first {
				intro, text, first = text, nil, false
			}
			section = strings.Trim(comment, " -")
		case isComment:
			text = append(text, strings.TrimPrefix(comment, " "))
		case inner == "":
			// A blank line ends a comment that belongs to no key.
			if !first && len(text) > 0 {
				docs = append(docs, keysDoc{section: section, text: text})
				text, section = nil, ""
			}
		case !isKey || strings.HasPrefix(inner, "- ") || strings.HasPrefix(line, "    "):
			// An entry of the nodes.
		default:
			indented := line != inner
			if !indented {
				prefix = ""
			}
			key, value = prefix+key, strings.TrimSpace(value)
			if !indented && value == "" && key != "nodes" {
				prefix = key + "."
				if len(text) > 0 && key != "coordinator" { // what all keys of a mapping have in common
					docs = append(docs, keysDoc{section: section, text: text})
					text, section = nil, ""
				}
				continue
			}
			if len(text) == 0 && len(docs) > 0 && len(docs[len(docs)-1].keys) > 0 && section == "" {
				last := &docs[len(docs)-1]
				last.keys, last.values = append(last.keys, key), append(last.values, value)
				continue
			}
			docs = append(docs, keysDoc{section: section, keys: []string{key}, values: []string{value}, text: text})
			text, section = nil, ""
		}
	}
	return intro, docs
}

// codeWords are words that Markdown must not take apart: its emphasis is made of
// underscores, too.
var codeWords = regexp.MustCompile("`[^`]*`|[^\\s`;()]*_[^\\s`;()]*[^\\s`,;().:]|\\bPGPACT_")

func asCode(word string) string { return "`" + strings.Trim(word, "`") + "`" }

// writeText writes a comment as Markdown: what it has indented is a sample.
func writeText(out *strings.Builder, lines []string) {
	sample := false
	for len(lines) > 0 && lines[0] == "" {
		lines = lines[1:]
	}
	for _, line := range lines {
		indented := strings.HasPrefix(line, "  ")
		if indented != sample {
			out.WriteString("```\n")
			sample = indented
		}
		if sample {
			line = strings.TrimPrefix(line, "  ")
		} else {
			line = codeWords.ReplaceAllStringFunc(line, asCode)
		}
		out.WriteString(line + "\n")
	}
	if sample {
		out.WriteString("```\n")
	}
}
