package drivers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/pgpact/pgpact/integration/harness"
)

// script is the Go drivers' common.py: sections and what they print.
type script struct {
	ctx context.Context
	to  target
	out *bytes.Buffer
}

// goDriver is a driver that is a Go module: nothing of it can be missing.
func goDriver(name, module string, run func(s *script)) driver {
	return driver{
		name:    name,
		missing: func() string { return "" },
		run: func(ctx context.Context, to target, out *bytes.Buffer) {
			s := &script{ctx: ctx, to: to, out: out}
			s.show("driver:", moduleVersion(module))
			defer func() {
				if r := recover(); r != nil {
					s.show("\n== end\npanic:", r, string(debug.Stack()))
				}
			}()
			run(s)
		},
	}
}

// moduleVersion asks go, because a test binary does not know its own modules.
func moduleVersion(path string) string {
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", path)
	list.Dir = filepath.Join(harness.Root(), "integration")
	out, err := list.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func (s *script) show(values ...any) { fmt.Fprintln(s.out, values...) }

// section runs a part of the script; an error it returns is printed.
func (s *script) section(name string, run func() error) {
	s.show("==", name)
	if err := run(); err != nil {
		s.report(err)
	}
}

// report prints an error with all its fields but those that name a place in Postgres's source.
func (s *script) report(err error) {
	var fields any
	var pgxError *pgconn.PgError
	var pqError *pq.Error
	switch {
	case errors.As(err, &pgxError):
		plain := *pgxError
		plain.File, plain.Line, plain.Routine = "", 0, ""
		fields = plain
	case errors.As(err, &pqError):
		plain := *pqError
		plain.File, plain.Line, plain.Routine = "", "", ""
		fields = plain
	}
	text, _ := json.Marshal(fields) // strings and numbers only
	// pgx says to which port it failed to connect.
	message := strings.ReplaceAll(err.Error(), s.to.port, "PORT")
	s.show("error:", fmt.Sprintf("%T", err), message, string(text))
}

// fails prints the error that must come, or that none came.
func (s *script) fails(err error) {
	if err == nil {
		s.show("no error")
		return
	}
	s.report(err)
}

// key names one of the seeded or the inserted accounts.
func key(prefix string, n int) string { return fmt.Sprintf("%s-%02d", prefix, n) }

// wrongStatements each fail in a way of their own.
var wrongStatements = []string{
	"selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)", "insert into accounts values ('alice', 1)",
	"select no_such_column from accounts where id = 'alice'", "select 'a'::int", "update accounts set balance = -1 where id = 'alice'",
}

// strange is text that quoting has to survive.
const strange = "naïve € 😀 'quoted' \\ back\nline\ttab $1 :x ?"
