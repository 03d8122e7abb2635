package main

import (
	"fmt"
	"os"
	"strings"
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
			"there. `pgpact serve` and `pgpact demo` take a name in the hidden flag --crash-at.",
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

// crashFlag adds the hidden flag --crash-at.
func crashFlag(cmd *cobra.Command, point *string) {
	cmd.Flags().StringVar(point, "crash-at", "", "kill this process the first time `POINT` is reached")
	_ = cmd.Flags().MarkHidden("crash-at") // fails only for a flag that does not exist
}

// crashHook makes the coordinator's hook: SIGKILL to ourselves, the nearest
// thing to a power cut that leaves the machine on. No point, no hook.
func crashHook(cmd *cobra.Command, point string) (func(string), error) {
	if point == "" {
		return nil, nil
	}
	var names []string
	for _, p := range coordinator.FaultPoints() {
		if p.Name == point {
			return func(reached string) {
				if reached == point {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {} // nothing may happen past the point while the signal is on its way
				}
			}, nil
		}
		names = append(names, p.Name)
	}
	return nil, &usageError{command: cmd.CommandPath(),
		err: fmt.Errorf("--crash-at: no fault point is called %q; there are %s", point, strings.Join(names, ", "))}
}
