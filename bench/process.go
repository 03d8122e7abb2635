package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

var readyLine = regexp.MustCompile(`ready: (postgres(?:ql)?://\S+)`)

// program is the pgpact program with arguments. What the caller's environment says about gateways is about others than ours.
func (b *bench) program(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, b.opts.binary, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PGPACT_") {
			command.Env = append(command.Env, kv)
		}
	}
	return command
}

// serve starts a program that serves until it is told to stop (`pgpact demo`, `pgpact serve`), and returns the URL of its ready line. It is
// stopped by tearDown.
func (b *bench) serve(ctx context.Context, command *exec.Cmd) (string, error) {
	name := "pgpact " + command.Args[1]
	// Away from the terminal's Ctrl-C: we stop it ourselves, after pgbench.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	output, err := os.Create(filepath.Join(b.dir, command.Args[1]+".log"))
	if err != nil {
		return "", err
	}
	reader, writer := io.Pipe()
	command.Stdout, command.Stderr = io.MultiWriter(output, writer), output
	if err := command.Start(); err != nil {
		return "", fmt.Errorf("%w (make build makes it)", err)
	}
	ended := make(chan struct{})
	var how error
	go func() {
		how = command.Wait()
		writer.Close()
		close(ended)
	}()
	b.stop = append(b.stop, func() error { return stopProgram(name, command, ended) })

	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			if found := readyLine.FindStringSubmatch(lines.Text()); found != nil {
				ready <- found[1]
			}
		}
		_, _ = io.Copy(io.Discard, reader) // a line too long for the scanner must not block the program
	}()
	select {
	case url := <-ready:
		return url, nil
	case <-ended:
		return "", fmt.Errorf("%s ended (%v):\n%s", name, how, readFile(output.Name()))
	case <-time.After(2 * time.Minute):
		return "", fmt.Errorf("%s is not ready:\n%s", name, readFile(output.Name()))
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func stopProgram(name string, command *exec.Cmd, ended <-chan struct{}) error {
	_ = command.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-ended:
		return nil
	case <-time.After(30 * time.Second):
		_ = command.Process.Kill()
		<-ended
		return fmt.Errorf("%s did not end on SIGTERM within 30 s and was killed", name)
	}
}

func readFile(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
