package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pgpact/pgpact/coordinator"
)

func newFaultPointsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "fault-points",
		Short: "List the moments of the commit protocol at which a crash is tested",
		Long: "Lists, in protocol order, the moments at which a test kills the gateway: the\n" +
			"name, the outcome that the transaction must have afterwards on every node\n" +
			"(unknown: either, but the same everywhere), and what kind of transaction passes\n" +
			"there. `pgpact serve` and `pgpact demo` take a name in the hidden flags --crash-at\n" +
			"and --stop-at (which freezes the process until SIGCONT).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			for _, p := range coordinator.FaultPoints() {
				fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Expect, p.Scenario)
			}
			return w.Flush()
		},
	}
}

// faults are the hidden flags by which tests have a process die or freeze at a
// named moment.
type faults struct{ crashAt, stopAt string }

func (f *faults) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.crashAt, "crash-at", "", "kill this process the first time `POINT` is reached")
	cmd.Flags().StringVar(&f.stopAt, "stop-at", "", "stop this process (SIGSTOP) the first time `POINT` is reached, until SIGCONT")
	_ = cmd.Flags().MarkHidden("crash-at") // these fail only for a flag that does not exist
	_ = cmd.Flags().MarkHidden("stop-at")
}

// args are the flags again, for a process that is to do it in our place.
func (f *faults) args() (args []string) {
	if f.crashAt != "" {
		args = append(args, "--crash-at", f.crashAt)
	}
	if f.stopAt != "" {
		args = append(args, "--stop-at", f.stopAt)
	}
	return args
}

// hook makes the coordinator's hook. No point, no hook.
func (f *faults) hook(cmd *cobra.Command) (func(string), error) {
	for flag, point := range map[string]string{"--crash-at": f.crashAt, "--stop-at": f.stopAt} {
		if err := validPoint(point); err != nil {
			return nil, &usageError{command: cmd.CommandPath(), err: fmt.Errorf("%s: %w", flag, err)}
		}
	}
	if f.crashAt == "" && f.stopAt == "" {
		return nil, nil
	}
	var once sync.Once
	return func(reached string) {
		if reached == f.crashAt {
			// The nearest thing to a power cut that leaves the machine on.
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing may happen past the point while the signal is on its way
		}
		if reached == f.stopAt {
			once.Do(stopUntilContinued)
		}
	}, nil
}

// stopUntilContinued freezes the whole process, all its connections open, until
// somebody sends SIGCONT: only then does it return, so nothing happens past the
// point while the signal is on its way.
func stopUntilContinued() {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	<-continued
}

func validPoint(point string) error {
	var names []string
	for _, p := range coordinator.FaultPoints() {
		if p.Name == point || point == "" {
			return nil
		}
		names = append(names, p.Name)
	}
	return fmt.Errorf("no fault point is called %q; there are %s", point, strings.Join(names, ", "))
}
