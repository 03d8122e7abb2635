package harness

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// PostgresImage is the image that this run's servers are made of.
func PostgresImage(t testing.TB) string {
	t.Helper()
	name, err := image()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// ProgramImage makes an image out of Program and returns its name.
func ProgramImage(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(Root(), "scripts", "build-pgpact-image.sh"), Program(t))
	var stderr strings.Builder
	command.Stderr = &stderr
	tag, err := command.Output()
	if err != nil {
		t.Fatalf("build the image of pgpact: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(tag))
}

// FreePort is a port of the loopback that nobody uses, outside the range from which clients are given theirs.
func FreePort(t testing.TB) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
