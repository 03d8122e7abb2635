package gateway

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPsqlSameAsPostgres runs psql's own queries (\d and its kin, \gdesc,
// ON_ERROR_ROLLBACK) on both, as TestSameAsPostgres does with messages.
func TestPsqlSameAsPostgres(t *testing.T) {
	psql := lookPsql(t)
	s := startStack(t, stackOptions{})
	plain, _ := s.set.NewDatabase(t, "coordinator")
	scripts, err := filepath.Glob("testdata/psql/*.sql")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	keys := s.fill(t)
	s.fillPlain(t, plain, keys)
	for _, file := range scripts {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		script := strings.NewReplacer("@a", keys[0][0], "@b", keys[1][0]).Replace(string(text))
		run := func(url string) string {
			cmd := exec.CommandContext(t.Context(), psql, "-X", "-a", "--no-password", url)
			cmd.Stdin = strings.NewReader(script)
			output, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			return string(output)
		}
		want, got := run(plain), run(s.url)
		if want != got {
			t.Errorf("%s\n--- Postgres\n%s\n--- gateway\n%s", file, want, got)
		}
	}
	s.idle(t)
}
