package main

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/gateway"
	"github.com/pgpact/pgpact/participant"
)

// A field is one key that holds a single value: the same setter serves the
// file and the environment, so a bad value is refused in the same words.
type field struct {
	key    string // as in the file; a dot leads into a mapping
	set    func(text string) error
	secret bool // may hold a password: ${VAR} is expanded, and it is never printed
}

// fields lists every key except nodes and rules, which are lists of mappings, and
// verifiers, whose keys are users' names. The order
// is that of pgpact.example.yaml.
func (cfg *Config) fields() []field {
	return []field{
		{key: "name", set: text(&cfg.Name, validName)},
		{key: "listen", set: text(&cfg.Listen, validListen)},
		{key: "admin_listen", set: text(&cfg.AdminListen, validAdminListen)},
		{key: "auth", set: optional(&cfg.Auth, gateway.Methods...)},
		{key: "database", set: text(&cfg.Database, anyText)},
		{key: "users", set: list(&cfg.Users)},
		{key: "auth_query", set: text(&cfg.AuthQuery, anyText)},
		{key: "failed_logins", set: count(&cfg.FailedLogins, 1, 100_000)},
		{key: "roles", set: optional(&cfg.Roles, rolesOfClients, roleOfGateway)},
		{key: "tls.cert", set: text(&cfg.TLS.Cert, anyText)},
		{key: "tls.key", set: text(&cfg.TLS.Key, anyText)},
		{key: "tls.client_ca", set: text(&cfg.TLS.ClientCA, anyText)},
		{key: "tls.min_version", set: oneOf(&cfg.TLS.MinVersion, tls12, tls13)},
		{key: "coordinator.url", set: text(&cfg.Coordinator.URL, validURL), secret: true},
		{key: "buckets", set: count(&cfg.Buckets, 1, 1<<16, powerOfTwo)},
		{key: "slots", set: count(&cfg.Slots, 1, 100_000)},
		{key: "slot_timeout", set: duration(&cfg.SlotTimeout)},
		{key: "connect_timeout", set: duration(&cfg.ConnectTimeout)},
		{key: "prepare_timeout", set: duration(&cfg.PrepareTimeout)},
		{key: "decision_timeout", set: duration(&cfg.DecisionTimeout)},
		{key: "finish_timeout", set: duration(&cfg.FinishTimeout)},
		{key: "read_consistency", set: oneOf(&cfg.ReadConsistency, gateway.ReadAtomic, gateway.ReadPerNode)},
		{key: "snapshot_timeout", set: duration(&cfg.SnapshotTimeout)},
		{key: "in_doubt_timeout", set: duration(&cfg.InDoubtTimeout)},
		{key: "sweep_interval", set: duration(&cfg.SweepInterval)},
		{key: "deadlock_timeout", set: duration(&cfg.DeadlockTimeout)},
		{key: "retention", set: duration(&cfg.Retention)},
		{key: "key_retention", set: duration(&cfg.KeyRetention)},
		{key: "startup_timeout", set: duration(&cfg.StartupTimeout)},
		{key: "max_connections", set: count(&cfg.MaxConnections, 1, 1_000_000)},
		{key: "max_unauthenticated", set: count(&cfg.MaxUnauthenticated, 1, 1_000_000)},
		{key: "max_message_size", set: size(&cfg.MaxMessageSize, 1<<10, 1<<30)},
		{key: "max_statements", set: count(&cfg.MaxStatements, 1, 10_000_000)},
		{key: "max_statement_bytes", set: size(&cfg.MaxStatementBytes, 1<<10, 1<<40)},
		{key: "max_portals", set: count(&cfg.MaxPortals, 1, 10_000_000)},
		{key: "max_portal_bytes", set: size(&cfg.MaxPortalBytes, 1<<10, 1<<40)},
		{key: "write_timeout", set: duration(&cfg.WriteTimeout)},
		{key: "drain_timeout", set: duration(&cfg.DrainTimeout)},
		{key: "parser_cache", set: count(&cfg.ParserCache, 1, 10_000_000)},
		{key: "log.level", set: oneOf(&cfg.Log.Level, "debug", "info", "warn", "error")},
		{key: "log.format", set: oneOf(&cfg.Log.Format, "text", "json")},
		{key: "log.slow_statement", set: durationOrOff(&cfg.Log.SlowStatement)},
		{key: "log.slow_commit", set: durationOrOff(&cfg.Log.SlowCommit)},
		{key: "log.statements", set: oneOf(&cfg.Log.Statements, string(gateway.TextNone), string(gateway.TextRedacted), string(gateway.TextFull))},
		{key: "tracing.endpoint", set: text(&cfg.Tracing.Endpoint, validEndpoint)},
		{key: "tracing.sample", set: share(&cfg.Tracing.Sample)},
	}
}

// nodeFields lists the keys of one entry of nodes.
func (node *NodeConfig) nodeFields() []field {
	return []field{
		{key: "name", set: text(&node.Name, validName)},
		{key: "url", set: text(&node.URL, validURL), secret: true},
	}
}

func text(target *string, valid func(string) error) func(string) error {
	return func(s string) error {
		if err := valid(s); err != nil {
			return err
		}
		*target = s
		return nil
	}
}

