package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/internal/pgserver"
)

const (
	demoConfigName = "pgpact.yaml"
	demoStateName  = "demo.json"
)

// demoState is what a demo's directory remembers beside the servers' data. It
// is written before anything else, so a demo that was killed while it was being
// made is recognized and completed.
type demoState struct {
	Nodes    int  `json:"nodes"`
	Accounts int  `json:"accounts"`
	Filled   bool `json:"filled"` // the sample data are there: from now on they belong to the user
}

// nodeNames are a, b, c, ...
func (s *demoState) nodeNames() []string {
	names := make([]string, s.Nodes)
	for i := range names {
		names[i] = string(rune('a' + i))
	}
	return names
}

// prepareDir makes the directory, or reads what is in it.
func (o *demoOptions) prepareDir() (*demoState, error) {
	// 0711: the account that root's servers run as must be able to pass.
	if err := os.MkdirAll(o.data, 0o711); err != nil {
		return nil, err
	}
	state, err := readDemoState(o.data)
	if errors.Is(err, fs.ErrNotExist) {
		return o.newState()
	}
	if err != nil {
		return nil, err
	}
	if o.nodesGiven && o.nodes != state.Nodes {
		return nil, fmt.Errorf("%s holds a demo with %d nodes, not %d, and rows are not moved by themselves: "+
			"leave out --nodes, name another directory with --data, or remove this one", o.data, state.Nodes, o.nodes)
	}
	o.say("going on with the data in %s", o.data)
	return state, nil
}

func (o *demoOptions) newState() (*demoState, error) {
	entries, err := os.ReadDir(o.data)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty and is no demo's directory: name another with --data", o.data)
	}
	state := &demoState{Nodes: o.nodes, Accounts: o.accounts}
	return state, state.write(o.data)
}

func readDemoState(dir string) (*demoState, error) {
	path := filepath.Join(dir, demoStateName)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	state := &demoState{}
	if err := json.Unmarshal(content, state); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if state.Nodes < 1 || state.Nodes > maxDemoNodes || state.Accounts < 0 || state.Accounts > maxDemoAccounts {
		return nil, fmt.Errorf("%s: damaged", path)
	}
	return state, nil
}

func (s *demoState) write(dir string) error {
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(dir, demoStateName), append(content, '\n'))
}

// writeWhole writes a file so that a crash leaves the old content or the new.
func writeWhole(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing, once it is renamed
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// writeConfig makes role and database on every server, writes DIR/pgpact.yaml,
// and reads it back: what the demo runs with is what it gives to others.
func (o *demoOptions) writeConfig(ctx context.Context, set *pgserver.Set, listen string) (*Config, error) {
	group, groupCtx := errgroup.WithContext(ctx)
	for _, server := range set.Servers() {
		group.Go(func() error { return server.CreateRoleAndDatabase(groupCtx, demoRole, demoDatabase) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Written by pgpact demo at every start: the addresses of its servers, which run
# only while it runs. A gateway of your own on the same servers:
#
#   PGPACT_LISTEN=127.0.0.1:6433 pgpact serve --config %s
#
# pgpact config example describes every key.
name: demo
listen: %s
auth: %s

coordinator:
  url: %s

nodes:
`, filepath.Join(set.Dir(), demoConfigName), listen, gateway.Trust, set.Server(demoCoordinator).URL(demoRole, demoDatabase))
	for _, server := range set.Servers() {
		if server.Name() != demoCoordinator {
			fmt.Fprintf(&b, "  - name: %s\n    url: %s\n", server.Name(), server.URL(demoRole, demoDatabase))
		}
	}
	path := filepath.Join(set.Dir(), demoConfigName)
	if err := writeWhole(path, b.Bytes()); err != nil {
		return nil, err
	}
	cfg, err := parseConfig(path, b.Bytes(), nil)
	if err != nil {
		return nil, err
	}
	cfg.Log.Level = o.logLevel
	return cfg, nil
}
