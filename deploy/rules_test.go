// Package deploy tests what is in this directory with the programs that it is for.
package deploy

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const (
	alerts    = "prometheus/pgpact-alerts.yml"
	alertTest = "prometheus/pgpact-alerts.test.yml"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tool is a program of Debian's prometheus package.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: no %s on this machine (Debian: apt-get install prometheus)", name)
	}
	return path
}

func TestAlertRules(t *testing.T) {
	promtool := tool(t, "promtool")
	for _, args := range [][]string{{"check", "rules", alerts}, {"check", "config", "--syntax-only", "prometheus/prometheus.yml"}, {"test", "rules", alertTest}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// Every alert is seen firing and seen silent by the rules' tests, and whoever is
// woken by it finds what it means and what to do.
func TestEveryAlertIsTestedAndExplained(t *testing.T) {
	rules, tests, runbook := read(t, alerts), read(t, alertTest), read(t, "../docs/operations.md")
	found := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(rules, -1)
	if len(found) < 8 {
		t.Fatalf("only %d alerts found", len(found))
	}
	for _, alert := range found {
		name := alert[1]
		anchor := "docs/operations.md#" + strings.ToLower(name)
		if !strings.Contains(rules, "runbook: "+anchor+"\n") {
			t.Errorf("%s does not name %s", name, anchor)
		}
		_, section, ok := strings.Cut(runbook, "\n### "+name+"\n")
		section, _, _ = strings.Cut(section, "\n### ")
		if !ok || !strings.Contains(section, "What it means") || !strings.Contains(section, "What to do") {
			t.Errorf("docs/operations.md has no section %s that says what it means and what to do", name)
		}
		if !strings.Contains(tests, "alertname: "+name+" }") || !strings.Contains(tests, "alertname: "+name+"\n        exp_alerts:") {
			t.Errorf("%s is not seen silent and firing in %s", name, alertTest)
		}
	}
}
