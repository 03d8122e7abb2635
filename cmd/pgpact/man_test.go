package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// docs/configuration.md is what the program prints.
func TestConfigReferenceIsUpToDate(t *testing.T) {
	committed, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	reference := configReference()
	if string(committed) != reference {
		t.Error("docs/configuration.md is not what it is made of: go run ./cmd/pgpact config reference >docs/configuration.md")
	}
	for _, f := range new(Config).fields() {
		if !strings.Contains(reference, "\n- `"+f.key+"`: ") || !strings.Contains(reference, "environment `"+envName(f.key)+"`") {
			t.Errorf("the reference has nothing of %s", f.key)
		}
	}
	for _, want := range []string{"\n- `slots`: default `64`; environment `PGPACT_SLOTS`\n", "\n- `log.level`: default `info`; environment `PGPACT_LOG_LEVEL`; SIGHUP changes it\n",
		"\n## Transactions\n", "\n### nodes\n", "by its name: `PGPACT_NODES_A_URL`. Other"} {
		if !strings.Contains(reference, want) {
			t.Errorf("the reference does not have %q", want)
		}
	}
}

// Every command has a page that names all its flags, and man can show them.
func TestManualPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dir := filepath.Join(t.TempDir(), "man")
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"man", dir}, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	man, _ := exec.LookPath("man")
	pages := 0
	check := func(name string, wants ...string) {
		t.Helper()
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			return
		}
		pages++
		if !strings.Contains(string(text), "Nov 2023") {
			t.Errorf("%s is not of SOURCE_DATE_EPOCH", name)
		}
		shown := strings.ReplaceAll(string(text), `\-`, "-")
		// Each start of man takes a tenth of a second: not for every page.
		if man != "" && (name == "pgpact-serve.1" || name == "pgpact.yaml.5") {
			cmd := exec.Command(man, "--warnings", "-l", path)
			cmd.Env = append(os.Environ(), "MANWIDTH=100", "LC_ALL=C.UTF-8", "MAN_KEEP_FORMATTING=", "MANPAGER=cat")
			var complaints strings.Builder
			cmd.Stderr = &complaints
			rendered, err := cmd.Output()
			if err != nil || complaints.Len() > 0 {
				t.Errorf("man -l %s: %v %s", name, err, &complaints)
			}
			shown = string(rendered)
		}
		for _, want := range wants {
			if !strings.Contains(shown, want) {
				t.Errorf("%s does not have %q", name, want)
			}
		}
	}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		var flags []string
		cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				flags = append(flags, "--"+f.Name)
			}
		})
		check(strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1", flags...)
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				visit(sub)
			}
		}
	}
	visit(newRootCommand())
	check("pgpact.yaml.5", "PGPACT_NODES_A_URL", "admin_listen", "the configuration of pgpact")
	if pages < 20 {
		t.Errorf("%d pages, there are more commands than that", pages)
	}
}
