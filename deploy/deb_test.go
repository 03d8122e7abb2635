package deploy

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const builtVersion = "v9.8.7-5-gabcdef0"

var builtIn string // the directory of program, once it is there

// program is pgpact, built once for the tests that package it.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pgpact-packaged-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	path := filepath.Join(dir, "pgpact")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-X main.version="+builtVersion, "-o", path, "../cmd/pgpact").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

func built(t *testing.T) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// output runs a command that must succeed.
func output(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v\n%s%s", name, args, err, &stdout, &stderr)
	}
	return stdout.String()
}

// needs skips where a program of another system is missing.
func needs(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: no %s on this machine", name)
	}
	return path
}

func buildDeb(t *testing.T, binary string) string {
	t.Helper()
	needs(t, "dpkg-deb")
	// Times are what differs between two builds first.
	env := []string{"PGPACT_DEB_COMPRESSION=none", "SOURCE_DATE_EPOCH=1700000000"}
	return strings.TrimSpace(output(t, env, "../scripts/build-deb.sh", binary, t.TempDir()))
}

func TestDebianPackage(t *testing.T) {
	deb := buildDeb(t, built(t))
	for field, want := range map[string]string{"Package": "pgpact", "Version": "9.8.7+5.gabcdef0"} {
		if got := strings.TrimSpace(output(t, nil, "dpkg-deb", "-f", deb, field)); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	if got := output(t, nil, "dpkg-deb", "-f", deb, "Depends"); !strings.HasPrefix(got, "libc6 (>= 2.") {
		t.Errorf("a program that is linked dynamically depends on %q", got)
	}
	for line := range strings.Lines(output(t, nil, "dpkg-deb", "-c", deb)) {
		if !strings.Contains(line, " root/root ") || strings.Contains(line, "rw-rw") || !strings.Contains(line, "2023-11-14") {
			t.Errorf("owner, mode or time: %s", line)
		}
	}
	root := filepath.Join(t.TempDir(), "root")
	output(t, nil, "dpkg-deb", "-R", deb, root)
	for path, want := range map[string]string{
		"DEBIAN/conffiles":                                "/etc/pgpact/pgpact.yaml\n",
		"etc/pgpact/pgpact.yaml":                          "coordinator:",
		"usr/lib/systemd/system/pgpact.service":           "ExecStart=/usr/bin/pgpact serve --config /etc/pgpact/pgpact.yaml",
		"usr/lib/sysusers.d/pgpact.conf":                  "u pgpact",
		"usr/share/bash-completion/completions/pgpact":    "__start_pgpact",
		"usr/share/zsh/vendor-completions/_pgpact":        "#compdef pgpact",
		"usr/share/fish/vendor_completions.d/pgpact.fish": "complete -c pgpact",
		"usr/share/doc/pgpact/copyright":                  "Apache-2.0",
		"usr/share/doc/pgpact/examples/pgpact-alerts.yml": "PgpactGatewayDown",
		"usr/share/man/man1/pgpact-serve.1.gz":            "",
		"usr/share/man/man5/pgpact.yaml.5.gz":             "",
		"usr/share/doc/pgpact/changelog.gz":               "",
		"usr/share/doc/pgpact/examples/pgpact.json":       "pgpact_",
	} {
		if !strings.Contains(read(t, filepath.Join(root, path)), want) {
			t.Errorf("%s does not have %q", path, want)
		}
	}
	binary := filepath.Join(root, "usr/bin/pgpact")
	if got := output(t, nil, binary, "version"); !strings.HasPrefix(got, "pgpact "+builtVersion+" ") {
		t.Errorf("the program says it is %s", got)
	}
	output(t, nil, binary, "config", "test", "--config", filepath.Join(root, "etc/pgpact/pgpact.yaml"))
	output(t, nil, "sh", "-c", "cd '"+root+"' && md5sum --quiet -c DEBIAN/md5sums")
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		output(t, nil, "sh", "-n", filepath.Join(root, "DEBIAN", script))
	}
}

