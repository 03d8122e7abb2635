package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const minimal = `coordinator:
  url: postgres://pgpact:hunter2@127.0.0.1:5432/coordinator
nodes:
  - name: a
    url: postgres://pgpact@127.0.0.1:5433/pgpact
  - name: b
    url: postgres://pgpact@127.0.0.1:5434/pgpact
`

// The example is the documentation of every key: it parses, shows the defaults,
// and names every key there is.
func TestExampleIsComplete(t *testing.T) {
	got, err := parseConfig("pgpact.example.yaml", []byte(exampleConfig), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.Coordinator.URL = "postgres://pgpact@127.0.0.1:5432/coordinator"
	want.Nodes = []NodeConfig{
		{"a", "postgres://pgpact@127.0.0.1:5433/pgpact"},
		{"b", "postgres://pgpact@127.0.0.1:5434/pgpact"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the example is not the defaults: %s", diff)
	}
	for _, f := range got.fields() {
		if _, written := got.origins[f.key]; !written {
			t.Errorf("%s is missing in the example", f.key)
		}
	}
}

// Every value of Config can be reached by a key: setting all keys leaves none
// of them zero.
func TestFieldsCoverConfig(t *testing.T) {
	var cfg Config
	samples := map[string]string{
		"auth": "trust", "listen": ":1", "admin_listen": ":2", "log.level": "warn", "log.format": "json", "log.statements": "full", "max_message_size": "2MiB", "max_statement_bytes": "2MiB", "max_portal_bytes": "2MiB",
		"coordinator.url": "postgres://u@h/d", "buckets": "2", "database": "d", "name": "n", "users": "u", "tracing.endpoint": "http://h", "tracing.sample": "0.5", "tls.min_version": "1.3", "roles": "client", "read_consistency": "atomic",
	}
	for _, f := range cfg.fields() {
		text, ok := samples[f.key]
		if !ok {
			text = "7"
			if f.set(text) != nil {
				text = "7s"
			}
		}
		if err := f.set(text); err != nil {
			t.Errorf("%s: %v", f.key, err)
		}
	}
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if v.Type().Field(i).IsExported() && !slices.Contains([]string{"Nodes", "Rules", "Verifiers"}, name) && v.Field(i).IsZero() {
			t.Errorf("no key sets Config.%s", name)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	tests := []struct {
		name, source string
		want         []string // one per line, in order
	}{
		{"empty", "", []string{"c.yaml: the file is empty; `pgpact config example` prints one to start from"}},
		{"a list", "- a\n", []string{"c.yaml:1:1: must be keys and values, like `slots: 64`"}},
		{"two documents", minimal + "---\nslots: 1\n", []string{"c.yaml:9:6: a second YAML document: the configuration is one"}},
		{"unknown key", minimal + "slotts: 3\n", []string{"c.yaml:8:1: slotts: unknown key; did you mean slots?"}},
		{"unknown inner key", minimal + "log:\n  colour: red\n",
			[]string{"c.yaml:9:3: log.colour: unknown key; `pgpact config example` shows all of them"}},
		{"unknown key of a node", minimal + "  - name: c\n    uri: postgres://u@h/d\n", []string{
			"c.yaml:9:5: nodes[2].uri: unknown key; did you mean url?",
			"c.yaml:8:5: nodes[2].url: is missing: the address of node \"c\" (or set PGPACT_NODES_C_URL)"}},
		{"too small", minimal + "slots: 0\n", []string{"c.yaml:8:8: slots: must be at least 1"}},
		{"not a number", minimal + "slots: many\n", []string{`c.yaml:8:8: slots: must be a whole number, not "many"`}},
		{"no unit", minimal + "slot_timeout: 10\n",
			[]string{`c.yaml:8:15: slot_timeout: must be a duration like 500ms, 10s, 5m or 24h, not "10"`}},
		{"zero duration", minimal + "sweep_interval: 0s\n", []string{"c.yaml:8:17: sweep_interval: must be at least 1ms"}},
		{"negative", minimal + "retention: -1h\n", []string{"c.yaml:8:12: retention: must be at least 1ms"}},
		{"size", minimal + "max_message_size: 3GiB\n", []string{"c.yaml:8:19: max_message_size: must be at most 1GiB"}},
		{"size unit", minimal + "max_message_size: 3MB\n",
			[]string{`c.yaml:8:19: max_message_size: must be a size like 512KiB or 64MiB, not "3MB"`}},
		{"buckets", minimal + "buckets: 100\n", []string{"c.yaml:8:10: buckets: must be a power of two, not 100"}},
		{"fewer buckets than nodes", minimal + "buckets: 1\n",
			[]string{"c.yaml:8:10: buckets: must be at least the number of nodes, which is 2"}},
		{"level", minimal + "log:\n  level: loud\n",
			[]string{`c.yaml:9:10: log.level: must be debug, info, warn or error, not "loud"`}},
		{"a mapping for a value", minimal + "slots:\n  count: 3\n", []string{"c.yaml:9:8: slots: must be a single plain value"}},
		{"a value for a mapping", minimal + "log: debug\n",
			[]string{"c.yaml:8:1: log: must be a mapping, with keys of its own on the lines below"}},
		{"no value", minimal + "slots:\n", []string{"c.yaml:8:1: slots: has no value; leave the key out for the default"}},
		{"auth", minimal + "auth: password\n", []string{`c.yaml:8:7: auth: must be trust, scram-sha-256, cert or reject, not "password"`}},
		{"open to the world without passwords", minimal + "listen: 0.0.0.0:6432\n",
			[]string{"c.yaml:8:9: auth: scram-sha-256 (the default when listen can be reached from other machines) needs passwords: " +
				"write verifiers, which `pgpact user NAME` makes, or auth_query"}},
		{"certificates without authorities", minimal + "auth: cert\n",
			[]string{"c.yaml:8:7: auth: client certificates need tls.client_ca: the authorities that they are judged by"}},
		{"two ways to say it", minimal + "auth: trust\nrules:\n- {type: host, database: all, user: all, address: all, method: trust}\n",
			[]string{"c.yaml:8:7: auth: cannot be written together with rules, which say it for each connection"}},
		{"rules", minimal + "rules:\n- {type: tcp, database: all, user: all, address: all, method: trust}\n" +
			"- {type: host, database: [], user: all, address: 10.0.0.1/8, method: md5}\n- {type: host, usr: x, method: reject}\n- all\n",
			[]string{`c.yaml:9:10: rules[0].type: must be host, hostssl or hostnossl, not "tcp"`,
				"c.yaml:10:26: rules[1].database: must be all, a name, or a list of names",
				"c.yaml:10:50: rules[1].address: 10.0.0.1/8 has bits to the right of its mask: is 10.0.0.0/8 meant?",
				`c.yaml:10:70: rules[1].method: must be trust, scram-sha-256, cert or reject, not "md5"`,
				"c.yaml:11:16: rules[2].usr: unknown key; did you mean user?", "c.yaml:11:4: rules[2].database: is missing",
				"c.yaml:11:4: rules[2].user: is missing", "c.yaml:11:4: rules[2].address: is missing",
				"c.yaml:12:3: rules[3]: must have the keys type, database, user, address and method"}},
		{"a rule for TLS without TLS", minimal + "rules:\n- {type: hostssl, database: all, user: all, address: all, method: trust}\n",
			[]string{"c.yaml:9:4: rules[0]: hostssl needs tls.cert and tls.key: without them no connection is encrypted"}},
		{"no list of rules", minimal + "rules: all\n", []string{"c.yaml:8:1: rules: must be a list: lines that begin with `- type: hostssl`"}},
		{"a clear password", minimal + "verifiers:\n  alice: s3cret\n",
			[]string{"c.yaml:9:10: verifiers.alice: is not a SCRAM-SHA-256 verifier, as `pgpact user NAME` makes them"}},
		{"an md5 password", minimal + "verifiers:\n  alice: md5abc\n",
			[]string{"c.yaml:9:10: verifiers.alice: is an md5 verifier, which is not supported: set the password again with password_encryption = scram-sha-256"}},
		{"half of TLS", minimal + "tls:\n  cert: a.crt\n", []string{"c.yaml:9:9: tls.cert: needs tls.key as well"}},
		{"the other half", minimal + "tls:\n  key: a.key\n", []string{"c.yaml:9:8: tls.key: needs tls.cert as well"}},
		{"authorities alone", minimal + "tls:\n  client_ca: ca.crt\n",
			[]string{"c.yaml:9:14: tls.client_ca: needs tls.cert and tls.key: clients show their certificates over TLS only"}},
		{"old TLS", minimal + "tls:\n  min_version: 1.1\n", []string{`c.yaml:9:16: tls.min_version: must be 1.2 or 1.3, not "1.1"`}},
		{"listen", minimal + "listen: 6432\n", []string{`c.yaml:8:9: listen: must be host:port like 127.0.0.1:6432, not "6432"`}},
		{"admin listen", minimal + "admin_listen: 6480\n", []string{`c.yaml:8:15: admin_listen: must be host:port like 127.0.0.1:6432, not "6480"`}},
		{"admin and clients", minimal + "admin_listen: 127.0.0.1:6432\n",
			[]string{"c.yaml:8:15: admin_listen: is where clients are served (listen); it needs an address of its own"}},
		{"slow", minimal + "log:\n  slow_commit: often\n",
			[]string{`c.yaml:9:16: log.slow_commit: must be a duration like 500ms, 10s, 5m or 24h, not "often"; or off`}},
		{"collector", minimal + "tracing:\n  endpoint: collector:4318\n",
			[]string{"c.yaml:9:13: tracing.endpoint: must be a URL like http://collector:4318"}},
		{"sample", minimal + "tracing:\n  sample: 10%\n", []string{`c.yaml:9:11: tracing.sample: must be a number from 0 to 1, not "10%"`}},
		{"not a number to sample", minimal + "tracing:\n  sample: NaN\n", []string{`c.yaml:9:11: tracing.sample: must be a number from 0 to 1, not "NaN"`}},
		{"in doubt", minimal + "in_doubt_timeout: 15s\n",
			[]string{"c.yaml:8:19: in_doubt_timeout: must be longer than prepare_timeout and decision_timeout together (20s)"}},
		{"key retention", minimal + "key_retention: 1h\n", []string{"c.yaml:8:16: key_retention: must be at least retention (24h0m0s)"}},
		{"node name", strings.Replace(minimal, "name: b", "name: B", 1),
			[]string{`c.yaml:6:11: nodes[1].name: must be 1 to 63 of a-z, 0-9, - and _, not "B"`}},
		{"node twice", strings.Replace(minimal, "name: b", "name: a", 1),
			[]string{`c.yaml:6:11: nodes[1].name: "a" is already the name of nodes[0]`}},
		{"one database twice", strings.Replace(minimal, "5434", "5433", 1),
			[]string{`c.yaml:7:10: nodes[1].url: is the database of node "a" (127.0.0.1:5433/pgpact): two nodes cannot be one`}},
		{"no nodes", "coordinator:\n  url: postgres://u@h/d\n", []string{"c.yaml: nodes: at least one node is needed"}},
		{"no coordinator", "nodes:\n  - {name: a, url: postgres://u@h/d}\n",
			[]string{"c.yaml: coordinator.url: is missing: the address of the database that remembers decisions"}},
		{"several at once", minimal + "slots: 0\nretentoin: 1h\n",
			[]string{"c.yaml:8:8: slots: must be at least 1", "c.yaml:9:1: retentoin: unknown key; did you mean retention?"}},
		{"variable that is not set", strings.Replace(minimal, "hunter2", "${SECRET}", 1),
			[]string{"c.yaml:2:8: coordinator.url: the environment variable SECRET is not set"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig("c.yaml", []byte(test.source), nil)
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(test.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a YAML parser says is its own business, where it says it is ours.
func TestSyntaxErrorsBearTheirPlace(t *testing.T) {
	for source, place := range map[string]string{
		minimal + "slots: [1\n":           "c.yaml:8:",
		minimal + "slots: 1\nslots: 2\n":  "c.yaml:9:1: ",
		"slots: 1\n\tname: x\n":           "c.yaml:2:",
		"coordinator: {url: postgres://x": "c.yaml:1:",
	} {
		_, err := parseConfig("c.yaml", []byte(source), nil)
		if err == nil || !strings.HasPrefix(err.Error(), place) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line at %s", source, err, place)
		}
	}
}

// No refusal, however broken the address, repeats a password.
func TestPasswordsAreNeverRepeated(t *testing.T) {
	for _, address := range []string{
		"postgres://u:s3cret@[::1/d", "postgres://u:s3cret@h:port/d", "postgres://u:s3%zzcret@h/d", "u:s3cret@h",
		"postgres://u:s3cret@h/", "postgres://u:s3cret@/d?port=x", "host=h password=s3cret",
		"postgres://h/d?password=s3cret&sslmode=sometimes", "mysql://u:s3cret@h/d",
	} {
		source := strings.Replace(minimal, "postgres://pgpact:hunter2@127.0.0.1:5432/coordinator", "'"+address+"'", 1)
		_, err := parseConfig("c.yaml", []byte(source), nil)
		if err == nil {
			t.Errorf("%s was accepted", address)
			continue
		}
		if strings.Contains(err.Error(), "s3") || !strings.Contains(err.Error(), "c.yaml:2:8: coordinator.url: ") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	source := strings.Replace(minimal, "hunter2", "${DB_PASSWORD}", 1)
	cfg, err := parseConfig("c.yaml", []byte(source), []string{
		"DB_PASSWORD=p@ss /word", "PGPACT_SLOTS=3", "PGPACT_LOG_LEVEL=debug", "PGPACT_USERS=alice, bob",
		"PGPACT_NODES_B_URL=postgres://other@10.0.0.1/x", "PGPACT_SLOT_TIMEOUT=250ms",
		"PGPACT_TEST_ANYTHING=1", "PGPACT_URL=postgres://u@h/d", "PGPACT_IMAGE=x", "PGPACT_POSTGRES_IMAGE=x", "PGPACT_SERVICE_HOST=10.1.1.1",
		"PGPACT_PORT=tcp://10.1.1.1:6432", "PGPACT_PORT_6432_TCP_ADDR=10.1.1.1", "PATH=/bin",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.Coordinator.URL = "postgres://pgpact:p%40ss%20%2Fword@127.0.0.1:5432/coordinator"
	want.Nodes = []NodeConfig{{"a", "postgres://pgpact@127.0.0.1:5433/pgpact"}, {"b", "postgres://other@10.0.0.1/x"}}
	want.Slots, want.Users, want.Log.Level, want.SlotTimeout = 3, []string{"alice", "bob"}, "debug", 250*time.Millisecond
	if diff := cmp.Diff(want, cfg, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}

	_, err = parseConfig("c.yaml", []byte(minimal), []string{
		"PGPACT_SLOTTS=1", "PGPACT_NODES_C_URL=postgres://u@h/d", "PGPACT_SLOTS=-1", "PGPACT_COORDINATOR_URL=postgres://u:s3cret@h:x/d"})
	wantLines := []string{
		"environment variable PGPACT_COORDINATOR_URL: coordinator.url: is not a URL that Postgres's own clients would take" +
			" (a password with special characters must be percent-encoded)",
		"environment variable PGPACT_NODES_C_URL: sets no key of the configuration; did you mean PGPACT_NODES_A_URL?",
		"environment variable PGPACT_SLOTS: slots: must be at least 1",
		"environment variable PGPACT_SLOTTS: sets no key of the configuration; did you mean PGPACT_SLOTS?",
	}
	if err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(wantLines, strings.Split(err.Error(), "\n")); diff != "" {
		t.Error(diff)
	}
}

// A file may hold placeholders for everything secret: the whole address can be
// a variable, and a node's can be left to PGPACT_NODES_..._URL.
func TestAddressesFromTheEnvironmentAlone(t *testing.T) {
	source := "coordinator:\n  url: ${COORD}\nnodes:\n  - name: eu-1\n"
	cfg, err := parseConfig("c.yaml", []byte(source),
		[]string{"COORD=postgres://u:p%40@h:1/c", "PGPACT_NODES_EU_1_URL=postgres://u@h:2/d"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Coordinator.URL != "postgres://u:p%40@h:1/c" || cfg.Nodes[0] != (NodeConfig{"eu-1", "postgres://u@h:2/d"}) {
		t.Errorf("%+v", cfg)
	}
}

// The example promises variables for keys; every key it names in prose exists.
func TestExampleNamesRealVariables(t *testing.T) {
	known := map[string]bool{"PGPACT_NODES_A_URL": true, "PGPACT_": true}
	for _, f := range defaultConfig().fields() {
		known[envName(f.key)] = true
	}
	for _, name := range regexp.MustCompile(`PGPACT_[A-Z_]*`).FindAllString(exampleConfig, -1) {
		if !known[name] {
			t.Errorf("%s is no variable", name)
		}
	}
}

func TestConfigCommands(t *testing.T) {
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"config", "example"}, &out, &errs); code != 0 || out.String() != exampleConfig {
		t.Errorf("config example: %d %s", code, errs.String())
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(out.String()+"\nslotts: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if code := run(t.Context(), []string{"config", "test", "--config", path}, &out, &errs); code != exitFailure ||
		!strings.HasPrefix(errs.String(), "pgpact: "+path+":") {
		t.Errorf("config test: %d %q", code, errs.String())
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"serve"}, {"serve", "--nope"}, {"serve", "extra", "--config", "x"}, {"nosuch"}, {"config"}, {"demo", "--nodes", "x"},
		{"serve", "--config", "/nonexistent", "--crash-at", "nowhere"}, {"demo", "--nodes", "17"}, {"demo", "--accounts", "-1"},
	} {
		var out, errs strings.Builder
		if code := run(t.Context(), args, &out, &errs); code != exitUsage || !strings.HasPrefix(errs.String(), "pgpact: ") {
			t.Errorf("%v: exit %d, %q", args, code, errs.String())
		}
	}
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"check", "--config", "/nonexistent"}, &out, &errs); code != exitFailure ||
		errs.String() != "pgpact: open /nonexistent: no such file or directory\n" {
		t.Errorf("missing file: exit %d, %q", code, errs.String())
	}
}
