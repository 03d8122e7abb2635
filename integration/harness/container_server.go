package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
	tcnetwork "github.com/testcontainers/testcontainers-go/network"
	"golang.org/x/sync/errgroup"
)

// startContainers makes the cluster out of containers on a network of its own, with addresses and ports that survive a restart.
func (c *Cluster) startContainers(ctx context.Context, t testing.TB, options Options) {
	t.Helper()
	env := detect()
	if env.engine == nil {
		t.Fatal(env.why)
	}
	img, err := image()
	if err != nil {
		t.Fatal(err)
	}
	c.label = fmt.Sprintf("%08x", rand.Uint32())
	labels := runLabels(c.label)
	bridge, subnet := newNetwork(ctx, t, labels)

	names := options.names()
	c.servers = make([]*Server, len(names))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, name := range names {
		// Host 1 is the network's gateway.
		address := subnet.Addr().As4()
		address[3] += byte(i) + 2
		box := &box{engine: env.engine, network: bridge, address: netip.AddrFrom4(address)}
		server := &Server{name: name, machine: box}
		if options.SmallDisks {
			server.disks = map[DiskPart]disk{}
			for part, size := range diskSizes {
				server.disks[part] = newDisk(t, size, postgresUser)
			}
			box.disks = server.disks
		}
		c.servers[i] = server
		group.Go(func() error {
			if err := box.create(groupCtx, t, img, name, labels, options.settings()); err != nil {
				return fmt.Errorf("server %s: %w", name, err)
			}
			return box.prepare(groupCtx)
		})
	}
	if err := group.Wait(); err != nil {
		c.logOnFailure(t)
		t.Fatal(err)
	}
	// Registered last, so it runs first: the logs are still there.
	t.Cleanup(func() { c.logOnFailure(t) })
}

// newNetwork makes a small bridge network. Its subnet is ours to choose, because only then an address can be kept over a restart; one that
// overlaps with something else is refused by the engine, and another is tried.
func newNetwork(ctx context.Context, t testing.TB, labels map[string]string) (*testcontainers.DockerNetwork, netip.Prefix) {
	t.Helper()
	var err error
	for range 20 {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 192 + byte(rand.IntN(60)), byte(rand.IntN(256)), 16 * byte(rand.IntN(16))}), 28)
		var bridge *testcontainers.DockerNetwork
		bridge, err = tcnetwork.New(ctx, tcnetwork.WithLabels(labels),
			tcnetwork.WithIPAM(&network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: subnet}}}))
		if err == nil {
			testcontainers.CleanupNetwork(t, bridge)
			return bridge, subnet
		}
	}
	t.Fatalf("no network: %v", err)
	return nil, netip.Prefix{}
}

// box is a server that is a container.
type box struct {
	engine    *client.Client
	container *postgres.PostgresContainer
	network   *testcontainers.DockerNetwork
	address   netip.Addr
	port      string // on 127.0.0.1
	id        string
	disks     map[DiskPart]disk
}

func (b *box) create(ctx context.Context, t testing.TB, img, name string, labels map[string]string, settings map[string]string) error {
	cmd := []string{"postgres"}
	for key, value := range settings {
		cmd = append(cmd, "-c", key+"="+value)
	}
	var err error
	// A port that was free a moment ago may be taken now; what is left of the attempt is removed, then another one is tried.
	for range 5 {
		if b.port, err = freePort(); err != nil {
			return err
		}
		b.container, err = postgres.Run(ctx, img,
			postgres.WithPassword(Password),
			testcontainers.WithCmd(cmd...),
			testcontainers.WithLabels(labels),
			testcontainers.WithLogger(silence{}),
			tcnetwork.WithNetwork([]string{name}, b.network),
			testcontainers.WithEndpointSettingsModifier(func(endpoints map[string]*network.EndpointSettings) {
				for _, endpoint := range endpoints {
					endpoint.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: b.address}
				}
			}),
			testcontainers.WithEnv(b.environment()),
			testcontainers.WithHostConfigModifier(func(host *container.HostConfig) {
				if b.disks != nil {
					host.Binds = append(host.Binds, b.disks[Data].dir+":"+containerData, b.disks[WAL].dir+":"+containerWAL)
				}
				// The engine's default may be to throw old lines away: what is judged by its log would be judged by a part of it.
				host.LogConfig = container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "4g", "max-file": "2"}}
				host.PortBindings = network.PortMap{
					network.MustParsePort("5432/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: b.port}},
				}
			}),
			postgres.BasicWaitStrategies(),
		)
		if b.container != nil {
			testcontainers.CleanupContainer(t, b.container, testcontainers.StopTimeout(0))
			b.id = b.container.GetContainerID()
		}
		if err == nil || !strings.Contains(err.Error(), "port is already allocated") && !strings.Contains(err.Error(), "address already in use") {
			return err
		}
	}
	return err
}