// systemd reads the unit as it lies in the package.
func TestUnitFile(t *testing.T) {
	analyze := needs(t, "systemd-analyze")
	root := t.TempDir()
	unit, err := filepath.Abs("systemd/pgpact.service")
	if err != nil {
		t.Fatal(err)
	}
	// verify wants the program to exist where the unit says.
	text := strings.ReplaceAll(read(t, unit), "/usr/bin/pgpact", "/bin/true")
	path := filepath.Join(root, "pgpact.service")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "pgpact.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// standIn answers for the program under another version, and is smaller.
func standIn(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgpact")
	script := "#!/bin/sh\nif [ \"$1\" = version ]; then echo 'pgpact " + version + " (commit x)'; exit; fi\nexec '" + built(t) + "' \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDebianVersionsAreInOrder(t *testing.T) {
	last := "0~~"
	for _, described := range []string{"abc1234", "v0.9.0-rc.1", "v0.9.0", "v0.9.0-4-gabc1234", "v0.9.0-4-gabc1234-dirty", "v0.10.0"} {
		version := strings.TrimSpace(output(t, nil, "dpkg-deb", "-f", buildDeb(t, standIn(t, described)), "Version"))
		if exec.Command("dpkg", "--compare-versions", last, "lt", version).Run() != nil {
			t.Errorf("%s (of %s) is not newer than %s", version, described, last)
		}
		last = version
	}
}

func TestDebianPackageIsReproducible(t *testing.T) {
	binary := standIn(t, "v1.0.0")
	if one, two := read(t, buildDeb(t, binary)), read(t, buildDeb(t, binary)); one != two {
		t.Error("two builds of the same files differ")
	}
}

// The life of a package in a root of its own: installed, its configuration
// edited, upgraded, removed, purged.
func TestDebianPackageInstalls(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: dpkg installs as root only")
	}
	first, second := buildDeb(t, standIn(t, "v1.0.0")), buildDeb(t, standIn(t, "v1.1.0"))
	root := t.TempDir()
	for _, dir := range []string{"etc", "var/lib/dpkg/updates", "var/lib/dpkg/info", "var/lib/dpkg/triggers"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) string {
		t.Helper()
		return output(t, []string{"PATH=/usr/sbin:/sbin:" + os.Getenv("PATH")}, "dpkg",
			append([]string{"--root=" + root, "--force-script-chrootless", "--force-confold", "--log=/dev/null"}, args...)...)
	}
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	const config = "etc/pgpact/pgpact.yaml"
	if said := dpkg("-i", first); !strings.Contains(said, "/etc/pgpact/pgpact.yaml") {
		t.Errorf("nobody is told what to do next: %s", said)
	}
	if !exists("usr/bin/pgpact") || !exists(config) {
		t.Fatal("the files are not there")
	}
	if _, err := exec.LookPath("systemd-sysusers"); err == nil && !strings.Contains(read(t, filepath.Join(root, "etc/passwd")), "pgpact:") {
		t.Error("there is no user pgpact")
	}
	edited := read(t, filepath.Join(root, config)) + "# mine\n"
	if err := os.WriteFile(filepath.Join(root, config), []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	if said := dpkg("-i", second); strings.Contains(said, "write the servers' addresses") {
		t.Errorf("an upgrade says what is for an installation: %s", said)
	}
	if read(t, filepath.Join(root, config)) != edited {
		t.Error("the upgrade has lost the edited configuration")
	}
	if got := output(t, nil, "dpkg-query", "--admindir="+root+"/var/lib/dpkg", "-W", "-f", "${Version} ${Status}", "pgpact"); got != "1.1.0 install ok installed" {
		t.Errorf("dpkg says %q", got)
	}
	dpkg("-r", "pgpact")
	if exists("usr/bin/pgpact") || !exists(config) {
		t.Error("removing takes the program and leaves the configuration")
	}
	dpkg("-P", "pgpact")
	if exists(config) || exists("etc/pgpact") {
		t.Error("purging takes the configuration")
	}
}

// The image and the package hold a program that was built alike.
func TestReleaseFlagsAreTheImages(t *testing.T) {
	flags := func(path string) string {
		_, rest, found := strings.Cut(read(t, path), "CGO_ENABLED=1 go build ")
		command, _, ended := strings.Cut(rest, "-o ")
		if !found || !ended {
			t.Fatalf("%s builds nothing", path)
		}
		return strings.Join(strings.Fields(command), " ")
	}
	image, release := flags("../Dockerfile"), flags("../scripts/build-release.sh")
	if image != release {
		t.Errorf("the Dockerfile has %s\nscripts/build-release.sh has %s", image, release)
	}
	for _, flag := range []string{"-trimpath", "-buildvcs=false", "main.commit", "-static"} {
		if !strings.Contains(release, flag) {
			t.Errorf("no %s", flag)
		}
	}
}
