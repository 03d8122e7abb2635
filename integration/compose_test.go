package integration

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestCompose shows that docker-compose.yml leads to gateways that serve, all three of its profile: with images made here, because there may be no registry.
func TestCompose(t *testing.T) {
	if harness.CurrentMode() != harness.Containers {
		t.Skip("SKIPPED: docker-compose.yml needs a container engine")
	}
	compose := composeCommand()
	if compose == nil {
		t.Skip("SKIPPED: neither `docker compose` nor docker-compose is installed")
	}
	ports := []string{harness.FreePort(t), harness.FreePort(t), harness.FreePort(t)}
	watched := []string{harness.FreePort(t), harness.FreePort(t), harness.FreePort(t)}
	project := fmt.Sprintf("pgpact-test-%d", os.Getpid())
	environment := append(os.Environ(),
		"PGPACT_POSTGRES_IMAGE="+harness.PostgresImage(t), "PGPACT_IMAGE="+harness.ProgramImage(t),
		"GATEWAY_PORT="+ports[0], "GATEWAY_2_PORT="+ports[1], "GATEWAY_3_PORT="+ports[2], "DATABASE_PASSWORD=a b/c@d:é",
		"ADMIN_PORT="+watched[0], "ADMIN_2_PORT="+watched[1], "ADMIN_3_PORT="+watched[2])
	run := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		args = append(append(compose[1:len(compose):len(compose)], "--project-name", project, "--profile", "three"), args...)
		command := exec.CommandContext(ctx, compose[0], args...)
		command.Dir, command.Env = harness.Root(), environment
		output, err := command.CombinedOutput()
		return string(output), err
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := run("logs", "--no-color", "--tail", "40")
			t.Logf("docker-compose logs:\n%s", logs)
		}
		if output, err := run("down", "--volumes", "--timeout", "20"); err != nil {
			t.Errorf("docker-compose down: %v\n%s", err, output)
		}
	})

	if output, err := run("up", "-d", "--no-build"); err != nil {
		t.Fatalf("docker-compose up: %v\n%s", err, output)
	}
	for _, port := range watched {
		harness.Eventually(t, 2*time.Minute, "a gateway of docker-compose.yml is ready", func() error {
			return httpOK("http://127.0.0.1:" + port + "/readyz")
		})
	}
	var conns []*pgx.Conn
	for _, port := range ports {
		url := "postgres://somebody@127.0.0.1:" + port + "/pgpact?sslmode=disable"
		harness.Eventually(t, 2*time.Minute, "a select through a gateway of docker-compose.yml", func() error {
			return serves(url)
		})
		conns = append(conns, harness.Open(t, url))
	}
	// Sixteen keys: that all of them lie on one of two nodes would be a miracle.
	for i := range 16 {
		exec1(t, conns[i%3], fmt.Sprintf("insert into accounts values ('compose-%d', 10)", i))
	}
	for i := range 16 {
		if balance := queryInt(t, conns[(i+1)%3], fmt.Sprintf("select balance from accounts where id = 'compose-%d'", i)); balance != 10 {
			t.Fatalf("compose-%d has %d, want 10", i, balance)
		}
	}
}

// httpOK is nil when the address answers 200.
func httpOK(url string) error {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(url) //nolint:noctx // the client has a timeout
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, answer.Status)
	}
	return nil
}

func serves(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, "select 1").Scan(new(int))
}

func composeCommand() []string {
	if exec.Command("docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}
	}
	if path, err := exec.LookPath("docker-compose"); err == nil {
		return []string{path}
	}
	return nil
}
