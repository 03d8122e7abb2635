package deploy

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script runs one of scripts/ whose tool comes through the module proxy, and skips
// where that cannot be reached.
func script(t *testing.T, env []string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	said, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code = cmd.ProcessState.ExitCode(); code == 75 || strings.Contains(string(said), "cannot be had here") {
		t.Skipf("SKIPPED: %s", said)
	}
	return string(said), code
}

// The list names what the program says it was built of, and is the same each time.
func TestSBOM(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "1.json"), filepath.Join(dir, "2.json")
	for _, path := range []string{one, two} {
		if out, code := script(t, nil, "../scripts/sbom.sh", built(t), path); code != 0 {
			t.Fatalf("exit %d: %s", code, out)
		}
	}
	if read(t, one) != read(t, two) {
		t.Error("two lists of the same program differ")
	}
	var list struct {
		BOMFormat  string
		Metadata   struct{ Component struct{ Version string } }
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal([]byte(read(t, one)), &list); err != nil {
		t.Fatal(err)
	}
	if list.BOMFormat != "CycloneDX" || list.Metadata.Component.Version != builtVersion {
		t.Errorf("it is %q of version %q", list.BOMFormat, list.Metadata.Component.Version)
	}
	listed := map[string]string{}
	for _, c := range list.Components {
		listed[c.Name] = c.Version
	}
	info, err := buildinfo.ReadFile(built(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range info.Deps {
		if listed[module.Path] != module.Version {
			t.Errorf("%s %s is %q in the list", module.Path, module.Version, listed[module.Path])
		}
	}
	if listed["std"] == "" || len(info.Deps) < 20 {
		t.Errorf("%d modules and Go %q", len(info.Deps), listed["std"])
	}
}

// A known vulnerability is found, with a database that has one made up. Where the
// real one is out of reach the script says that it has not looked.
func TestVulnerabilitiesAreFound(t *testing.T) {
	database, err := filepath.Abs("testdata/vulndb")
	if err != nil {
		t.Fatal(err)
	}
	out, code := script(t, []string{"PGPACT_VULNDB=file://" + database}, "../scripts/govulncheck.sh", "-mode", "binary", built(t))
	if code != 3 || !strings.Contains(out, "GO-0000-0001") || !strings.Contains(out, "psql-wire") {
		t.Errorf("exit %d: %s", code, out)
	}
	// No proxy answers there, so nothing can be fetched from vuln.go.dev.
	out, code = script(t, []string{"HTTPS_PROXY=http://127.0.0.1:1"}, "../scripts/govulncheck.sh", "-mode", "binary", built(t))
	if code != 0 || !strings.Contains(out, "SKIPPED: not looked for vulnerabilities, https://vuln.go.dev cannot be reached") {
		t.Errorf("without a database: exit %d: %s", code, out)
	}
}