func oneOf(target *string, words ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("must be %s, not %q", orList(words), s)
		}
		*target = s
		return nil
	}
}

// optional is oneOf with nothing as another word.
func optional(target *string, words ...string) func(string) error {
	return func(s string) error {
		if s == "" {
			*target = ""
			return nil
		}
		return oneOf(target, words...)(s)
	}
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// list reads what the environment can say: values between commas.
func list(target *[]string) func(string) error {
	return func(s string) error {
		var values []string
		for value := range strings.SplitSeq(s, ",") {
			if value = strings.TrimSpace(value); value != "" {
				values = append(values, value)
			}
		}
		*target = values
		return nil
	}
}

func count(target *int, low, high int, more ...func(int) error) func(string) error {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("must be a whole number, not %q", s)
		}
		if err := within(n, low, high, strconv.Itoa); err != nil {
			return err
		}
		for _, check := range more {
			if err := check(n); err != nil {
				return err
			}
		}
		*target = n
		return nil
	}
}

func within[T int | time.Duration](n, low, high T, spell func(T) string) error {
	switch {
	case n < low:
		return errors.New("must be at least " + spell(low))
	case n > high:
		return errors.New("must be at most " + spell(high))
	}
	return nil
}

func powerOfTwo(n int) error {
	if bits.OnesCount(uint(n)) != 1 {
		return fmt.Errorf("must be a power of two, not %d", n)
	}
	return nil
}

// No duration may be zero: nothing in a commit protocol waits for ever or not
// at all, and to the packages below zero means "the default".
const (
	shortestDuration = time.Millisecond
	longestDuration  = 10 * 365 * 24 * time.Hour
)

func duration(target *time.Duration) func(string) error {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("must be a duration like 500ms, 10s, 5m or 24h, not %q", s)
		}
		if err := within(d, shortestDuration, longestDuration, time.Duration.String); err != nil {
			return err
		}
		*target = d
		return nil
	}
}

// durationOrOff is duration for what can be switched off.
func durationOrOff(target *time.Duration) func(string) error {
	return func(s string) error {
		if s == "off" {
			*target = 0
			return nil
		}
		if err := duration(target)(s); err != nil {
			return fmt.Errorf("%w; or off", err)
		}
		return nil
	}
}

// share reads a part of a whole.
func share(target *float64) func(string) error {
	return func(s string) error {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !(f >= 0 && f <= 1) { // so that NaN is refused too
			return fmt.Errorf("must be a number from 0 to 1, not %q", s)
		}
		*target = f
		return nil
	}
}

var sizeUnits = []struct {
	suffix string
	bytes  int
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}, {"", 1}}

func size(target *int, low, high int) func(string) error {
	return func(s string) error {
		for _, unit := range sizeUnits {
			digits, found := strings.CutSuffix(s, unit.suffix)
			if !found {
				continue
			}
			n, err := strconv.Atoi(strings.TrimSpace(digits))
			if err != nil {
				break
			}
			// Compared before multiplying, which could overflow.
			if n > high/unit.bytes {
				return errors.New("must be at most " + spellSize(high))
			}
			if n*unit.bytes < low {
				return errors.New("must be at least " + spellSize(low))
			}
			*target = n * unit.bytes
			return nil
		}
		return fmt.Errorf("must be a size like 512KiB or 64MiB, not %q", s)
	}
}

func spellSize(n int) string {
	for _, unit := range []int{2, 1, 0} {
		if n%sizeUnits[unit].bytes == 0 {
			return strconv.Itoa(n/sizeUnits[unit].bytes) + sizeUnits[unit].suffix
		}
	}
	return strconv.Itoa(n)
}

func anyText(string) error { return nil }

func validName(s string) error {
	if !participant.ValidName(s) {
		return fmt.Errorf("must be 1 to 63 of a-z, 0-9, - and _, not %q", s)
	}
	return nil
}

func validListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("must be host:port like 127.0.0.1:6432, not %q", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("must end in a port from 0 to 65535, not %q", s)
	}
	return nil
}

// validAdminListen takes an address, or nothing for none.
func validAdminListen(s string) error {
	if s == "" {
		return nil
	}
	return validListen(s)
}

// validEndpoint takes the URL of a collector, or nothing for none.
func validEndpoint(s string) error {
	u, err := url.Parse(s)
	if s != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return errors.New("must be a URL like http://collector:4318")
	}
	return nil
}

// isLoopback tells whether only this machine can reach the address. A name
// other than localhost is not looked up: what it means can change.
func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// validURL checks a database address without ever repeating it: it may hold a
// password, and so may the errors of those who parse it.
func validURL(s string) error {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		return errors.New("must be a URL like postgres://user:password@host:5432/database")
	}
	conf, err := pgconn.ParseConfig(s)
	if err != nil {
		return errors.New("is not a URL that Postgres's own clients would take" +
			" (a password with special characters must be percent-encoded)")
	}
	switch {
	case conf.Host == "":
		return errors.New("must name a host")
	case conf.Database == "":
		return errors.New("must name a database")
	case conf.User == "":
		return errors.New("must name a user")
	}
	return nil
}
