package main

import (
	_ "embed" // for the example

	"github.com/spf13/cobra"
)

// exampleConfig documents every key; a test holds it to the code.
//
//go:embed pgpact.example.yaml
var exampleConfig string

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and check configurations",
		Args:  cobra.NoArgs,
		RunE:  needsSubcommand,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "example",
			Short: "Print a commented configuration with every key",
			Long: "Prints a configuration in which every key is described and set to its default.\n" +
				"Save it, put in the addresses of your servers, and give it to --config.",
			Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := cmd.OutOrStdout().Write([]byte(exampleConfig))
				return err
			},
		},
		newConfigTestCommand(), newConfigReferenceCommand(),
	)
	return cmd
}

func newConfigTestCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "test --config FILE",
		Short: "Read a configuration and say what is wrong with it, without connecting anywhere",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := readConfig(cmd, path); err != nil {
				return err
			}
			cmd.Printf("%s: nothing wrong\n", path)
			return nil
		},
	}
	configFlag(cmd, &path)
	return cmd
}
