package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// Labels of everything the harness makes in the engine. They say who made it, so that what a killed test run left behind can be told from
// what another run is using right now.
const (
	labelOwner   = "org.pgpact.test.owner"   // host/pid of the test process
	labelCluster = "org.pgpact.test.cluster" // one value per cluster
)

func owner() string {
	host, _ := os.Hostname()
	return host + "/" + strconv.Itoa(os.Getpid())
}

func runLabels(cluster string) map[string]string {
	return map[string]string{labelOwner: owner(), labelCluster: cluster}
}

// Main is what TestMain calls: it says which mode is in force, removes what dead runs left behind, runs the tests, and removes what this
// one may have left.
func Main(m *testing.M) int {
	fmt.Println(Announcement())
	env := detect()
	sweep(env.engine, func(who string) bool { return !ownerLives(who) })
	code := m.Run()
	sweep(env.engine, func(who string) bool { return who == owner() })
	removeProgram()
	return code
}

// sweep removes containers (with their volumes), networks and mounts whose owner matches. It does what testcontainers' Ryuk would.
func sweep(engine *client.Client, match func(owner string) bool) {
	defer sweepDisks(match) // after the containers that use them
	if engine == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	filter := make(client.Filters).Add("label", labelOwner)
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filter})
	if err != nil {
		fmt.Fprintln(os.Stderr, "sweep:", err)
		return
	}
	for _, container := range containers.Items {
		if match(container.Labels[labelOwner]) {
			_, err := engine.ContainerRemove(ctx, container.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			if err != nil {
				fmt.Fprintln(os.Stderr, "sweep:", err)
			}
		}
	}
	networks, err := engine.NetworkList(ctx, client.NetworkListOptions{Filters: filter})
	if err != nil {
		fmt.Fprintln(os.Stderr, "sweep:", err)
		return
	}
	for _, network := range networks.Items {
		if match(network.Labels[labelOwner]) {
			if _, err := engine.NetworkRemove(ctx, network.ID, client.NetworkRemoveOptions{}); err != nil {
				fmt.Fprintln(os.Stderr, "sweep:", err)
			}
		}
	}
}

// ownerLives is careful: an owner on another host, or one that cannot be read, counts as alive.
func ownerLives(who string) bool {
	host, pidText, found := strings.Cut(who, "/")
	pid, err := strconv.Atoi(pidText)
	here, _ := os.Hostname()
	if !found || err != nil || host != here {
		return true
	}
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	// Where the first process of a container reaps nobody, the dead stay as zombies for ever.
	state, _, ok := processStat(pidText)
	return !ok || state != "Z"
}

// RunningContainers counts the cluster's containers that the engine says are running: asked of the engine, not remembered by us.
func (c *Cluster) RunningContainers(t testing.TB) int {
	t.Helper()
	if c.mode != Containers {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	list, err := detect().engine.ContainerList(ctx, client.ContainerListOptions{
		Filters: make(client.Filters).Add("label", labelCluster+"="+c.label).Add("status", "running"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}