// environment is what the image's entry point is told.
func (b *box) environment() map[string]string {
	if b.disks == nil {
		return nil
	}
	return map[string]string{"POSTGRES_INITDB_ARGS": "--waldir=" + containerWAL + " --wal-segsize=1"}
}

// prepare makes the role and the database. The superuser is used for nothing else.
func (b *box) prepare(ctx context.Context) error {
	config, err := pgx.ParseConfig(b.url(true))
	if err != nil {
		return err
	}
	config.Database = "postgres"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	for _, statement := range []string{
		fmt.Sprintf("create role %s login password '%s'", Role, Password),
		fmt.Sprintf("create database %s owner %s", Database, Role),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

func (b *box) url(super bool) string { return containerURL("127.0.0.1:"+b.port, super) }

func (b *box) direct(super bool) string { return containerURL(b.address.String()+":5432", super) }

func containerURL(address string, super bool) string {
	role := Role
	if super {
		role = "postgres"
	}
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", role, Password, address, Database)
}

func (b *box) kill(ctx context.Context) error {
	wait := b.engine.ContainerWait(ctx, b.id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	if _, err := b.engine.ContainerKill(ctx, b.id, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return err
	}
	return ended(ctx, wait)
}

func ended(ctx context.Context, wait client.ContainerWaitResult) error {
	select {
	case <-wait.Result:
		return nil
	case err := <-wait.Error:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *box) start(ctx context.Context) error {
	_, err := b.engine.ContainerStart(ctx, b.id, client.ContainerStartOptions{})
	return err
}

func (b *box) stop(ctx context.Context) error {
	timeout := 30 // seconds until the engine kills; the image's stop signal is SIGINT, a fast shutdown
	_, err := b.engine.ContainerStop(ctx, b.id, client.ContainerStopOptions{Timeout: &timeout})
	return err
}

func (b *box) running(ctx context.Context) (bool, error) {
	found, err := b.engine.ContainerInspect(ctx, b.id, client.ContainerInspectOptions{})
	if err != nil {
		return false, err
	}
	return found.Container.State.Running, nil
}

func (b *box) pause(ctx context.Context, paused bool) error {
	if !paused {
		_, err := b.engine.ContainerUnpause(ctx, b.id, client.ContainerUnpauseOptions{})
		return err
	}
	for {
		_, err := b.engine.ContainerPause(ctx, b.id, client.ContainerPauseOptions{})
		if err == nil || !strings.Contains(err.Error(), "unable to freeze") {
			return err
		}
		select { // a server that makes processes while the kernel collects them is not frozen: try again
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *box) connected(ctx context.Context, connected bool) error {
	var err error
	if connected {
		_, err = b.engine.NetworkConnect(ctx, b.network.ID, client.NetworkConnectOptions{
			Container:      b.id,
			EndpointConfig: &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: b.address}},
		})
	} else {
		_, err = b.engine.NetworkDisconnect(ctx, b.network.ID, client.NetworkDisconnectOptions{Container: b.id, Force: true})
	}
	return err
}

func (b *box) run(ctx context.Context, user, script string) error {
	code, output, err := b.container.Exec(ctx, []string{"sh", "-c", script}, exec.WithUser(user), exec.Multiplexed())
	if err != nil || code == 0 {
		return err
	}
	text, _ := io.ReadAll(output)
	return fmt.Errorf("exit status %d: %s", code, text)
}

func (b *box) log(ctx context.Context) string {
	if b.id == "" {
		return ""
	}
	stream, err := b.engine.ContainerLogs(ctx, b.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return err.Error()
	}
	defer stream.Close()
	var text strings.Builder
	if _, err := stdcopy.StdCopy(&text, &text, stream); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintf(&text, "\n(log cut: %v)", err)
	}
	return text.String()
}

// given are the ports that freePort has picked: nobody gets one a second time, for its owner may only be down for a moment.
var given sync.Map

// freePort picks below the range of outgoing connections: a port inside it can be taken by any client while its server is down.
func freePort() (string, error) {
	for range 1000 {
		port := strconv.Itoa(15000 + rand.IntN(17000))
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		listener, err := net.Listen("tcp4", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		return port, listener.Close()
	}
	return "", errors.New("no free port on 127.0.0.1")
}

// silence is testcontainers' logger: a line per step of every container would bury the tests.
type silence struct{}

func (silence) Printf(string, ...any) {}
