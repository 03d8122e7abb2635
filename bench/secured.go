package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/internal/pgserver"
)

// The second pair of `-secure`. A gateway of its own on the demo's servers, beside the demo's, run as docs/security.md says it should be:
//
//   - clients come in by TLS and SCRAM-SHA-256 with channel binding only,
//   - under a role that is not the gateway's, so each of their statements runs on the nodes as that role (SET ROLE),
//   - and the gateway's own role is a third one, which has what `pgpact migrate --grant` gives and owns nothing.
//
// The other side is the plain server, reached by TLS and SCRAM-SHA-256 with channel binding under the same client role, with the same rights on
// the table, the same certificate and the same password.

const (
	clientRole = "bench_client"
	leastRole  = "bench_gateway"
	// rights are what the scripts need.
	rights = "grant select, update on public.bench_accounts to " + clientRole
)

// secured is what the two sides of the second pair have in common, and their URLs.
type secured struct {
	certificate certificate
	root        string // file: the certificate, which clients trust
	password    string
	verifier    string // of the password, as pg_authid and the configuration have it

	gateway, plain string // URLs
}

// newSecured makes what must be there before the plain server starts.
func (b *bench) newSecured(ctx context.Context) (*secured, error) {
	made, err := newCertificate()
	if err != nil {
		return nil, err
	}
	s := &secured{certificate: made, root: filepath.Join(b.dir, "root.crt"), password: rand.Text()}
	if err := os.WriteFile(s.root, made.cert, 0o644); err != nil {
		return nil, err
	}
	user := b.program(ctx, "user", clientRole)
	user.Stdin = strings.NewReader(s.password + "\n")
	line, err := user.Output()
	if err != nil {
		return nil, fmt.Errorf("pgpact user: %w (make build makes it)", err)
	}
	_, verifier, found := strings.Cut(string(line), ": ")
	if !found {
		return nil, fmt.Errorf("pgpact user printed %q", line)
	}
	s.verifier = strings.TrimSpace(verifier)
	return s, nil
}

// url is how a client reaches a side: by nothing less than what is to be measured.
func (s *secured) url(address string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=verify-full&sslrootcert=%s&channel_binding=require",
		clientRole, s.password, address, database, url.QueryEscape(s.root))
}

// guard prepares the data of the plain server, before it starts: the certificate under the names that Postgres looks for, and rules by which
// the client's role comes in only as on the secured gateway. Everybody else is trusted as before.
func (s *secured) guard(data string) error {
	if err := s.certificate.write(filepath.Join(data, "server.crt"), filepath.Join(data, "server.key"), data); err != nil {
		return err
	}
	hba := filepath.Join(data, "pg_hba.conf")
	rest, err := os.ReadFile(hba)
	if err != nil {
		return err
	}
	rules := fmt.Sprintf("hostssl all %s all scram-sha-256\nhost all %s all reject\n", clientRole, clientRole)
	return os.WriteFile(hba, append([]byte(rules), rest...), 0o600)
}

// startSecured makes the roles and starts the gateway. The table is there already.
func (b *bench) startSecured(ctx context.Context) error {
	s := b.secured
	create := "create role " + clientRole
	if err := execute(ctx, asRole(b.plain, pgserver.Superuser), create+" login password '"+s.verifier+"'", rights); err != nil {
		return err
	}
	for _, node := range b.nodes {
		if err := execute(ctx, asRole(node, pgserver.Superuser), create, rights, "create role "+leastRole+" login"); err != nil {
			return err
		}
	}
	if err := execute(ctx, asRole(b.coordinator, pgserver.Superuser), "create role "+leastRole+" login"); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "secured")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := s.certificate.write(filepath.Join(dir, "gateway.crt"), filepath.Join(dir, "gateway.key"), dir); err != nil {
		return err
	}
	text, err := s.configuration(b.demoConfig)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "pgpact.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if err := b.grantLeast(ctx, path); err != nil {
		return err
	}
	ready, err := b.serve(ctx, b.program(context.WithoutCancel(ctx), "serve", "--config", path))
	if err != nil {
		return err
	}
	at, err := url.Parse(ready)
	if err != nil {
		return err
	}
	s.gateway = s.url(at.Host)
	return b.checkSecured(ctx)
}

// notOurs are the lines of the demo's configuration that the secured one says otherwise.
var notOurs = regexp.MustCompile(`(?m)^(#.*|(name|listen|auth):.*)\n`)

// configuration is the demo's, with the same servers and whatever else it says, but for who comes in how and who the gateway is. The level of the
// log is what the demo has on its command line.
func (s *secured) configuration(demo string) (string, error) {
	rest := strings.ReplaceAll(notOurs.ReplaceAllString(demo, ""), "://"+role+"@", "://"+leastRole+"@")
	if strings.Count(rest, leastRole) != len(anyURL.FindAllString(demo, -1)) {
		return "", errors.New("the demo's configuration has addresses without the demo's role")
	}
	return fmt.Sprintf(`name: secured
listen: 127.0.0.1:0
tls: {cert: gateway.crt, key: gateway.key}
rules:
  - {type: hostssl, database: all, user: %s, address: all, method: scram-sha-256}
roles: client
log: {level: warn}
users: [%s]
verifiers:
  %s: %s
%s`, clientRole, clientRole, clientRole, s.verifier, rest), nil
}

// grantLeast has `pgpact migrate --grant` do what an administrator would have it do. It also takes the schema pgpact from the demo's role, whose
// gateway is running and is to be measured as it is: it gets the schema back, and must be able to reach it meanwhile. (On the nodes the grants
// themselves open the schema to everybody.)
func (b *bench) grantLeast(ctx context.Context, config string) error {
	coordinator := asRole(b.coordinator, pgserver.Superuser)
	if err := execute(ctx, coordinator, "grant usage on schema pgpact to public"); err != nil {
		return err
	}
	if out, err := b.program(ctx, "migrate", "--config", config, "--admin", pgserver.Superuser, "--grant").CombinedOutput(); err != nil {
		return fmt.Errorf("pgpact migrate --grant: %w:\n%s", err, out)
	}
	for _, server := range append([]string{coordinator}, b.nodes...) {
		if err := execute(ctx, asRole(server, pgserver.Superuser), "alter schema pgpact owner to "+role); err != nil {
			return err
		}
	}
	return execute(ctx, coordinator, "revoke usage on schema pgpact from public")
}

// execute runs statements, each by itself.
func execute(ctx context.Context, url string, statements ...string) error {
	return query(ctx, url, func(conn *pgx.Conn) error {
		for _, statement := range statements {
			if _, err := conn.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	})
}
