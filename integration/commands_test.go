package integration

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestClientsResolveLostAnswers: the answer to a command's COMMIT never arrives. The command finds out that it is done, and says so, and
// it is done once.
func TestClientsResolveLostAnswers(t *testing.T) {
	d := deploy(t, harness.Options{})
	_, address := harness.Serve(t, d.config)
	fuse := newFuse(t, address)
	through := behind(t, address, fuse)
	from, to := d.open(t, "a", "lost-from", 1)[0], d.open(t, "b", "lost-to", 1)[0]
	must(t, run(d.cluster.Node(d.owner("article")).URL(), "insert into stock values ('article', 100)"))

	for _, c := range []struct {
		name   string
		args   []string
		passes bool // the answer arrives, and the connection breaks before it is whole
	}{
		{name: "transfer", args: []string{"transfer", from, to, "100"}},
		{name: "transfer, half an answer", args: []string{"transfer", from, to, "100"}, passes: true},
		{name: "buy", args: []string{"buy", to, "article", "10", "--price", "5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if fuse.arm("COMMIT"); c.passes {
				fuse.armPassing("COMMIT")
			}
			args := append(c.args, "--key", c.name, "--url", through)
			first := harness.Run(t, args...)
			if fuse.armed.Load() != nil {
				t.Error("no answer was lost")
			}
			if first.Code != 0 || !strings.HasPrefix(first.Stdout, "done: ") {
				t.Errorf("exit status %d, %q\n%s", first.Code, first.Stdout, first.Stderr)
			}
			if again := harness.Run(t, args...); again.Code != 0 || again.Stdout != "already "+first.Stdout {
				t.Errorf("again: exit status %d, %q\n%s", again.Code, again.Stdout, again.Stderr)
			}
		})
	}
	for account, want := range map[string]int64{from: startBalance - 200, to: startBalance + 200 - 50} {
		if got, err := d.balance(account); err != nil || got != want {
			t.Errorf("%s has %d (%v), want %d", account, got, err, want)
		}
	}
	if left := mustColumn[int64](t, d.cluster.Node(d.owner("article")).URL(), "select quantity from stock where sku = 'article'"); len(left) != 1 || left[0] != 90 {
		t.Errorf("%v in stock, want 90", left)
	}
}

// TestLoadWhileGatewayIsKilled: the gateway dies twice under a load, and answers to COMMIT are lost. The load goes on by itself, and every
// row is there once, with its own value.
func TestLoadWhileGatewayIsKilled(t *testing.T) {
	d := deploy(t, harness.Options{})
	gateway, address := harness.Serve(t, d.config)
	fuse := newFuse(t, address)
	const rows, perChunk = 30000, 100
	var text strings.Builder
	for i := range rows {
		fmt.Fprintf(&text, "loaded-%05d,%d\n", i, i)
	}
	path := filepath.Join(t.TempDir(), "accounts.csv")
	must(t, os.WriteFile(path, []byte(text.String()), 0o600))
	loaded := func() (n, sum int64, err error) {
		for _, node := range d.cluster.Nodes() {
			part, err := column[int64](node.URL(), "select unnest(array[count(*), coalesce(sum(balance), 0)::bigint]) from accounts where id like 'loaded-%'")
			if err != nil {
				return 0, 0, err
			}
			n, sum = n+part[0], sum+part[1]
		}
		return n, sum, nil
	}
	load := harness.Start(t, "load", path, "--chunk", strconv.Itoa(perChunk), "--url", behind(t, address, fuse), "--json")
	for kill := range 2 {
		more := int64(kill+1) * rows / 10
		harness.Eventually(t, time.Minute, "rows before a kill", func() error {
			n, _, err := loaded()
			if err == nil && n < more {
				err = fmt.Errorf("%d rows of %d", n, more)
			}
			return err
		})
		fuse.arm("COMMIT")
		harness.Eventually(t, time.Minute, "a lost answer", func() error {
			if fuse.armed.Load() != nil {
				return errors.New("the fuse is whole")
			}
			return nil
		})
		gateway.Kill9(t)
		gateway, _ = harness.Serve(t, d.config)
	}
	if n, _, err := loaded(); err != nil || n == rows {
		t.Errorf("%d rows (%v): the load was over before the kills", n, err)
	}
	if exit := load.Wait(t, 2*time.Minute); exit != (harness.Exit{}) {
		t.Errorf("the load ended with %v\n%s", exit, load.Log())
	}
	harness.Eventually(t, settleBound, "in doubt", d.nothingPrepared)
	if n, sum, err := loaded(); err != nil || n != rows || sum != rows*(rows-1)/2 {
		t.Errorf("%d rows, sum %d (%v)", n, sum, err)
	}
	t.Log(load.Log())
	for _, part := range []string{`"status":"done"`, fmt.Sprintf(`"loaded":%d,"already_done":0`, rows)} {
		if !strings.Contains(load.Log(), part) {
			t.Errorf("the load did not say %s", part)
		}
	}
}

// behind is the gateway's address through the fuse.
func behind(t *testing.T, address string, fuse *fuse) string {
	t.Helper()
	where, err := url.Parse(address)
	must(t, err)
	where.Host = fuse.address
	query := where.Query()
	query.Set("sslmode", "disable") // the fuse reads what comes by
	where.RawQuery = query.Encode()
	return fmt.Sprint(where)
}
