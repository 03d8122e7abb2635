package drivers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// scriptBound ends a script that hangs; on an idle machine the slowest (Java's compiler) takes 5 s.
const scriptBound = 90 * time.Second

// driver is one driver with its script.
type driver struct {
	name string
	// missing says what this machine lacks for it, "" when nothing.
	missing func() string
	// run runs the script; what went wrong with the script as a whole is printed too.
	run func(ctx context.Context, to target, out *bytes.Buffer)
}

// command is a driver whose script is a program; ready is a command that fails where the driver is not installed.
func command(name string, ready []string, argv ...string) driver {
	return driver{
		name: name,
		missing: func() string {
			if out, err := exec.Command(ready[0], ready[1:]...).CombinedOutput(); err != nil {
				return fmt.Sprintf("%s: %v %s", strings.Join(ready, " "), err, bytes.TrimSpace(out))
			}
			return ""
		},
		run: func(ctx context.Context, to target, out *bytes.Buffer) {
			cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.Dir = filepath.Join(harness.Root(), "integration", "drivers", "scripts")
			cmd.Env = to.environment()
			cmd.Stdout, cmd.Stderr = out, out
			// Scripts have children; all of them are to end.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
			cmd.WaitDelay = 5 * time.Second
			if err := cmd.Run(); err != nil {
				fmt.Fprintf(out, "\n== end\n%v\n", errors.Join(err, ctx.Err()))
			}
		},
	}
}

// environment is libpq's way of saying where to connect, which most drivers know; scripts of the others read it themselves. Nothing of the
// user's own settings (.pgpass, .psqlrc, a service file) is to play a part.
func (t target) environment() []string {
	environment := []string{
		"PGHOST=" + t.host, "PGPORT=" + t.port, "PGUSER=" + t.user, "PGPASSWORD=" + t.password, "PGDATABASE=" + t.database,
		"HOME=/nonexistent", "LC_ALL=C.UTF-8", "TZ=UTC", "PYTHONDONTWRITEBYTECODE=1", "PATH=/usr/bin:/bin:/usr/lib/postgresql/15/bin:" + os.Getenv("PATH"),
	}
	return environment
}

// drivers are all, in the order of the table.
func drivers() []driver {
	python := func(module string) []string { return []string{"/usr/bin/python3", "-c", "import " + module} }
	pgbench := []string{"pgbench", "--version"}
	all := []driver{
		command("psql", []string{"psql", "--version"}, "bash", "psql.sh"),
		command("psycopg2", python("psycopg2"), "/usr/bin/python3", "psycopg2_script.py"),
		command("psycopg 3", python("psycopg"), "/usr/bin/python3", "psycopg_script.py"),
		command("asyncpg", python("asyncpg"), "/usr/bin/python3", "asyncpg_script.py"),
		command("pg8000", python("pg8000"), "/usr/bin/python3", "pg8000_script.py"),
		command("SQLAlchemy", python("sqlalchemy, psycopg2"), "/usr/bin/python3", "sqlalchemy_script.py"),
		command("psqlODBC", python("pyodbc"), "/usr/bin/python3", "pyodbc_script.py"),
		command("pgjdbc", []string{"sh", "-c", "test -e /usr/share/java/postgresql.jar && javac -version"},
			"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar", "JdbcScript.java"),
		command("ruby-pg", []string{"ruby", "-e", "require 'pg'"}, "ruby", "ruby_pg_script.rb"),
		command("DBD::Pg", []string{"/usr/bin/perl", "-MDBD::Pg", "-e", "1"}, "/usr/bin/perl", "dbd_pg_script.pl"),
		command("PDO_pgsql", []string{"php", "-r", "exit(extension_loaded('pdo_pgsql') && extension_loaded('pgsql') ? 0 : 1);"}, "php", "pdo_pgsql_script.php"),
		command("pgbench simple", pgbench, "bash", "pgbench.sh", "simple"),
		command("pgbench extended", pgbench, "bash", "pgbench.sh", "extended"),
		command("pgbench prepared", pgbench, "bash", "pgbench.sh", "prepared"),
		sqlDriver("lib/pq", "github.com/lib/pq", "postgres", "?sslmode=disable"),
		sqlDriver("lib/pq binary", "github.com/lib/pq", "postgres", "?sslmode=disable&binary_parameters=yes"),
		sqlDriver("pgx stdlib", "github.com/jackc/pgx/v5", "pgx", ""),
		pgxPool(),
		gormDriver(),
	}
	for _, mode := range pgxModes {
		all = append(all, pgxNative(mode))
	}
	return all
}

