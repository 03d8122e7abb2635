package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

// Authentication: which of the rules a client comes under, and whether it proves
// what that rule demands. The words and SQLSTATEs are Postgres's. Whatever is
// wrong with a password login, the name or the password, everything until the
// last message is the same, and so is the work.

// Authentication says who may come in.
type Authentication struct {
	// Rules are asked in their order, and the first that fits decides; if none
	// does, the client is refused. Nil: everybody is trusted.
	Rules []Rule
	// Verifiers are users' passwords, by name.
	Verifiers map[string]Verifier
	// Lookup finds the verifier of a user who is not in Verifiers, as Postgres
	// keeps it; "" if there is none. Nil: there are no others.
	Lookup func(ctx context.Context, user string) (string, error)
	// MockSecret makes what users who do not exist are asked with. All gateways of
	// a cluster have the same, and nobody else knows it.
	MockSecret []byte
	// FailedLogins is how many logins of one address may fail per second; more
	// have to wait, and are refused if they would wait long. Default 100.
	FailedLogins int
}

const (
	mechanismPlain = "SCRAM-SHA-256"
	mechanismPlus  = "SCRAM-SHA-256-PLUS"

	// maxLoginMessage bounds a message of somebody who has proved nothing yet.
	// Those of SCRAM take some hundred bytes.
	maxLoginMessage = 8 << 10
)

// authenticator is Authentication at work.
type authenticator struct {
	Authentication
	limiter    *loginLimiter
	iterations int // of those who do not exist: as most of those who do
}

func newAuthenticator(a Authentication) *authenticator {
	if a.Rules == nil {
		a.Rules = []Rule{TrustEverybody}
	}
	setDefault(&a.FailedLogins, 100)
	auth := &authenticator{Authentication: a, limiter: newLoginLimiter(a.FailedLogins), iterations: defaultIterations}
	for _, v := range a.Verifiers {
		auth.iterations = max(auth.iterations, v.stored.Iters)
	}
	return auth
}

// refused is why a client was not let in: what it is told, and what only the log
// may know.
type refused struct {
	*pgconn.PgError
	reason string
}

func (e *refused) Unwrap() error { return e.PgError }

// authenticate lets a client in, or says why not.
func (a *authenticator) authenticate(ctx context.Context, c *client) error {
	who := applicant{
		user: c.startup["user"], database: c.startup["database"],
		remote: remoteAddr(c.conn.RemoteAddr()), encrypted: c.conn.tls != nil,
	}
	rule := ruleFor(a.Rules, who)
	if rule == nil {
		return &refused{asPgError(errNoRule(who)), "no rule fits"}
	}
	if err := a.checkCertificate(c, rule, who.user); err != nil {
		return err
	}
	switch rule.Method {
	case Trust, Cert:
		return nil
	case ScramSHA256:
		return a.scram(ctx, c, who.user)
	}
	return &refused{asPgError(errRejected(who)), "a rule rejects"}
}

func asPgError(err error) *pgconn.PgError {
	pgErr, _ := clientError(err)
	return pgErr
}

// checkCertificate looks at the client's certificate if the rule demands one. It
// has been verified in the handshake: one that is there is good.
func (a *authenticator) checkCertificate(c *client, rule *Rule, user string) error {
	if rule.Method != Cert && rule.ClientCert == "" {
		return nil
	}
	if c.conn.tls == nil || len(c.conn.tls.state.PeerCertificates) == 0 {
		return &refused{frontError(pgerrcode.InvalidAuthorizationSpecification, "connection requires a valid client certificate"), "no certificate"}
	}
	if rule.Method != Cert && rule.ClientCert != VerifyFull {
		return nil
	}
	name := c.conn.tls.state.PeerCertificates[0].Subject.CommonName
	if name == user { // a name with a zero byte in it equals none
		return nil
	}
	return &refused{frontError(pgerrcode.InvalidAuthorizationSpecification, fmt.Sprintf(`certificate authentication failed for user "%s"`, user)),
		fmt.Sprintf(`the certificate is that of "%s"`, name)}
}

// verifier is what user's password must fit. exists is for the log alone.
func (a *authenticator) verifier(ctx context.Context, user string) (v Verifier, exists string, err error) {
	if v, ok := a.Verifiers[user]; ok {
		return v, "", nil
	}
	exists = "no such user"
	if a.Lookup != nil {
		text, err := a.Lookup(ctx, user)
		if err != nil {
			return Verifier{}, "", err
		}
		if text != "" {
			if v, err := ParseVerifier(text); err == nil {
				return v, "", nil
			} else {
				exists = "the user's password in the database " + err.Error()
			}
		}
	}
	return mockVerifier(a.MockSecret, user, a.iterations), exists, nil
}

