package main

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The names that the reloader makes of Config's fields are the keys.
func TestReloadKnowsEveryKey(t *testing.T) {
	names := map[string]bool{}
	eachKey(&Config{}, &Config{}, func(key string, _, _ reflect.Value) { names[key] = true })
	var cfg Config
	for _, f := range cfg.fields() {
		if !names[f.key] {
			t.Errorf("no field of Config is called %s", f.key)
		}
		delete(names, f.key)
	}
	for _, list := range []string{"nodes", "rules", "verifiers"} {
		delete(names, list)
	}
	if len(names) > 0 {
		t.Errorf("no keys: %v", names)
	}
	for _, hook := range (&service{}).reloadHooks(&slog.LevelVar{}) {
		for _, key := range hook.keys {
			if !strings.Contains(exampleConfig, "\n  "+strings.TrimPrefix(key, "log.")+":") {
				t.Errorf("hook for %s, which the example does not have", key)
			}
		}
	}
}

func TestReload(t *testing.T) {
	read := func(lines string) *Config {
		cfg, err := parseConfig("c.yaml", []byte(minimal+lines), nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	var log bytes.Buffer
	var next *Config
	var refused error
	var applied []string
	always := 0
	r := &reloader{running: read("slots: 10\nlog:\n  level: info\n"), logger: slog.New(slog.NewTextHandler(&log, nil)),
		read: func() (*Config, error) { return next, refused },
		hooks: []reloadHook{
			{keys: []string{"log.level"}, apply: func(c *Config) error { applied = append(applied, c.Log.Level); return nil }},
			{keys: []string{"log.slow_commit"}, apply: func(*Config) error { return errors.New("no luck") }},
			{always: true, apply: func(*Config) error { always++; return nil }},
		}}
	step := func(what string, wantApplied int, wants ...string) {
		t.Helper()
		log.Reset()
		r.reload()
		for _, want := range wants {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s: the log says %s; want %s", what, log.String(), want)
			}
		}
		if len(applied) != wantApplied {
			t.Errorf("%s: applied %v", what, applied)
		}
	}
	next = read("slots: 10\nlog:\n  level: info\n")
	step("nothing new", 0, "changed=[]")
	next = read("slots: 20\nlog:\n  level: debug\n")
	step("level and slots", 1, "changed=[log.level]", "keys=[slots]", "need a restart")
	step("the same again", 1, "changed=[]", "keys=[slots]") // still waiting; the level is in force
	next = read("slots: 10\nlog:\n  level: debug\n")
	step("slots as they were", 1, "changed=[]")
	if strings.Contains(log.String(), "restart") {
		t.Errorf("nothing needs a restart any more: %s", log.String())
	}
	next = read("slots: 10\nlog:\n  level: debug\n  slow_commit: 3s\n")
	step("a hook that fails", 1, "no luck", "keys=[log.slow_commit]", "need a restart")
	next = read("slots: 10\nlog:\n  level: warn\n")
	next.Nodes[1].URL = "postgres://pgpact@127.0.0.1:9/pgpact"
	step("a node's address", 2, "changed=[log.level]", "keys=[nodes]")
	refused = errors.New("c.yaml:1:1: slotts: unknown key")
	step("a bad file", 2, "nothing has changed", "slotts")
	if always != 6 {
		t.Errorf("the hook for every time has run %d times", always)
	}
}

func TestSIGHUPReloads(t *testing.T) {
	asked := make(chan struct{}, 1)
	r := &reloader{running: &Config{}, logger: slog.New(slog.DiscardHandler), read: func() (*Config, error) {
		asked <- struct{}{}
		return &Config{}, nil
	}}
	stop := r.run(t.Context())
	defer stop()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-time.After(30 * time.Second):
		t.Fatal("SIGHUP has not been heard")
	}
}

func TestNotify(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: systemd is Linux's")
	}
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	logger := slog.New(slog.DiscardHandler)
	t.Setenv("NOTIFY_SOCKET", path)
	buf := make([]byte, 200)
	for _, message := range []string{notifyReady, notifyReloading(), notifyStopping} {
		notify(logger, message)
		if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := socket.Read(buf)
		if err != nil || string(buf[:n]) != message {
			t.Errorf("told %q (%v), want %q", buf[:n], err, message)
		}
	}
	if !strings.Contains(notifyReloading(), "\nMONOTONIC_USEC=") {
		t.Error("Type=notify-reload wants a time")
	}
	var log bytes.Buffer
	t.Setenv("NOTIFY_SOCKET", path+"-gone")
	notify(slog.New(slog.NewTextHandler(&log, nil)), notifyReady)
	if !strings.Contains(log.String(), "systemd cannot be told") {
		t.Errorf("the log says %q", log.String())
	}
	t.Setenv("NOTIFY_SOCKET", "")
	log.Reset()
	notify(slog.New(slog.NewTextHandler(&log, nil)), notifyReady)
	if log.Len() > 0 {
		t.Errorf("without systemd the log says %q", log.String())
	}
}
