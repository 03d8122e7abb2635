package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

const alicesPassword = "correct horse"

// startGuarded is a front whose clients must prove who they are: alice by her
// password unless the rules say otherwise.
func startGuarded(t *testing.T, cfg FrontConfig, rules ...Rule) *front {
	t.Helper()
	verifier, err := NewVerifier(alicesPassword)
	if err != nil {
		t.Fatal(err)
	}
	if rules == nil {
		rules = []Rule{passwordRule}
	}
	a := newAuthenticator(Authentication{Rules: rules, Verifiers: map[string]Verifier{"alice": verifier}, MockSecret: []byte("secret")})
	cfg.login = a.authenticate
	return startFront(t, cfg, stubSession)
}

// passwordRule lets everybody in by password.
var passwordRule = func() Rule {
	r := TrustEverybody
	r.Method = ScramSHA256
	return r
}()

// rule is one that a test changes.
func rule(change func(*Rule)) Rule {
	r := passwordRule
	change(&r)
	return r
}

// as opens a connection with a name and a password.
func (f *front) as(user, password, options string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	config, err := pgconn.ParseConfig("postgres://" + f.addr + "/bank?" + options)
	if err != nil {
		return err
	}
	config.User, config.Password = user, password
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err == nil {
		_ = conn.Close(ctx)
	}
	return err
}

// wantRefusal expects a FATAL of the server.
func wantRefusal(t *testing.T, what string, err error, code, message string) {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Severity != "FATAL" || pgErr.Code != code || pgErr.Message != message {
		t.Errorf("%s: got %v, want FATAL %s %s", what, err, code, message)
	}
}

func psql(t *testing.T, password, url string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "-X", "-w", "-At", url, "-c", "hello")
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestPasswordsByRealClients: psql and pgx log in, with and without TLS and
// channel binding, and nobody else does.
func TestPasswordsByRealClients(t *testing.T) {
	files := newTLSFiles(t)
	f := startGuarded(t, FrontConfig{Certificates: files.open(t)})
	for _, options := range []string{
		"sslmode=disable", "sslmode=disable&channel_binding=disable", files.verifyFull(), files.verifyFull() + "&channel_binding=require",
		files.verifyFull() + "&channel_binding=disable",
	} {
		if err := f.as("alice", alicesPassword, options); err != nil {
			t.Errorf("pgx, %s: %v", options, err)
		}
		url := "postgres://alice@" + f.addr + "/bank?" + options
		if out, err := psql(t, alicesPassword, url); err != nil {
			t.Errorf("psql, %s: %v %s", options, err, out)
		}
		wantRefusal(t, options, f.as("alice", "wrong", options), "28P01", `password authentication failed for user "alice"`)
		wantRefusal(t, options, f.as("mallory", "wrong", options), "28P01", `password authentication failed for user "mallory"`)
		if out, err := psql(t, "wrong", url); err == nil || !strings.Contains(out, `FATAL:  password authentication failed for user "alice"`) {
			t.Errorf("psql with a wrong password, %s: %v %s", options, err, out)
		}
	}
	// Without TLS there is nothing to bind to, and such a client gives up by itself.
	if out, err := psql(t, alicesPassword, "postgres://alice@"+f.addr+"/bank?sslmode=disable&channel_binding=require"); err == nil {
		t.Errorf("psql took no channel binding for one: %s", out)
	}
	if log := f.log.String(); strings.Contains(log, alicesPassword) || !strings.Contains(log, "wrong password") || !strings.Contains(log, "no such user") {
		t.Errorf("the log: %s", log)
	}
}

// loginTalk is one exchange by hand.
type loginTalk struct {
	*rawClient
	conversation *scram.ClientConversation
}

// begin sends the startup packet and reads what is offered.
func (f *front) begin(user, password string, encrypted bool, converse func(*scram.Client) *scram.ClientConversation) (*loginTalk, []string) {
	f.t.Helper()
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		f.t.Fatal(err)
	}
	c := &loginTalk{rawClient: f.dial()}
	if encrypted {
		c.write(sslRequest)
		c.readByte()
		c.over(tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnProtocol}}))
	}
	if converse == nil {
		converse = (*scram.Client).NewConversation
	}
	c.conversation = converse(client)
	c.write(startupPacket(3<<16, "user", user, "database", "bank"))
	msg, err := c.Receive()
	if err != nil {
		f.t.Fatal(err)
	}
	offer, ok := msg.(*pgproto3.AuthenticationSASL)
	if !ok {
		f.t.Fatalf("offered %#v", msg)
	}
	return c, append([]string(nil), offer.AuthMechanisms...)
}

