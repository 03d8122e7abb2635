package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
)

// Method is how a client proves who it is.
type Method string

// The methods, by the names of pg_hba.conf.
const (
	// Trust believes whatever name the client gives.
	Trust Method = "trust"
	// ScramSHA256 asks for the password, without either side showing it.
	ScramSHA256 Method = "scram-sha-256"
	// Cert takes the client certificate's common name for the user's.
	Cert Method = "cert"
	// Reject lets nobody in.
	Reject Method = "reject"
)

// Methods are all of them.
var Methods = []string{string(Trust), string(ScramSHA256), string(Cert), string(Reject)}

// Types of connections that a rule can be for.
const (
	AnyHost    = "host"
	OnlyTLS    = "hostssl"
	WithoutTLS = "hostnossl"
)

// What a client certificate must be good for beside the method.
const (
	// VerifyCA: there must be one.
	VerifyCA = "verify-ca"
	// VerifyFull: its common name must be the user's.
	VerifyFull = "verify-full"
)

// all, in place of a name, is every name; sameUser, in place of a database's, is
// that of the user.
const (
	all      = "all"
	sameUser = "sameuser"
)

// Rule is one line of what is pg_hba.conf in Postgres.
type Rule struct {
	Type       string         // AnyHost, OnlyTLS or WithoutTLS
	Databases  []string       // names, or "all", or "sameuser"
	Users      []string       // names, or "all"
	Addresses  []netip.Prefix // none: all
	Method     Method
	ClientCert string // VerifyCA, VerifyFull or ""
}

// TrustEverybody is the rule of a gateway that only its own machine can reach.
var TrustEverybody = Rule{Type: AnyHost, Databases: []string{all}, Users: []string{all}, Method: Trust}

// ParseAddresses reads a rule's address: all, an IP address, or a range of them
// like 10.0.0.0/8.
func ParseAddresses(text string) ([]netip.Prefix, error) {
	if text == all {
		return nil, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, fmt.Errorf("must be all, an address like 10.1.2.3, or a range like 10.0.0.0/8 or fd00::/8, not %q", text)
	}
	if prefix != prefix.Masked() {
		return nil, fmt.Errorf("%s has bits to the right of its mask: is %s meant?", text, prefix.Masked())
	}
	return []netip.Prefix{prefix}, nil
}

// applicant is who wants to come in.
type applicant struct {
	user, database string
	remote         netip.Addr // not valid for what is no TCP connection
	encrypted      bool
}

func (r *Rule) fits(a applicant) bool {
	switch {
	case r.Type == OnlyTLS && !a.encrypted, r.Type == WithoutTLS && a.encrypted:
		return false
	case !slices.Contains(r.Databases, all) && !slices.Contains(r.Databases, a.database) &&
		(!slices.Contains(r.Databases, sameUser) || a.database != a.user):
		return false
	case !slices.Contains(r.Users, all) && !slices.Contains(r.Users, a.user):
		return false
	}
	return len(r.Addresses) == 0 || slices.ContainsFunc(r.Addresses, func(p netip.Prefix) bool { return p.Contains(a.remote) })
}

// ruleFor is the first rule that fits, nil if none does.
func ruleFor(rules []Rule, a applicant) *Rule {
	for i := range rules {
		if rules[i].fits(a) {
			return &rules[i]
		}
	}
	return nil
}

// remoteAddr is the IP address at the other end.
func remoteAddr(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// errNoRule and errRejected are in the words of Postgres, which programs and
// people know; the hint says where the rules are here.
func errNoRule(a applicant) error {
	return ruleError(a, "no pg_hba.conf entry for host")
}

func errRejected(a applicant) error {
	return ruleError(a, "pg_hba.conf rejects connection for host")
}

func ruleError(a applicant, what string) error {
	encryption := "no encryption"
	if a.encrypted {
		encryption = "SSL encryption"
	}
	err := frontError(pgerrcode.InvalidAuthorizationSpecification, fmt.Sprintf(`%s "%s", user "%s", database "%s", %s`,
		what, a.remote, strings.ToValidUTF8(a.user, "?"), a.database, encryption))
	err.Hint = "The gateway's rules are in its configuration, not in a pg_hba.conf."
	return err
}