// scram runs the SASL exchange of SCRAM-SHA-256, with channel binding if the
// client has it too.
func (a *authenticator) scram(ctx context.Context, c *client, user string) error {
	if err := a.limiter.take(ctx, c.conn.RemoteAddr()); err != nil {
		return err
	}
	verifier, exists, err := a.verifier(ctx, user)
	if err != nil {
		return &refused{frontError(pgerrcode.CannotConnectNow, "the users cannot be looked up at the moment"), err.Error()}
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return verifier.stored, nil })
	if err != nil {
		return err
	}
	offered := []string{mechanismPlain}
	conversation := server.NewConversation()
	if binding, ok := channelBinding(c.conn.tls); ok {
		offered = []string{mechanismPlus, mechanismPlain} // libpq takes the first it knows
		conversation = server.NewConversationWithChannelBinding(binding)
	}
	c.reader.Limit(maxLoginMessage)
	first, err := a.askFirst(c, offered)
	if err != nil {
		return err
	}
	challenge, err := conversation.Step(first)
	if err != nil {
		return scramError(user, challenge, "", err)
	}
	c.send(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)})
	final, err := nextPassword(c)
	if err != nil {
		return err
	}
	answer, err := conversation.Step(string(final))
	if err != nil || exists != "" {
		return scramError(user, answer, exists, err)
	}
	a.limiter.giveBack(c.conn.RemoteAddr())
	c.send(&pgproto3.AuthenticationSASLFinal{Data: []byte(answer)})
	return nil
}

// askFirst offers mechanisms and returns the client's first SCRAM message.
func (a *authenticator) askFirst(c *client, offered []string) (string, error) {
	c.send(&pgproto3.AuthenticationSASL{AuthMechanisms: offered})
	body, err := nextPassword(c)
	if err != nil {
		return "", err
	}
	var response pgproto3.SASLInitialResponse
	if err := response.Decode(body); err != nil {
		return "", malformedScram("")
	}
	first := string(response.Data)
	bound := strings.HasPrefix(first, "p=")
	switch mechanism := response.AuthMechanism; {
	case !slices.Contains(offered, mechanism):
		return "", frontError(pgerrcode.ProtocolViolation, "client selected an invalid SASL authentication mechanism")
	case mechanism == mechanismPlain && bound:
		return "", malformedScram("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.")
	case mechanism == mechanismPlus && !bound:
		return "", malformedScram("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.")
	}
	return first, nil
}

// nextPassword waits for a message of type 'p', which all of a login are.
func nextPassword(c *client) ([]byte, error) {
	if err := c.flush(); err != nil {
		return nil, err
	}
	frame, err := c.next(wait{})
	if err != nil {
		return nil, err
	}
	if frame.Type() != 'p' {
		return nil, frontError(pgerrcode.ProtocolViolation, fmt.Sprintf("expected SASL response, got message type %d", frame.Type()))
	}
	return frame.Body(), nil
}

func malformedScram(detail string) error {
	err := frontError(pgerrcode.ProtocolViolation, "malformed SCRAM message")
	err.Detail = detail
	return err
}

// scramError is why the exchange failed: answer is SCRAM's own word for it, and
// exists, if not "", why no password could have been right.
func scramError(user, answer, exists string, err error) error {
	switch {
	case answer == scram.ErrServerDoesSupportChannelBinding:
		pgErr := frontError(pgerrcode.InvalidAuthorizationSpecification, "SCRAM channel binding negotiation error")
		pgErr.Detail = "The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding."
		return &refused{pgErr, "somebody between may have removed the offer"}
	case answer == scram.ErrUnsupportedChannelBindingType || answer == scram.ErrChannelBindingNotSupported:
		return frontError(pgerrcode.ProtocolViolation, "unsupported SCRAM channel-binding type")
	case answer == scram.ErrChannelBindingsDontMatch:
		return &refused{frontError(pgerrcode.InvalidAuthorizationSpecification, "SCRAM channel binding check failed"), "another TLS connection's binding"}
	case answer == scram.ErrInvalidProof || err == nil:
		reason := exists
		if reason == "" {
			reason = "wrong password"
		}
		return &refused{frontError(pgerrcode.InvalidPassword, fmt.Sprintf(`password authentication failed for user "%s"`, user)), reason}
	case strings.Contains(err.Error(), "nonce"):
		pgErr := frontError(pgerrcode.ProtocolViolation, "invalid SCRAM response")
		pgErr.Detail = "Nonce does not match."
		return &refused{pgErr, "another exchange's message"}
	}
	return malformedScram("")
}

// channelBinding is what ties a SCRAM exchange to its TLS connection
// (tls-server-end-point, RFC 5929): a man in the middle has another certificate.
// There is none without TLS, and none for certificates whose signature has no
// hash function of its own (Ed25519).
func channelBinding(facts *tlsFacts) (scram.ChannelBinding, bool) {
	if facts == nil || facts.own == nil {
		return scram.ChannelBinding{}, false
	}
	binding, err := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{facts.own}})
	return binding, err == nil
}