// first sends the first message of SCRAM and returns the challenge.
func (c *loginTalk) first(mechanism, message string) string {
	c.t.Helper()
	c.send(&pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: []byte(message)})
	msg, err := c.Receive()
	if err != nil {
		c.t.Fatal(err)
	}
	challenge, ok := msg.(*pgproto3.AuthenticationSASLContinue)
	if !ok {
		c.t.Fatalf("instead of a challenge: %#v", msg)
	}
	return string(challenge.Data)
}

func (c *loginTalk) send(msg pgproto3.FrontendMessage) {
	c.t.Helper()
	frame, err := msg.Encode(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(frame)
}

func (c *loginTalk) step(challenge string) string {
	c.t.Helper()
	answer, err := c.conversation.Step(challenge)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer
}

// TestWrongNamesLookLikeWrongPasswords: up to the proof a user who does not exist
// is asked what one who exists is asked, the same each time, and hears the same.
func TestWrongNamesLookLikeWrongPasswords(t *testing.T) {
	f := startGuarded(t, FrontConfig{})
	var seen []string
	for _, user := range []string{"mallory", "mallory", "alice", "nobody"} {
		c, offered := f.begin(user, "guess", false, nil)
		challenge := c.first(offered[0], c.step(""))
		salt := strings.Split(challenge, ",")
		seen = append(seen, salt[1]+salt[2])
		c.send(&pgproto3.SASLResponse{Data: []byte(c.step(challenge))})
		c.wantFatal("28P01", fmt.Sprintf("password authentication failed for user %q", user))
	}
	if seen[0] != seen[1] || seen[0] == seen[3] || len(seen[0]) != len(seen[2]) || !strings.HasSuffix(seen[0], "i=4096") || !strings.HasSuffix(seen[2], "i=4096") {
		t.Errorf("salts and iterations: %q", seen)
	}
}

// TestReplayedMessages: what was right on one connection is worth nothing on
// another.
func TestReplayedMessages(t *testing.T) {
	f := startGuarded(t, FrontConfig{})
	c, offered := f.begin("alice", alicesPassword, false, nil)
	first := c.step("")
	final := c.step(c.first(offered[0], first))
	c.send(&pgproto3.SASLResponse{Data: []byte(final)})
	if seen := c.types(); seen != "RRSKZ" {
		t.Fatalf("the right one: %q", seen)
	}
	replay, _ := f.begin("alice", alicesPassword, false, nil)
	replay.first(mechanismPlain, first)
	replay.send(&pgproto3.SASLResponse{Data: []byte(final)})
	replay.wantFatal("08P01", "invalid SCRAM response")

	// With the new nonce in the old message its proof is wrong.
	replay, _ = f.begin("alice", alicesPassword, false, nil)
	challenge := replay.first(mechanismPlain, first)
	parts := strings.Split(final, ",")
	parts[1], _, _ = strings.Cut(challenge, ",")
	replay.send(&pgproto3.SASLResponse{Data: []byte(strings.Join(parts, ","))})
	replay.wantFatal("28P01", `password authentication failed for user "alice"`)
}

// TestDowngradeIsNoticed: a man in the middle who removes the offer of channel
// binding, or has a TLS connection of his own to the gateway, gets nowhere.
func TestDowngradeIsNoticed(t *testing.T) {
	f := startGuarded(t, FrontConfig{Certificates: newTLSFiles(t).open(t)})
	c, offered := f.begin("alice", alicesPassword, true, nil)
	if fmt.Sprint(offered) != "[SCRAM-SHA-256-PLUS SCRAM-SHA-256]" {
		t.Errorf("offered inside TLS: %v", offered)
	}
	c.send(&pgproto3.SASLInitialResponse{AuthMechanism: mechanismPlain, Data: []byte("y,,n=,r=" + strings.Repeat("x", 24))})
	c.wantFatal("28000", "SCRAM channel binding negotiation error")

	elsewhere := scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: []byte(strings.Repeat("x", 32))}
	c, _ = f.begin("alice", alicesPassword, true, func(client *scram.Client) *scram.ClientConversation {
		return client.NewConversationWithChannelBinding(elsewhere)
	})
	c.send(&pgproto3.SASLResponse{Data: []byte(c.step(c.first(mechanismPlus, c.step(""))))})
	c.wantFatal("28000", "SCRAM channel binding check failed")

	c, offered = f.begin("alice", alicesPassword, false, nil)
	if fmt.Sprint(offered) != "[SCRAM-SHA-256]" {
		t.Errorf("offered without TLS: %v", offered)
	}
	c.send(&pgproto3.SASLInitialResponse{AuthMechanism: mechanismPlus, Data: []byte("p=tls-server-end-point,,n=,r=x")})
	c.wantFatal("08P01", "client selected an invalid SASL authentication mechanism")
}