// TestDrivers runs every driver's script against a plain server and against the gateway, compares what they print and what they leave in
// the tables, and writes docs/compatibility.md when all have run.
func TestDrivers(t *testing.T) {
	r := newRig(t)
	var all []result
	for _, d := range drivers() {
		t.Run(d.name, func(t *testing.T) {
			if reason := d.missing(); reason != "" {
				t.Skipf("SKIPPED: driver %s is not installed (scripts/install-drivers.sh installs it): %s", d.name, reason)
			}
			found := r.compare(t, d)
			all = append(all, found)
			found.judge(t)
		})
		if r.process != nil && hasExited(r.process) {
			t.Fatalf("the gateway has ended while %s ran", d.name)
		}
	}
	t.Logf("\n%s", table(all))
	if len(all) == len(drivers()) {
		path := filepath.Join(harness.Root(), "docs", "compatibility.md")
		if err := os.WriteFile(path, []byte(document(all)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

func hasExited(gateway *harness.Gateway) bool {
	select {
	case <-gateway.Exited():
		return true
	default:
		return false
	}
}

// compare runs one driver against both.
func (r *rig) compare(t *testing.T, d driver) result {
	t.Helper()
	r.seed(t)
	found := result{driver: d.name, sections: map[string]outcome{}}
	want, got := runScript(t, d, r.plain), runScript(t, d, r.gateway)
	found.version = want.version
	if want.version != got.version {
		t.Errorf("versions %q and %q", want.version, got.version)
	}
	for _, section := range append(want.names, got.names...) {
		w, hasW := want.sections[section]
		g, hasG := got.sections[section]
		found.sections[section] = outcome{equal: hasW && hasG && w == g, plain: w, gateway: g}
	}
	if len(want.names) < 3 {
		t.Errorf("against the plain server it printed only:\n%s", want.text)
	}
	wrong, different := r.finds(t)
	found.rows = wrong
	// A section that did something else leaves other rows, which says nothing new.
	if found.rowsCompared = found.sameRows(); found.rowsCompared {
		found.rows = append(found.rows, different...)
	}
	return found
}

// printed is the output of one run, cut into its sections.
type printed struct {
	text, version string
	names         []string
	sections      map[string]string
}

func runScript(t *testing.T, d driver, to target) printed {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), scriptBound)
	defer cancel()
	var out bytes.Buffer
	began := time.Now()
	d.run(ctx, to, &out)
	t.Logf("%s against %s: %v", d.name, to.name, time.Since(began).Round(10*time.Millisecond))
	p := cut(out.String())
	if ctx.Err() != nil {
		t.Errorf("against %s it did not end within %v; printed:\n%s", to.name, scriptBound, out.String())
	}
	if dir := os.Getenv("PGPACT_TEST_DRIVERS_OUTPUT"); dir != "" {
		// For people who write scripts: what was printed, to be read and compared with other tools.
		if err := os.WriteFile(filepath.Join(dir, strings.NewReplacer(" ", "-", "/", "-", ":", "").Replace(d.name)+"."+to.name), out.Bytes(), 0o644); err != nil {
			t.Error(err)
		}
	}
	return p
}

func cut(text string) printed {
	p := printed{text: text, sections: map[string]string{}}
	section := ""
	for line := range strings.Lines(text) {
		if name, is := strings.CutPrefix(line, "== "); is {
			section = strings.TrimSpace(name)
			p.names = append(p.names, section)
			p.sections[section] = ""
			continue
		}
		if section == "" {
			if version, is := strings.CutPrefix(line, "driver: "); is {
				p.version = strings.TrimSpace(version)
			}
			continue
		}
		p.sections[section] += line
	}
	return p
}
