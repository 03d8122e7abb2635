package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgpact/pgpact/gateway"
)

func newUserCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "user NAME",
		Short: "Make a line with a user's password for the configuration, from which it cannot be read",
		Long: "Asks for a password, twice and without showing it, or reads one line from standard\n" +
			"input when that is no terminal, and prints the user's SCRAM-SHA-256 verifier as a line\n" +
			"to be put under `verifiers:` in the configuration. Each run uses another salt.\n\n" +
			"The verifier is in the form of Postgres's pg_authid.rolpassword: the one of a role\n" +
			"there can be used here, and ALTER ROLE ... PASSWORD takes the one printed.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return &usageError{command: cmd.CommandPath(), err: errors.New("the name must not be empty")}
			}
			password, err := askPassword(cmd.InOrStdin(), cmd.ErrOrStderr(), args[0])
			if err != nil {
				return err
			}
			verifier, err := gateway.NewVerifier(password)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "  %s: %s\n", yamlKey(args[0]), verifier)
			return nil
		},
	}
}

// askPassword reads a password: from a terminal twice and unseen, from anything
// else the first line.
func askPassword(in io.Reader, prompts io.Writer, user string) (string, error) {
	ask := bufio.NewReader(in)
	read := func(string) (string, error) {
		line, err := ask.ReadString('\n')
		if err != nil && line == "" {
			return "", errors.New("no password on standard input")
		}
		return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
	}
	terminal := false
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		terminal = true
		read = func(prompt string) (string, error) {
			fmt.Fprint(prompts, prompt)
			typed, err := term.ReadPassword(int(file.Fd()))
			fmt.Fprintln(prompts)
			return string(typed), err
		}
	}
	password, err := read(fmt.Sprintf("Password for user %s: ", user))
	if err != nil {
		return "", err
	}
	if password == "" {
		return "", errors.New("an empty password is none: Postgres's clients would not send it")
	}
	if strings.ContainsRune(password, 0) {
		return "", errors.New("a password cannot hold a zero byte")
	}
	if terminal {
		switch again, err := read("Again: "); {
		case err != nil:
			return "", err
		case again != password:
			return "", errors.New("the two passwords differ")
		}
	}
	return password, nil
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// notKeys are words that YAML may read as something else than a text.
var notKeys = regexp.MustCompile(`(?i)^(true|false|yes|no|on|off|y|n|null)$`)

// yamlKey is a name as a key in YAML.
func yamlKey(name string) string {
	if plainKey.MatchString(name) && !notKeys.MatchString(name) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", "''") + "'"
}