// TestMalformedLogins: whatever comes in place of a message of SCRAM ends the
// connection, and nothing else.
func TestMalformedLogins(t *testing.T) {
	f := startGuarded(t, FrontConfig{})
	initial := func(mechanism, data string) []byte {
		frame, err := (&pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: []byte(data)}).Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		return frame
	}
	for name, tc := range map[string]struct {
		bytes   []byte
		message string
	}{
		"a query":                  {query("SELECT 1"), "expected SASL response, got message type 81"},
		"a clear password":         {[]byte("p\x00\x00\x00\x08abc\x00"), "malformed SCRAM message"},
		"nothing":                  {[]byte("p\x00\x00\x00\x04"), "malformed SCRAM message"},
		"no name of a mechanism":   {[]byte("p\x00\x00\x00\x05x"), "malformed SCRAM message"},
		"a length beyond the end":  {[]byte("p\x00\x00\x00\x1aSCRAM-SHA-256\x00\x7f\xff\xff\xffn,,x"), "malformed SCRAM message"},
		"a length of -2":           {[]byte("p\x00\x00\x00\x1aSCRAM-SHA-256\x00\xff\xff\xff\xfen,,x"), "malformed SCRAM message"},
		"a message near 2 GB":      {[]byte("p\x7f\xff\xff\xff"), "invalid message length"},
		"a negative length":        {[]byte("p\xff\xff\xff\xff"), "invalid message length"},
		"another mechanism":        {initial("PLAIN", "\x00alice\x00x"), "client selected an invalid SASL authentication mechanism"},
		"no SCRAM":                 {initial(mechanismPlain, "hello"), "malformed SCRAM message"},
		"binding where none is":    {initial(mechanismPlain, "p=tls-server-end-point,,n=,r=x"), "malformed SCRAM message"},
		"an extension":             {initial(mechanismPlain, "n,,m=x,n=,r=x"), "malformed SCRAM message"},
		"an oversized message":     {initial(mechanismPlain, "n,,n=,r="+strings.Repeat("x", maxLoginMessage)), "invalid message length"},
		"a name that is not UTF-8": {initial(mechanismPlain, "n,,n=\xff=,r=x"), "malformed SCRAM message"},
	} {
		c, _ := f.begin("alice", alicesPassword, false, nil)
		c.t = t
		c.write(tc.bytes)
		t.Run(name, func(t *testing.T) {
			c.t = t
			c.wantFatal("08P01", tc.message)
		})
	}
	for _, final := range []string{"", "hello", "c=biws", "c=biws,r=x,p=!", "c=biws,r=x,p=eA=="} {
		c, offered := f.begin("alice", alicesPassword, false, nil)
		c.first(offered[0], c.step(""))
		c.send(&pgproto3.SASLResponse{Data: []byte(final)})
		msg, err := c.Receive()
		if fatal, ok := msg.(*pgproto3.ErrorResponse); err != nil || !ok || fatal.Code != "08P01" {
			t.Errorf("final message %q: %#v, %v", final, msg, err)
		}
	}
	if err := f.as("alice", alicesPassword, "sslmode=disable"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Who says nothing after the offer is cut off like anybody else who is slow.
func TestLoginHasADeadline(t *testing.T) {
	f := startGuarded(t, FrontConfig{StartupTimeout: 200e6})
	c, _ := f.begin("alice", alicesPassword, false, nil)
	c.wantFatal("57014", "canceling authentication due to timeout")
}

func TestRulesDecide(t *testing.T) {
	files := newTLSFiles(t)
	files.files.ClientCA = files.root
	certificates := files.open(t)
	cert, key := files.IssueFiles(t, files.dir, "alice", "alice")
	bobs, bobsKey := files.IssueFiles(t, files.dir, "bob", "bob")
	foreign := newTLSFiles(t)
	foreignCert, foreignKey := foreign.IssueFiles(t, foreign.dir, "alice", "alice")
	with := func(cert, key string) string { return files.verifyFull() + "&sslcert=" + cert + "&sslkey=" + key }
	const plain = "sslmode=disable"
	loopback, _ := ParseAddresses("127.0.0.0/8")
	elsewhere, _ := ParseAddresses("10.0.0.0/8")
	noEntry := func(user, encryption string) string {
		return fmt.Sprintf(`no pg_hba.conf entry for host "127.0.0.1", user %q, database "bank", %s`, user, encryption)
	}
	for _, tc := range []struct {
		name          string
		rules         []Rule
		user, options string
		code, message string // "" for being let in
	}{
		{"plaintext against hostssl", []Rule{rule(func(r *Rule) { r.Type = OnlyTLS })}, "alice", plain, "28000", noEntry("alice", "no encryption")},
		{"TLS against hostssl", []Rule{rule(func(r *Rule) { r.Type = OnlyTLS })}, "alice", files.verifyFull(), "", ""},
		{"TLS against hostnossl", []Rule{rule(func(r *Rule) { r.Type = WithoutTLS })}, "alice", files.verifyFull(), "28000", noEntry("alice", "SSL encryption")},
		{"another user", []Rule{rule(func(r *Rule) { r.Users = []string{"bob"} })}, "alice", plain, "28000", noEntry("alice", "no encryption")},
		{"another database", []Rule{rule(func(r *Rule) { r.Databases = []string{"other", "bank2"} })}, "alice", plain, "28000", noEntry("alice", "no encryption")},
		{"the database", []Rule{rule(func(r *Rule) { r.Databases = []string{"other", "bank"} })}, "alice", plain, "", ""},
		{"sameuser", []Rule{rule(func(r *Rule) { r.Databases = []string{"sameuser"} })}, "alice", plain, "28000", noEntry("alice", "no encryption")},
		{"another address", []Rule{rule(func(r *Rule) { r.Addresses = elsewhere })}, "alice", plain, "28000", noEntry("alice", "no encryption")},
		{"the address", []Rule{rule(func(r *Rule) { r.Addresses = loopback })}, "alice", plain, "", ""},
		{"no rules at all", []Rule{}, "alice", plain, "28000", noEntry("alice", "no encryption")},
		{"the first that fits decides", []Rule{rule(func(r *Rule) { r.Method = Reject }), TrustEverybody}, "alice", plain, "28000",
			`pg_hba.conf rejects connection for host "127.0.0.1", user "alice", database "bank", no encryption`},
		{"trust for some", []Rule{rule(func(r *Rule) { r.Users, r.Method = []string{"monitor"}, Trust }), passwordRule}, "monitor", plain, "", ""},
		{"and not for others", []Rule{rule(func(r *Rule) { r.Users, r.Method = []string{"monitor"}, Trust }), passwordRule}, "carol", plain, "28P01",
			`password authentication failed for user "carol"`},
		{"certificate", []Rule{rule(func(r *Rule) { r.Method = Cert })}, "alice", with(cert, key), "", ""},
		{"certificate of another user", []Rule{rule(func(r *Rule) { r.Method = Cert })}, "alice", with(bobs, bobsKey), "28000",
			`certificate authentication failed for user "alice"`},
		{"no certificate", []Rule{rule(func(r *Rule) { r.Method = Cert })}, "alice", files.verifyFull(), "28000", "connection requires a valid client certificate"},
		{"no TLS, so no certificate", []Rule{rule(func(r *Rule) { r.Method = Cert })}, "alice", plain, "28000", "connection requires a valid client certificate"},
		{"password and certificate", []Rule{rule(func(r *Rule) { r.ClientCert = VerifyFull })}, "alice", with(cert, key), "", ""},
		{"password and another's certificate", []Rule{rule(func(r *Rule) { r.ClientCert = VerifyFull })}, "alice", with(bobs, bobsKey), "28000",
			`certificate authentication failed for user "alice"`},
		{"password and any certificate", []Rule{rule(func(r *Rule) { r.ClientCert = VerifyCA })}, "alice", with(bobs, bobsKey), "", ""},
		{"password and no certificate", []Rule{rule(func(r *Rule) { r.ClientCert = VerifyCA })}, "alice", files.verifyFull(), "28000",
			"connection requires a valid client certificate"},
	} {
		f := startGuarded(t, FrontConfig{Certificates: certificates}, tc.rules...)
		password := alicesPassword
		if tc.code == "28P01" {
			password = "guess"
		}
		if err := f.as(tc.user, password, tc.options); tc.code == "" && err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if tc.code != "" {
			wantRefusal(t, tc.name, err, tc.code, tc.message)
		}
	}
	f := startGuarded(t, FrontConfig{Certificates: certificates}, rule(func(r *Rule) { r.Method = Cert }))
	var pgErr *pgconn.PgError
	if err := f.as("alice", "", with(foreignCert, foreignKey)); err == nil || errors.As(err, &pgErr) {
		t.Errorf("a certificate of another authority ends in the handshake: %v", err)
	}
}

func TestParseAddresses(t *testing.T) {
	for text, inside := range map[string]string{"all": "8.8.8.8", "10.1.2.3": "10.1.2.3", "10.0.0.0/8": "10.9.9.9", "fd00::/8": "fd00::1"} {
		addresses, err := ParseAddresses(text)
		r := rule(func(r *Rule) { r.Addresses = addresses })
		if err != nil || !r.fits(applicant{user: "u", database: "d", remote: remoteAddr(&net.TCPAddr{IP: net.ParseIP(inside)})}) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"", "10.0.0.1/8", "10.0.0", "localhost", "10.0.0.0/33", "fe80::1%eth0", "ALL"} {
		if addresses, err := ParseAddresses(text); err == nil {
			t.Errorf("%q was accepted: %v", text, addresses)
		}
	}
}
