package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxDemoGateways keeps the slots of all within the demo servers' connections.
const maxDemoGateways = 8

// demoServerSettings let every demo have maxDemoGateways at any time: prepared
// transactions that were left by more gateways must not keep a server from
// starting with fewer.
var demoServerSettings = map[string]string{"max_prepared_transactions": "600", "max_connections": "600"}

// fleet are a demo's gateways when it has several. Each is a process of its own,
// as it would be on machines of their own: one can be killed, or frozen, and the
// others go on and finish what it left.
type fleet struct {
	o         *demoOptions
	config    string
	processes []*gatewayProcess
	ended     chan *gatewayProcess
}

// gatewayProcess is one `pgpact serve`.
type gatewayProcess struct {
	name, listen string
	url          string // for clients, once it is ready
	cmd          *exec.Cmd
	ready        chan string   // the URL
	done         chan struct{} // it has ended, and err says how
	err          error
}

// claimAddresses finds an address for each gateway: --listen and the ports
// behind it, all free now. With port 0, any. ln is the listener of a gateway
// within this process, nil for several: those listen for themselves.
func (o *demoOptions) claimAddresses() (addresses []string, ln net.Listener, err error) {
	host, portText, err := net.SplitHostPort(o.listen)
	if err != nil {
		return nil, nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, nil, err
	}
	for i := range o.gateways {
		address := net.JoinHostPort(host, strconv.Itoa(port))
		if port > 0 {
			address = net.JoinHostPort(host, strconv.Itoa(port+i))
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, nil, fmt.Errorf("%w; give another address with --listen", err)
		}
		addresses = append(addresses, l.Addr().String())
		if o.gateways == 1 {
			return addresses, l, nil
		}
		defer l.Close() // until all are found
	}
	return addresses, nil, nil
}

// serveFleet is the rest of a demo with several gateways.
func (o *demoOptions) serveFleet(asked, hurried context.Context, cfg *Config, dir string, addresses []string) error {
	owners, err := placement(asked, cfg)
	if err != nil {
		return err
	}
	f, err := o.startFleet(asked, filepath.Join(dir, demoConfigName), addresses)
	if err != nil {
		return err
	}
	f.welcome(dir, owners)
	return f.serve(asked, hurried)
}

// startFleet starts the gateways and waits until all of them are ready.
func (o *demoOptions) startFleet(ctx context.Context, config string, addresses []string) (*fleet, error) {
	f := &fleet{o: o, config: config, ended: make(chan *gatewayProcess, len(addresses))}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for i, address := range addresses {
		args := []string{"serve", "--config", config}
		if i == 0 {
			args = append(args, o.inject.args()...)
		}
		if err := f.start(program, fmt.Sprintf("demo-%d", i+1), address, args); err != nil {
			f.stop(context.WithoutCancel(ctx))
			return nil, err
		}
	}
	for _, p := range f.processes {
		select {
		case p.url = <-p.ready:
		case <-p.done:
			err = fmt.Errorf("gateway %s ended before it was ready: %w", p.name, p.err)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			f.stop(context.WithoutCancel(ctx))
			return nil, err
		}
	}
	return f, nil
}

// start starts one gateway. Its log becomes ours, with its name before each line.
func (f *fleet) start(program, name, address string, args []string) error {
	p := &gatewayProcess{name: name, listen: address, cmd: exec.Command(program, args...), ready: make(chan string, 1), done: make(chan struct{})}
	for _, entry := range os.Environ() {
		if variable, _, _ := strings.Cut(entry, "="); !strings.HasPrefix(variable, envPrefix) || otherVariables.MatchString(variable) {
			p.cmd.Env = append(p.cmd.Env, entry)
		}
	}
	p.cmd.Env = append(p.cmd.Env, envName("name")+"="+name, envName("listen")+"="+address, envName("log.level")+"="+f.o.logLevel)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us alone; we pass it on
	endWithParent(p.cmd.SysProcAttr)
	var output sync.WaitGroup
	for _, stream := range []func() (io.ReadCloser, error){p.cmd.StdoutPipe, p.cmd.StderrPipe} {
		pipe, err := stream()
		if err != nil {
			return err
		}
		output.Go(func() { f.relay(p, pipe) })
	}
	started := make(chan error, 1)
	go func() {
		// The parent-death signal is tied to the thread that started the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		output.Wait() // before Wait, which closes the pipes
		p.err = p.cmd.Wait()
		close(p.done)
		f.ended <- p
	}()
	if err := <-started; err != nil {
		return err
	}
	f.processes = append(f.processes, p)
	return nil
}

// relay reads what a gateway writes: its ready line is told to whoever waits for
// it, the rest is log.
func (f *fleet) relay(p *gatewayProcess, from io.Reader) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		if url, ok := strings.CutPrefix(lines.Text(), "ready: "); ok {
			p.ready <- url
			continue
		}
		f.o.say("%s: %s", p.name, lines.Text())
	}
}

// serve waits until asked ends, or until the last gateway has ended, and says
// whenever one has.
func (f *fleet) serve(asked, hurried context.Context) error {
	for left := len(f.processes); left > 0; left-- {
		select {
		case <-asked.Done():
			f.stop(hurried)
			return nil
		case p := <-f.ended:
			f.o.say("gateway %s has ended (%v); the others finish what it left. To start it again:\n\n  %s=%s %s=%s pgpact serve --config %s\n",
				p.name, p.err, envName("name"), p.name, envName("listen"), p.listen, f.config)
		}
	}
	return errors.New("all gateways have ended")
}

// stop asks all gateways to end and waits for them. When hurried ends they are
// asked again, which they understand as a hurry; one that does not end at all is
// killed: the next demo finishes what it leaves.
func (f *fleet) stop(hurried context.Context) {
	defer context.AfterFunc(hurried, func() { f.signal(syscall.SIGTERM) })()
	f.signal(syscall.SIGTERM)
	f.signal(syscall.SIGCONT) // somebody may have frozen one
	bound := time.After(defaultConfig().DrainTimeout + 2*stopTimeout)
	for _, p := range f.processes {
		select {
		case <-p.done:
		case <-bound:
			f.signal(syscall.SIGKILL)
			<-p.done
		}
	}
}

func (f *fleet) signal(s syscall.Signal) {
	for _, p := range f.processes {
		select {
		case <-p.done:
		default:
			_ = p.cmd.Process.Signal(s) // it may be ending right now
		}
	}
}

// welcome says how to connect to each, and what to try with several.
func (f *fleet) welcome(dir string, owners []string) {
	for _, p := range f.processes {
		fmt.Fprintf(f.o.out, "ready: %s\n", p.url)
	}
	f.o.suggest(f.processes[0].url, dir, owners)
	fmt.Fprintf(f.o.out, "\n%d gateways serve the same data; kill one in the middle of something, the others finish it:\n\n", len(f.processes))
	for _, p := range f.processes {
		fmt.Fprintf(f.o.out, "  psql %s    # %s, kill -9 %d\n", p.url, p.name, p.cmd.Process.Pid)
	}
}
