package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages: one for each command, and pgpact.yaml(5)",
		Long: "Writes the manual pages into a directory, which is made if it is missing. They say\n" +
			"what --help says, and pgpact.yaml(5) describes every key of the configuration.\n" +
			"To read one: man -l DIR/pgpact-serve.1",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return writeManual(cmd.Root(), args[0])
		},
	}
}

// writeManual writes the pages, with today's date unless SOURCE_DATE_EPOCH gives
// another, as reproducible builds do.
func writeManual(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	date := time.Now().UTC()
	if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		date = time.Unix(seconds, 0).UTC()
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Date: &date, Source: "pgpact " + version, Manual: "pgpact"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pgpact.yaml.5"), configManual(date), 0o644)
}

// configManual is the reference of the configuration as a manual page.
func configManual(date time.Time) []byte {
	_, body, _ := strings.Cut(configReference(), "\n\n")
	title := fmt.Sprintf("%% \"PGPACT.YAML\" \"5\" %q \"pgpact %s\" \"pgpact\"\n\n", date.Format("Jan 2006"), version)
	body = strings.ReplaceAll("\n"+body, "\n## ", "\n# ") // what md2man makes sections of
	return md2man.Render([]byte(title + "# NAME\npgpact.yaml - the configuration of pgpact\n\n# DESCRIPTION\n" + body))
}
