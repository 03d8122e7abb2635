package main

import (
	"errors"
	"os"
	"runtime/pprof"

	"github.com/spf13/cobra"
)

// profileFlag adds the hidden flag --cpuprofile, for whoever asks where the
// time goes.
func profileFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "cpuprofile", "", "write a CPU profile to `FILE`")
	_ = cmd.Flags().MarkHidden("cpuprofile") // fails only for a flag that does not exist
}

// profiled runs the command, with a profile if a file is named.
func profiled(path string, command func() error) error {
	if path == "" {
		return command()
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = command()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}
