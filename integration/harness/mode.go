package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// Mode is what the servers of a test run are.
type Mode string

// Containers is the rule; Processes is for machines without a container engine.
const (
	Containers Mode = "containers"
	Processes  Mode = "processes"
)

// testcontainers reads these once, at its first use, so they are set before anything can be. Ryuk's image cannot be had without a
// registry; what it would do, sweep does. Inside a container testcontainers would dial the default gateway instead of the ports we bind.
func init() {
	for name, value := range map[string]string{
		"TESTCONTAINERS_RYUK_DISABLED": "true",
		"TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
	} {
		if _, set := os.LookupEnv(name); !set {
			_ = os.Setenv(name, value) // fails only for malformed names
		}
	}
}

// environment is what the machine offers, found out once.
type environment struct {
	mode   Mode
	engine *client.Client // nil in Processes mode
	why    string         // why not Containers
}

var detect = sync.OnceValue(func() environment {
	forced := Mode(os.Getenv("PGPACT_TEST_MODE"))
	if forced == Processes {
		return environment{mode: Processes, why: "PGPACT_TEST_MODE=processes"}
	}
	engine, err := dialEngine()
	if err == nil {
		return environment{mode: Containers, engine: engine}
	}
	if forced == Containers {
		// Said once here; every test that wants a cluster fails with it.
		return environment{mode: Containers, why: "PGPACT_TEST_MODE=containers, but " + err.Error()}
	}
	return environment{mode: Processes, why: err.Error()}
})

// dialEngine finds the engine where testcontainers would, which panics in some of the cases in which there is none.
func dialEngine() (_ *client.Client, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("no container engine: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	engine, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, fmt.Errorf("no container engine: %w", err)
	}
	return engine.Client, nil
}

// CurrentMode says what the servers of this run are.
func CurrentMode() Mode { return detect().mode }

// Announcement is the line that tells readers of a test log which mode is in force.
func Announcement() string {
	env := detect()
	if env.mode == Processes {
		return "NO CONTAINER ENGINE: integration tests run on local server processes (" + env.why + ")"
	}
	if env.engine == nil {
		return env.why
	}
	return "integration tests run in containers, image " + imageOrError()
}

func imageOrError() string {
	name, err := image()
	if err != nil {
		return "none: " + err.Error()
	}
	return name
}

// image is the Postgres image of this run: the one asked for, else one built from the machine's own packages, else the official one.
var image = sync.OnceValues(func() (string, error) {
	if name := os.Getenv("PGPACT_TEST_POSTGRES_IMAGE"); name != "" {
		return name, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	built, err := exec.CommandContext(ctx, filepath.Join(Root(), "scripts", "build-postgres-image.sh")).Output()
	if err == nil {
		return strings.TrimSpace(string(built)), nil
	}
	reason := err.Error()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		reason = strings.TrimSpace(string(exit.Stderr))
	}
	if _, statErr := os.Stat("/etc/debian_version"); statErr == nil {
		return "", fmt.Errorf("the local Postgres image cannot be built: %s", reason)
	}
	return "postgres:17", nil
})

// Root is the directory of the main module, which holds the program and the scripts.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
